"""The report on where the maps point: with the baselines in every table and the prior's line in every plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from cxrx.compare.comparison import Comparison
from cxrx.metrics.summaries import common_pairs
from cxrx.report.figures import Dot, Figures, boxes, forest
from cxrx.report.grids import DASH, Cell, Grid, Row, count_cell, keyed, method_rows, shaded_cell, value_cell
from cxrx.report.words import Record, count, finite, heading, meaning, methods_of, names_of, number, pick, records, span

MAIN = ("hit", "hit_15px", "iou", "mass", "mass_ratio", "rank")
FOREST = ("hit", "iou")
BOXES = ("iou", "mass")
MOST_FINDINGS = 16  # forest plots of one metric; the tables hold all


def localisation(comparison: Comparison, slug: str) -> dict[str, Any] | None:
    """Return tables and plots of one model; None where nothing has a truth."""
    summary = pick(comparison.summary, model=slug)
    if summary.empty:
        return None
    per_pair = pick(comparison.per_pair, model=slug)
    controls = comparison.controls
    names = names_of(summary, "metric")
    main = [name for name in MAIN if name in names]
    plotted = [name for name in FOREST if name in names] or names[:1]  # a protocol may have other metrics
    main = main or names[:6]
    rest = [name for name in names if name not in main]
    return {
        "main": _means(summary, main, controls, skills=("hit", "iou"), caption=_caption(_shared(per_pair, main[0]))),
        "rest": _means(summary, rest, controls, skills=(), caption="The other metrics") if rest else None,
        "overview": _overview(comparison, summary, per_pair, plotted, slug),
        "forests": [_forests(comparison, summary, metric, slug) for metric in plotted],
        "findings": [_by_finding(summary, metric, meaning(comparison, metric), controls) for metric in plotted],
        "confusion": _confusions(pick(comparison.confusion, model=slug)),
    }


def _shared(per_pair: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of the pairs for which all methods have a number."""
    return per_pair[common_pairs(per_pair, [metric])[0][:, 0]] if metric in per_pair.columns else per_pair


def _caption(per_pair: pd.DataFrame) -> str:
    if per_pair.empty:
        return "Mean over findings"
    pairs = per_pair[["image_id", "finding"]].drop_duplicates()
    patients = per_pair["patient"].nunique() if "patient" in per_pair.columns else 0
    return (
        f"Mean over {per_pair['finding'].nunique()} findings of the means over their films: {len(pairs)} pairs of film "
        f"and finding with a truth, {pairs['image_id'].nunique()} films of {patients} patients"
    )


def _means(
    summary: pd.DataFrame, metrics: Sequence[str], controls: set[str], *, skills: Sequence[str], caption: str
) -> Grid:
    cells = keyed(records(pick(summary, finding="all")), "method", "metric")
    skills = [metric for metric in skills if metric in metrics and "skill" in summary.columns]

    def cells_of(method: str) -> list[Cell]:
        found = [cells.get((method, metric)) for metric in metrics]
        skill = [Cell(number(cells.get((method, metric), {}).get("skill"))) for metric in skills]
        return [*map(value_cell, found), *skill, count_cell(next(filter(None, found), {}))]

    heads = [*map(heading, metrics), *(f"Skill, {heading(metric)}" for metric in skills), "Pairs"]
    return Grid(caption, ["Method"], heads, method_rows(summary, controls, cells_of))


def _by_finding(summary: pd.DataFrame, metric: str, said: str, controls: set[str]) -> Grid:
    table = pick(summary, metric=metric)
    cells = keyed(records(table), "method", "finding")
    names = [name for name in names_of(table, "finding") if name != "all"]
    counts = {name: pick(table, finding=name)["n"].max() for name in names}
    body = method_rows(table, controls, lambda method: [_with_skill(cells.get((method, name))) for name in names])
    caption = f"{heading(metric)}: {said}. In brackets the pairs; below a value its interval and skill"
    return Grid(caption, ["Method"], [f"{name} ({count(counts[name])})" for name in names], body)


def _with_skill(row: Record | None) -> Cell:
    if row is None or finite(row, "value") is None:
        return DASH
    skill = finite(row, "skill")
    under = [span(row.get("low"), row.get("high")), "" if skill is None else f"skill {number(skill)}"]
    return Cell(number(row["value"]), " · ".join(part for part in under if part))


# ---------------------------------------------------------------------------------------------------------------------
# Figures


_FOREST_CAPTION = (
    "Dot and line: mean and 95 % interval over patients; an empty dot: too few patients for an "
    "interval. On the right n, the pairs of film and finding. Grey: controls that never look at the model. Dashed: the "
    "prior, the mean truth on other patients' films."
)


def _overview(
    comparison: Comparison, summary: pd.DataFrame, per_pair: pd.DataFrame, metrics: Sequence[str], slug: str
) -> Figures:
    """Draw the means over findings as forest plots, and single maps as box plots."""
    panels = []
    for metric in metrics:
        rows = records(pick(summary, metric=metric, finding="all"))
        title = f"{heading(metric)}, n = {_most(rows)}"
        panels.append((title, _forest(rows, metric, "mean over findings", comparison.controls, slug)))
    drawn = _boxes(per_pair, comparison.controls, slug)
    caption = f"Means over findings. {_FOREST_CAPTION}"
    if drawn:
        caption += (
            " Boxes: single maps, all findings together, from the first to the third quartile with the median; "
            "whiskers from the 5th to the 95th percentile, a dot at the mean."
        )
    return Figures(caption, panels + drawn)


def _forests(comparison: Comparison, summary: pd.DataFrame, metric: str, slug: str) -> Figures | None:
    """Draw a forest plot for every finding, those of most pairs first."""
    table = pick(summary, metric=metric)
    names = [name for name in names_of(table, "finding") if name != "all"]
    names.sort(key=lambda name: -pick(table, finding=name)["n"].max())  # a stable sort: equal ones keep their order
    panels = []
    for finding in names[:MOST_FINDINGS]:
        rows = records(pick(table, finding=finding))
        title = f"{finding}, n = {_most(rows)}"
        panels.append((title, _forest(rows, metric, finding, comparison.controls, slug)))
    caption = f"{heading(metric)} by finding: {meaning(comparison, metric)}. {_FOREST_CAPTION}"
    if len(names) > MOST_FINDINGS:
        caption += f" {len(names) - MOST_FINDINGS} findings with fewer pairs stand in the table only."
    return Figures(caption, panels) if panels else None


def _most(rows: Sequence[Record]) -> int:
    return max((int(row["n"]) for row in rows), default=0)


def _forest(rows: list[Record], metric: str, title: str, controls: set[str], slug: str) -> Markup:
    dots = [
        Dot(
            row["method"], row["value"], row["low"], row["high"], control=row["method"] in controls, n=int(row["n"])
        )
        for row in rows
    ]  # fmt: skip
    prior = next((row["value"] for row in rows if row["method"] == "prior"), np.nan)
    said = ", ".join(f"{dot.name} {number(dot.value)}" for dot in dots)
    return forest(dots, prior=prior, alt=f"{heading(metric)} of every method of {slug}, {title}: {said}.")


def _boxes(per_pair: pd.DataFrame, controls: set[str], slug: str) -> list[tuple[str, Markup]]:
    panels = []
    for metric in (name for name in BOXES if name in per_pair.columns):
        shared = _shared(per_pair, metric)
        known = {method: pick(shared, method=method)[metric].to_numpy(float) for method in methods_of(shared, controls)}
        said = ", ".join(f"{method} {number(np.median(own))}" for method, own in known.items() if own.size)
        alt = f"{heading(metric)} of single maps by method of {slug}, medians: {said}."
        most = max((own.size for own in known.values()), default=0)
        panels.append((f"{heading(metric)} of single maps, n = {most}", boxes(known, alt=alt, controls=controls)))
    return panels


def _confusions(table: pd.DataFrame) -> list[Grid]:
    """Return, for every method, the IoU of the map of one finding with the truth of another."""
    grids = []
    for method in names_of(table, "method"):
        own = pick(table, method=method)
        cells = keyed(records(own), "finding_map", "finding_truth")
        columns = names_of(own, "finding_truth")
        body = [
            Row([name], [shaded_cell(cells.get((name, other)), "n", count) for other in columns])
            for name in names_of(own, "finding_map")
        ]
        caption = f"{method}: mean IoU of the map of a finding (row) with the truth of another (column); below it n"
        grids.append(Grid(caption, ["Map of"], columns, body, matrix=True))
    return grids
