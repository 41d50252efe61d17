"""Colour to grey: equal channels are one, anything else is luma and says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
JPEG_NOISE = 2
"""Grey levels by which YCbCr rounding may part the channels of a grey picture."""
COLOUR_FLAG = "colour: turned to grey by luma"


def strips(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of rows of about a megapixel, so that what is worked out a pixel takes little memory."""
    step = max(1, 2**20 // max(columns, 1))
    return (slice(top, top + step) for top in range(0, rows, step))


def grey_of(rgb: NDArray[np.integer], bits: int) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return ``(rows, columns)`` float32 in [0, 1] of ``(rows, columns, 3)`` unsigned integers of `bits`, and flags."""
    scale = np.float32(1 / ((1 << bits) - 1))
    height, width = rgb.shape[:2]
    grey = np.empty((height, width), np.float32)
    red, green, blue = (rgb[..., i] for i in range(3))
    if all(
        np.array_equal(red[rows], green[rows]) and np.array_equal(red[rows], blue[rows])
        for rows in strips(height, width)
    ):
        return np.multiply(red, scale, out=grey, casting="same_kind"), ()
    noise = 0
    for rows in strips(height, width):
        r, g, b = red[rows], green[rows], blue[rows]
        noise = max(noise, int((np.maximum(np.maximum(r, g), b) - np.minimum(np.minimum(r, g), b)).max()))
        grey[rows] = np.minimum((rgb[rows] @ LUMA) * scale, 1)
    return grey, () if noise <= _noise(bits) else (COLOUR_FLAG,)


def grey_of_ybr(ybr: NDArray[np.integer], bits: int) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return what :func:`grey_of` does, of YBR_FULL: Y is the luma, and grey has both chroma in the middle."""
    scale = np.float32(1 / ((1 << bits) - 1))
    middle = 1 << bits - 1
    chroma = max(abs(int(extreme) - middle) for extreme in (ybr[..., 1:].min(), ybr[..., 1:].max()))
    grey = np.minimum(ybr[..., 0] * scale, 1).astype(np.float32, copy=False)
    return grey, () if chroma <= _noise(bits) else (COLOUR_FLAG,)


def _noise(bits: int) -> int:
    return JPEG_NOISE << max(bits - 8, 0)
