"""A comparison as plain text, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cxrx.compare.comparison import Comparison
from cxrx.compare.verdict import number

SHOWN = ("hit", "iou", "mass", "rank")


def as_text(comparison: Comparison) -> str:
    """Return the verdict, the tables in short, the warnings and what was skipped."""
    blocks = ["\n".join(comparison.verdict)]
    for slug in comparison.models:
        blocks += [block for block in (_localisation(comparison, slug), _classes(comparison, slug)) if block]
        blocks += [block for block in (_agreement(comparison, slug),) if block]
    if comparison.warnings:
        blocks.append("\n".join(f"warning: {sentence}" for sentence in comparison.warnings))
    if comparison.skipped:
        blocks.append("\n".join(f"skipped {what}: {why}" for what, why in comparison.skipped))
    return "\n\n".join(blocks) + "\n"


def _localisation(comparison: Comparison, slug: str) -> str:
    table = comparison.summary
    table = table[(table["model"] == slug) & (table["finding"] == "all")]
    cells = {(row["method"], row["metric"]): row for row in table.to_dict("records")}
    rows = [
        [
            method + ("*" if method in comparison.controls else ""),
            *(number(*(cells[method, name][key] for key in ("value", "low", "high"))) for name in SHOWN),
            cells[method, "hit"]["n"],
        ]
        for method in dict.fromkeys(table["method"])
    ]
    return _table(f"{slug}: localisation (* never looks at the model)", ["method", *SHOWN, "n"], rows)


def _classes(comparison: Comparison, slug: str) -> str:
    table = comparison.classification
    rows = [
        [
            row["finding"],
            number(row["auroc"], row["auroc_low"], row["auroc_high"]),
            number(row["f1"]),
            number(row["accuracy"]),
            f"{row['positives']}/{row['n']}",
        ]
        for row in table[table["model"] == slug].to_dict("records")
    ]
    return _table(f"{slug}: classification", ["finding", "AUROC", "F1", "accuracy", "positive"], rows)


def _agreement(comparison: Comparison, slug: str) -> str:
    table = comparison.agreement
    table = table[(table["model"] == slug) & (table["finding"] == "all") & (table["metric"] == "spearman")]
    rows = [
        [f"{row['method_a']} ~ {row['method_b']}", number(row["value"]), number(row["random_pair"]), row["n"]]
        for row in table.to_dict("records")
        if math.isfinite(row["value"])
    ]
    return _table(f"{slug}: agreement", ["methods", "spearman", "other patients", "n"], rows)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return aligned columns, the first to the left and the rest to the right; empty where there are no rows."""
    if not rows:
        return ""
    cells = [[str(cell) if cell != "nan" else "-" for cell in row] for row in [list(header), *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    return "\n".join([title, *(f"  {line}".rstrip() for line in lines)])
