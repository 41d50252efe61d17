"""Forget what a network has learned, stage by stage, and remember it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Literal

import torch
from torch import nn

from cxrx.explainers.captum_methods import seeded
from cxrx.explainers.seeds import derive_seed
from cxrx.models.stages import Stage

_CONVOLUTION = nn.Conv1d | nn.Conv2d | nn.Conv3d


@contextmanager
def randomisation(network: nn.Module) -> Iterator[Callable[[Stage, int], None]]:
    """Yield ``randomise(stage, seed)``; at the end, also after an error, `network` is what it was, bit for bit.

    Stages add up: one after the other makes the cascade of Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS
    2018. What a layer draws depends on the seed and on the layer's name only.

    * Convolutions: normal, variance 2 / fan-in (He et al. 2015); linear layers: normal, variance 1 / fan-in; biases 0.
      PyTorch's own defaults shrink the signal at every layer and add biases: with normalisation at the identity the
      logits of a VGG-16, or of an EfficientNet, would then be the same for all films to 7 digits.
    * Another layer with ``reset_parameters`` is initialised anew by it; for normalisation that is the identity.
    * Running statistics become those of the identity, mean 0 and variance 1.
    * Parameters that none of this resets (``cls_token``, ``pos_embed``), that it leaves as they were, or that it
      would fill with one number although they are matrices (a head of zeros would make all logits constant) are drawn
      from the normal distribution with the mean and the standard deviation of the values they have.
    """
    tensors = [*network.parameters(), *network.buffers()]
    saved = [tensor.detach().clone() for tensor in tensors]

    def randomise(stage: Stage, seed: int) -> None:
        names = set(stage.parameters)
        for layer in stage.layers:
            own = [name for name, _ in network.get_submodule(layer).named_parameters(recurse=False)]
            wanted = [name for name in own if (f"{layer}.{name}" if layer else name) in names]
            _randomise_layer(network.get_submodule(layer), wanted, derive_seed(seed, layer))

    try:
        yield randomise
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, saved, strict=True):
                tensor.copy_(value)


def _randomise_layer(layer: nn.Module, names: list[str], seed: int) -> None:
    """Draw the parameters called `names` that `layer` owns itself, and set its running statistics to the identity."""
    with seeded(seed), torch.no_grad():
        fresh = _reset(layer)
        for name in names:
            parameter = layer.get_parameter(name)
            before = parameter.detach().to("cpu", torch.float32)
            drawn = fresh.get(name)
            if drawn is None or torch.equal(drawn.float(), before) or _is_blank(drawn):
                drawn = before.mean() + before.std(correction=0) * torch.randn(before.shape)
            parameter.copy_(drawn)
        buffers = dict(layer.named_buffers(recurse=False))
        if "running_mean" in buffers:
            # a frozen batch norm keeps its weight and bias in buffers too
            for name, value in (("running_mean", 0), ("bias", 0), ("running_var", 1), ("weight", 1)):
                if buffers.get(name) is not None:
                    buffers[name].fill_(value)


def _is_blank(drawn: torch.Tensor) -> bool:
    return drawn.ndim > 1 and bool((drawn == drawn.flatten()[0]).all())


def _reset(layer: nn.Module) -> dict[str, torch.Tensor]:
    """Return initial values of the layer's own parameters, on the CPU, as far as a scheme for the layer is known.

    ``reset_parameters`` works on copies, so that the same numbers are drawn on every device and that the layer keeps
    its own tensors even where the function puts new ones in their place.
    """
    parameters = dict(layer.named_parameters(recurse=False))
    if isinstance(layer, _CONVOLUTION | nn.Linear) and "weight" in parameters:
        fresh = {name: torch.zeros(parameter.shape) for name, parameter in parameters.items() if name == "bias"}
        kind: Literal["relu", "linear"] = "relu" if isinstance(layer, _CONVOLUTION) else "linear"
        weight = nn.init.kaiming_normal_(torch.empty(parameters["weight"].shape), nonlinearity=kind)
        return {**fresh, "weight": weight}
    reset = getattr(layer, "reset_parameters", None)
    if not callable(reset) or any(True for child in layer.children() for _ in child.parameters()):
        return {}  # with children it would reset those too
    buffers = dict(layer.named_buffers(recurse=False))
    try:
        for name, parameter in parameters.items():
            setattr(layer, name, nn.Parameter(parameter.detach().cpu().clone(), requires_grad=parameter.requires_grad))
        for name, buffer in buffers.items():
            setattr(layer, name, buffer.detach().cpu().clone())
        reset()
        return {name: parameter.detach() for name, parameter in layer.named_parameters(recurse=False)}
    finally:
        for name, tensor in chain(parameters.items(), buffers.items()):
            setattr(layer, name, tensor)
