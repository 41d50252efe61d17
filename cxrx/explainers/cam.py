"""The CAM family: one forward for all findings, gradients from the head down to one layer only.

Maps are signed, before any ReLU, on the grid of that layer. A, G below are activations and gradients
``(B, C, h, w)`` of one finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from cxrx.errors import UsageError
from cxrx.explainers.fit import leads_back, no_gradient
from cxrx.explainers.gradient import column_gradients
from cxrx.explainers.option_types import GradCamPlusOptions
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from torch import nn

    from cxrx.explainers.option_types import CamOptions
    from cxrx.models.model import Model

Weigh = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # A, G -> (B, C, h, w) or (B, C, 1, 1)


def build_cam(name: str, options: CamOptions) -> Explainer:
    """Return the CAM method called `name`."""
    weigh = _gradcampp(options) if isinstance(options, GradCamPlusOptions) else _WEIGH[name]
    combine = principal_component if options.eigen_smooth else _sum_of_channels

    def one_pass(model: Model, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        layer = model.cam_layer(options.layer)
        size = (x.shape[2], x.shape[3])
        with capture(layer.module, layer.name) as captured:
            logits = model.forward(x.clone())  # a network may begin in place
        activation = captured.read(logits)  # graph from here to the logits
        grid = layer.to_grid(activation.detach(), size).float()  # (B, C, h, w)
        values = grid.new_zeros(*targets.shape, *grid.shape[2:])  # (B, T, h, w)
        for t, gradient in column_gradients(logits, targets, activation):
            values[:, t] = combine(weigh(grid, layer.to_grid(gradient, size).float()), grid)
        return values

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        if not options.aug_smooth:
            return Maps(one_pass(model, x, targets))
        passes = [one_pass(model, factor * x, targets) for factor in _FACTORS]
        passes += [one_pass(model, factor * x.flip(3), targets).flip(3) for factor in _FACTORS]
        return Maps(torch.stack(passes).mean(dim=0))

    return explain


class Captured:
    """The output of a layer, as the root of the graph that leads from it to the logits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.output: torch.Tensor | None = None

    def hook(self, _module: nn.Module, _inputs: Any, output: Any) -> torch.Tensor:
        """Replace the layer's output; the last call counts where a layer is called several times."""
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            kind = str(output.dtype) if isinstance(output, torch.Tensor) else type(output).__name__
            raise UsageError(f"layer {self.name!r} returns {kind}, not a tensor that a CAM can read")
        # A new leaf: with frozen parameters nothing below needs a graph. The clone makes in-place operations on it
        # legal, and since autograd reads the newest version of a tensor, an in-place ReLU that follows the layer (as
        # in torchvision's DenseNet) is part of what is captured, on every device alike.
        self.output = output.detach().requires_grad_().clone()
        return self.output

    def reached(self) -> torch.Tensor:
        """Return the captured output; UsageError where the layer was not reached."""
        if self.output is None:
            raise UsageError(f"layer {self.name!r} is not reached when the network runs, so a CAM cannot read it")
        return self.output

    def read(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the captured output; UsageError where it was not reached or the logits do not depend on it."""
        output = self.reached()
        if not leads_back(logits):
            raise no_gradient(
                f"no gradient reaches layer {self.name!r}: the network detaches or rounds something above it"
            )
        return output


@contextmanager
def capture(module: nn.Module, name: str) -> Iterator[Captured]:
    """Capture the output of `module` in the forward pass inside the block."""
    captured = Captured(name)
    handle = module.register_forward_hook(captured.hook)
    try:
        yield captured
    finally:
        handle.remove()


_FACTORS = (0.9, 1.0, 1.1)
"""Of the prepared tensor, in the six versions of ``aug_smooth``; the same as pytorch-grad-cam's."""


# ---------------------------------------------------------------------------------------------------------------------
# Weights of the activations, (B, C, h, w) or one for a channel, (B, C, 1, 1)


def _gradcam(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Selvaraju et al. 2017, equation 1."""
    return g.mean(dim=(2, 3), keepdim=True)


def _hirescam(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Draelos and Carin 2020, equation 4."""
    return g


def _layercam(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Jiang et al. 2021, equation 5."""
    return g.clamp(min=0)


def _xgradcam(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Fu et al. 2020, equation 8; a channel that sums to nothing has no share to weigh by."""
    total = a.sum(dim=(2, 3), keepdim=True)
    return (g * a).sum(dim=(2, 3), keepdim=True) / (total + 1e-7)


def _gradcampp(options: GradCamPlusOptions) -> Weigh:
    """Chattopadhay et al. 2018, equations 10 and 19: a score through exp, whose higher derivatives are powers of G."""

    def weigh(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        alpha = g**2 / (2 * g**2 + a.sum(dim=(2, 3), keepdim=True) * g**3 + options.eps)
        return (g.clamp(min=0) * alpha).sum(dim=(2, 3), keepdim=True)

    return weigh


_WEIGH: dict[str, Weigh] = {
    "gradcam": _gradcam,
    "hirescam": _hirescam,
    "layercam": _layercam,
    "xgradcam": _xgradcam,
}

# ---------------------------------------------------------------------------------------------------------------------
# From weights and activations to a map (B, h, w)


def _sum_of_channels(weight: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    if weight.shape[2:] == (1, 1):
        return torch.einsum("bc,bchw->bhw", weight[:, :, 0, 0], a)
    return (weight * a).sum(dim=1)


def principal_component(weight: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Project the weighted activations of every cell on their first principal component, ``(B, h, w)``.

    The component of C channels is found among the h·w cells, whose matrix of products is the smaller one. Its sign,
    which a decomposition leaves open, is that with which the map agrees with the plain sum over channels.
    """
    weighted = (weight * a).flatten(2)  # (B, C, n)
    centred = weighted - weighted.mean(dim=2, keepdim=True)
    _, vectors = torch.linalg.eigh(centred.transpose(1, 2) @ centred)  # (B, n, n), eigenvalues ascending
    first = vectors[:, :, -1]  # (B, n), of length one
    direction = (centred @ first[:, :, None])[:, :, 0]  # (B, C): the component times its singular value
    length = direction.norm(dim=1, keepdim=True)
    projection = length * first
    agreement = (projection * centred.sum(dim=1)).sum(dim=1, keepdim=True)
    signed = torch.where(agreement < 0, -projection, projection)
    return signed.view(len(a), *a.shape[2:])
