"""Controls: maps that never look at the model. An explainer that does not beat them explains nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from cxrx.explainers.seeds import derive_seed, generator
from cxrx.explainers.targets import EMPTY
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from cxrx.explainers.option_types import CentreOptions, NoOptions, RandomOptions
    from cxrx.models.model import Model


def build_random(options: RandomOptions) -> Explainer:
    """Return uniform noise in [0, 1) on a coarse grid, seeded by picture and finding."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        values = torch.zeros(*targets.shape, options.grid, options.grid)
        for b, seed in enumerate(seeds.tolist()):
            for t, target in enumerate(targets[b].tolist()):
                if target != EMPTY:
                    noise = generator(derive_seed(seed, target))
                    values[b, t] = torch.rand(options.grid, options.grid, generator=noise)
        return Maps(values)

    return explain


def build_edge(_options: NoOptions) -> Explainer:
    """Return the Sobel magnitude of the picture, the same for all findings."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        return Maps(edge_strength(x)[:, None].expand(-1, targets.shape[1], -1, -1))

    return explain


def edge_strength(x: torch.Tensor) -> torch.Tensor:
    """Return the Sobel magnitude ``(B, H, W)`` of pictures ``(B, C, H, W)``, their channels averaged."""
    grey = functional.pad(x.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    slope = x.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    gradient = functional.conv2d(grey, torch.stack([slope, slope.T])[:, None])  # (B, 2, H, W)
    strength: torch.Tensor = gradient.norm(dim=1)
    return strength


def build_centre(options: CentreOptions) -> Explainer:
    """Return a Gaussian at the middle of the picture, the same for all pictures and findings."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        rows, columns = (_bell(side, options.sigma) for side in x.shape[2:])
        return Maps((rows[:, None] * columns[None, :]).expand(*targets.shape, -1, -1))

    return explain


def _bell(side: int, sigma: float) -> torch.Tensor:
    """Return a Gaussian ``(side,)`` of `sigma` times the side, 1 in the middle."""
    position = (torch.arange(side) + 0.5) / side - 0.5
    return torch.exp(-0.5 * (position / sigma) ** 2)
