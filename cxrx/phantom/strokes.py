"""Thin structures (ribs, vessels, wires) drawn as blurred curves on a grid of any resolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.floating[Any]]
SIGMAS = (0.6, 1.3, 2.6)  # mm; each stroke takes one of these blurs


class Strokes:
    """Collects curves and renders all of one blur with one filter.

    Parameters
    ----------
    to_pixel
        Maps ``(u, v)`` in mm to fractional ``(row, column)``.
    shape, spacing
        Of the grid: rows and columns, mm per pixel.
    """

    def __init__(
        self, to_pixel: Callable[[Array, Array], tuple[Array, Array]], shape: tuple[int, int], spacing: float
    ) -> None:
        self._to_pixel = to_pixel
        self._shape = shape
        self._spacing = spacing
        self._points: dict[float, list[tuple[Array, Array, Array]]] = {sigma: [] for sigma in SIGMAS}

    def curve(self, u: Array, v: Array, peak: Array | float, sigma: float) -> None:
        """Add curves.

        Parameters
        ----------
        u, v
            ``(..., n)``, positions in mm; the last axis runs along each curve.
        peak
            Path in the middle of the stroke, mm.
        sigma
            Blur, one of :data:`SIGMAS`, mm.
        """
        u, v = np.broadcast_arrays(np.asarray(u, np.float32), np.asarray(v, np.float32))
        step = np.hypot(np.gradient(u, axis=-1), np.gradient(v, axis=-1))  # mm of curve that each sample stands for
        # a line of density d per mm blurred by a Gaussian has d / (sqrt(2 pi) sigma) in its middle
        weight = np.broadcast_to(peak, u.shape) * step * np.float32(np.sqrt(2 * np.pi) * sigma)
        self._points[sigma].append((u.ravel(), v.ravel(), weight.ravel().astype(np.float32)))

    def band(self, u: Array, v: Array, width: Array | float, path: Array | float, *, edge: float = 0.0) -> None:
        """Add bands about curves.

        Parameters
        ----------
        u, v
            ``(..., n)``, positions in mm; the last axis runs along each curve.
        width, path
            Of the band, and the path inside it, both mm.
        edge
            More path at both margins, mm.
        """
        du, dv = np.gradient(u, axis=-1), np.gradient(v, axis=-1)
        length = np.hypot(du, dv) + 1e-6
        normal = (-dv / length, du / length)
        sigma = SIGMAS[1]
        count = int(np.ceil(np.max(width) / 2.0))
        gap = width / count
        for k in range(count):
            offset: Array | float = (k - (count - 1) / 2) * gap
            peak = path * gap / (np.sqrt(2 * np.pi) * sigma)
            self.curve(u + offset * normal[0], v + offset * normal[1], peak, sigma)
        if edge:
            for sign in (-0.5, 0.5):
                offset = sign * width
                self.curve(u + offset * normal[0], v + offset * normal[1], edge, SIGMAS[0])

    def render(self) -> Array:
        """Return the sum of all strokes, ``(rows, columns)`` mm of path."""
        total = np.zeros(self._shape, np.float32)
        for sigma, pieces in self._points.items():
            if not pieces:
                continue
            u, v, weight = (np.concatenate(part) for part in zip(*pieces, strict=True))
            layer = self._splat(u, v, weight)
            # bilinear splatting blurs by about 0.4 pixels already
            blur = np.sqrt(max((sigma / self._spacing) ** 2 - 0.16, 0.0))
            total += gaussian_filter(layer, blur, truncate=3.0) if blur > 0.2 else layer
        return total

    def _splat(self, u: Array, v: Array, weight: Array) -> Array:
        """Distribute points over their four neighbours."""
        rows, columns = self._shape
        y, x = self._to_pixel(u, v)
        keep = (y >= 0) & (y < rows - 1) & (x >= 0) & (x < columns - 1)
        y, x, weight = y[keep], x[keep], weight[keep] / np.float32(self._spacing**2)
        top, left = y.astype(np.int64), x.astype(np.int64)
        fy, fx = y - top, x - left
        index = top * columns + left
        out = np.zeros(rows * columns, np.float64)
        for step, share in (
            (0, (1 - fy) * (1 - fx)),
            (1, (1 - fy) * fx),
            (columns, fy * (1 - fx)),
            (columns + 1, fy * fx),
        ):
            out += np.bincount(index + step, share * weight, rows * columns)
        return out.reshape(rows, columns).astype(np.float32)
