"""How alike are two maps, and how alike are maps that have nothing to do with each other? Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.metrics.agreement import GRID, TOP, CommonMaps, common_grid, compare, other_film

Float = NDArray[np.float64]

BINS = 100

SIMILARITIES = ("spearman", "ssim", "iou_top_10")
COLUMNS = ("test", "stage", "metric", "value", "image_id", "patient", "finding", "draw")

METRICS = {
    "spearman": f"rank correlation of two maps in their published form, both on a common {GRID} x {GRID} grid",
    "ssim": "structural similarity of two maps on that grid, each scaled to [0, 1] by its minimum and maximum, 7 x 7 "
    "window, data range 1 (Wang et al., IEEE TIP 2004, as in scikit-image); different maps of chests have some too",
    "iou_top_10": f"intersection over union of the strongest {TOP:.0%} of that grid; .05 by chance",
    "entropy_rise": "(E' - E) / E with E = -sum p ln p over the histogram of the map on that grid in "
    f"{BINS} bins from its minimum to its maximum, E' the same after randomising the whole network (eMPRT, Hedström et "
    "al., Sanity Checks Revisited, 2024)",
    "max_sensitivity": "largest ||A(x + e) - A(x)|| / ||A(x)|| over 10 draws of noise e, uniform within 0.02 of the "
    "picture's range (Yeh et al., NeurIPS 2019, as in captum)",
}


def prepare(maps: NDArray[np.floating]) -> CommonMaps:
    """Bring maps ``(n, h, w)``, in their published form, to the grid on which :func:`compare_maps` compares them."""
    return CommonMaps(np.array([common_grid(values) for values in maps]).reshape(len(maps), GRID * GRID))


def compare_maps(a: CommonMaps, b: CommonMaps) -> dict[str, Float]:
    """Return all :data:`SIMILARITIES` ``(n,)`` of maps, pair by pair; NaN where one is constant or not finite."""
    return {metric: compare(metric, a, b) for metric in SIMILARITIES}


def map_entropy(values: NDArray[np.floating]) -> float:
    """Return the entropy in nats of the histogram of a map ``(h, w)``; see ``entropy_rise`` in :data:`METRICS`.

    0 for a constant map, NaN where a value is not finite.
    """
    grid = common_grid(values)
    if not np.isfinite(grid).all():
        return float("nan")
    if np.ptp(grid) == 0:
        return 0.0
    p = np.histogram(grid, bins=BINS)[0] / grid.size
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def rows_of(
    pairs: pd.DataFrame, test: str, scores: Mapping[str, Float], draw: int = 0, stage: str = ""
) -> list[pd.DataFrame]:
    """Return scores of `pairs` as rows of a long table, a part a metric.

    Parameters
    ----------
    pairs
        ``n`` rows, columns image_id, patient, finding.
    test, draw, stage
        What the rows say of themselves.
    scores
        Metric to ``(n,)``.

    Returns
    -------
    parts
        With :data:`COLUMNS`.
    """
    named = pairs.assign(test=test, stage=stage, draw=draw)
    return [named.assign(metric=metric, value=values)[list(COLUMNS)] for metric, values in scores.items()]


def random_pairs(maps: CommonMaps, pairs: pd.DataFrame, seed: int, draws: int = 3) -> pd.DataFrame:
    """Compare every map with one of the same finding from another patient, `draws` times: the random-pair baseline.

    Parameters
    ----------
    maps, pairs
        Maps on a common grid, and their rows of patient and finding.
    seed, draws
        What draws the other patient, and how often.

    Returns
    -------
    rows
        With :data:`COLUMNS`, test ``random_pairs``; NaN where no other patient has a map of the finding.
    """
    tables = []
    for draw in range(draws):
        partner = other_film(pairs["finding"].tolist(), pairs["patient"].tolist(), seed + draw)
        scores = compare_maps(maps, maps.take(partner))  # -1 takes the last; its score is dropped
        known = {metric: np.where(partner >= 0, values, np.nan) for metric, values in scores.items()}
        tables += rows_of(pairs, "random_pairs", known, draw)
    return pd.concat(tables, ignore_index=True)
