"""Baselines that never saw the picture: what a map must beat before it can be said to have looked.

``centre`` and ``random`` need nothing; ``prior``, the mean truth of the finding on the other patients' films, needs
boxes or masks. On the 984 boxes of ChestX-ray14 the prior alone hits .393 (macro) and reaches an IoU of
.647 for cardiomegaly.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from cxrx.metrics.geometry import Float, resize

CONTROLS = ("centre", "random", "edge", "prior")
GRID = 64  # cells a side of the drawn controls
PRIOR_GRID = 256  # the mean truth is drawn at 256 x 256, as in the published figures
_STEPS = 2**30


def centre_map(size: int = GRID) -> Float:
    """Return a Gaussian in the middle of the picture, ``(size, size)``, standard deviation a quarter of its side."""
    offset = (np.arange(size) + 0.5) / size - 0.5
    bell = np.exp(-0.5 * (offset / 0.25) ** 2)
    return np.outer(bell, bell)


def random_map(seed: int, *keys: str, size: int = 8) -> Float:
    """Return a ``(size, size)`` grid of uniform noise; resized bilinearly it is as smooth as a CAM.

    It depends on the seed and the keys (film and finding) only, not on the order of the films.
    """
    digest = hashlib.sha256("\0".join([str(seed), *keys]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little")).random((size, size))


def prior_grid(truth: NDArray[np.bool_]) -> Float:
    """Bring a truth mask to the grid of the prior, ``(256, 256)``; a cell holds the share of it that is truth.

    The shares are whole multiples of 2^-30: sums of up to eight million of them are exact, in any order, and what is
    subtracted from a sum leaves nothing behind.
    """
    return np.rint(resize(truth, (PRIOR_GRID, PRIOR_GRID)) * _STEPS) / _STEPS


class Prior:
    """Mean truth of a finding over the films of all other patients (leave one patient out)."""

    def __init__(self) -> None:
        self._sums: dict[str, Float] = {}
        self._own: dict[tuple[str, str], list[tuple[int, int, Float]]] = {}
        self._totals: dict[str, int] = {}

    def add(self, finding: str, patient: str, truth: NDArray[np.bool_]) -> None:
        """Add the truth ``(rows, columns)`` of one film."""
        grid = prior_grid(truth)
        self._sums[finding] = self._sums.get(finding, 0) + grid
        self._totals[finding] = self._totals.get(finding, 0) + 1
        self._own.setdefault((finding, patient), []).append(_cut_out(grid))

    def map(self, finding: str, patient: str) -> Float | None:
        """Return the mean truth of `finding` without `patient`'s films, or None where no other patient has one.

        Bit for bit the mean of :func:`prior_grid` over the other patients' films, whatever their order.
        """
        own = self._own.get((finding, patient), [])
        others = self._totals.get(finding, 0) - len(own)
        if not others:
            return None
        total = self._sums[finding].copy()
        for top, left, part in own:
            total[top : top + part.shape[0], left : left + part.shape[1]] -= part
        return total / others


def _cut_out(grid: Float) -> tuple[int, int, Float]:
    """Return where the part that is not zero begins, and the part: thousands of whole grids would fill the memory."""
    rows, columns = np.flatnonzero(grid.any(axis=1)), np.flatnonzero(grid.any(axis=0))
    if not rows.size:
        return 0, 0, grid[:0, :0].copy()
    return int(rows[0]), int(columns[0]), grid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
