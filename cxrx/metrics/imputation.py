"""Imputation of ROAD (Rong et al. 2022): pixels as their neighbours would have them, so that no outline is seen."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

from cxrx.metrics.geometry import Float

NEIGHBOURS = tuple(
    (row, column, 1 / 6 if 0 in (row, column) else 1 / 12)
    for row in (-1, 0, 1)
    for column in (-1, 0, 1)
    if (row, column) != (0, 0)
)
"""Offset and weight of the eight neighbours; at the picture's edge those that exist share the weight."""

_LEAF = 64


def impute(planes: Float, mask: NDArray[np.bool_]) -> Float:
    """Return `planes` ``(C, H, W)`` with every pixel in `mask` ``(H, W)`` the weighted mean of its neighbours.

    One sparse linear system for all unknown pixels (Rong et al. 2022, section 5), factorised once for all planes. It is
    symmetric and diagonally dominant, so no pivoting is needed, and is ordered by nested dissection. Needs at least
    one known pixel.
    """
    filled = planes.copy()
    order = _dissection(mask.shape)
    unknown = order[mask.ravel()[order]]  # (n,) pixels in the order of elimination
    if not len(unknown):
        return filled
    matrix, right = _system(planes, mask, unknown)
    solver = splu(matrix, permc_spec="NATURAL", diag_pivot_thresh=0, options={"SymmetricMode": True})
    filled.reshape(len(planes), -1)[:, unknown] = solver.solve(right).T
    return filled


def _system(planes: Float, mask: NDArray[np.bool_], unknown: NDArray[np.int64]) -> tuple[csc_array, Float]:
    """Return the matrix ``(n, n)`` and the right side ``(n, C)``: Σ_j w_ij (u_i - u_j) = 0 for each unknown i."""
    height, width = mask.shape
    n = len(unknown)
    number = np.full((height + 2, width + 2), -2, dtype=np.int64)  # -2 beyond the picture, -1 known
    number[1:-1, 1:-1] = -1
    rows, columns = np.divmod(unknown, width)
    number[rows + 1, columns + 1] = np.arange(n)
    diagonal, right = np.zeros(n), np.zeros((n, len(planes)))
    entries = []
    for down, across, weight in NEIGHBOURS:
        other = number[rows + 1 + down, columns + 1 + across]
        diagonal += weight * (other != -2)
        known, open_ = other == -1, np.flatnonzero(other >= 0)
        right[known] += weight * planes[:, rows[known] + down, columns[known] + across].T
        entries.append((open_, other[open_], np.full(len(open_), -weight)))
    entries.append((np.arange(n), np.arange(n), diagonal))
    i, j, values = (np.concatenate(part) for part in zip(*entries, strict=True))
    return csc_array((values, (i, j)), shape=(n, n)), right


@lru_cache(maxsize=4)
def _dissection(shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return the pixels of a picture in an order in which elimination fills in little: halves, then what parts them."""
    width = shape[1]
    parts: list[NDArray[np.int64]] = []

    def divide(top: int, bottom: int, left: int, right: int) -> None:
        height, breadth = bottom - top, right - left
        if height * breadth <= _LEAF or max(height, breadth) < 3:
            parts.append((np.arange(top, bottom)[:, None] * width + np.arange(left, right)).ravel())
        elif height >= breadth:
            middle = (top + bottom) // 2
            divide(top, middle, left, right)
            divide(middle + 1, bottom, left, right)
            parts.append(middle * width + np.arange(left, right))
        else:
            middle = (left + right) // 2
            divide(top, bottom, left, middle)
            divide(top, bottom, middle + 1, right)
            parts.append(np.arange(top, bottom) * width + middle)

    divide(0, shape[0], 0, width)
    return np.concatenate(parts)
