"""The report on the classifier itself: nobody should read its maps before its AUROC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cxrx.compare.comparison import Comparison
from cxrx.report.figures import Figures, Line, Stroke, curves, strokes
from cxrx.report.grids import DASH, Cell, Grid, Row, text_cell, value_cell
from cxrx.report.words import Record, count, finite, heading, names_of, number, pick, records

_RANKING = ("auroc", "auprc", "brier", "ece")
_DECIDING = ("threshold", "f1", "f1_macro", "f1_weighted", "accuracy", "sensitivity", "specificity")
_COUNTS = ("tn", "fp", "fn", "tp")
_CURVES = {
    "roc": ("ROC", ("1 - specificity", "sensitivity")),
    "pr": ("Precision and recall", ("recall", "precision")),
    "reliability": ("Reliability", ("predicted probability", "share that is positive")),
}


def classifier(comparison: Comparison, slug: str) -> dict[str, Any] | None:
    """Return what the page shows of one classifier: two tables, the curves and the thresholds; None without labels."""
    table = pick(comparison.classification, model=slug)
    if table.empty:
        return None
    rows = records(table)
    return {
        "ranking": _ranking(rows, list(table.columns)),
        "deciding": _deciding(rows, list(table.columns)),
        "figures": _figures(pick(comparison.classifier_curves, model=slug), table, slug),
        "thresholds": _thresholds(records(pick(comparison.thresholds, model=slug))),
    }


def _kind(row: Record) -> str:
    return "total" if row["finding"] == "all" else ""


def _ranking(rows: list[Record], columns: list[str]) -> Grid:
    shown = [name for name in _RANKING if name in columns]
    remarked = any(row.get("note") for row in rows)
    body = []
    for row in rows:
        counts, remark = [Cell(count(row[name])) for name in ("n", "positives")], text_cell(row.get("note"))
        numbers = [value_cell(row, name=name) for name in shown]
        body.append(Row([row["finding"]], [*counts, *numbers, *([remark] if remarked else [])], _kind(row)))
    heads = ["Films", "Positive", *map(heading, shown), *(["Remark"] if remarked else [])]
    return Grid("How well it ranks films, and whether its probabilities can be believed", ["Finding"], heads, body)


def _deciding(rows: list[Record], columns: list[str]) -> Grid:
    shown = [name for name in _DECIDING if name in columns]
    body = []
    for row in rows:
        counts = [_share(row, name) for name in _COUNTS]
        body.append(Row([row["finding"]], [*(value_cell(row, name=name) for name in shown), *counts], _kind(row)))
    heads = [*map(heading, shown), *(name.upper() for name in _COUNTS)]
    return Grid("Decisions at the threshold; below a count its share of that class", ["Finding"], heads, body)


def _share(row: Record, name: str) -> Cell:
    """Return a cell of the confusion matrix with its share of the row (of the films of that class)."""
    other = {"tn": "fp", "fp": "tn", "fn": "tp", "tp": "fn"}[name]
    value, rest = finite(row, name), finite(row, other)
    if value is None:
        return DASH
    total = value + (rest or 0)
    return Cell(count(value), f"{100 * value / total:.0f} %" if total else "")


def _thresholds(rows: list[Record]) -> Grid | None:
    if not rows:
        return None
    names = ("threshold", "sensitivity", "specificity", "ppv", "npv", "f1")
    body = [
        Row(
            [row["finding"], row["rule"]],
            [*(Cell(number(row.get(name))) for name in names), text_cell(row.get("chosen"))],
        )
        for row in rows
    ]
    return Grid("Thresholds by rule", ["Finding", "Rule"], [*map(heading, names), "Chosen on"], body)


def _figures(points: pd.DataFrame, table: pd.DataFrame, slug: str) -> Figures | None:
    findings = names_of(points, "finding")
    if not findings:
        return None
    look = strokes(findings)
    panels = []
    for name, (title, labels) in _CURVES.items():
        drawn = pick(points, curve=name)
        if not drawn.empty:
            lines = len(names_of(drawn, "finding"))
            alt = f"{title} of {slug}, {lines} lines, one a finding. {_said(table, name)}"
            panels.append((title, _panel(drawn, look, alt, labels, name)))
    films = count(table[table["finding"] != "all"]["n"].max())  # of all findings n is a sum
    caption = (
        f"A line a finding, at most {films} films; all: the mean of their curves. Reliability: films in bins of equal "
        "number by their probability; on the dashed diagonal the probability is the share that is positive."
    )
    return Figures(caption, panels, look) if panels else None


def _panel(drawn: pd.DataFrame, look: dict[str, Stroke], alt: str, labels: tuple[str, str], name: str) -> Any:
    lines = []
    for finding in names_of(drawn, "finding"):
        own = pick(drawn, finding=finding)
        x, y = own["x"].to_numpy(float), own["y"].to_numpy(float)
        lines.append(Line(finding, x, y, marks=name == "reliability"))
    return curves(lines, look, alt=alt, labels=labels, ylim=(-0.02, 1.02), diagonal=name != "pr")


def _said(table: pd.DataFrame, curve: str) -> str:
    metric = {"roc": "auroc", "pr": "auprc", "reliability": "brier"}[curve]
    if metric not in table.columns:
        return ""
    known = table[np.isfinite(table[metric].to_numpy(float))]
    said = [f"{row['finding']} {number(row[metric])}" for row in records(known)]
    return f"{heading(metric)}: {', '.join(said)}." if said else ""
