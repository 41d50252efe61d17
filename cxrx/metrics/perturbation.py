"""What metrics that change pixels compute in NumPy: in which order, which subsets, and the numbers of the curves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrx.metrics.geometry import Float, resize

Ranks = NDArray[np.int32]

MINIMAL_SPAN = 0.1
"""Normalised scores need f(x) - f(baseline) of at least this many logits (odds of 1.1): below, noise is divided."""


# ---------------------------------------------------------------------------------------------------------------------
# Orders and subsets


def upsample(values: NDArray[np.generic], size: tuple[int, int]) -> Float:
    """Return a map ``(h, w)`` at `size` ``(H, W)``; a constant map stays exactly constant."""
    grid = np.asarray(values, dtype=np.float64)
    if grid.min() == grid.max():  # rounding in the resize would draw a pattern
        return np.full(size, grid.flat[0])
    return resize(grid, size)


def rank(values: Float, seed: int) -> Ranks:
    """Return the place of each pixel, from 0 for the largest value to n - 1; equal values in random order.

    Real Grad-CAM maps have a median of a third of exact zeros: any fixed order among them would be a second, hidden
    map. Values closer than 1e-9 of the range are equal, so that rounding in a resize does not order a plateau.
    """
    flat = values.ravel()
    low, high = flat.min(), flat.max()
    level = np.rint((flat - low) * (1e9 / (high - low))) if high > low else np.zeros(flat.size)
    shuffled = np.random.default_rng(seed).permutation(flat.size)
    order = shuffled[np.argsort(-level[shuffled], kind="stable")]
    places = np.empty(flat.size, dtype=np.int32)
    places[order] = np.arange(flat.size, dtype=np.int32)
    return places.reshape(values.shape)


def counts(n: int, steps: int) -> NDArray[np.int64]:
    """Return how many of `n` pixels are changed after 0, 1, ... `steps` equal steps, ``(steps + 1,)``."""
    return np.rint(np.arange(steps + 1) * n / steps).astype(np.int64)


def tiles(size: tuple[int, int], side: int) -> NDArray[np.int64]:
    """Return the number of each pixel's tile ``(H, W)``; all tiles are as nearly of `side` px at 224 px as fits."""
    wanted = max(1.0, side * min(size) / 224)
    down, across = (max(1, round(length / wanted)) for length in size)
    row, column = np.arange(size[0]) * down // size[0], np.arange(size[1]) * across // size[1]
    return row[:, None] * across + column


def subsets(m: int, shares: tuple[float, ...], count: int, seed: int) -> NDArray[np.bool_]:
    """Return which of `m` superpixels are hidden, ``(sizes, count, m)``: random subsets of n = share · m of them.

    Parameters
    ----------
    m
        Superpixels.
    shares
        Sizes of the subsets as shares of `m`.
    count
        Subsets of each size.
    seed
        Of the draw.
    """
    drawn = np.random.default_rng(seed)
    sizes = [min(max(1, round(share * m)), m - 1) for share in shares]
    places = drawn.permuted(np.tile(np.arange(m), (len(sizes), count, 1)), axis=2)
    chosen: NDArray[np.bool_] = places < np.array(sizes)[:, None, None]
    return chosen


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def area(x: Float, f: Float) -> float:
    """Return the area under f over x by the trapezoid rule."""
    return float(np.trapezoid(f, x))


def normalise(f: Float, full: Float, baseline: Float) -> Float:
    """Return (f - baseline) / (full - baseline); NaN where the span is below :data:`MINIMAL_SPAN`."""
    span = full - baseline
    return (f - baseline) / np.where(span >= MINIMAL_SPAN, span, np.nan)


def mean_correlation(a: Float, b: Float) -> float:
    """Return Pearson's correlation of the rows of `a` and `b` ``(sizes, count)``, averaged over the rows.

    A row in which either is constant (to rounding) has none and is left out; NaN where no row is left.
    """
    centred = [part - part.mean(axis=1, keepdims=True) for part in (a, b)]
    lengths = [np.linalg.norm(part, axis=1) for part in centred]
    vary = [length > 1e-9 * np.linalg.norm(part, axis=1) for length, part in zip(lengths, (a, b), strict=True)]
    fit = vary[0] & vary[1]
    if not fit.any():
        return float("nan")
    return float(((centred[0] * centred[1]).sum(axis=1)[fit] / (lengths[0] * lengths[1])[fit]).mean())
