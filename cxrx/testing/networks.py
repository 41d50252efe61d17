"""Tiny networks to try explainers on.

Two are ordinary ones, seeded, not square, so that swapped sides show. Two have weights set by hand, so that it is known
what they read: the red squares of a picture for one finding, its green squares for the other, its blue ones for none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cxrx.specs import InputSpec

if TYPE_CHECKING:
    from torch import nn

    from cxrx.models.model import Model

LABELS = ("Effusion", "Mass", "Nodule")
INPUT = InputSpec(size=(32, 48), channels=1, mean=(0.5,), std=(0.25,))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside the block: tiny networks only lose by sharing their work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tiny_cnn() -> Model:
    """Return three convolutions with batch norm and ReLU, mean pooling and a linear head; a grid of 8 x 12."""
    from torch import nn

    def layers() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, 12, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, len(LABELS)),
        )

    return _seeded("tiny-cnn", layers)


def tiny_vit() -> Model:
    """Return a two-block vision transformer with a class token and a grid of 4 x 6 patches."""
    from timm.models import VisionTransformer
    from torch import nn

    def transformer() -> nn.Module:
        network: nn.Module = VisionTransformer(
            img_size=INPUT.size, patch_size=8, in_chans=1, num_classes=len(LABELS), embed_dim=24, depth=2, num_heads=2
        )
        nn.init.normal_(network.get_parameter("head.weight"))  # timm's is so small that rounding would drown the maps
        return network

    return _seeded("tiny-vit", transformer)


def _seeded(name: str, make: Callable[[], nn.Module]) -> Model:
    import torch

    from cxrx.models.model import Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model(make(), LABELS, INPUT, name=name)


GRID, CELL = 7, 16
"""Cells along each side of the networks that read squares, and pixels along each side of a cell, which is a square."""

SQUARE_LABELS = ("Red", "Green")
SQUARE_INPUT = InputSpec(size=(GRID * CELL, GRID * CELL), channels=3, mean=(0.5,), std=(0.25,))
BRIGHT = 1.5
"""Of a square, in the prepared picture; what is around it is 0."""

_THRESHOLDS = (0.5, 0.75, 1.0, 1.4, 1.5, 1.6)
"""Several, below the square's brightness and around it: the gradient is steep there, varies, and is 0 elsewhere."""


def square_cnn() -> Model:
    """Return a CNN whose logits count the red and the green brightness above some thresholds; a grid of 7 x 7.

    Strides are as long as the kernels, so that no cell sees its neighbours and every cell lies where its pixels are.
    """
    import torch
    from torch import nn

    from cxrx.models.model import Model

    channels = len(_THRESHOLDS)
    detect: Any = nn.Conv2d(3, 2 * channels, 4, stride=4)
    gather: Any = nn.Conv2d(2 * channels, 2, CELL // 4, stride=CELL // 4)
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        for parameter in (detect.weight, gather.weight, gather.bias):
            parameter.zero_()
        for finding in range(2):
            own = slice(finding * channels, (finding + 1) * channels)
            detect.weight[own, finding] = 1 / detect.weight[0, 0].numel()
            detect.bias[own] = -torch.tensor(_THRESHOLDS)
            gather.weight[finding, own] = 1 / gather.weight[0, 0].numel()
        head.weight.copy_(GRID**2 * torch.eye(2))
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(detect, nn.ReLU(), gather, nn.ReLU(), *pool, head)
    return Model(network, SQUARE_LABELS, SQUARE_INPUT, name="square-cnn")


def square_vit() -> Model:
    """Return a two-block vision transformer whose tokens attend to red and green patches and carry their brightness.

    Dimensions 0 and 1 of a token hold its red, 2 and 3 its green (with both signs, so that the layer norms subtract
    nothing), the other four a constant that keeps those norms from dividing the brightness out again.
    """
    import torch
    from timm.models import VisionTransformer
    from torch import nn

    from cxrx.models.model import Model

    width = 8
    network: Any = VisionTransformer(
        img_size=SQUARE_INPUT.size, patch_size=CELL, num_classes=2, embed_dim=width, depth=2, num_heads=1, mlp_ratio=1
    )
    signs = torch.tensor([1.0, -1.0])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1)
        constant = torch.cat([torch.zeros(4), 4 * signs, 4 * signs])
        network.cls_token.copy_(constant)
        network.patch_embed.proj.bias.copy_(constant)
        for finding in range(2):
            dimensions = slice(2 * finding, 2 * finding + 2)
            network.patch_embed.proj.weight[dimensions, finding] = signs[:, None, None] / CELL**2
            network.head.weight[finding, dimensions] = signs
        for block in network.blocks:
            query, key, value = block.attn.qkv.weight.view(3, width, width)
            query[0, 4] = 8  # of every token: the constant
            key[0, [0, 2]] = 1
            value[:4, :4] = torch.eye(4)
            block.attn.proj.weight.copy_(torch.eye(width))
    return Model(network, SQUARE_LABELS, SQUARE_INPUT, name="square-vit")


def constant_copy(model: Model) -> Model | None:
    """Return a copy of `model` whose logits never change (its last linear layer has no weights), None without one."""
    from torch import nn

    constant = copy.deepcopy(model)
    heads = [module for module in constant.module.modules() if isinstance(module, nn.Linear)]
    if not heads:
        return None
    nn.init.zeros_(heads[-1].weight)
    if heads[-1].bias is not None:
        nn.init.constant_(heads[-1].bias, 0.3)
    return constant
