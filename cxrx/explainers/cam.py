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
from cxrx.explainers.gradient import column_gradients
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from torch import nn

    from cxrx.explainers.specs import GradCamPlusOptions
    from cxrx.models.model import Model

Combine = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # A, G -> (B, h, w)


def build_cam(name: str, options: Any) -> Explainer:
    """Return the CAM method called `name`."""
    combine = _gradcampp(options) if name == "gradcam++" else _COMBINE[name]

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        layer = model.cam_layer()
        size = (x.shape[2], x.shape[3])
        with capture(layer.module, layer.name) as captured:
            logits = model.forward(x.clone())  # a network may begin in place
        activation = captured.read(logits)  # graph from here to the logits
        grid = layer.to_grid(activation.detach(), size).float()  # (B, C, h, w)
        values = grid.new_zeros(*targets.shape, *grid.shape[2:])  # (B, T, h, w)
        for t, gradient in column_gradients(logits, targets, activation):
            values[:, t] = combine(grid, layer.to_grid(gradient, size).float())
        return Maps(values)

    return explain


class Captured:
    """The output of a layer, as the root of the graph that leads from it to the logits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.output: torch.Tensor | None = None

    def hook(self, _module: nn.Module, _inputs: Any, output: Any) -> torch.Tensor:
        """Replace the layer's output; the last call counts where a layer is called several times."""
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            raise UsageError(f"layer {self.name!r} returns {type(output).__name__}, not a tensor that a CAM can read")
        # A new leaf: with frozen parameters nothing below needs a graph. The clone makes in-place operations on it
        # legal, and since autograd reads the newest version of a tensor, an in-place ReLU that follows the layer (as
        # in torchvision's DenseNet) is part of what is captured, on every device alike.
        self.output = output.detach().requires_grad_().clone()
        return self.output

    def read(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the captured output; UsageError where the layer was not reached or the logits do not depend on it."""
        if self.output is None:
            raise UsageError(f"layer {self.name!r} is not reached when the network runs, so a CAM cannot read it")
        if not logits.requires_grad:
            raise UsageError(
                f"no gradient reaches layer {self.name!r}: the network detaches its output somewhere above"
            )
        return self.output


@contextmanager
def capture(module: nn.Module, name: str) -> Iterator[Captured]:
    """Capture the output of `module` in the forward pass inside the block."""
    captured = Captured(name)
    handle = module.register_forward_hook(captured.hook)
    try:
        yield captured
    finally:
        handle.remove()


def _gradcam(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Selvaraju et al. 2017, equations 1 and 2 without the ReLU."""
    return torch.einsum("bc,bchw->bhw", g.mean(dim=(2, 3)), a)


def _hirescam(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Draelos and Carin 2020, equation 4."""
    return (g * a).sum(dim=1)


def _layercam(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Jiang et al. 2021, equations 5 to 7 without the last ReLU."""
    return (g.clamp(min=0) * a).sum(dim=1)


def _xgradcam(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Fu et al. 2020, equation 8; a channel that sums to nothing has no share to weigh by."""
    total = a.sum(dim=(2, 3))
    weight = (g * a).sum(dim=(2, 3)) / (total + 1e-7)
    return torch.einsum("bc,bchw->bhw", weight, a)


def _gradcampp(options: GradCamPlusOptions) -> Combine:
    """Chattopadhay et al. 2018, equations 10 and 19: a score through exp, whose higher derivatives are powers of G."""

    def combine(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        alpha = g**2 / (2 * g**2 + a.sum(dim=(2, 3), keepdim=True) * g**3 + options.eps)
        weight = (g.clamp(min=0) * alpha).sum(dim=(2, 3))
        return torch.einsum("bc,bchw->bhw", weight, a)

    return combine


_COMBINE: dict[str, Combine] = {
    "gradcam": _gradcam,
    "hirescam": _hirescam,
    "layercam": _layercam,
    "xgradcam": _xgradcam,
}
