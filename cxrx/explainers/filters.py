"""Filters shared by explainers."""

from __future__ import annotations

import math
from functools import lru_cache

import torch


def gaussian_blur(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur ``(..., H, W)`` with a Gaussian of `sigma` pixels, cut off at 4 sigma, with zeros around the picture.

    As two matrix products: for the wide Gaussians that are needed here much faster than convolutions.
    """
    if sigma == 0:
        return pictures
    rows, columns = (_toeplitz(length, sigma).to(pictures) for length in pictures.shape[-2:])
    return rows @ pictures @ columns.T


@lru_cache(maxsize=64)
def _toeplitz(length: int, sigma: float) -> torch.Tensor:
    """Return the ``(length, length)`` float64 matrix that convolves a line with the Gaussian."""
    half = math.ceil(4 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-half, half + 1, dtype=torch.float64) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    line = torch.arange(length)
    offset = line[:, None] - line[None, :]  # (length, length)
    return torch.where(offset.abs() <= half, kernel[(offset + half).clamp(0, 2 * half)], 0.0)
