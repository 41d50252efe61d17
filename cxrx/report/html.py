"""Write a comparison as one HTML file that needs nothing else: no network, no script, light and dark."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxrx import __version__
from cxrx.compare.comparison import Comparison
from cxrx.compare.corpus import Corpus, Pair, open_corpus
from cxrx.compare.localisation import METRICS
from cxrx.export.cases import Key, load_cases
from cxrx.export.overlay import COLOURS, Case, blend, jpeg, peak
from cxrx.report.choose import MAX_CASES, choose_cases
from cxrx.results.atomic import write_file

if TYPE_CHECKING:
    from jinja2 import Environment

PICTURE = 384  # pixels of the longer side of every embedded picture
FOREST = ("hit", "iou", "mass")
HEADINGS = {
    "hit": "Hit rate",
    "hit_15px": "Hit rate, 15 px",
    "iou": "IoU",
    "mass": "Relevance mass",
    "mass_ratio": "Mass ratio",
    "rank": "Rank accuracy",
    "auroc": "AUROC",
    "f1": "F1",
    "spearman": "Rank correlation",
    "iou_top_10": "IoU of the top 10 %",
}


def write_report(
    comparison: Comparison, out: Path, *, images: Path | None = None, share: bool = False, max_cases: int = MAX_CASES
) -> Path:
    """Write ``report.html``.

    Parameters
    ----------
    comparison
        From :func:`cxrx.compare.run.compare`; its results files are opened again for the pictures.
    out
        The file to write.
    images
        Folder of moved films; they are found by their content.
    share
        Leave the films' file names out and call them by image_id.
    max_cases
        Most rows of the case grid.

    Returns
    -------
    out
    """
    with open_corpus(comparison.paths) as corpus:
        if comparison.truth is not None:
            corpus.add_truth(comparison.truth)
        groups, missing = _cases(comparison, corpus, images, max_cases, share=share)
    page = _environment().get_template("report.html").render(
        comparison=comparison,
        version=__version__,
        groups=groups,
        missing=missing,
        models=[_model(comparison, slug) for slug in comparison.models],
        colours=_gradient(),
        share=share,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, page.encode())
    return out


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cxrx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "span": span, "heading": lambda name: HEADINGS.get(name, name)}
    return environment


def number(value: Any, digits: int = 2) -> str:
    """Write a number with fixed digits, a dash where there is none."""
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return "–"
    return str(int(value)) if isinstance(value, (int, np.integer)) else f"{value:z.{digits}f}"


def span(low: float, high: float, digits: int = 2) -> str:
    """Write an interval, or nothing where there is none."""
    return f"{low:z.{digits}f}–{high:z.{digits}f}" if math.isfinite(low + high) else ""


# ---------------------------------------------------------------------------------------------------------------------
# Tables and figures of one model


def _model(comparison: Comparison, slug: str) -> dict[str, Any]:
    summary, agreement, classification = (
        table[table["model"] == slug] for table in (comparison.summary, comparison.agreement, comparison.classification)
    )
    return {
        "slug": slug,
        "demo": comparison.models[slug]["demo"],
        "classification": classification.to_dict("records"),
        "localisation": _localisation(summary, comparison),
        "forest": [_forest(summary, metric, comparison) for metric in FOREST if not summary.empty],
        "findings": _by_finding(summary),
        "agreement": [_matrix(agreement, metric) for metric in ("spearman", "iou_top_10") if not agreement.empty],
    }


def _localisation(summary: pd.DataFrame, comparison: Comparison) -> list[dict[str, Any]]:
    """Return one row per method: metric to its record."""
    table = summary[summary["finding"] == "all"]
    rows = []
    for method, group in table.groupby("method", sort=False):
        records = {record["metric"]: record for record in group.to_dict("records")}
        shown = [records[name] for name in ("hit", "hit_15px", "iou", "mass", "mass_ratio", "rank")]
        rows.append({"method": method, "control": method in comparison.controls, "cells": shown, "n": shown[0]["n"]})
    return rows


def _by_finding(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Return, for hit and IoU, a table of methods by findings."""
    tables = []
    names = [name for name in dict.fromkeys(summary["finding"]) if name != "all"]
    for metric in ("hit", "iou"):
        table = summary[(summary["metric"] == metric) & (summary["finding"] != "all")]
        if table.empty:
            continue
        cells = {(row["method"], row["finding"]): row for row in table.to_dict("records")}
        counts = table.groupby("finding")["n"].max()
        rows = [(method, [cells.get((method, name)) for name in names]) for method in dict.fromkeys(table["method"])]
        tables.append({"metric": metric, "findings": [(name, int(counts[name])) for name in names], "rows": rows})
    return tables


def _forest(summary: pd.DataFrame, metric: str, comparison: Comparison) -> dict[str, Any]:
    """Return the geometry of a forest plot in a box 340 wide: a line per method, the prior as a vertical rule."""
    table = summary[(summary["metric"] == metric) & (summary["finding"] == "all")]
    left, right, top, step = 112, 326, 14, 24

    def x(value: float) -> float:
        return round(left + (right - left) * min(max(value, 0.0), 1.0), 1)

    rows = []
    for i, row in enumerate(table.to_dict("records")):
        rows.append({
            "method": row["method"], "control": row["method"] in comparison.controls, "y": top + step * i + step / 2,
            "x": x(row["value"]) if math.isfinite(row["value"]) else None, "value": row["value"],
            "low": x(row["low"]) if math.isfinite(row["low"]) else None,
            "high": x(row["high"]) if math.isfinite(row["high"]) else None,
        })  # fmt: skip
    prior = next((row["x"] for row in rows if row["method"] == "prior"), None)
    bottom = top + step * len(rows)
    ticks = [(x(value), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]
    return {
        "metric": metric, "rows": rows, "prior": prior, "ticks": ticks, "top": top, "bottom": bottom,
        "left": left, "right": right, "meaning": METRICS[metric],
    }  # fmt: skip


def _matrix(agreement: pd.DataFrame, metric: str) -> dict[str, Any]:
    """Return a symmetric table of methods; the colour of a cell follows its absolute value."""
    table = agreement[(agreement["metric"] == metric) & (agreement["finding"] == "all")]
    names = list(dict.fromkeys([*table["method_a"], *table["method_b"]]))
    cells = {
        pair: row
        for row in table.to_dict("records")
        for pair in ((row["method_a"], row["method_b"]), (row["method_b"], row["method_a"]))
    }
    rows = [(name, [cells.get((name, other)) for other in names]) for name in names]
    return {"metric": metric, "methods": names, "rows": rows, "n": int(table["n"].max()) if len(table) else 0}


def _gradient() -> str:
    """Return the colour scale of the overlays as a CSS gradient."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return ", ".join(to_hex(colormaps[COLOURS](value)) for value in np.linspace(0, 1, 9))


# ---------------------------------------------------------------------------------------------------------------------
# The case grid


def _cases(
    comparison: Comparison, corpus: Corpus, images: Path | None, limit: int, *, share: bool
) -> tuple[list[dict[str, Any]], int]:
    """Return the groups of cases with their pictures, and how many films could not be found."""
    groups = choose_cases(comparison, corpus, limit)
    wanted = [key for _, _, keys in groups for key in keys]
    methods = {slug: list(model.methods) for slug, model in corpus.models.items()}
    scores = _scores(comparison)

    def caption(slug: str, method: str, pair: Pair) -> str:
        row = scores.get((slug, method, pair))
        return "" if row is None else f"IoU {row['iou']:.2f} · {'hit' if row['hit'] else 'miss'}"

    cases, missing = load_cases(corpus, wanted, methods, images=images, longest=PICTURE, caption=caption)
    shown = []
    for heading, rule, keys in groups:
        rows = [_row(corpus, key, cases[key], share=share) for key in keys if key in cases]
        if rows:
            shown.append({"heading": heading, "rule": rule, "rows": rows})
    return shown, missing


def _scores(comparison: Comparison) -> dict[tuple[str, str, Pair], dict[str, Any]]:
    rows = {}
    for record in comparison.per_pair.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        rows[row["model"], row["method"], (row["image_id"], row["finding"])] = row
    return rows


def _row(corpus: Corpus, key: Key, case: Case, *, share: bool) -> dict[str, Any]:
    _, (image_id, finding) = key
    film = {"title": "film", "caption": "with its truth" if case.boxes else "no truth known", **_picture(case, None)}
    return {
        "film": image_id if share else corpus.name(image_id),
        "finding": finding,
        "facts": list(case.facts),
        "cells": [film, *(_cell(case, panel) for panel in case.panels)],
    }


def _cell(case: Case, panel: Any) -> dict[str, Any]:
    return {"title": panel.title, "caption": panel.caption, **_picture(case, panel.values)}


def _picture(case: Case, values: Any) -> dict[str, Any]:
    height, width = case.film.shape
    rgb = blend(case.film, values)
    data = base64.b64encode(jpeg(rgb if values is not None else rgb[:, :, 0])).decode("ascii")
    return {
        "data": data,
        "width": width,
        "height": height,
        "boxes": _rounded(case.boxes),
        "peak": None if values is None else peak(values),
        "arm": round(0.025 * max(height, width) + 1, 1),
    }


def _rounded(boxes: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[round(value, 1) for value in box] for box in boxes]
