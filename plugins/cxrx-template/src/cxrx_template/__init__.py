"""A plugin of cxrx to start from: one explainer and one model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cxrx import ExplainerSpec, InputSpec, Maps, ModelSpec, hookimpl


@dataclass(frozen=True)
class TileOptions:
    """`tiles` along each side; set on the command line by ``-O tiles=12``."""

    tiles: int = 8


def build_tiles(options: TileOptions) -> Any:
    """Return an explainer that tells how far each logit falls when a tile takes the picture's mean grey."""
    import torch  # heavy imports stand inside, so that listing plugins stays fast

    def explain(model: Any, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        n, (height, width) = options.tiles, x.shape[2:]
        down, across = (torch.arange(side, device=x.device) * n // side for side in (height, width))
        tile = down[:, None] * n + across  # (H, W): to which tile a pixel belongs
        grey = x.mean(dim=(2, 3), keepdim=True)
        wanted = targets.to(x.device).clamp(min=0)  # (B, T); -1 stands for no finding
        whole = model.logits(x).gather(1, wanted)
        falls = [whole - model.logits(torch.where(tile == k, grey, x)).gather(1, wanted) for k in range(n * n)]
        return Maps(torch.stack(falls, dim=-1).unflatten(-1, (n, n)))  # (B, T, n, n)

    return explain


def build_small(labels: Sequence[str]) -> Any:
    """Return an untrained network of three convolutions."""
    from torch import nn

    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(labels)))


@hookimpl
def register_explainers(register: Any) -> None:
    """Tell cxrx of the explainer: its name, its options, what it needs of a model (nothing here)."""
    say = "fall of the logit under grey tiles"
    register(ExplainerSpec("tiles", build_tiles, TileOptions, needs=frozenset(), signed=True, summary=say))


@hookimpl
def register_models(register: Any) -> None:
    """Tell cxrx of the model: its name, its findings, what it expects to see."""
    grey = InputSpec(size=(64, 64), channels=1, mean=(0.5,), std=(0.25,))
    register(ModelSpec("small", build_small, ("Effusion", "Nodule"), grey, summary="three convolutions, untrained"))
