"""Labels, boxes and patients from the tables that lie beside the films."""

from __future__ import annotations

from cxrx.datasets.names import NIH_FINDINGS, NO_FINDING, canonical
from cxrx.datasets.truth import FolderTruth, discover, read_truth

__all__ = ["NIH_FINDINGS", "NO_FINDING", "FolderTruth", "canonical", "discover", "read_truth"]
