"""Built-in model specs. Cheap to import: torch and timm load inside `build`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from cxrx.errors import UsageError
from cxrx.models.demo import DEMO_DENSENET, DEMO_VIT
from cxrx.models.recipes import CHEXNET_INPUT, MAE_INPUT, NIH_LABELS, PNEUMONIA_INPUT
from cxrx.specs import InputSpec, ModelSpec

TIMM = "timm/"
"""What a name starts with that stands for any network of timm."""


def is_code(name: str) -> bool:
    """Whether the name of a model is the user's own ``FILE.py:FUNCTION``, and not e.g. a folder with a colon."""
    file, _, function = name.rpartition(":")
    return file.endswith(".py") and "/" not in function


def timm_builder(timm_name: str) -> Callable[..., Any]:
    """Return a `build` (and `build_variant`) for the timm architecture `timm_name`, without pretrained weights."""

    def build(
        labels: Sequence[str],
        *,
        outputs: int | None = None,
        in_chans: int = 3,
        img_size: tuple[int, int] | None = None,
        global_pool: str | None = None,
        head: str | None = None,
    ) -> Any:
        import timm

        options: dict[str, Any] = {} if in_chans == 3 else {"in_chans": in_chans}
        if global_pool is not None:
            options["global_pool"] = global_pool
        cfg = timm.get_pretrained_cfg(timm_name)
        if img_size is not None and cfg is not None and cfg.fixed_input_size and img_size != tuple(cfg.input_size[1:]):
            options["img_size"] = img_size
        count = len(labels) if outputs is None else outputs
        network = timm.create_model(timm_name, pretrained=False, num_classes=count, **options)
        if head == "norm-linear":
            network.head = _norm_linear(cast("int", network.num_features), count)
        return network

    return build


def _norm_linear(features: int, outputs: int) -> Any:
    """Return the head of the ViT pneumonia classifier."""
    from torch import nn

    return nn.Sequential(nn.Dropout(0.2), nn.LayerNorm(features), nn.Linear(features, outputs))


def pneumonia_builder(labels: Sequence[str], **variant: Any) -> Any:
    """Build ViT-B/16 with the head of the ViT pneumonia classifier."""
    return timm_builder("vit_base_patch16_224")(labels, **({"head": "norm-linear"} | variant))


_DENSENET_PAPER = "Rajpurkar et al., CheXNet: Radiologist-Level Pneumonia Detection on Chest X-Rays, arXiv 1711.05225"
_VIT_PAPER = "Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021"
_MIXER_PAPER = "Tolstikhin et al., MLP-Mixer: An all-MLP Architecture for Vision, NeurIPS 2021"
_TIMM_LICENCE = "Apache-2.0 (architecture, timm)"


def _of_timm(name: str, timm_name: str, input_spec: InputSpec, what: str, citation: str, alias: str = "") -> ModelSpec:
    """Return the spec of a timm network with the 14 findings of ChestX-ray14 as its outputs."""
    build = timm_builder(timm_name)
    return ModelSpec(
        name,
        build,
        NIH_LABELS,
        input_spec,
        build_variant=build,
        aliases=(alias,) if alias else (),
        summary=f"{what}; bring weights with --weights",
        licence=_TIMM_LICENCE,
        citation=citation,
    )


BUILTIN_MODELS: tuple[ModelSpec, ...] = (
    DEMO_DENSENET,
    DEMO_VIT,
    _of_timm("densenet121", "densenet121", CHEXNET_INPUT, "DenseNet-121, the network of CheXNet", _DENSENET_PAPER,
             "chexnet"),
    _of_timm("densenet169", "densenet169", CHEXNET_INPUT, "DenseNet-169", _DENSENET_PAPER),
    _of_timm("densenet201", "densenet201", CHEXNET_INPUT, "DenseNet-201", _DENSENET_PAPER),
    _of_timm("resnet50", "resnet50", InputSpec(), "ResNet-50",
             "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"),
    _of_timm("vgg16", "vgg16", InputSpec(), "VGG-16",
             "Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015"),
    _of_timm("vit_small", "vit_small_patch16_224", MAE_INPUT, "ViT-S/16, read by token or mean as its weights say",
             _VIT_PAPER),
    _of_timm("vit_base", "vit_base_patch16_224", InputSpec(), "ViT-B/16, read by token or mean as its weights say",
             _VIT_PAPER),
    _of_timm("mixer_b16", "mixer_b16_224", InputSpec(mean=(0.5,), std=(0.5,)), "MLP-Mixer B/16", _MIXER_PAPER),
    _of_timm("gmixer_24", "gmixer_24_224", InputSpec(), "gMixer-24, a mixer with gated units", _MIXER_PAPER),
    ModelSpec(
        "vit_pneumonia",
        pneumonia_builder,
        ("Pneumonia",),
        PNEUMONIA_INPUT,
        build_variant=pneumonia_builder,
        activation="softmax",
        summary="ViT-B/16 for pneumonia behind CLAHE; bring weights with --weights",
        licence=_TIMM_LICENCE,
        citation=_VIT_PAPER,
    ),
)  # fmt: skip

DEFAULT_MODEL = "demo-densenet"
"""What runs while the user names no model; every output then says so."""


# ---------------------------------------------------------------------------------------------------------------------
# Any network of timm


def timm_names(text: str = "") -> list[str]:
    """Return the names of timm's networks that hold `text`, as ``-m`` takes them."""
    import timm

    part = text.lower().removeprefix(TIMM)
    return [f"{TIMM}{name}" for name in timm.list_models() if part in name]


def timm_spec(name: str) -> ModelSpec:
    """Return the spec of ``timm/NAME``; its input is the one that timm declares.

    Raises
    ------
    UsageError
        timm has no such network; the hint names the nearest.
    """
    import timm

    short = name.removeprefix(TIMM)
    if not timm.is_model(short):
        near = difflib.get_close_matches(short, timm.list_models(), n=3)
        hint = (
            f"did you mean {' or '.join(TIMM + other for other in near)}?" if near else "see: cxrx models --search TEXT"
        )
        raise UsageError(f"timm has no network {short!r}", hint)
    build = timm_builder(short)
    return ModelSpec(
        name,
        build,
        (),
        timm_input(timm.get_pretrained_cfg(short)),
        build_variant=build,
        summary=f"{short} of timm; bring weights with --weights, findings with --labels",
        licence=_TIMM_LICENCE,
        citation="Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models",
    )


def timm_input(cfg: Any) -> InputSpec:
    """Return the input that a pretrained configuration of timm declares."""
    if cfg is None:
        return InputSpec()
    _, height, width = cfg.input_size
    spec = InputSpec(
        size=(height, width),
        interpolation="bicubic" if cfg.interpolation == "bicubic" else "bilinear",
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
    )
    if cfg.crop_mode == "squash":
        return replace(spec, fit="stretch")
    if cfg.crop_mode == "border":
        return replace(spec, fit="pad")
    resize = int(min(height, width) / cfg.crop_pct)
    return replace(spec, resize=resize if resize > min(height, width) else None)
