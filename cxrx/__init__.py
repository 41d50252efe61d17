"""Which explanation method can be trusted on which chest X-ray classifier, for which finding.

The names below are the stable Python API, the one the command line uses. They load on first use, so that importing
this package costs nothing.
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and any(w.startswith(("cxrx", "-mcxrx")) for w in sys.orig_argv):
    # `python -m cxrx` looks for every module in the working folder first, where a file of anybody's may have its name.
    # Nothing but sys is imported before this; if cxrx itself lies there, the folder stays, behind all others.
    if __file__.rpartition("/cxrx/")[0] == sys.path[0]:
        sys.path.append(sys.path[0])
    del sys.path[0]

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cxrx.engine.api import run
    from cxrx.explainers.run import Attribution, explain
    from cxrx.hookspecs import hookimpl
    from cxrx.importing.maps import import_maps
    from cxrx.metrics.localisation import score_localisation
    from cxrx.models.load import load_model, wrap_model
    from cxrx.models.model import Model
    from cxrx.results.reader import Results, open_results
    from cxrx.specs import (
        DatasetSpec,
        ExplainerSpec,
        ExporterSpec,
        Film,
        InputSpec,
        Maps,
        Measure,
        MetricSpec,
        ModelSpec,
        ReaderSpec,
        Unreadable,
    )

_HOME = {
    "score_localisation": "cxrx.metrics.localisation",
    "run": "cxrx.engine.api",
    "Attribution": "cxrx.explainers.run",
    "explain": "cxrx.explainers.run",
    "hookimpl": "cxrx.hookspecs",
    "load_model": "cxrx.models.load",
    "wrap_model": "cxrx.models.load",
    "Model": "cxrx.models.model",
    "import_maps": "cxrx.importing.maps",
    "Results": "cxrx.results.reader",
    "open_results": "cxrx.results.reader",
} | dict.fromkeys(
    (
        "DatasetSpec",
        "ExplainerSpec",
        "ExporterSpec",
        "Film",
        "InputSpec",
        "Maps",
        "Measure",
        "MetricSpec",
        "ModelSpec",
        "ReaderSpec",
        "Unreadable",
    ),
    "cxrx.specs",
)

__all__ = [
    "Attribution",
    "DatasetSpec",
    "ExplainerSpec",
    "ExporterSpec",
    "Film",
    "InputSpec",
    "Maps",
    "Measure",
    "MetricSpec",
    "Model",
    "ModelSpec",
    "ReaderSpec",
    "Results",
    "Unreadable",
    "__version__",
    "explain",
    "hookimpl",
    "import_maps",
    "load_model",
    "open_results",
    "run",
    "score_localisation",
    "wrap_model",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'cxrx' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
