"""Learning rate as a function of the step, and the one thing about it that has a memory: the plateau."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from cxrx.errors import UsageError
from cxrx.training.recipes import Recipe


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
    """Lowers the rate once more than `patience` epochs have passed without a better score.

    Torch's ``ReduceLROnPlateau`` changes the rates of the optimiser, which the schedule sets anew at every step.
    """

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


def schedule_of(recipe: Recipe, steps: int) -> Schedule:
    """Return the learning rate of a recipe over epochs of `steps` steps."""
    kind: Literal["cosine", "constant"] = "cosine" if recipe.schedule == "cosine" else "constant"
    lowest = min(recipe.min_lr, recipe.peak_lr)
    return Schedule(kind, recipe.peak_lr, lowest, round(recipe.warmup * steps), recipe.epochs * steps)


def make_scheduler(optimiser: torch.optim.Optimizer, schedule: Schedule, scale: float, first: int) -> LambdaLR:
    """Set the learning rate of step `first`; each ``step()`` of what is returned sets that of the next one.

    The closed form as a ``LambdaLR``: the chained forms of torch (``LinearLR``, ``CosineAnnealingLR``) get each rate by
    multiplying the one before, so a resumed training would not have the same bits.

    Parameters
    ----------
    optimiser
        Each of its groups gets its share ``lr_scale`` of the rate.
    scale
        Of the plateau, for all steps to come.
    first
        Steps of the epochs before.
    """
    for group in optimiser.param_groups:
        group["initial_lr"] = group.get("lr_scale", 1.0)  # what LambdaLR multiplies
    return LambdaLR(optimiser, lambda step: schedule.at(step) * scale, last_epoch=first - 1)


def make_optimiser(
    recipe: Recipe, groups: Iterable[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe; its learning rate is set before every step."""
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, lr=0.0, betas=betas)


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
    """Return the groups that learn, each with its weight decay and its share ``lr_scale`` of the learning rate.

    With layer decay ``d`` the share of layer ``i`` of ``0 ... L`` (stem 0, head ``L``) is ``d ** (L - i)`` (Clark et
    al., ELECTRA, ICLR 2020, section 3.5; Bao et al., BEiT, ICLR 2022). Norms, biases and what the network exempts
    (positions) do not decay.
    """
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay  # type: ignore[attr-defined]  # public

    exempt = set(getattr(network, "no_weight_decay", tuple)())
    groups: list[dict[str, Any]]
    if layer_decay < 1:
        layers_of(network, coarse=False)  # where timm would guess, this refuses
        groups = param_groups_layer_decay(network, weight_decay, exempt, layer_decay=layer_decay)
        return groups
    groups = param_groups_weight_decay(network, 1.0, no_weight_decay_list=exempt)
    # in the network's order: gradients are clipped by a sum over all groups, whose last bit hangs on their order
    place = {parameter: i for i, parameter in enumerate(network.parameters())}
    groups.sort(key=lambda group: place[group["params"][0]])
    return [group | {"weight_decay": weight_decay * group["weight_decay"]} for group in groups]


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
