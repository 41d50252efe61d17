"""Random numbers that depend on what they are for, not on what was drawn before: so a run resumes to the same bits."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray


def seed_of(*parts: object) -> int:
    """Return a 63-bit seed that only `parts` decide, e.g. ``seed_of(seed, "order", epoch)``."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def epoch_order(rows: NDArray[np.intp], seed: int, epoch: int, weights: NDArray[np.float64] | None) -> NDArray[np.intp]:
    """Return the rows of one epoch in their order: each once, or with `weights` drawn with replacement.

    Parameters
    ----------
    rows
        ``(n,)`` rows of the training films.
    weights
        ``(n,)``, of any sum; None: every film once.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    if weights is None:
        chosen = torch.randperm(len(rows), generator=generator)
    else:
        chosen = torch.multinomial(torch.from_numpy(weights), len(rows), replacement=True, generator=generator)
    ordered: NDArray[np.intp] = rows[chosen.numpy()]
    return ordered


def in_batches(order: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    """Cut an order into batches of `size`; what is left over is dropped, unless it is all there is.

    A small last batch would weigh its films more than the others, and batch norm cannot live on one film.
    """
    if len(order) < size:
        return [order]
    return [order[first : first + size] for first in range(0, len(order) - size + 1, size)]
