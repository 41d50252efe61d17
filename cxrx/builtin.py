"""The built-ins, registered through the same hooks as anybody's plugin.

The one module exempt from the order of the rooms: it may import from all of them, inside the hooks and only what is
cheap.
"""

from __future__ import annotations

from collections.abc import Callable

from cxrx.hookspecs import hookimpl
from cxrx.specs import DatasetSpec, ExplainerSpec, ExporterSpec, MetricSpec, ModelSpec, ReaderSpec


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    """Register the built-in classifiers."""
    from cxrx.models.architectures import BUILTIN_MODELS

    for spec in BUILTIN_MODELS:
        register(spec)


@hookimpl
def register_explainers(register: Callable[[ExplainerSpec], None]) -> None:
    """Register the built-in attribution methods."""
    from cxrx.explainers.specs import BUILTIN_EXPLAINERS

    for spec in BUILTIN_EXPLAINERS:
        register(spec)


@hookimpl
def register_readers(register: Callable[[ReaderSpec], None]) -> None:
    """Register the built-in file formats."""
    from cxrx.reading.readers import BUILTIN

    for spec in BUILTIN.values():
        register(spec)


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Register the built-in data set layouts."""
    from cxrx.datasets.specs import BUILTIN_DATASETS

    for spec in BUILTIN_DATASETS:
        register(spec)


@hookimpl
def register_metrics(register: Callable[[MetricSpec], None]) -> None:
    """Register the built-in metrics."""
    from cxrx.compare.specs import BUILTIN_METRICS

    for spec in BUILTIN_METRICS:
        register(spec)


@hookimpl
def register_exporters(register: Callable[[ExporterSpec], None]) -> None:
    """Register the built-in export formats."""
    from cxrx.export.specs import BUILTIN_EXPORTERS

    for spec in BUILTIN_EXPORTERS:
        register(spec)
