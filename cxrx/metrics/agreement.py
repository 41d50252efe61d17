"""Do two methods say the same of one film? Needs neither truth nor the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cxrx.metrics.geometry import resize

Float = NDArray[np.float64]

GRID = 64
TOP = 0.10
METRICS = {
    "spearman": f"rank correlation of the two maps on a common {GRID} x {GRID} grid",
    "iou_top_10": f"intersection over union of their strongest {TOP:.0%} of that grid",
    "ssim": "structural similarity (Wang et al. 2004, window 7) of the two maps on that grid, each scaled to [0, 1]",
}
FAST = ("spearman", "iou_top_10")
DISPERSION = (
    "root mean square distance of the positive relevance from its centroid, in sides of the picture: 0 for a point, "
    "0.41 for an even map"
)


def common_grid(values: NDArray[np.floating]) -> Float:
    """Bring a map to the grid on which maps are compared, ``(64, 64)``."""
    return resize(values, (GRID, GRID))


@dataclass
class CommonMaps:
    """Maps of several pairs on the common grid.

    Attributes
    ----------
    values
        ``(n, 4096)`` float32; NaN where there is no map.
    """

    values: NDArray[np.floating]

    @cached_property
    def ranks(self) -> NDArray[np.float32]:
        """Average ranks, centred and of length 1; NaN for maps that order nothing."""
        return rank_rows(self.values).astype(np.float32)

    @cached_property
    def tops(self) -> NDArray[np.bool_]:
        """Which cells are among the strongest 10 %."""
        return top_rows(self.ranks)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which maps order anything: finite and not constant."""
        usable: NDArray[np.bool_] = np.isfinite(self.ranks[:, 0])
        return usable

    def take(self, rows: NDArray[np.intp]) -> CommonMaps:
        """Return the maps `rows`, without ranking again."""
        taken = CommonMaps(self.values[rows])
        taken.__dict__ |= {"ranks": self.ranks[rows], "tops": self.tops[rows]}
        return taken


def compare(metric: str, a: CommonMaps, b: CommonMaps) -> Float:
    """Return one of :data:`METRICS`, row by row, ``(n,)``; NaN where either map orders nothing."""
    if metric == "spearman":
        return spearman(a.ranks, b.ranks)
    if metric == "iou_top_10":
        return top_iou(a.tops, b.tops)
    usable = np.flatnonzero(a.usable & b.usable)
    values = np.full(len(a.values), np.nan)
    values[usable] = [structural_similarity(a.values[i], b.values[i]) for i in usable.tolist()]
    return values


def score_agreement(a: NDArray[np.floating], b: NDArray[np.floating]) -> dict[str, float]:
    """Compare two maps of the same film, finding and model.

    Parameters
    ----------
    a, b
        ``(h, w)``, each on its own grid; both are brought to a common one.

    Returns
    -------
    scores
        The keys of :data:`METRICS`; NaN where a map is constant or not finite, as it orders nothing.
    """
    one, two = (CommonMaps(common_grid(grid).reshape(1, -1)) for grid in (a, b))
    return {metric: float(compare(metric, one, two)[0]) for metric in METRICS}


def rank_rows(values: NDArray[np.floating]) -> Float:
    """Return the average ranks of every row, centred and of length 1, ``(n, p)``; NaN for rows that order nothing."""
    from scipy.stats import rankdata

    with np.errstate(invalid="ignore"):
        usable = np.flatnonzero(np.ptp(values, axis=1) > 0)  # NaN and inf - inf are not
    usable = usable[np.isfinite(values[usable]).all(axis=1)]
    ranks = np.full(values.shape, np.nan)
    if usable.size:
        centred = rankdata(values[usable], axis=1) - (values.shape[1] + 1) / 2
        ranks[usable] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return ranks


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> Float:
    """Return Spearman's correlation, row by row, of two outputs of :func:`rank_rows`."""
    product: Float = np.einsum("np,np->n", a, b, dtype=np.float64)
    return product


def top_rows(ranks: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return the strongest 10 % of every row; of equal values at the cut, those that come first in row-major order."""
    n = max(1, round(ranks.shape[1] * TOP))
    order = np.argsort(-ranks, axis=1, kind="stable")[:, :n]
    top = np.zeros(ranks.shape, dtype=bool)
    np.put_along_axis(top, order, True, axis=1)
    top[np.isnan(ranks).any(axis=1)] = False
    return top


def top_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Float:
    """Return intersection over union, row by row, of two outputs of :func:`top_rows`; NaN where one is empty."""
    union = (a | b).sum(axis=1)
    empty = ~(a.any(axis=1) & b.any(axis=1))
    iou: Float = np.divide((a & b).sum(axis=1), union, out=np.full(len(a), np.nan), where=~empty)
    return iou


def structural_similarity(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return the SSIM (Wang et al. 2004) of two maps ``(4096,)`` on the common grid, each scaled to [0, 1]."""
    from skimage.metrics import structural_similarity as ssim

    low = [(grid - grid.min()) / np.ptp(grid) for grid in (a.astype(np.float64), b.astype(np.float64))]
    return float(ssim(*(grid.reshape(GRID, GRID) for grid in low), data_range=1.0))  # type: ignore[no-untyped-call]


def dispersion(values: NDArray[np.floating]) -> Float:
    """Return how scattered maps on the common grid are, ``(n, 4096)`` to ``(n,)``.

    Root mean square distance of the positive relevance from its centroid, in sides of the picture: 0 for a point,
    0.41 for an even map. NaN where nothing is positive.
    """
    weight = np.maximum(np.where(np.isfinite(values), values, 0), 0).astype(np.float64).reshape(-1, GRID, GRID)
    total = weight.sum(axis=(1, 2))
    place = (np.arange(GRID) + 0.5) / GRID
    variance = np.zeros(len(values))
    for axis in (1, 2):
        profile = weight.sum(axis=3 - axis)  # (n, 64) along the axis
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = profile @ place / total
            variance += profile @ place**2 / total - mean**2
    scatter: Float = np.where(total > 0, np.sqrt(np.maximum(variance, 0)), np.nan)
    return scatter


def other_film(findings: Sequence[str], patients: Sequence[str], seed: int) -> NDArray[np.intp]:
    """Choose, for every map, one of the same finding from another patient: the random-pair baseline.

    Returns
    -------
    partner
        ``(n,)`` index, -1 where no other patient has a map of that finding.
    """
    rng = np.random.default_rng(seed)
    finding, patient = np.asarray(findings, dtype=object), np.asarray(patients, dtype=object)
    partner = np.full(len(finding), -1, dtype=np.intp)
    for name in sorted(set(findings)):
        members = np.flatnonzero(finding == name)
        members = members[np.argsort(patient[members].astype(str), kind="stable")]  # patients side by side
        _, starts, sizes = np.unique(patient[members].astype(str), return_index=True, return_counts=True)
        for start, size in zip(starts, sizes, strict=True):
            others = len(members) - size
            if others:
                drawn = rng.integers(others, size=size)
                partner[members[start : start + size]] = members[np.where(drawn < start, drawn, drawn + size)]
    return partner
