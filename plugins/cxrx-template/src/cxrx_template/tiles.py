"""A new explainer: how far each logit falls when a tile of the picture turns grey."""

from dataclasses import dataclass
from typing import Any

from cxrx import ExplainerSpec, Maps, hookimpl


@dataclass(frozen=True)
class TileOptions:
    """`tiles` along each side; set on the command line by ``-O tiles=12``."""

    tiles: int = 8


def build_tiles(options: TileOptions) -> Any:
    """Return an explainer whose maps hold how far the logit falls when a tile takes the picture's mean grey."""
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


@hookimpl
def register_explainers(register: Any) -> None:
    """Register the explainer: its name, its options, what it needs of a model (nothing here)."""
    summary = "fall of the logit under grey tiles"
    register(ExplainerSpec("tiles", build_tiles, TileOptions, needs=frozenset(), signed=True, summary=summary))
