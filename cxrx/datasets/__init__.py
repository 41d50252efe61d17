"""Labelled folders: labels, boxes, masks, patients and splits of the public data sets and of anybody's own tables.

Public names are imported on first use (PEP 562), so that listing the layouts costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrx.datasets.folder import LabelledFolder, open_dataset
    from cxrx.datasets.names import CHEXPERT_FINDINGS, NIH_FINDINGS, NO_FINDING, canonical
    from cxrx.datasets.splits import Splits, make_splits
    from cxrx.datasets.truth import FolderTruth, discover, read_truth

_HOME = {
    "CHEXPERT_FINDINGS": "names",
    "NIH_FINDINGS": "names",
    "NO_FINDING": "names",
    "canonical": "names",
    "FolderTruth": "truth",
    "discover": "truth",
    "read_truth": "truth",
    "LabelledFolder": "folder",
    "open_dataset": "folder",
    "Splits": "splits",
    "make_splits": "splits",
}

__all__ = [
    "CHEXPERT_FINDINGS",
    "NIH_FINDINGS",
    "NO_FINDING",
    "FolderTruth",
    "LabelledFolder",
    "Splits",
    "canonical",
    "discover",
    "make_splits",
    "open_dataset",
    "read_truth",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'cxrx.datasets' has no attribute {name!r}")
    value = getattr(import_module(f"cxrx.datasets.{_HOME[name]}"), name)
    globals()[name] = value
    return value
