"""Are probabilities as high as findings are frequent? Brier score, expected calibration error, reliability curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrx.metrics.bootstrap import Float

BINS = 15


def brier(y: NDArray[np.integer], p: Float) -> float:
    """Return the mean of ``(p - y)^2`` (Brier 1950): 0 is perfect, 0.25 is what saying 0.5 always gets."""
    return float(np.mean((p - y) ** 2))


def reliability(y: NDArray[np.integer], p: Float, bins: int = BINS) -> Float:
    """Return the reliability curve in bins of equal mass.

    Parameters
    ----------
    y, p
        ``(n,)`` labels 0 or 1, and probabilities; n at least 1.
    bins
        How many; as many as there are films where those are fewer.

    Returns
    -------
    curve
        ``(bins, 3)``: mean probability, share of positives, films. The films are sorted by probability and cut into
        parts whose sizes differ by one at most (the larger ones first). Films of the same probability that a cut parts
        share their labels equally, so that the order of films does not matter.
    """
    order = np.argsort(p, kind="stable")
    _, group, count = np.unique(p[order], return_inverse=True, return_counts=True)
    label = (np.bincount(group, y[order]) / count)[group]
    parts = np.array_split(np.stack([p[order], label], axis=1), min(bins, len(p)))
    return np.array([[*part.mean(axis=0), len(part)] for part in parts])


def expected_calibration_error(y: NDArray[np.integer], p: Float, bins: int = BINS) -> float:
    """Return the mean over films of the distance of their bin's mean probability from its share of positives.

    Source: Naeini et al. 2015, with bins of equal mass (:func:`reliability`) rather than equal width.
    """
    said, found, films = reliability(y, p, bins).T
    return float(np.abs(said - found) @ films / films.sum())
