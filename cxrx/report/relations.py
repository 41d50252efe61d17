"""The report on methods and models beside each other: agreement, strata, paired tests, costs, regions."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cxrx.compare.comparison import Comparison
from cxrx.report.grids import Cell, Grid, Row, keyed, kind_of, matrix, method_rows, text_cell, value_cell
from cxrx.report.words import Record, count, finite, heading, methods_of, names_of, number, pick, records, small, span

_METRICS = ("spearman", "iou_top_10", "ssim")
_STRATA = {"size": "By size of the finding", "confidence": "By the model's confidence", "outcome": "By outcome"}
FEW_PAIRS = 3  # of models
MOST_TESTS = 40  # rows of a table of tests; paired_tests.csv holds all


def agreement(comparison: Comparison, slug: str) -> list[Grid]:
    """Return the heatmaps of one model, methods by methods."""
    table = pick(comparison.agreement, model=slug, finding="all")
    return _heatmaps(table, "method_a", "method_b", "", "Method")


def model_agreement(comparison: Comparison) -> list[Grid]:
    """Return how alike the maps of two models are: of few models one table, else heatmaps, models by models."""
    table = pick(comparison.model_agreement, finding="all")
    rows = records(table)
    beside = list(dict.fromkeys((row["model_a"], row["model_b"]) for row in rows))
    if not rows:
        return []
    if len(beside) <= FEW_PAIRS:
        return [_beside(rows, beside, comparison.controls)]
    grids = []
    for method in names_of(table, "method"):
        grids += _heatmaps(pick(table, method=method), "model_a", "model_b", f"{method}: ", "Model")
    return grids


def _beside(rows: list[Record], beside: list[tuple[str, str]], controls: set[str]) -> Grid:
    cells = keyed(rows, "method", "metric", "model_a", "model_b")
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    body = []
    for method in dict.fromkeys(row["method"] for row in rows):
        found = [cells.get((method, metric, *pair)) for metric in metrics for pair in beside]
        body.append(Row([method], [_against(row) for row in found], kind_of(method, controls)))
    heads = [f"{heading(metric)}, {a} and {b}" for metric in metrics for a, b in beside]
    return Grid("Likeness, its 95 % interval, n; r: the same for different patients", ["Method"], heads, body)


def _against(row: Record | None) -> Cell:
    cell = _counted(row)
    if row is None or finite(row, "random_pair") is None:
        return cell
    return Cell(cell.text, f"{cell.under} · r {number(row['random_pair'])}")


def _heatmaps(table: pd.DataFrame, a: str, b: str, prefix: str, corner: str) -> list[Grid]:
    there = names_of(table, "metric")
    known = [name for name in _METRICS if name in there] + [name for name in there if name not in _METRICS]
    grids: list[Grid] = []
    for metric in known:
        own = pick(table, metric=metric)
        caption = f"{prefix}{heading(metric)}, n = {count(own['n'].max())} at most"
        order = grids[0].columns if grids else ()  # one order for all metrics
        grid = matrix(records(own), a, b, caption, corner=corner, order=order)
        if grid is not None:
            grids.append(grid)
    return grids


def strata(comparison: Comparison, slug: str) -> list[Grid]:
    """Return a table for every way to divide the pairs: methods by metrics and strata."""
    table = pick(comparison.strata, model=slug)
    grids = []
    for by in names_of(table, "by"):
        own = pick(table, by=by)
        cells = keyed(records(own), "method", "metric", "stratum")
        metrics, pairs = names_of(own, "metric"), dict.fromkeys(zip(own["metric"], own["stratum"], strict=True))
        columns = sorted(pairs, key=lambda at: metrics.index(at[0]))
        body = [
            Row([method], [_counted(cells.get((method, *at))) for at in columns], kind_of(method, comparison.controls))
            for method in methods_of(own, comparison.controls)
        ]
        heads = [f"{heading(metric)}, {stratum}" for metric, stratum in columns]
        caption = f"{_STRATA.get(by, f'By {by}')}: mean, 95 % interval, n"
        grids.append(Grid(caption, ["Method"], heads, body))
    return grids


def _counted(row: Record | None) -> Cell:
    cell = value_cell(row)
    if row is None or finite(row, "value") is None:
        return cell
    return Cell(cell.text, " · ".join(part for part in (cell.under, f"n {count(row.get('n'))}") if part))


# ---------------------------------------------------------------------------------------------------------------------
# Paired tests


def paired_tests(comparison: Comparison) -> dict[str, Any] | None:
    """Return how many differences survive Holm, the tests over all findings, and what holds in single findings."""
    table = comparison.paired_tests
    if table.empty:
        return None
    rows = records(table)
    decided = [row for row in rows if _decided(row)]
    single = [row for row in decided if row["finding"] != "all"]
    return {
        "made": len(rows),
        "decided": len(decided),
        "holding": _over_findings(rows, decided=True),
        "open": _over_findings(rows, decided=False),
        "single": _tests(single, "Differences in single findings that survive Holm") if single else None,
    }


def _over_findings(rows: list[Record], *, decided: bool) -> list[Grid]:
    """Return a table for the methods of every model, and one for the models."""
    by_caption: dict[str, list[Record]] = {}
    for row in rows:
        if row["finding"] == "all" and _decided(row) == decided:
            caption = "Models" if row["kind"] == "models" else f"Methods of {row['model_a']}"
            by_caption.setdefault(f"{caption}, mean over findings", []).append(row)
    return [_tests(members, caption) for caption, members in by_caption.items()]


def _decided(row: Record) -> bool:
    value = row.get("decided")
    return value is not None and value == value and bool(value)  # noqa: PLR0124  NaN: no test


def _tests(rows: list[Record], caption: str) -> Grid:
    single = any(row["finding"] != "all" for row in rows)
    body = []
    for row in rows[:MOST_TESTS]:
        known = finite(row, "difference")
        difference = "–" if known is None else f"{known:+z.3f}"
        heads = [heading(row["metric"]), *([row["finding"]] if single else []), _called(row, "a"), _called(row, "b")]
        cells = [
            Cell(number(row.get("value_a"))),
            Cell(number(row.get("value_b"))),
            Cell(difference, span(row.get("low"), row.get("high"), 3)),
            Cell(small(row.get("p_holm"))),
            Cell(number(row.get("effect"))),
            Cell(count(row.get("n")), f"{count(row.get('patients'))} patients"),
            text_cell(row.get("test")),
        ]
        body.append(Row(heads, cells, "" if _decided(row) else "open"))
    heads = ["Metric", *(["Finding"] if single else []), "A is", "B is"]
    if len(rows) > MOST_TESTS:
        caption += f"; the first {MOST_TESTS} of {len(rows)}, all stand in paired_tests.csv"
    return Grid(caption, heads, ["A", "B", "A − B", "p (Holm)", "Effect", "n", "Test"], body)


def _called(row: Record, side: str) -> str:
    """Return the method, with its model where that is not in the caption."""
    model, method = row[f"model_{side}"], row[f"method_{side}"]
    return f"{method}, {model}" if row["kind"] == "models" or row["finding"] != "all" else str(method)


# ---------------------------------------------------------------------------------------------------------------------
# Costs and regions


def costs(comparison: Comparison) -> Grid | None:
    """Return the seconds a map, methods by models."""
    table = comparison.costs
    table = table if "device" in table.columns else table.assign(device="")
    cells = keyed(records(table), "method", "model", "device")
    columns = list(dict.fromkeys((model, device) for _, model, device in cells))
    if not columns:
        return None
    body = method_rows(table, comparison.controls, lambda method: [_cost(cells.get((method, *at))) for at in columns])
    heads = [f"{model}, {device}" if device else model for model, device in columns]
    return Grid("Seconds a map; below, how many maps were timed", ["Method"], heads, body)


def _cost(row: Record | None) -> Cell:
    seconds = None if row is None else finite(row, "seconds_a_map")
    if row is None or seconds is None:
        return Cell("–")
    return Cell(f"{seconds:.3g}", f"{count(row.get('maps'))} maps")


def regions(comparison: Comparison) -> list[Grid]:
    """Return what of every method's relevance lies in known regions, and what the models lose without these."""
    table = comparison.regions[comparison.regions["finding"] != "all"]
    asked = table["method"] == ""  # the model itself
    grids = (
        _regions(table[asked], "What the model loses: mean, 95 % interval, n", comparison),
        _regions(table[~asked], "Where the maps are high: mean, 95 % interval, n", comparison),
    )
    return [grid for grid in grids if grid is not None]


def _regions(table: pd.DataFrame, caption: str, comparison: Comparison) -> Grid | None:
    """Return a row a model, method and finding."""
    cells = keyed(records(table), "model", "method", "finding", "region", "metric")
    columns = list(dict.fromkeys((region, metric) for *_, region, metric in cells))
    if not columns:
        return None
    body = []
    for model, method, finding in dict.fromkeys(key[:3] for key in cells):
        found = [_counted(cells.get((model, method, finding, *column))) for column in columns]
        names = [model, method, finding] if method else [model, finding]
        body.append(Row(names, found, kind_of(method, comparison.controls)))
    heads = [f"{region}, {heading(metric).lower()}" for region, metric in columns]
    return Grid(caption, ["Model", *(["Method"] if len(body[0].heads) > 2 else []), "Finding"], heads, body)
