"""ROAD (Rong et al. 2022): removed pixels are imputed from their neighbours, so that their outline tells nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

from cxrx.compare.faithfulness.case import Answer, Case, Pair, Question, References, Response
from cxrx.compare.faithfulness.conventions import FloatArray
from cxrx.explainers.option_types import Baseline
from cxrx.models.model import Model

SHARES = tuple(tenth / 10 for tenth in range(1, 10))
NEIGHBOURS = tuple(
    (row, column, 1 / 6 if 0 in (row, column) else 1 / 12)
    for row in (-1, 0, 1)
    for column in (-1, 0, 1)
    if (row, column) != (0, 0)
)
"""Offset and weight of the eight neighbours; at the picture's edge those that exist share the weight."""

_LEAF = 64
_ALIKE = 1e-4


def ask_road(case: Case) -> Question:
    """Impute 10, 20, ... 90 % of the pixels, the most relevant first and the least relevant first."""
    return Question(_pictures(case), partial(_read, case.model, case.settings.deletion_baseline))


def _pictures(case: Case) -> Iterator[torch.Tensor]:
    """Yield, map by map, nine pictures with the most relevant pixels imputed and nine with the least relevant."""
    height, width = case.size
    planes, scale, shift = _standardise(case.picture)
    noise = np.random.default_rng(case.derive("road")).standard_normal((height, width)) * case.settings.road_noise
    for places in case.ranks:
        for order in (places, places.size - 1 - places):
            for share in SHARES:
                mask = order < round(share * places.size)
                filled = impute(planes, mask)
                filled[:, mask] += noise[mask]
                changed = torch.from_numpy(filled * scale + shift).to(case.picture)  # (C, H, W)
                yield torch.where(torch.from_numpy(mask).to(case.picture.device), changed, case.picture)


def _standardise(picture: torch.Tensor) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return planes with mean 0 and standard deviation 1, and scale and shift ``(C, 1, 1)`` that bring them back.

    Of a grey picture one plane is enough, ``(1, H, W)``: its channels differ in scale and shift only, and imputation
    is linear with weights that sum to 1. Else ``(C, H, W)``.
    """
    values = picture.double().cpu().numpy()
    shift, scale = values.mean(axis=(1, 2), keepdims=True), values.std(axis=(1, 2), keepdims=True)
    planes = (values - shift) / np.where(scale > 0, scale, 1)
    grey = bool((np.abs(planes - planes[:1]) < _ALIKE).all())
    return planes[:1] if grey else planes, scale, shift


def impute(planes: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
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


def _system(
    planes: FloatArray, mask: NDArray[np.bool_], unknown: NDArray[np.int64]
) -> tuple[csc_array, NDArray[np.float64]]:
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


def _read(model: Model, kind: Baseline, logits: torch.Tensor, references: References, pair: Pair) -> Answer:
    own = logits.view(-1, 2, len(SHARES), logits.shape[1])[pair.map]
    x = np.array([0.0, *SHARES])
    scores: dict[str, float] = {}
    curves = {}
    for name, part in zip(("road_morf", "road_lerf"), own, strict=True):
        response = Response.of(model, part, references, kind, pair.target)
        scores |= response.scores(name, lambda f: float(f.mean()))
        curves[name] = (x, np.array([response.full[0], *response.f]))
    for version in ("", "_probability", "_normalised"):
        scores[f"road{version}"] = (scores[f"road_lerf{version}"] - scores[f"road_morf{version}"]) / 2
    return Answer(scores, curves)
