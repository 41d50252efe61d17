"""Tiny networks to try explainers on: real ones, seeded, not square, so that swapped sides show."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
