"""Find the layer that CAM methods read, and turn its output into a picture-shaped grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

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
    channels_last
        Whether its output is ``(B, h, w, C)``.
    """

    module: nn.Module
    name: str
    to_grid: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]
    channels_last: bool


NO_MAP = "this network has no layer with a spatial output, so CAM methods cannot read it"


def find_cam_layer(
    network: nn.Module, name: str | None, input_shape: tuple[int, int, int], dtype: torch.dtype = torch.float32
) -> CamLayer:
    """Return the CAM layer of `network`: the one named, else by architecture, else the last one with a spatial output.

    Parameters
    ----------
    network
        In eval mode.
    name
        Dotted module name, or None to find it.
    input_shape, dtype
        ``(C, H, W)`` of one prepared input, and its type; used for one dry forward.

    Raises
    ------
    UsageError
        No such layer, none with a spatial output, or one whose channels may stand first or last.
    """
    size = input_shape[1:]
    parameter = next(network.parameters(), torch.zeros(()))
    x = torch.zeros(1, *input_shape, device=parameter.device, dtype=dtype)
    found = name if name is not None else _by_architecture(network)
    ran = _dry_run(network, x, watchable(network)) if found is None else []
    found = found if found is not None else _last_spatial(ran, size)
    if found is None:
        raise UsageError(NO_MAP, hint="name one with --layer NAME, or layer=NAME in Python")
    try:
        module = network.get_submodule(found)
    except AttributeError as error:
        raise UsageError(f"the network has no layer named {found!r}") from error
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError(f"layer {found!r} is compiled by TorchScript, so what it puts out cannot be read")
    ran = ran or _dry_run(network, x, [(found, module)])
    output = next((output for _, other, output in reversed(ran) if other is module), None)
    if output is None and name is None:
        raise UsageError(NO_MAP)  # TNT's blocks return patches and their pixels
    channels_last = output is not None and output.ndim == 4 and _channels_last(network, found, output, x)
    to_grid = _grid_reader(network, channels_last=channels_last)
    if output is not None:
        to_grid(output, (size[0], size[1]))  # or it says why not
    return CamLayer(module, found, to_grid, channels_last)


def find_transformer(network: nn.Module) -> nn.Module | None:
    """Return the timm vision transformer that `network` is or holds (global attention, prefix tokens), or None."""
    for module in network.modules():
        if isinstance(getattr(module, "blocks", None), nn.Sequential | nn.ModuleList) and hasattr(
            module, "num_prefix_tokens"
        ):
            return module
    return None


def has_attention(transformer: nn.Module) -> bool:
    """Tell whether `transformer` attends once in every block and nowhere else.

    TNT attends to patches and to their pixels, CaiT and XCiT read the patches in blocks of the class token.
    """

    def count(module: nn.Module) -> int:
        return sum(hasattr(part, "attn_drop") for part in module.modules())

    blocks: Any = transformer.blocks
    return all(count(block) == 1 for block in blocks) and count(transformer) == len(blocks)


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
        if getattr(network, "global_pool", "token") == "token":
            # CaiT and XCiT join the class token to the patches in blocks of its own.
            late = next((name for name in _CLASS_BLOCKS if hasattr(network, name)), "blocks")
            last = f"{late}.{len(getattr(network, late)) - 1}.norm1"
        if last in dict(network.named_modules()):
            return last
        return f"blocks.{len(blocks) - 2}" if len(blocks) > 1 else None  # before the last, patches still matter
    if isinstance(blocks, nn.Sequential) and hasattr(network, "stem") and hasattr(network, "norm"):
        return "norm"  # MLP-Mixer: norm, mean over patches, linear head: a CAM there is exact
    if isinstance(getattr(features, "norm5", None), nn.Module):
        return "features.norm5"  # DenseNet
    if isinstance(features, nn.Sequential) and hasattr(network, "pre_logits"):
        # timm's VGG: its pre_logits are spatial too where the input is large
        return f"features.{max(i for i, module in enumerate(features) if not isinstance(module, _POOLS))}"
    return None


_CLASS_BLOCKS = ("blocks_token_only", "cls_attn_blocks")
_POOLS = (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_TRANSPARENT = (nn.Dropout, nn.Dropout2d, nn.Identity)

_Named = list[tuple[str, nn.Module]]
_Ran = list[tuple[str, nn.Module, torch.Tensor]]
"""Name, module and what stands for its output, in the order in which modules finish: blocks as well as layers."""


def watchable(network: nn.Module) -> _Named:
    """Return the modules inside `network` and their names; nothing inside TorchScript can be watched."""
    return [(n, m) for n, m in network.named_modules() if n and not isinstance(m, torch.jit.ScriptModule)]


@contextmanager
def watched(modules: _Named, hook: Callable[..., None], *, before: bool = False) -> Iterator[None]:
    """Call ``hook(name, module, inputs, output)`` after each run of the modules inside the block.

    Parameters
    ----------
    modules, hook
        By name; and what is called.
    before
        Call ``hook(name, module, inputs)`` before each run instead.
    """
    register = nn.Module.register_forward_pre_hook if before else nn.Module.register_forward_hook
    handles = [register(module, partial(hook, name)) for name, module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _dry_run(network: nn.Module, x: torch.Tensor, modules: _Named) -> _Ran:
    """Run the network once and return what `modules` put out: the shapes only, since all outputs would fill memory."""
    ran: _Ran = []
    stand_ins: Any = WeakTensorKeyDictionary()  # one for each output, whichever modules return it

    def keep(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            return
        if output not in stand_ins:
            kind = output.dtype if output.is_floating_point() else torch.bool
            stand_ins[output] = torch.empty(output.shape, dtype=kind, device="meta")
        ran.append((name, module, stand_ins[output]))

    with watched(modules, keep), torch.inference_mode(mode=False), torch.no_grad():
        network(x)
    return ran


def _last_spatial(ran: _Ran, size: tuple[int, ...]) -> str | None:
    """Name the module whose map, of more than one cell, is the last before pooling.

    The last layer of a residual or branched block is not yet the block's output. None where the network goes on with
    tokens ``(1, N, C)`` instead.
    """
    # a layer that runs several times is captured in its last
    ran = list({id(module): (name, module, output) for name, module, output in ran}.values())
    # a container that ends in a pool returns the pool's output, the same tensor
    pooled = {id(output) for _, module, output in ran if isinstance(module, _POOLS)}
    unpooled = [
        entry
        for entry in ran
        if not isinstance(entry[1], _TRANSPARENT) and id(entry[2]) not in pooled and _cells(entry[2], size) > 1
    ]
    if not unpooled or unpooled[-1][2].ndim == 3:
        return None
    last = unpooled[-1][2]
    same = [(name, module) for name, module, output in unpooled if output is last]
    layers = [name for name, module in same if not any(module.children())]
    return layers[-1] if layers else same[0][0]


def _cells(output: torch.Tensor, size: tuple[int, ...]) -> int:
    """Return how many cells or tokens an output has that a CAM could be read from; 0 for any other kind of output."""
    if output.ndim == 3:
        return output.shape[1]
    if output.ndim != 4 or output.shape[0] != 1 or not output.is_floating_point():
        return 0  # more rows than pictures: windows
    grids = [output.shape[2:], output.shape[1:3]]
    return max((h * w for h, w in grids if _fits((h, w), size)), default=output.shape[2] * output.shape[3])


# ---------------------------------------------------------------------------------------------------------------------
# Where the channels stand


def _channels_last(network: nn.Module, name: str, output: torch.Tensor, x: torch.Tensor) -> bool:
    """Tell whether `output`, of the layer called `name` for the input `x`, is ``(B, h, w, C)``.

    By its shape where only one of both readings is a picture of the input's shape, else by what is done with it.
    """
    if len(output) != len(x):
        raise UsageError(
            f"layer {name!r} returns {len(output)} maps for a picture, so no grid that a CAM could be read on"
        )
    size = tuple(x.shape[2:])
    first, last = _fits(tuple(output.shape[2:]), size), _fits(tuple(output.shape[1:3]), size)
    if first != last:
        return last
    module = network.get_submodule(name)
    if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, *_POOLS)):
        return False
    if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:  # subclasses move the axes
        return True
    follow = _Following(output)
    with (
        watched([(name, module)], lambda *call: follow.start(call[3])),
        torch.inference_mode(mode=False),
        torch.no_grad(),
        follow,
    ):
        network(x)
    if follow.last is not None:
        return follow.last
    if any(getattr(part, "output_fmt", "") == "NHWC" for part in network.modules()):  # timm's word
        return True
    raise UsageError(
        f"layer {name!r} returns {tuple(output.shape)} for an input of {size[0]}x{size[1]}: its channels may stand "
        "first or last",
        hint="name another with --layer NAME, or layer=NAME in Python",
    )


def _fits(grid: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Tell whether `grid` ``(h, w)`` can be that of a picture of `size` ``(H, W)``: one stride, edges cut alike.

    With a stride s, h is H/s and w is W/s, up to a difference that both share but for less than one cell.
    """
    (h, w), (height, width) = grid, size
    if height == width:
        return h == w <= height
    lowest = max((h - 1) / height, (w - 1) / width)  # of 1/s, which is at most 1
    low, high = sorted((h - w + d) / (height - width) for d in (-1, 1))
    return low < 1 and high > lowest


_CHANNELS_FIRST = frozenset(
    {"convolution", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
     "native_group_norm", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d_with_indices"}
)  # fmt: skip
_REDUCTIONS = frozenset({"mean", "sum", "amax", "amin", "logsumexp", "var", "std", "linalg_vector_norm"})


class _Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches what is done with one tensor of four axes; `last`: whether its channels were taken to stand last."""

    def __init__(self, like: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shape = tuple(like.shape)
        self.tensor: torch.Tensor | None = None
        self.last: bool | None = None

    def start(self, output: Any) -> None:
        """Watch `output` from now on."""
        self.tensor, self.last = output, None

    def __torch_dispatch__(self, func: Any, _types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Run an operation, and read from it what it takes the tensor for."""
        out = func(*args, **(kwargs or {}))
        if self.last is None and args and self._is_it(args[0]):
            self.last = self._reading(func.overloadpacket.__name__, args)
            if self.last is None and isinstance(out, torch.Tensor) and out.stride() == args[0].stride():
                self.tensor = out  # an activation or a sum keeps the axes
        return out

    def _is_it(self, value: Any) -> bool:
        it = self.tensor
        if it is None or not isinstance(value, torch.Tensor) or value.data_ptr() != it.data_ptr():
            return False
        return value.shape == it.shape and value.stride() == it.stride()

    def _reading(self, name: str, args: Sequence[Any]) -> bool | None:
        """Return whether an operation takes the last axis of its first argument for the channels; None: it may."""
        if name in _CHANNELS_FIRST:
            return False
        if name == "native_layer_norm":
            return True if len(args[1]) == 1 else None
        given = tuple(args[1]) if len(args) > 1 and isinstance(args[1], list | tuple) else ()
        batch, a, b, c = self.shape
        if name in {"view", "_unsafe_view", "reshape"}:
            return {(batch, a, b * c): False, (batch, a * b, c): True, (batch * a * b, c): True}.get(given)
        if name == "permute":
            return {(0, 3, 1, 2): True, (0, 2, 3, 1): False}.get(tuple(axis % 4 for axis in given))
        if name in _REDUCTIONS:
            return {(1, 2): True, (2, 3): False}.get(tuple(sorted(axis % 4 for axis in given)))
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Grids


def _grid_reader(network: nn.Module, *, channels_last: bool) -> Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]:
    owner = next((m for m in network.modules() if patch_grid(m, (1, 1)) is not None), network)

    def to_grid(output: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if output.ndim == 4:
            return output.permute(0, 3, 1, 2) if channels_last else output  # (B, C, h, w)
        if output.ndim != 3:
            raise UsageError(f"a layer that returns {tuple(output.shape)} has no grid that a CAM could be read on")
        # (B, N, C): the layer may stand where the class token has not joined the patches yet (CaiT, XCiT)
        prefix = int(getattr(owner, "num_prefix_tokens", 0))
        grid = patch_grid(owner, size)
        if grid is not None and output.shape[1] == grid[0] * grid[1]:
            prefix = 0
        tokens = output[:, prefix:]
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
    grid = patch_grid(network, size)
    if grid is None or grid[0] * grid[1] != count:
        raise UsageError(
            f"cannot tell the patch grid of this network ({count} tokens for an input of {size[0]}x{size[1]})"
        )
    return grid


def patch_grid(network: nn.Module, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the grid ``(h, w)`` of patches that `network` makes of an input of `size`; None where it does not tell."""
    embed = _embedding(network)
    if hasattr(embed, "dynamic_feat_size"):
        h, w = embed.dynamic_feat_size(size)
        return int(h), int(w)
    patch = getattr(embed, "patch_size", None)
    return (size[0] // patch, size[1] // patch) if isinstance(patch, int) else None
