"""The rarer CAM methods: Eigen-CAM and Ablation-CAM through pytorch-grad-cam, Score-CAM and FullGrad.

The library is asked for its parts (the projection; the sweep over channels), not for its picture: maps here are signed
where the method is, before any ReLU, min-max or upsampling, and come for all findings from one sweep. A below is the
activation ``(B, C, h, w)`` of the CAM layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cxrx.errors import UsageError
from cxrx.explainers.cam import capture
from cxrx.explainers.gradient import input_gradients
from cxrx.explainers.steps import told, told_pictures
from cxrx.explainers.targets import EMPTY
from cxrx.models.inference import pad_batch
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxrx.explainers.option_types import ChannelSweepOptions, LayerOptions, NoOptions, ScoreCamOptions
    from cxrx.models.layers import CamLayer
    from cxrx.models.model import Model

Weigh = Callable[["Model", "CamLayer", torch.Tensor, torch.Tensor, int], torch.Tensor]
"""``weigh(model, layer, picture (1, C', H, W), A (1, C, h, w), batch)`` returns weights ``(C, K)``."""


def build_rarer_cam(name: str, options: Any) -> Explainer:
    """Return the method called `name`: eigencam, scorecam, ablationcam or fullgrad."""
    return _BUILD[name](options)


def _eigencam(options: LayerOptions) -> Explainer:
    """Eigen-CAM (Muhammad and Yeasin 2020): A projected on its first principal component; the same for every finding.

    The library centres A over the cells first. A singular vector has no sign of its own; here it is the one with which
    the map agrees (has a covariance of at least 0) with what the layer is excited by, sum_c max(A_c, 0).
    """
    from pytorch_grad_cam import EigenCAM

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        layer = model.cam_layer(options.layer)
        grid = _activation(model, layer, x)
        cam = EigenCAM(_Recorder(model, len(x)), [])
        pictures = cam.get_cam_image(x, layer.module, [], grid.double().cpu().numpy(), None, False)
        projection = torch.from_numpy(pictures).to(grid)  # (B, h, w), its mean is 0
        agreement = (projection * grid.clamp(min=0).sum(dim=1)).sum(dim=(1, 2), keepdim=True)
        signed = torch.where(agreement < 0, -projection, projection)
        return Maps((targets != EMPTY)[:, :, None, None] * signed[:, None])

    return explain


# ---------------------------------------------------------------------------------------------------------------------
# Sweeps over the channels of a layer


def _swept(weigh: Weigh, options: ChannelSweepOptions) -> Explainer:
    """Return the explainer of maps sum_c w_c A_c. A picture is swept once, alone, for all of its findings."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        layer = model.cam_layer(options.layer)
        grid = _activation(model, layer, x)
        values = grid.new_zeros(*targets.shape, *grid.shape[2:])  # (B, T, h, w)
        for b in told_pictures(targets):
            weights = weigh(model, layer, x[b : b + 1], grid[b : b + 1], options.batch)  # (C, K)
            maps = torch.einsum("ck,chw->khw", weights, grid[b])
            values[b] = maps[targets[b].clamp(min=0)]
        return Maps(values * (targets != EMPTY)[:, :, None, None])

    return explain


def _scorecam(options: ScoreCamOptions) -> Explainer:
    """Score-CAM (Wang et al. 2020): w = softmax over c of z(x ⊙ s(A_c)).

    s upsamples a channel and brings it to [0, 1]. What it hides is 0 in the prepared picture, a mean grey.
    """

    def weigh(model: Model, _layer: CamLayer, picture: torch.Tensor, a: torch.Tensor, batch: int) -> torch.Tensor:
        recorder = _Recorder(model, batch)
        with torch.no_grad():
            parts = a[0, :, None].split(batch)  # type: ignore[no-untyped-call] # (n, 1, h, w)
            for part in told(parts, len(parts)):
                size = picture.shape[2:]
                seen = functional.interpolate(part, size, mode="bilinear", align_corners=options.align_corners)
                seen = seen - seen.amin(dim=(2, 3), keepdim=True)
                # 1e-8 as in pytorch-grad-cam
                recorder(picture * (seen / (seen.amax(dim=(2, 3), keepdim=True) + 1e-8)))
        return torch.cat(recorder.logits).softmax(dim=0)

    return _swept(weigh, options)


_SMALLEST_SCORE = 1e-6


def _ablationcam(options: ChannelSweepOptions) -> Explainer:
    """Ablation-CAM (Desai and Ramaswamy 2020): w_c = (z - z_c) / |z|, where z_c is the logit with A_c = 0.

    Published is a division by z, with which a negative logit turns the map round; |z| counts as 1e-6 at least.
    """
    from pytorch_grad_cam import AblationCAM, ablation_cam
    from pytorch_grad_cam.utils.find_layers import replace_layer_recursive

    def weigh(model: Model, layer: CamLayer, picture: torch.Tensor, a: torch.Tensor, batch: int) -> torch.Tensor:
        recorder = _Recorder(model, batch)
        ablation = _WithoutChannel(layer)
        cam = AblationCAM(recorder, [], ablation_layer=ablation, batch_size=batch)
        try:
            with _without_bars(ablation_cam):
                cam.get_cam_weights(picture, layer.module, [_one], a.cpu().numpy(), None)
        finally:
            replace_layer_recursive(recorder, ablation, layer.module)  # an exception leaves ours in the network
        ablation.check_used()
        whole, *parts = recorder.logits  # (1, K), then (batch, K) each
        return (whole - torch.cat(parts)) / whole.abs().clamp(min=_SMALLEST_SCORE)

    return _swept(weigh, options)


def _activation(model: Model, layer: CamLayer, x: torch.Tensor) -> torch.Tensor:
    """Return A, float32, of the pictures `x`."""
    with torch.no_grad(), capture(layer.module, layer.name) as captured:
        model.forward(x.clone())  # a network may begin in place
    return layer.to_grid(captured.reached().detach(), (x.shape[2], x.shape[3])).float()


def _one(output: torch.Tensor) -> torch.Tensor:
    """Stand for the target: the library makes weights of one number a picture, ours come from the recorded logits."""
    return output.new_ones(())


class _Recorder(nn.Module):
    """The model as the library sees it, prepared pictures to logits; it keeps the logits of all findings.

    Every pass has `rows` rows, however many the library asks for; see `pad_batch`.
    """

    def __init__(self, model: Model, rows: int) -> None:
        super().__init__()
        self.network = model.module  # the library looks for layers and parameters here
        self.model = model
        self.rows = rows
        self.logits: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The library uses its batch again, and a network may begin in place: a clone.
        padded = pad_batch(x, self.rows).clone(memory_format=self.model.memory_format)
        logits = self.model.forward(padded)[: len(x)]
        self.logits.append(logits)
        return logits


class _WithoutChannel(nn.Module):
    """Stands in the network for the CAM layer: returns its output of one picture, in row i without channel i.

    Attributes and methods are those that pytorch-grad-cam calls. Its own layers put the minimum minus 1e7 where a
    channel has negative values; the paper, and this one, 0. Channels are where the layer has them: ``(B, C, h, w)``,
    ``(B, h, w, C)``, tokens ``(B, N, C)``.
    """

    def __init__(self, layer: CamLayer) -> None:
        super().__init__()
        self.layer = layer.name
        self.axis = {3: 2, 4: 3 if layer.channels_last else 1}  # of the channels, by the number of axes
        self.indices = np.arange(0)
        self.output = torch.empty(0)
        self.waiting = False

    def activations_to_be_ablated(self, activations: NDArray[np.float32], _ratio: float = 1.0) -> NDArray[np.int64]:
        """Return the channels of `activations` ``(C, h, w)`` to be taken out; the library cuts `indices` as it goes."""
        self.indices = np.arange(len(activations))
        return self.indices

    def set_next_batch(self, input_batch_index: int, activations: torch.Tensor, num_channels_to_ablate: int) -> None:
        """Prepare the output of the next pass from `activations`, what the layer returned for the padded batch."""
        self._check(not self.waiting)
        output = activations.clone()  # keeps the order of the axes in memory, so that kernels stay the same
        output.copy_(activations[input_batch_index : input_batch_index + 1].clone())
        rows = torch.arange(num_channels_to_ablate)
        channels = torch.from_numpy(self.indices[:num_channels_to_ablate])
        output.movedim(self.axis[output.ndim], 1)[rows, channels] = 0
        self.output, self.waiting = output, True

    def forward(self, *_inputs: Any, **_more: Any) -> torch.Tensor:
        self._check(self.waiting)
        self.waiting = False
        return self.output

    def check_used(self) -> None:
        """Raise UsageError unless every output prepared was fetched."""
        self._check(not self.waiting)

    def _check(self, once: bool) -> None:
        if not once:
            raise UsageError(
                f"layer {self.layer!r} does not run exactly once in a forward pass, "
                "so its channels cannot be taken out one at a time"
            )


@contextmanager
def _without_bars(library: ModuleType) -> Iterator[None]:
    """Let a module of the library loop without its progress bar, for which it has no switch."""
    bars = library.tqdm
    library.tqdm = SimpleNamespace(tqdm=iter)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        library.tqdm = bars  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------------------------
# FullGrad


def _fullgrad(_options: NoOptions) -> Explainer:
    """FullGrad (Srinivas and Fleuret 2019): ψ(x ⊙ ∂z/∂x) + sum over layers and their channels of ψ(b ⊙ ∂z/∂b).

    ψ takes magnitudes, brings them to [0, 1] and upsamples. As in pytorch-grad-cam this is done for every channel by
    itself, so that a channel counts as much as any other however small its bias or gradient; the paper's own code
    scales all channels of a layer together. The sum is left as it is, without a last min-max.

    The formula is the library's, not the code, which passes over subclasses of batch norm (timm's DenseNet has no
    others, and would lose all of its biases), pairs gradients with biases by the order of registration, and upsamples
    every channel before adding them up: forty thousand in a DenseNet, forty times the cost of the gradients.
    """

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        values = x.new_zeros(*targets.shape, *x.shape[2:])
        with _bias_parts(model.module, (x.shape[2], x.shape[3])) as parts:
            for t, gradient in input_gradients(model, x, targets):
                values[:, t] = sum(parts, start=_stretched_sum(x * gradient))
                parts.clear()
        return Maps(values)

    return explain


@contextmanager
def _bias_parts(network: nn.Module, size: tuple[int, int]) -> Iterator[list[torch.Tensor]]:
    """Collect, in every backward pass inside the block, each bias's part of the map, upsampled ``(B, H, W)``."""
    parts: list[torch.Tensor] = []

    def reduce(bias: torch.Tensor, gradient: torch.Tensor) -> None:
        # At once, when the gradient exists: those of all layers would fill the memory.
        total = _stretched_sum(bias.view(1, -1, 1, 1) * gradient.float())[:, None]  # (B, 1, h, w)
        parts.append(functional.interpolate(total, size, mode="bilinear", align_corners=False)[:, 0])

    def watch(bias: torch.Tensor, _module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            # A hook on the tensor sees the gradient of this value even where an in-place ReLU overwrites it next.
            output.register_hook(partial(reduce, bias))  # type: ignore[no-untyped-call]

    handles = [place.register_forward_hook(partial(watch, bias)) for place, bias in _biases(network)]
    try:
        yield parts
    finally:
        for handle in handles:
            handle.remove()


def _biases(network: nn.Module) -> Iterator[tuple[nn.Module, torch.Tensor]]:
    """Yield every bias ``(C,)`` of convolutions and batch norms, and the module whose output it was added to last."""
    from timm.layers.norm_act import BatchNormAct2d

    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.BatchNorm2d) or module.bias is None:
            continue
        bias = module.bias.detach().float()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            bias = bias - module.running_mean * module.weight.detach() * (module.running_var + module.eps).rsqrt()
        # timm's class holds its activation; `drop`, the identity, stands between the norm and the activation
        yield (module.drop if isinstance(module, BatchNormAct2d) else module), bias


def _stretched_sum(parts: torch.Tensor) -> torch.Tensor:
    """Bring the magnitudes of every channel of ``(B, C, h, w)`` to [0, 1] and add up the channels, ``(B, h, w)``."""
    size = parts.abs()
    size = size - size.amin(dim=(2, 3), keepdim=True)
    # 1e-7 as in the library: what is constant up to rounding stays near 0
    return (size / (1e-7 + size.amax(dim=(2, 3), keepdim=True))).sum(dim=1)


_BUILD: dict[str, Callable[[Any], Explainer]] = {
    "eigencam": _eigencam,
    "scorecam": _scorecam,
    "ablationcam": _ablationcam,
    "fullgrad": _fullgrad,
}
