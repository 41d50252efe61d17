"""From a map's grid to the pixels of the picture it explains.

Every resize here is separable: a sparse weight matrix per axis, ``rows @ map @ columns.T``. Pixel centres lie at
integers, so cell ``j`` of a grid of ``n`` cells over an extent of ``N`` pixels has its centre at
``(j + 0.5) N / n - 0.5``: the half-pixel rule that PyTorch calls ``align_corners=False``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, diags_array

from cxrx.errors import ResultsError

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


def axis_weights(centres: Float, size: int, step: float) -> csr_array:
    """Return the weights of a linear (triangle) filter along one axis.

    Parameters
    ----------
    centres
        ``(n,)`` positions to sample at, in cells of the grid, cell centres at integers.
    size
        Cells of the grid.
    step
        Distance of two samples in cells. Above 1 the triangle widens with it (antialiasing, as in Pillow and in
        PyTorch's ``antialias=True``); below 1 it is plain linear interpolation.

    Returns
    -------
    weights
        ``(n, size)`` sparse, each row summing to 1; samples beyond the outermost centres take the outermost cell's
        value.
    """
    support = max(abs(step), 1.0)
    inside = np.clip(centres, -0.5, size - 0.5) if support > 1 else np.clip(centres, 0, size - 1)
    first = np.floor(inside - support).astype(np.intp)
    cells = first[:, None] + np.arange(int(2 * support) + 3)  # (n, taps)
    weights = np.maximum(0.0, 1.0 - np.abs(inside[:, None] - cells) / support)
    weights[(cells < 0) | (cells >= size)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    rows, taps = np.nonzero(weights)
    return csr_array((weights[rows, taps], (rows, cells[rows, taps])), shape=(len(centres), size))


def resize(values: ArrayLike, shape: tuple[int, int]) -> Float:
    """Resize ``(h, w)`` to `shape`, bilinear, ``align_corners=False``, antialiased where it shrinks.

    Source: the separable triangle filter of Pillow and of ``torch.nn.functional.interpolate(..., antialias=True)``,
    which for enlarging is plain bilinear interpolation.
    """
    grid = np.asarray(values, dtype=np.float64)
    if grid.shape == shape:
        return grid
    rows, columns = (_resize_weights(old, new) for new, old in zip(shape, grid.shape, strict=True))
    return multiply(rows, grid, columns)


@lru_cache(maxsize=256)
def _resize_weights(old: int, new: int) -> csr_array:
    return axis_weights((np.arange(new) + 0.5) * old / new - 0.5, old, old / new)


def multiply(rows: csr_array, grid: Float, columns: csr_array) -> Float:
    """Return ``rows @ grid @ columns.T``; a NaN or an infinity makes everything NaN.

    Sparse weights are faster than dense ones and leave the threads of BLAS alone.
    """
    if not np.isfinite(grid).all():
        return np.full((rows.shape[0], columns.shape[0]), np.nan)
    if rows.shape[0] < rows.shape[1]:  # the smaller product first
        return np.ascontiguousarray((columns @ (rows @ grid).T).T)
    result: Float = rows @ np.ascontiguousarray((columns @ grid.T).T)
    return result


def to_source(
    values: ArrayLike,
    affine: ArrayLike,
    input_size: tuple[int, int],
    shape: tuple[int, int],
    *,
    outside: float = 0.0,
) -> Float:
    """Carry a map from the model's input grid to the pixels of the source picture.

    Parameters
    ----------
    values
        ``(h, w)`` map that covers the model's whole input.
    affine
        ``(2, 3)``: ``(x, y)`` of the input grid to ``(x, y)`` of source pixels, pixel centres at integers.
    input_size
        ``(height, width)`` of the model's input.
    shape
        ``(rows, columns)`` of the source picture (or of a thumbnail of it, with the affine scaled to match).
    outside
        Value of source pixels that the model never saw because the crop cut them off.

    Returns
    -------
    map
        ``shape`` float64; bilinear, antialiased where it shrinks.

    Raises
    ------
    ResultsError
        If the affine rotates or shears, which no cxrx preprocessing does.
    """
    rows, columns = _source_weights(affine, input_size, np.shape(values), shape)
    grid = np.asarray(values, dtype=np.float64)
    result = multiply(rows, grid, columns)
    if outside != 0 or not np.isfinite(grid).all():
        result[~_seen(rows, columns)] = outside
    return result


def _source_weights(
    affine: ArrayLike, input_size: tuple[int, int], grid: tuple[int, ...], shape: tuple[int, int]
) -> tuple[csr_array, csr_array]:
    """Return the ``(rows, h)`` and ``(columns, w)`` weights of :func:`to_source`; all zero outside the field of view.

    They depend on the film only, so that all maps of one film share them.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (2, 3) or matrix[0, 1] != 0 or matrix[1, 0] != 0 or matrix[0, 0] == 0 or matrix[1, 1] == 0:
        raise ResultsError("the stored affine is not a plain scale and shift; the maps cannot be placed on the film")
    rows = _seen_weights(float(matrix[1, 1]), float(matrix[1, 2]), input_size[0], grid[0], shape[0])
    columns = _seen_weights(float(matrix[0, 0]), float(matrix[0, 2]), input_size[1], grid[1], shape[1])
    return rows, columns


@lru_cache(maxsize=1024)  # films of one size share them
def _seen_weights(scale: float, offset: float, size: int, cells: int, pixels: int) -> csr_array:
    position = (np.arange(pixels) - offset) / scale  # of source pixels, on the input grid
    ratio = cells / size
    # rounding of the affine must not cut the outermost row off
    seen = (position >= -0.5 - 1e-6) & (position <= size - 0.5 + 1e-6)
    axis = axis_weights(np.asarray((position + 0.5) * ratio - 0.5), cells, ratio / scale)
    return csr_array(diags_array(seen.astype(np.float64)) @ axis)


def coverage(affine: ArrayLike, input_size: tuple[int, int], shape: tuple[int, int]) -> Mask:
    """Return which source pixels the model saw, ``shape`` bool."""
    return _seen(*_source_weights(affine, input_size, (1, 1), shape))


def _seen(rows: csr_array, columns: csr_array) -> Mask:
    seen: Mask = np.logical_and.outer(rows.sum(axis=1) > 0, columns.sum(axis=1) > 0)
    return seen


def box_mask(boxes: ArrayLike, shape: tuple[int, int]) -> Mask:
    """Return the union of boxes as a mask.

    Parameters
    ----------
    boxes
        ``(n, 4)`` x, y (of the upper left corner), width, height in pixels. A box covers the pixels from
        ``round(x)`` up to, not including, ``round(x + width)``, cut at the picture's edge.
    shape
        ``(rows, columns)``.
    """
    mask = np.zeros(shape, dtype=bool)
    for x, y, width, height in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        left, right = np.clip(np.floor([x + 0.5, x + width + 0.5]), 0, shape[1]).astype(int)
        top, bottom = np.clip(np.floor([y + 0.5, y + height + 0.5]), 0, shape[0]).astype(int)
        mask[top:bottom, left:right] = True
    return mask
