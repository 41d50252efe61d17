"""The mask generator of extremal perturbations: a smooth maximum over a coarse grid of parameters.

Fong et al. 2019, section 3.3: with p the parameters on a grid of step s, w the weight of a cell at distance d from a
pixel, and v = w·p for the cells around it,

    m = Σ v·exp(c·v) / Σ exp(c·v),   w(d) = exp(-2·max(d/σ - 0.5, 0)²),   c = 20,   σ = 3·s.

Both sums are convolutions of p with a kernel that depends non-linearly on p, because exp(c·w·p) is no product. A
Gaussian quadrature makes it a short sum of products, all of them positive, so that nothing cancels:

    exp(c·w·p) = √(2c/π) ∫ A(w, t)·A(p, t) dt,   A(u, t) = exp(c·u²/2 - c·(u - t)²),

and the trapezoidal rule with 16 nodes t holds it to 1e-6 of its value for all w and p in [0, 1]. The weights repeat
from cell to cell, so the s² pixels of a cell are channels: each sum is one small convolution on the coarse grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

COLDNESS = 20.0
RADIUS = 4
"""Cells on each side of a pixel's own that enter its maximum: 1 + ceil(σ/s)."""
MARGIN = 3
"""Cells between the picture and the edge of the padded canvas: σ/s."""
_NODES = 16
_NODE_STEP = 0.129
_NODE_SHIFT = -0.5 * (_NODE_STEP * (_NODES - 1) - 1)  # the nodes reach equally far beyond 0 and 1


@dataclass(frozen=True)
class MaskGenerator:
    """Masks for pictures of one size, made on a canvas that is wider than the picture by σ on every side.

    Attributes
    ----------
    size
        ``(H, W)`` of the picture.
    """

    size: tuple[int, int]

    @property
    def step(self) -> int:
        """Pixels between cells: 7 for 224 px, in proportion for other sizes."""
        return max(1, round(7 * min(self.size) / 224))

    @property
    def grid(self) -> tuple[int, int]:
        """Cells of the parameters, ``(h, w)``."""
        return math.ceil(self.size[0] / self.step), math.ceil(self.size[1] / self.step)

    @property
    def canvas(self) -> tuple[int, int]:
        """Size of the canvas in pixels."""
        h, w = self.grid
        return self.step * (h + 2 * MARGIN - 1) + 1, self.step * (w + 2 * MARGIN - 1) + 1

    def kernels(self, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Return the kernels of the denominator and the numerator, ``(2, s², nodes, 9, 9)``."""
        weight = self.weights()[:, None].double()  # (s², 1, 9, 9)
        nodes = _nodes()[None, :, None, None]
        factor = math.sqrt(2 * COLDNESS / math.pi) * _NODE_STEP
        kernel = factor * torch.exp(COLDNESS * (weight**2 / 2 - (weight - nodes) ** 2))
        return torch.stack([kernel, weight * kernel]).to(device, dtype)

    def weights(self) -> torch.Tensor:
        """Return the weight of each of the 9 x 9 cells for each of the s² pixels of a cell, ``(s², 9, 9)`` float64."""
        pixel = torch.arange(self.step, dtype=torch.float64)
        cell = self.step * torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
        square = (pixel[:, None] - cell[None, :]) ** 2  # (s, 9)
        distance = (square[:, None, :, None] + square[None, :, None, :]).sqrt()  # (s, s, 9, 9)
        sigma = MARGIN * self.step
        return torch.exp(-2 * (distance / sigma - 0.5).clamp(min=0) ** 2).flatten(0, 1)

    def __call__(self, parameters: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        """Return the masks ``(R, *canvas)`` in [0, 1] of `parameters` ``(R, h, w)`` in [0, 1].

        Parameters
        ----------
        kernels
            What `kernels` returned.
        """
        p = functional.pad(parameters, (RADIUS + MARGIN,) * 4)[:, None]  # cells outside are 0
        nodes = _nodes().to(p)[None, :, None, None]
        factor = torch.exp(COLDNESS * (p**2 / 2 - (p - nodes) ** 2))  # (R, nodes, h + 14, w + 14)
        denominator = functional.conv2d(factor, kernels[0])  # (R, s², h + 6, w + 6)
        numerator = functional.conv2d(p * factor, kernels[1])
        mask = functional.pixel_shuffle(numerator / denominator, self.step)[:, 0]
        height, width = self.canvas
        return mask[:, :height, :width].clamp(0, 1)

    def visible(self, mask: torch.Tensor) -> torch.Tensor:
        """Return the part of the masks ``(R, *canvas)`` that covers the picture, ``(R, H, W)``."""
        margin = MARGIN * self.step
        return mask[:, margin : margin + self.size[0], margin : margin + self.size[1]]


def _nodes() -> torch.Tensor:
    return _NODE_SHIFT + _NODE_STEP * torch.arange(_NODES, dtype=torch.float64)


def area_penalty(mask: torch.Tensor, kept: torch.Tensor, most: int) -> torch.Tensor:
    """Return mean((sort(m) - r)²) ``(R,)`` of masks ``(R, N)``, r being 1 for the greatest values and 0 for the rest.

    Written without the sort: mean(m²) + 1/N Σ (1 - 2m) over the greatest values. Values equal to the least of these
    share its place among them, so that the gradient prefers none of several equal pixels; a sort would prefer them by
    position, and at the start most are equal.

    Parameters
    ----------
    kept
        ``(R,)`` int64, how many of the N pixels r counts as 1, at least one.
    most
        No entry of `kept` is greater.
    """
    with torch.no_grad():
        greatest = mask.topk(most, dim=1).values
        least = greatest.gather(1, kept[:, None] - 1)
        above, equal = mask > least, mask == least
        left = kept[:, None] - above.sum(dim=1, keepdim=True)
        share = above + equal * (left.to(mask.dtype) / equal.sum(dim=1, keepdim=True))
    return (mask**2 + share * (1 - 2 * mask)).mean(dim=1)
