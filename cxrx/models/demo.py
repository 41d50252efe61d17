"""The demo models: small networks trained on synthetic films, so that everything runs on the first day.

They know phantoms only. Their model cards lie beside the weights; ``tests/bench/train_demo.py`` made both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxrx.phantom import FINDINGS
from cxrx.specs import InputSpec, ModelSpec

WEIGHTS = Path(__file__).with_name("weights")
INPUT = InputSpec(size=(128, 128), fit="pad", interpolation="bilinear", channels=1, mean=(0.5,), std=(0.25,))
"""Padded, not cropped: costophrenic angles lie near the edge of a film."""


def build_densenet(labels: Sequence[str]) -> Any:
    """Build a DenseNet-BC of three blocks (growth 16), whose last features are ``(B, 164, 8, 8)``, stride 16."""
    from timm.models.densenet import DenseNet

    return DenseNet(growth_rate=16, block_config=(3, 6, 6), num_classes=len(labels), in_chans=1)


def build_vit(labels: Sequence[str]) -> Any:
    """Build a ViT of six blocks and four heads over an 8 x 8 grid of tokens and a class token.

    The patches are embedded by five small convolutions instead of one large one, which learns from far fewer films
    (Xiao et al., Early Convolutions Help Transformers See Better, NeurIPS 2021, arXiv 2106.14881).
    """
    from functools import partial
    from itertools import pairwise

    from timm.layers.hybrid_embed import HybridEmbed
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    stem = nn.Sequential()
    channels = (1, 24, 48, 96, 128)
    for k, (before, after) in enumerate(pairwise(channels)):
        stem.add_module(f"conv{k}", nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False))
        stem.add_module(f"norm{k}", nn.BatchNorm2d(after))
        stem.add_module(f"act{k}", nn.ReLU())
    return VisionTransformer(
        img_size=INPUT.size,
        patch_size=1,  # of the stem's grid: 16 pixels of the film
        in_chans=1,
        num_classes=len(labels),
        embed_dim=128,
        depth=6,
        num_heads=4,
        embed_layer=partial(HybridEmbed, backbone=stem),
    )


DEMO_DENSENET = ModelSpec(
    "demo-densenet",
    build_densenet,
    FINDINGS,
    INPUT,
    weights=WEIGHTS / "demo-densenet.safetensors",
    summary="small DenseNet trained on synthetic films only",
    licence="Apache-2.0",
    citation="Huang et al., Densely Connected Convolutional Networks, CVPR 2017",
    demo=True,
)

DEMO_VIT = ModelSpec(
    "demo-vit",
    build_vit,
    FINDINGS,
    INPUT,
    weights=WEIGHTS / "demo-vit.safetensors",
    summary="small vision transformer with a class token, trained on synthetic films only",
    licence="Apache-2.0",
    citation="Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021",
    demo=True,
)
