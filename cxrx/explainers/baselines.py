"""Pictures without evidence: what perturbations put in the place of pixels, and where paths to a picture begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cxrx.explainers.filters import gaussian_blur

if TYPE_CHECKING:
    from cxrx.explainers.option_types import Baseline
    from cxrx.models.model import Model


def make_baseline(model: Model, x: torch.Tensor, kind: Baseline) -> torch.Tensor:
    """Return the baseline ``(B, C, H, W)`` of the prepared pictures `x`.

    ``black`` and ``white`` in pixels; ``mean``: each picture's mean grey; ``blur``: each picture blurred with a
    Gaussian of 20 px at 224 px, with zeros around it.
    """
    if kind == "mean":
        return x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    if kind == "blur":
        return gaussian_blur(x, 20 * min(x.shape[2:]) / 224)
    grey = torch.full((x.shape[0], *x.shape[2:]), 1.0 if kind == "white" else 0.0)
    return model.prepare(grey).to(x)
