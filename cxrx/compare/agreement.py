"""Do two methods say the same of one film? Needs neither truth nor the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxrx.compare.geometry import resize

Float = NDArray[np.float64]

GRID = 64
TOP = 0.10
METRICS = {
    "spearman": f"rank correlation of the two maps on a common {GRID} x {GRID} grid",
    "iou_top_10": f"intersection over union of their strongest {TOP:.0%} of that grid",
}


def common_grid(values: NDArray[np.floating]) -> Float:
    """Bring a map to the grid on which maps are compared, ``(64, 64)``."""
    return resize(values, (GRID, GRID))


def score_agreement(a: NDArray[np.floating], b: NDArray[np.floating]) -> dict[str, float]:
    """Compare two maps of the same film, finding and model.

    Parameters
    ----------
    a, b
        ``(h, w)``, each on its own grid; both are brought to a common one.

    Returns
    -------
    scores
        ``spearman``: Pearson's correlation of the average ranks; ``iou_top_10``. NaN where a map is constant or not
        finite, as it orders nothing.
    """
    ranks = rank_rows(np.stack([common_grid(a).ravel(), common_grid(b).ravel()]))
    tops = top_rows(ranks)
    return {"spearman": float(spearman(ranks[:1], ranks[1:])[0]), "iou_top_10": float(top_iou(tops[:1], tops[1:])[0])}


def rank_rows(values: Float) -> Float:
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


def spearman(a: Float, b: Float) -> Float:
    """Return Spearman's correlation, row by row, of two outputs of :func:`rank_rows`."""
    product: Float = (a * b).sum(axis=1)
    return product


def top_rows(ranks: Float) -> NDArray[np.bool_]:
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
