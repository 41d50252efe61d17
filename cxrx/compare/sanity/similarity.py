"""How alike are two maps, and how alike are maps that have nothing to do with each other? Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.compare.agreement import GRID, TOP, common_grid, other_film, rank_rows, spearman, top_iou, top_rows

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


@dataclass(frozen=True)
class Prepared:
    """Maps brought into the forms that the similarities compare.

    Attributes
    ----------
    ranks, tops
        ``(n, 4096)``, of :func:`cxrx.compare.agreement.rank_rows` and ``top_rows``.
    scaled
        ``(n, 64, 64)`` in [0, 1]; NaN for maps that are constant or not finite.
    """

    ranks: Float
    tops: NDArray[np.bool_]
    scaled: Float

    def rows(self, index: NDArray[np.intp]) -> Prepared:
        """Return the maps at `index`."""
        return Prepared(self.ranks[index], self.tops[index], self.scaled[index])


def prepare(maps: NDArray[np.floating]) -> Prepared:
    """Prepare maps ``(n, h, w)``, in their published form, for :func:`compare_maps`."""
    grids = np.array([common_grid(values) for values in maps]).reshape(len(maps), GRID, GRID)
    ranks = rank_rows(grids.reshape(len(maps), -1))
    usable = np.isfinite(ranks).all(axis=1)
    scaled = np.full(grids.shape, np.nan)
    low, high = (bound(grids[usable], axis=(1, 2), keepdims=True) for bound in (np.min, np.max))
    scaled[usable] = (grids[usable] - low) / (high - low)
    return Prepared(ranks, top_rows(ranks), scaled)


def compare_maps(a: Prepared, b: Prepared) -> dict[str, Float]:
    """Return the similarities ``(n,)`` of maps, pair by pair; NaN where one is constant or not finite.

    See :data:`METRICS` for what they are.
    """
    from skimage.metrics import structural_similarity

    ssim = np.full(len(a.scaled), np.nan)
    for i in np.flatnonzero(np.isfinite(a.scaled[:, 0, 0] + b.scaled[:, 0, 0])):
        ssim[i] = structural_similarity(a.scaled[i], b.scaled[i], data_range=1.0)  # type: ignore[no-untyped-call]
    return {"spearman": spearman(a.ranks, b.ranks), "ssim": ssim, "iou_top_10": top_iou(a.tops, b.tops)}


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


@dataclass(frozen=True)
class Pairs:
    """What is explained: ``n`` films and findings.

    Attributes
    ----------
    image_ids, patients, findings
        ``n`` each.
    """

    image_ids: Sequence[str]
    patients: Sequence[str]
    findings: Sequence[str]

    def table(self, test: str, stage: str, metric: str, values: Float, draw: int) -> pd.DataFrame:
        """Return `values` ``(n,)`` as rows of a long table with :data:`COLUMNS`."""
        return pd.DataFrame(
            {
                "test": test,
                "stage": stage,
                "metric": metric,
                "value": values,
                "image_id": list(self.image_ids),
                "patient": list(self.patients),
                "finding": list(self.findings),
                "draw": draw,
            }
        )


def random_pairs(maps: Prepared, pairs: Pairs, seed: int, draws: int = 3) -> pd.DataFrame:
    """Compare every map with one of the same finding from another patient, `draws` times: the random-pair baseline.

    Returns
    -------
    rows
        With :data:`COLUMNS`, test ``random_pairs``; NaN where no other patient has a map of the finding.
    """
    tables = []
    for draw in range(draws):
        partner = other_film(pairs.findings, pairs.patients, seed + draw)
        scores = compare_maps(maps, maps.rows(partner))  # -1 takes the last; its score is dropped
        tables += [
            pairs.table("random_pairs", "", metric, np.where(partner >= 0, scores[metric], np.nan), draw)
            for metric in SIMILARITIES
        ]
    return pd.concat(tables, ignore_index=True)
