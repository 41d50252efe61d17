"""The hooks a plugin may implement (pluggy; entry-point group ``cxrx``).

Each hook hands the plugin a callback (or the Typer app); the plugin calls it once for every thing it brings:

>>> from cxrx import ExplainerSpec, hookimpl
>>> @hookimpl
... def register_explainers(register):
...     register(ExplainerSpec("mine", build=..., options=...))
>>> found = []
>>> register_explainers(found.append)  # as cxrx does it
>>> found[0].name
'mine'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

from cxrx.specs import DatasetSpec, ExplainerSpec, ExporterSpec, MetricSpec, ModelSpec, ReaderSpec

if TYPE_CHECKING:
    import typer

GROUP = "cxrx"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_models(register: Callable[[ModelSpec], None]) -> None:
    """Register classifiers: ``register(ModelSpec(...))``."""


@hookspec
def register_explainers(register: Callable[[ExplainerSpec], None]) -> None:
    """Register attribution methods: ``register(ExplainerSpec(...))``."""


@hookspec
def register_readers(register: Callable[[ReaderSpec], None]) -> None:
    """Register file formats: ``register(ReaderSpec(...))``."""


@hookspec
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Register data set layouts: ``register(DatasetSpec(...))``."""


@hookspec
def register_metrics(register: Callable[[MetricSpec], None]) -> None:
    """Register metrics: ``register(MetricSpec(...))``."""


@hookspec
def register_exporters(register: Callable[[ExporterSpec], None]) -> None:
    """Register export formats, their options and what they are given: ``register(ExporterSpec(...))``."""


@hookspec
def register_commands(app: typer.Typer) -> None:
    """Add commands to the ``cxrx`` program: ``@app.command()`` or ``app.add_typer(...)``."""
