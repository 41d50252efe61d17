"""Find the layer that CAM methods read, and turn its output into a picture-shaped grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cxrx.errors import UsageError


@dataclass(frozen=True)
class CamLayer:
    """The layer whose output CAM methods weigh.

    Attributes
    ----------
    module
        Its output is the activation.
    name
        Dotted name inside the network.
    to_grid
        ``to_grid(output, (H, W)) -> (B, C, h, w)``: drops prefix tokens and restores the grid of patches.
    """

    module: nn.Module
    name: str
    to_grid: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]


def find_cam_layer(network: nn.Module, name: str | None, input_shape: tuple[int, int, int]) -> CamLayer:
    """Return the CAM layer of `network`: the one named, else by architecture, else the last one with a spatial output.

    Parameters
    ----------
    network
        In eval mode.
    name
        Dotted module name, or None to find it.
    input_shape
        ``(C, H, W)`` of one prepared input; used for one dry forward where the architecture is unknown.

    Raises
    ------
    UsageError
        No such layer, or none with a spatial output.
    """
    found = name if name is not None else _by_architecture(network) or _last_spatial(network, input_shape)
    if found is None:
        raise UsageError(
            "this network has no layer with a spatial output, so CAM methods cannot read it",
            hint="name one with cam_layer=... (API) or --cam-layer (command line)",
        )
    try:
        module = network.get_submodule(found)
    except AttributeError as error:
        raise UsageError(f"the network has no layer named {found!r}") from error
    return CamLayer(module, found, _grid_reader(network))


def _by_architecture(network: nn.Module) -> str | None:
    """Name the published CAM layer of the families whose last spatial layer is not the right one."""
    blocks = getattr(network, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and hasattr(network, "num_prefix_tokens"):
        # Behind the last attention the patches of a token-pooled ViT have a gradient of exactly zero: only the class
        # token is read there. norm1 of the last block is the last place where patches still matter.
        last = f"blocks.{len(blocks) - 1}"
        return f"{last}.norm1" if getattr(network, "global_pool", "token") == "token" else last
    if isinstance(blocks, nn.Sequential) and hasattr(network, "stem") and hasattr(network, "norm"):
        return "norm"  # MLP-Mixer: norm, mean over patches, linear head: a CAM there is exact
    if hasattr(getattr(network, "features", None), "norm5"):
        return "features.norm5"  # DenseNet
    return None


_POOLS = (
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
)


def _last_spatial(network: nn.Module, input_shape: tuple[int, int, int]) -> str | None:
    """Name the last leaf module, in the order of execution, whose output is (1, C, h, w) with more than one cell."""
    seen: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                seen.append(name)

        return hook

    leaves = [(name, m) for name, m in network.named_modules() if name and not any(m.children())]
    handles = [m.register_forward_hook(watch(name)) for name, m in leaves if not isinstance(m, _POOLS)]
    parameter = next(network.parameters(), torch.zeros(()))
    try:
        with torch.inference_mode():
            network(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return seen[-1] if seen else None


def _grid_reader(network: nn.Module) -> Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]:
    def to_grid(output: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if output.ndim == 4:
            return output  # (B, C, h, w)
        prefix = int(getattr(network, "num_prefix_tokens", 0))
        tokens = output[:, prefix:]  # (B, N, C)
        h, w = token_grid(network, size, tokens.shape[1])
        return tokens.transpose(1, 2).reshape(output.shape[0], -1, h, w)

    return to_grid


def token_grid(network: nn.Module, size: tuple[int, int], count: int) -> tuple[int, int]:
    """Return the grid ``(h, w)`` of `count` patch tokens for an input of `size` ``(H, W)``.

    Raises
    ------
    UsageError
        The network does not tell its grid and none follows from the patch size.
    """
    embed = getattr(network, "patch_embed", None) or getattr(network, "stem", None)
    if embed is not None and hasattr(embed, "dynamic_feat_size"):
        h, w = embed.dynamic_feat_size(size)
        if h * w == count:
            return int(h), int(w)
    raise UsageError(f"cannot tell the patch grid of this network ({count} tokens for an input of {size[0]}x{size[1]})")
