"""Learning rate as a function of the step, and the one thing about it that has a memory: the plateau."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from cxrx.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a half cosine (Loshchilov and Hutter, SGDR, ICLR 2017, equation 5) or a constant.

    Attributes
    ----------
    warmup, total
        Steps. Step ``s`` of the warm-up has ``peak (s + 1) / warmup``, so that no step is lost on a rate of zero.
    """

    kind: Literal["cosine", "constant"]
    peak: float
    lowest: float
    warmup: int
    total: int

    def at(self, step: int) -> float:
        """Return the learning rate of `step`, from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.kind == "constant":
            return self.peak
        done = (step - self.warmup) / max(1, self.total - self.warmup)
        return self.lowest + (self.peak - self.lowest) * (1 + math.cos(math.pi * min(1.0, done))) / 2


@dataclass
class Plateau:
    """Lowers the rate once more than `patience` epochs have passed without a better score."""

    factor: float
    patience: int
    best: float = -math.inf
    since: int = 0
    scale: float = 1.0

    def update(self, score: float) -> None:
        """Take the score of an epoch; higher is better."""
        if score > self.best:
            self.best, self.since = score, 0
            return
        self.since += 1
        if self.since > self.patience:
            self.since = 0
            self.scale *= self.factor


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters its share of `rate`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


# ---------------------------------------------------------------------------------------------------------------------
# Parameters


def layers_of(network: nn.Module, *, coarse: bool) -> dict[str, int]:
    """Return the layer of every parameter: 0 the stem, then the blocks, last the head.

    Parameters
    ----------
    coarse
        Count stages of a convolutional network, not the blocks in them.

    Raises
    ------
    UsageError
        The network does not tell its layers, as those of timm do.
    """
    matcher: Any = getattr(network, "group_matcher", None)
    if matcher is None:
        raise UsageError("this network does not tell its layers", "use -O layer_decay=1 and -O frozen=0")
    from timm.models import group_parameters

    layer_of: dict[str, int] = group_parameters(network, matcher(coarse=coarse), reverse=True)
    return layer_of


def parameter_groups(network: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Return the groups that learn, each with its weight decay and its share of the learning rate.

    With layer decay ``d`` the share of layer ``i`` of ``0 ... L`` (stem 0, head ``L``) is ``d ** (L - i)`` (Clark et
    al., ELECTRA, ICLR 2020, section 3.5; Bao et al., BEiT, ICLR 2022). Norms, biases and what the network exempts
    (positions) do not decay.
    """
    layer_of = layers_of(network, coarse=False) if layer_decay < 1 else {}
    last = max(layer_of.values(), default=0)
    told: Any = getattr(network, "no_weight_decay", tuple)
    exempt = set(told())
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            layer, decays = layer_of.get(name, last), parameter.ndim > 1 and name not in exempt
            new = {
                "params": [],
                "lr_scale": layer_decay ** (last - layer),
                "weight_decay": weight_decay if decays else 0.0,
            }
            groups.setdefault((layer, decays), new)["params"].append(parameter)
    return list(groups.values())


def freeze(network: nn.Module, blocks: int) -> list[nn.Module]:
    """Keep the weights of the stem and of the first `blocks` blocks; return their norms that hold running statistics.

    These norms must stay in eval mode: their statistics would follow the new films while their weights do not.

    Raises
    ------
    UsageError
        The network does not tell its blocks, or has not so many.
    """
    if blocks == 0:
        return []
    layer_of = layers_of(network, coarse=True)
    most = max(layer_of.values()) - 1
    if blocks > most:
        raise UsageError(f"this network has {most} blocks, so {blocks} cannot be frozen", f"-O frozen={most}")
    for name, parameter in network.named_parameters():
        if layer_of.get(name, most + 1) <= blocks:
            parameter.requires_grad = False
    norms = (module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))  # noqa: SLF001 - the common base of all batch norms has no public name
    return [norm for norm in norms if norm.weight is not None and not norm.weight.requires_grad]


def set_drop_path(network: nn.Module, rate: float) -> bool:
    """Give residual blocks stochastic depth, rising linearly to `rate` (Huang et al., ECCV 2016); False: none can."""
    from timm.layers import DropPath  # type: ignore[attr-defined]  # public

    holders = [
        module
        for module in network.modules()
        if any(name.startswith("drop_path") for name, _ in module.named_children())
    ]
    for depth, module in enumerate(holders):
        for name, _ in list(module.named_children()):
            if name.startswith("drop_path"):
                share = rate * depth / max(1, len(holders) - 1)
                setattr(module, name, DropPath(share) if share else nn.Identity())
    return bool(holders)


def make_optimiser(
    kind: Literal["adamw", "adam", "sgd"],
    groups: Iterable[dict[str, Any]],
    momentum: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Return the optimiser; its learning rate is set before every step."""
    groups = list(groups)
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum)
    return (
        torch.optim.AdamW(groups, lr=0.0, betas=betas)
        if kind == "adamw"
        else torch.optim.Adam(groups, lr=0.0, betas=betas)
    )
