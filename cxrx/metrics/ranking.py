"""How well scores order films: AUROC and average precision, their replicates, and the curves behind them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cxrx.metrics.bootstrap import Float

CURVE_POINTS = 200


def weighted_ranking(
    y: NDArray[np.integer],
    p: Float,
    weights: Float,
    units: NDArray[np.intp] | None = None,
    *,
    chunk: int = 8,
) -> tuple[Float, Float]:
    """Return AUROC and average precision of every replicate.

    Parameters
    ----------
    y, p
        ``(n,)`` labels 0 or 1, and scores.
    weights
        ``(R, U)`` how often each unit (patient) counts.
    units
        ``(n,)`` the unit of every film; None: every film is one of its own.
    chunk
        Replicates at a time; a few fit the processor's cache.

    Returns
    -------
    auroc
        ``(R,)``: the share of (positive, negative) pairs in the right order, ties one half (Mann-Whitney); NaN where a
        replicate holds one class only.
    average_precision
        ``(R,)``: the precision at every distinct score of a positive, weighted by the positives there; NaN where a
        replicate holds no positive. Both are scikit-learn's numbers with ``sample_weight``.
    """
    units = np.arange(len(y)) if units is None else units
    scores = -np.unique(-p[y == 1])  # (D,) those of positives, falling
    step = np.searchsorted(-scores, -p)  # the first of them that is no higher than the film's own
    tied = (y == 0) & (scores[np.minimum(step, len(scores) - 1)] == p) if len(scores) else np.zeros(len(y), bool)
    sums = [  # (D + 1, U) sparse, from weights of units to weights at every step
        csr_array((np.ones(int(films.sum())), (step[films], units[films])), shape=(len(scores) + 1, weights.shape[1]))
        for films in (y == 1, y == 0, tied)
    ]
    auroc, precision = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    for start in range(0, len(weights), chunk):
        w = np.ascontiguousarray(weights[start : start + chunk].T)  # (U, r)
        here, negatives, ties = (matrix @ w for matrix in sums)  # (D + 1, r)
        true, false = np.cumsum(here, axis=0), np.cumsum(negatives, axis=0)  # at or above every step
        right = (here * (false[-1] - false + ties / 2)).sum(axis=0)
        shares = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
        there = slice(start, start + chunk)
        np.divide(right, true[-1] * false[-1], out=auroc[there], where=true[-1] * false[-1] > 0)
        np.divide((here * shares).sum(axis=0), true[-1], out=precision[there], where=true[-1] > 0)
    return auroc, precision


def weighted_auroc(y: NDArray[np.integer], p: Float, weights: Float, chunk: int = 8) -> Float:
    """Return the AUROC of every replicate, ``(R,)``; see :func:`weighted_ranking`.

    Parameters
    ----------
    y, p
        ``(n,)`` labels 0 or 1, and scores.
    weights
        ``(R, n)`` how often each film is in each replicate.
    chunk
        Replicates at once; it bounds the memory.
    """
    return weighted_ranking(y, p, weights, chunk=chunk)[0]


# ---------------------------------------------------------------------------------------------------------------------
# Curves


def roc(y: NDArray[np.integer], p: Float) -> Float:
    """Return the ROC curve, ``(m, 2)``: false positive rate and sensitivity, from (0, 0) to (1, 1), at most 200 points.

    Raises
    ------
    ValueError
        If `y` holds one class only.
    """
    from sklearn.metrics import roc_curve

    if y.min() == y.max():
        raise ValueError("a ROC curve needs both classes")
    false, true, _ = roc_curve(y, p)
    return thinned(np.stack([false, true], axis=1))


def precision_recall(y: NDArray[np.integer], p: Float) -> Float:
    """Return the precision-recall curve, ``(m, 2)``: recall (rising from 0) and precision, at most 200 points.

    Raises
    ------
    ValueError
        If `y` holds no positive.
    """
    from sklearn.metrics import precision_recall_curve

    if not y.any():
        raise ValueError("a precision-recall curve needs a positive")
    precision, recall, _ = precision_recall_curve(y, p, drop_intermediate=True)
    return thinned(np.stack([recall, precision], axis=1)[::-1])


def thinned(points: Float, most: int = CURVE_POINTS) -> Float:
    """Return at most `most` of the points ``(m, 2)``, evenly along the curve, with both ends."""
    if len(points) <= most:
        return points
    way = np.concatenate([[0], np.cumsum(np.abs(np.diff(points, axis=0)).sum(axis=1))])
    chosen = np.searchsorted(way, np.linspace(0, way[-1], most - 1)[:-1])
    kept: Float = points[np.unique([0, *chosen.tolist(), len(points) - 1])]
    return kept


def mean_curve(curves: list[Float], *, stepped: bool) -> Float:
    """Average curves of several findings at 101 equal steps of x, ``(101, 2)``.

    Parameters
    ----------
    stepped
        Between two points take the higher of those at greater x (precision over recall, which must not be joined by
        lines: Davis and Goadrich 2006), rather than the line that joins them.
    """
    x = np.linspace(0, 1, 101)
    if stepped:
        values = [
            curve[np.searchsorted(curve[:, 0], x - 1e-12, "left").clip(max=len(curve) - 1), 1] for curve in curves
        ]
    else:
        values = [np.interp(x, curve[:, 0], curve[:, 1]) for curve in curves]
    return np.stack([x, np.mean(values, axis=0)], axis=1)
