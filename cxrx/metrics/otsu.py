"""Otsu's threshold over 256 levels: where a map is cut in two when nobody says where."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def levels(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return ``q = floor(255 m)`` with m the values scaled to [0, 1] by their minimum and maximum, in their precision.

    The values must be finite and not all the same.
    """
    low = values.min()
    scaled = values - low
    scaled /= values.max() - low
    scaled *= 255
    truncated: NDArray[np.uint8] = scaled.astype(np.uint8)
    return truncated


def otsu(counts: NDArray[np.integer]) -> int:
    """Return the level t that parts ``q > t`` from the rest so that the variance between the two is greatest.

    Parameters
    ----------
    counts
        ``(256,)`` pixels of every level, of at least two levels.

    Returns
    -------
    threshold
        The first of several equal ones, as in OpenCV and scikit-image; they leave the same pixels above. With n and s
        the pixels and the sum of levels up to t and N and S those of all, ``(S n - N s)^2 / (n (N - n))`` is the
        variance times ``N^2`` (Otsu 1979, eq. 18); the numerator's root is an exact integer here.
    """
    counts = counts.astype(np.int64)
    pixels, sums = np.cumsum(counts), np.cumsum(counts * np.arange(len(counts)))
    inside = (pixels > 0) & (pixels < pixels[-1])
    n, apart = pixels[inside].astype(np.float64), (sums[-1] * pixels - pixels[-1] * sums)[inside].astype(np.float64)
    return int(np.flatnonzero(inside)[np.argmax(apart**2 / (n * (pixels[-1] - n)))])
