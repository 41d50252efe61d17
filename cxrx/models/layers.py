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
            hint="name one with --layer NAME, or layer=NAME in Python",
        )
    try:
        module = network.get_submodule(found)
    except AttributeError as error:
        raise UsageError(f"the network has no layer named {found!r}") from error
    return CamLayer(module, found, _grid_reader(network))


def find_transformer(network: nn.Module) -> nn.Module | None:
    """Return the timm vision transformer that `network` is or holds (global attention, prefix tokens), or None."""
    for module in network.modules():
        if isinstance(getattr(module, "blocks", None), nn.Sequential | nn.ModuleList) and hasattr(
            module, "num_prefix_tokens"
        ):
            return module
    return None


def has_plain_blocks(transformer: nn.Module) -> bool:
    """Tell whether `transformer` is timm's, of plain pre-norm blocks, with a linear head on a token or the mean."""
    from timm.layers.attention import Attention
    from timm.layers.mlp import Mlp
    from timm.models.vision_transformer import Block, VisionTransformer

    if type(transformer) is not VisionTransformer or not isinstance(transformer.head, nn.Linear):
        return False
    blocks = list(transformer.blocks)
    return transformer.global_pool in ("token", "avg") and all(
        type(block) is Block
        and type(block.attn) is Attention
        and getattr(block.attn, "gate", None) is None
        and type(block.mlp) is Mlp
        # Subclasses (LoRA and the like) compute more than their weights tell.
        and all(type(layer) is nn.Linear for layer in block.modules() if isinstance(layer, nn.Linear))
        for block in blocks
    )


_MOSTLY = 0.5


def has_biased_convolutions(network: nn.Module) -> bool:
    """Tell whether most layers with weights are convolutions or batch norms, and at least two of them have biases."""
    layers = [module for module in network.modules() if isinstance(getattr(module, "weight", None), nn.Parameter)]
    convolutional = [module for module in layers if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    biased = [module for module in convolutional if module.bias is not None]
    return len(biased) > 1 and len(convolutional) > _MOSTLY * len(layers)


def _by_architecture(network: nn.Module) -> str | None:
    """Name the published CAM layer of the families whose last spatial layer is not the right one.

    The network may be wrapped in the user's own module, so all submodules are looked at.
    """
    for prefix, module in network.named_modules():
        found = _of_family(module)
        if found is not None:
            return f"{prefix}.{found}" if prefix else found
    return None


def _of_family(network: nn.Module) -> str | None:
    blocks, features = getattr(network, "blocks", None), getattr(network, "features", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and hasattr(network, "num_prefix_tokens"):
        # Behind the last attention the patches of a token-pooled ViT have a gradient of exactly zero: only the class
        # token is read there. norm1 of the last block is the last place where patches still matter.
        last = f"blocks.{len(blocks) - 1}"
        return f"{last}.norm1" if getattr(network, "global_pool", "token") == "token" else last
    if isinstance(blocks, nn.Sequential) and hasattr(network, "stem") and hasattr(network, "norm"):
        return "norm"  # MLP-Mixer: norm, mean over patches, linear head: a CAM there is exact
    if isinstance(getattr(features, "norm5", None), nn.Module):
        return "features.norm5"  # DenseNet
    if isinstance(features, nn.Sequential) and hasattr(network, "pre_logits"):
        # timm's VGG: its pre_logits are spatial too where the input is large
        return f"features.{max(i for i, module in enumerate(features) if not isinstance(module, _POOLS))}"
    return None


_POOLS = (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_TRANSPARENT = (nn.Dropout, nn.Dropout2d, nn.Identity)


def _last_spatial(network: nn.Module, input_shape: tuple[int, int, int]) -> str | None:
    """Name the module whose ``(1, C, h, w)`` output, of more than one cell, is the last before pooling.

    Modules are taken in the order in which they finish, blocks as well as layers: the last layer of a residual or
    branched block is not yet the block's output. None where the network goes on with tokens ``(1, N, C)`` instead.
    """
    ran: list[tuple[str, nn.Module, torch.Tensor]] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and not isinstance(module, _TRANSPARENT):
                ran.append((name, module, output))

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in network.named_modules() if name]
    parameter = next(network.parameters(), torch.zeros(()))
    try:
        with torch.inference_mode():
            network(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
    # a container that ends in a pool returns the pool's output, the same tensor
    pooled = {id(output) for _, module, output in ran if isinstance(module, _POOLS)}
    unpooled = [
        entry for entry in ran if id(entry[2]) not in pooled and entry[2].ndim in (3, 4) and _cells(entry[2]) > 1
    ]
    if not unpooled or unpooled[-1][2].ndim == 3:
        return None
    last = unpooled[-1][2]
    same = [(name, module) for name, module, output in unpooled if output is last]
    layers = [name for name, module in same if not any(module.children())]
    return layers[-1] if layers else same[0][0]


def _cells(output: torch.Tensor) -> int:
    return output.shape[1] if output.ndim == 3 else output.shape[2] * output.shape[3]


def _grid_reader(network: nn.Module) -> Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]:
    channels_last = any(getattr(module, "output_fmt", "") == "NHWC" for module in network.modules())  # timm's Swin
    owner = next((m for m in network.modules() if hasattr(_embedding(m), "dynamic_feat_size")), network)

    def to_grid(output: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if output.ndim == 4:
            return output.permute(0, 3, 1, 2) if channels_last else output  # (B, C, h, w)
        if output.ndim != 3:
            raise UsageError(f"a layer that returns {tuple(output.shape)} has no grid that a CAM could be read on")
        prefix = int(getattr(owner, "num_prefix_tokens", 0))
        tokens = output[:, prefix:]  # (B, N, C)
        h, w = token_grid(owner, size, tokens.shape[1])
        return tokens.transpose(1, 2).reshape(output.shape[0], -1, h, w)

    return to_grid


def _embedding(network: nn.Module) -> Any:
    return getattr(network, "patch_embed", None) or getattr(network, "stem", None)


def token_grid(network: nn.Module, size: tuple[int, int], count: int) -> tuple[int, int]:
    """Return the grid ``(h, w)`` of `count` patch tokens for an input of `size` ``(H, W)``.

    Raises
    ------
    UsageError
        The network does not tell its grid and none follows from the patch size.
    """
    embed = _embedding(network)
    if hasattr(embed, "dynamic_feat_size"):
        h, w = embed.dynamic_feat_size(size)
        if h * w == count:
            return int(h), int(w)
    raise UsageError(f"cannot tell the patch grid of this network ({count} tokens for an input of {size[0]}x{size[1]})")
