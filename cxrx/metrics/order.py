"""From a map to the order in which pixels are changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrx.metrics.geometry import resize

FloatArray = NDArray[np.float64]
Ranks = NDArray[np.int32]


def spread(values: NDArray[np.generic], size: tuple[int, int]) -> FloatArray:
    """Return a map ``(h, w)`` at `size` ``(H, W)``; a constant map stays exactly constant."""
    grid = np.asarray(values, dtype=np.float64)
    if grid.min() == grid.max():  # rounding in the resize would draw a pattern
        return np.full(size, grid.flat[0])
    return resize(grid, size)


def rank(values: FloatArray, seed: int) -> Ranks:
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
