"""Colour to grey: equal channels are one, anything else is luma and says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
JPEG_NOISE = 2
"""Grey levels by which YCbCr rounding may part the channels of a grey picture."""


def grey_of(rgb: NDArray[np.integer]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return ``(rows, columns)`` float32 in [0, 1] of ``(rows, columns, 3)`` integers, and flags."""
    scale = np.float32(1 / np.iinfo(rgb.dtype).max)
    red, green, blue = (rgb[..., i] for i in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return (red * scale).astype(np.float32, copy=False), ()
    difference = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    grey = np.minimum((rgb @ LUMA) * scale, 1).astype(np.float32, copy=False)
    return grey, () if difference.max() <= JPEG_NOISE else ("colour: turned to grey by luma",)
