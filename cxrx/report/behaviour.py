"""The report on faithfulness and sanity: what the maps have to do with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from cxrx.compare.comparison import Comparison
from cxrx.report.figures import Figures, Line, Stroke, curves, strokes
from cxrx.report.grids import Cell, Grid, Row, count_cell, keyed, kind_of, method_rows, value_cell
from cxrx.report.words import count, finite, heading, names_of, number, pick, records

_CURVES = ("deletion", "insertion", "road_morf", "road_lerf", "aopc_morf", "aopc_lerf")
_SAME_SCALE = (("deletion", "insertion"), ("road_morf", "road_lerf"), ("aopc_morf", "aopc_lerf"))
_TESTS = {
    "randomisation": "Randomised weights",
    "repeatability": "Another seed",
    "noise": "Noise on the film",
    "entropy": "Entropy",
    "sensitivity": "Sensitivity",
    "reproducibility": "Another model",
}


# ---------------------------------------------------------------------------------------------------------------------
# Faithfulness


def faithfulness(comparison: Comparison, slug: str, look: Mapping[str, Stroke]) -> dict[str, Any] | None:
    """Return table, flags and curves of one model; None where the model was not run again."""
    table = pick(comparison.faithfulness, model=slug)
    points = pick(comparison.curves, model=slug)
    if table.empty and points.empty:
        return None
    return {
        "main": _means(table, comparison.controls, other=False),
        "rest": _means(table, comparison.controls, other=True),
        "findings": [_by_finding(table, metric, comparison.controls) for metric in ("deletion", "insertion", "road")],
        "flagged": _flagged(pick(comparison.faithfulness_pairs, model=slug)),
        "figures": _curves(points, look, slug),
    }


def _means(table: pd.DataFrame, controls: set[str], *, other: bool) -> Grid | None:
    """Return the scores in logits, or their `other` forms: of probabilities, and scaled to the film's own."""
    table = pick(table, finding="all")
    metrics = [name for name in names_of(table, "metric") if not name.endswith(("flagged", "baseline_share"))]
    metrics = [name for name in metrics if name.endswith(("_probability", "_normalised")) == other]
    cells = keyed(records(table), "method", "metric")
    if not metrics:
        return None

    def cells_of(method: str) -> list[Cell]:
        found = [cells.get((method, metric)) for metric in metrics]
        return [*(value_cell(row, 3) for row in found), count_cell(next(filter(None, found), {}))]

    caption = "Mean over findings of the means over their films, with the 95 % interval over patients"
    return Grid(caption, ["Method"], [*map(heading, metrics), "Pairs"], method_rows(table, controls, cells_of))


def _by_finding(table: pd.DataFrame, metric: str, controls: set[str]) -> Grid | None:
    table = pick(table, metric=metric)
    names = [name for name in names_of(table, "finding") if name != "all"]
    cells = keyed(records(table), "method", "finding")
    if not names:
        return None
    counts = [count(pick(table, finding=name)["n"].max()) for name in names]
    body = method_rows(table, controls, lambda method: [value_cell(cells.get((method, name)), 3) for name in names])
    heads = [f"{name} ({n})" for name, n in zip(names, counts, strict=True)]
    return Grid(f"{heading(metric)} by finding; in brackets the pairs", ["Method"], heads, body)


def _flagged(pairs: pd.DataFrame) -> list[str]:
    """Say for how many pairs the baseline picture itself still shows the finding to the model."""
    said = []
    for curve, prefix in (("deletion", ""), ("insertion", "insertion_")):
        names = [f"{prefix}baseline_share", f"{prefix}flagged"]
        if not {"image_id", "finding", *names} <= set(pairs.columns):
            continue
        known = pairs[["image_id", "finding", *names]].drop_duplicates(["image_id", "finding"]).dropna()
        if known.empty:
            continue
        kept, doubtful = number(known[names[0]].median()), int((known[names[1]].astype(float) == 1).sum())
        said.append(
            f"The baseline of {curve} keeps a median of {kept} of the probability on the film; for {doubtful} of "
            f"{len(known)} pairs it keeps more than half, and what {curve} says of those is doubtful."
        )
    return said


def _curves(points: pd.DataFrame, look: Mapping[str, Stroke], slug: str) -> Figures | None:
    there = names_of(points, "curve")
    known = [name for name in _CURVES if name in there] + [name for name in there if name not in _CURVES]
    panels = []
    for name in known:
        own = pick(points, curve=name)
        mates = next((mates for mates in _SAME_SCALE if name in mates), (name,))
        scale = points[points["curve"].isin(mates)]
        lines = [_line(pick(own, method=method), method) for method in names_of(own, "method")]
        ends = ", ".join(f"{line.name} {number(_area(line))}" for line in lines)
        alt = f"{heading(name)} curves of {slug}; mean height of each: {ends}."
        labels = ("share of pixels changed", "normalised score")
        title = f"{heading(name)}, n = {count(own['n'].max())}" if "n" in own.columns else heading(name)
        panels.append((title, curves(lines, look, alt=alt, labels=labels, ylim=_limits(scale))))
    caption = (
        "Score of the explained finding while pixels change in the order of the map, mean over the pairs of film and "
        "finding, scaled so that the film is 1 and the baseline is 0; bands: 95 % interval over "
        "patients. Most relevant first and deletion: the lower the better; least relevant first and insertion: the "
        "higher the better."
    )
    shown = {method: look[method] for method in look if method in names_of(points, "method")}
    return Figures(caption, panels, shown) if panels else None


def _line(rows: pd.DataFrame, name: str) -> Line:
    rows = rows.sort_values("x", kind="stable")
    x, y, low, high = (rows[column].to_numpy(float) for column in ("x", "value", "low", "high"))
    return Line(name, x, y, low, high)


def _area(line: Line) -> float:
    x, y = np.asarray(line.x, dtype=np.float64), np.asarray(line.y, dtype=np.float64)
    width = x[-1] - x[0] if x.size else 0.0
    return float(np.trapezoid(y, x) / width) if width > 0 else float("nan")


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Return limits that hold every curve and always 0 and 1, so that panels of one kind can be compared."""
    values = rows[["value", "low", "high"]].to_numpy(float)
    values = values[np.isfinite(values)]
    low, high = min(0.0, values.min(initial=0.0)), max(1.0, values.max(initial=1.0))
    margin = 0.03 * (high - low)
    return low - margin, high + margin


# ---------------------------------------------------------------------------------------------------------------------
# Sanity


def sanity(comparison: Comparison, slug: str) -> dict[str, Any] | None:
    """Return verdicts, curves and numbers of one model; None where no test was made."""
    table = pick(comparison.sanity, model=slug)
    verdicts = records(pick(comparison.sanity_verdicts, model=slug))
    if table.empty and not verdicts:
        return None
    marks = {"passes": "pass", "is deterministic": "pass", "fails": "fail"}
    said = []
    for row in verdicts:
        test, reason = _TESTS.get(row["test"], heading(row["test"])), row["reason"][:1].upper() + row["reason"][1:]
        word, kind = row["outcome"] or "not decided", marks.get(row["outcome"], "open")
        said.append({"word": word, "kind": kind, "method": row["method"], "test": test, "sentence": reason})
    return {
        "verdicts": said,
        "figures": _randomisation(pick(table, test="randomisation"), slug),
        "main": _tests(table, comparison.controls),
    }


def _randomisation(table: pd.DataFrame, slug: str) -> Figures | None:
    """Draw a panel a method, a line a metric, each with the line of its random pairs."""
    metrics = names_of(table, "metric")
    look = strokes([heading(metric) for metric in metrics])
    panels = []
    for method in names_of(table, "method"):
        own = pick(table, method=method)
        stages = names_of(own, "stage")
        lines = [_stage_line(pick(own, metric=metric), stages, heading(metric)) for metric in metrics]
        n = count(own["n"].max()) if "n" in own.columns else "–"
        panels.append((f"{method}, n = {n}", _stages(lines, stages, look, method, slug)))
    caption = (
        "Likeness of the maps before and after the weights were randomised, from the output to the input, each stage "
        "with all before it; bands: 95 % intervals. Dotted: the same likeness for maps of different patients. A method "
        "that looks at the weights must fall to that line."
    )
    return Figures(caption, panels, look) if panels else None


def _stage_line(rows: pd.DataFrame, stages: Sequence[str], name: str) -> Line:
    places = [stages.index(stage) for stage in rows["stage"]]
    level = rows["random_pair"].to_numpy(float) if "random_pair" in rows.columns else np.array([])
    level = level[np.isfinite(level)]
    y, low, high = (rows[column].to_numpy(float) for column in ("value", "low", "high"))
    return Line(name, places, y, low, high, level=float(level.mean()) if level.size else np.nan, marks=True)


def _stages(lines: Sequence[Line], stages: Sequence[str], look: Mapping[str, Stroke], method: str, slug: str) -> Markup:
    said = "; ".join(
        f"{line.name} ends at {number(np.asarray(line.y)[-1])}, different patients {number(line.level)}"
        for line in lines
        if len(np.asarray(line.y))
    )
    alt = f"Likeness of the maps of {method} ({slug}) while {len(stages)} stages are randomised: {said}."
    values = np.concatenate([[0.0], *(np.asarray(part, float) for line in lines for part in (line.y, line.low))])
    low = min(0.0, float(np.nanmin(values)))
    size = (300, 280)
    return curves(lines, look, alt=alt, labels=("", "likeness"), ylim=(low - 0.04, 1.04), stages=stages, size=size)


def _tests(table: pd.DataFrame, controls: set[str]) -> Grid | None:
    if table.empty:
        return None
    body = []
    for row in records(table):
        known = finite(row, "random_pair")
        cells = [value_cell(row), Cell(number(known)), Cell(count(row.get("n")))]
        test = _TESTS.get(row["test"], heading(row["test"]))
        heads = [row["method"], test, row["stage"] or "–", heading(row["metric"])]
        body.append(Row(heads, cells, kind_of(row["method"], controls)))
    heads = ["Method", "Test", "Up to stage", "Metric"]
    return Grid("All tests, with 95 % intervals", heads, ["Likeness", "Different patients", "n"], body)
