"""Built-in model specs. Cheap to import: torch and timm load inside `build`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cxrx.models.demo import DEMO_DENSENET, DEMO_VIT
from cxrx.specs import InputSpec, ModelSpec

NIH_LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""The 14 findings of ChestX-ray14 (Wang et al., CVPR 2017), in the order that all published checkpoints use."""


def timm_builder(timm_name: str, **options: Any) -> Callable[[Sequence[str]], Any]:
    """Return a `build` for the timm architecture `timm_name`, without pretrained weights."""

    def build(labels: Sequence[str]) -> Any:
        import timm

        return timm.create_model(timm_name, pretrained=False, num_classes=len(labels), **options)

    return build


_DENSENET_PAPER = "Rajpurkar et al., CheXNet: Radiologist-Level Pneumonia Detection on Chest X-Rays, arXiv 1711.05225"
_VIT_PAPER = "Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021"

BUILTIN_MODELS: tuple[ModelSpec, ...] = (
    DEMO_DENSENET,
    DEMO_VIT,
    ModelSpec(
        "densenet121",
        timm_builder("densenet121"),
        NIH_LABELS,
        InputSpec(),
        aliases=("chexnet",),
        summary="DenseNet-121, the network of CheXNet; bring weights with --weights",
        licence="Apache-2.0 (architecture, timm)",
        citation=_DENSENET_PAPER,
    ),
    ModelSpec(
        "resnet50",
        timm_builder("resnet50"),
        NIH_LABELS,
        InputSpec(),
        summary="ResNet-50; bring weights with --weights",
        licence="Apache-2.0 (architecture, timm)",
        citation="He et al., Deep Residual Learning for Image Recognition, CVPR 2016",
    ),
    ModelSpec(
        "vgg16",
        timm_builder("vgg16"),
        NIH_LABELS,
        InputSpec(),
        summary="VGG-16; bring weights with --weights",
        licence="Apache-2.0 (architecture, timm)",
        citation="Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015",
    ),
    ModelSpec(
        "vit_small",
        timm_builder("vit_small_patch16_224"),
        NIH_LABELS,
        InputSpec(),
        summary="ViT-S/16 with a class token; bring weights with --weights",
        licence="Apache-2.0 (architecture, timm)",
        citation=_VIT_PAPER,
    ),
    ModelSpec(
        "vit_base",
        timm_builder("vit_base_patch16_224"),
        NIH_LABELS,
        InputSpec(),
        summary="ViT-B/16 with a class token; bring weights with --weights",
        licence="Apache-2.0 (architecture, timm)",
        citation=_VIT_PAPER,
    ),
    ModelSpec(
        "mixer_b16",
        timm_builder("mixer_b16_224"),
        NIH_LABELS,
        InputSpec(mean=(0.5,), std=(0.5,)),
        summary="MLP-Mixer B/16; bring weights with --weights",
        licence="Apache-2.0 (architecture, timm)",
        citation="Tolstikhin et al., MLP-Mixer: An all-MLP Architecture for Vision, NeurIPS 2021",
    ),
)

DEFAULT_MODEL = "demo-densenet"
"""What runs while the user names no model; every output then says so."""
