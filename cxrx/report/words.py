"""Numbers and names as the report writes them, and how it takes rows out of a comparison's tables."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cxrx.compare.comparison import Comparison

Record = dict[str, Any]

HEADINGS = {
    "hit": "Hit rate", "hit_15px": "Hit rate, 15 px", "iou": "IoU", "mass": "Relevance mass",
    "mass_ratio": "Mass ratio", "drop": "Logit lost when painted over",
    "drop_mirror": "Logit lost when its mirror image is", "rank": "Rank accuracy", "ap": "Average precision",
    "auprc": "AUPRC", "auroc": "AUROC", "f1": "F1", "f1_macro": "F1, macro", "f1_weighted": "F1, weighted",
    "accuracy": "Accuracy", "sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "PPV", "npv": "NPV",
    "brier": "Brier", "ece": "ECE", "spearman": "Rank correlation", "iou_top_10": "IoU of the top 10 %", "ssim": "SSIM",
    "deletion": "Deletion", "insertion": "Insertion", "road": "ROAD", "road_morf": "ROAD, most relevant first",
    "road_lerf": "ROAD, least relevant first", "aopc": "AOPC", "aopc_morf": "AOPC, most relevant first",
    "aopc_lerf": "AOPC, least relevant first", "degradation": "Degradation", "sensitivity_n": "Sensitivity-n",
    "infidelity": "Infidelity", "max_sensitivity": "Max-sensitivity", "dispersion": "Dispersion",
}  # fmt: skip

OUTCOMES = {"TP": "true positive", "FN": "false negative", "FP": "false positive", "TN": "true negative"}


def number(value: Any, digits: int = 2) -> str:
    """Write a number with fixed digits, a dash where there is none."""
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return "–"
    return str(int(value)) if isinstance(value, (int, np.integer)) else f"{value:z.{digits}f}"


def span(low: float | None, high: float | None, digits: int = 2) -> str:
    """Write an interval, or nothing where there is none."""
    if low is None or high is None or not math.isfinite(low + high):
        return ""
    to = " to " if low < 0 else "–"  # a dash between minus signs cannot be read
    return f"{low:z.{digits}f}{to}{high:z.{digits}f}"


def meaning(comparison: Comparison, metric: str) -> str:
    """Return what a localisation metric is, in the comparison's own words."""
    return comparison.conventions.get(f"localisation: {metric}", heading(metric))


def count(value: Any) -> str:
    """Write a count, a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{int(value)}"


def small(value: Any) -> str:
    """Write a p value: three digits, and no zero that is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def heading(name: str) -> str:
    """Return a metric's heading: its usual name, else the name with spaces and a capital."""
    plain = name.replace("_", " ")
    return HEADINGS.get(name, (plain[:1].upper() + plain[1:]).replace("Iou", "IoU"))


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def pick(table: pd.DataFrame, **where: Hashable) -> pd.DataFrame:
    """Return the rows whose columns equal what is given; none of a table that lacks such a column."""
    for name, value in where.items():
        if name not in table.columns:
            return table.iloc[:0]
        table = table[table[name] == value]
    return table


def records(table: pd.DataFrame) -> list[Record]:
    """Return the rows as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def names_of(table: pd.DataFrame, column: str) -> list[str]:
    """Return the distinct values of a column in their order; none where there is no such column."""
    return list(dict.fromkeys(table[column])) if column in table.columns else []


def methods_of(table: pd.DataFrame, controls: Collection[str]) -> list[str]:
    """Return the methods of a table, the controls after the others."""
    return sorted(names_of(table, "method"), key=lambda name: name in controls)


def finite(row: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a row, or None where it is missing or not finite."""
    value = row.get(name)
    return None if value is None or not math.isfinite(value) else float(value)
