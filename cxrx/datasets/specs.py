"""The built-in data set layouts."""

from __future__ import annotations

from cxrx.datasets.truth import has_tables, read_truth
from cxrx.specs import DatasetSpec

BUILTIN_DATASETS = (
    DatasetSpec(
        "tables",
        sniff=has_tables,
        open=read_truth,
        summary="CSV tables of labels and boxes: NIH ChestX-ray14, RSNA, VinDr-CXR, plain ones",
    ),
)
