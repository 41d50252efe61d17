"""Who wrote a checkpoint: a table of recognised layouts, and how each becomes the keys of a timm network.

A key that a format does not expect is kept as it is, so that strict loading names it; what is dropped is declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from cxrx.models.recipes import CHEXNET_INPUT, MAE_INPUT, NIH_LABELS, PNEUMONIA_INPUT, XRV_INPUT
from cxrx.specs import InputSpec

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Stored:
    """What lies in a file.

    Attributes
    ----------
    wrapper
        Key under which the tensors lay (``"state_dict"``, ``"model"``); empty for a flat file.
    entries
        Names of what lay beside them: ``"optimizer"``, ``"epoch"``, ``"args"``.
    tensors
        By name, without the prefix that DataParallel or torch.compile put before all of them.
    """

    wrapper: str
    entries: frozenset[str]
    tensors: Tensors

    def most_start(self, prefix: str) -> bool:
        """Whether more than half of the names start with `prefix`; strict loading names those that do not."""
        return 2 * sum(key.startswith(prefix) for key in self.tensors) > len(self.tensors)

    def any_start(self, *prefixes: str) -> bool:
        """Whether some name starts with one of `prefixes`."""
        return any(key.startswith(prefixes) for key in self.tensors)

    @property
    def is_vit(self) -> bool:
        """Whether these are the names of timm's vision transformer with a class token."""
        return {"cls_token", "pos_embed", "patch_embed.proj.weight"} <= self.tensors.keys()

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor, ``()`` where there is none."""
        return tuple(self.tensors[key].shape) if key in self.tensors else ()


@dataclass(frozen=True)
class Format:
    """A layout that somebody's code writes.

    Attributes
    ----------
    name
        One word, for tables.
    says
        What it is, for people.
    recognise
        Whether a file has it; the first of :data:`FORMATS` that says yes is taken.
    rename
        A tensor's name in timm's network, or None for what is dropped.
    reshape
        Brings a tensor (by its new name) to the shape it has there.
    labels
        Findings, where the number of outputs is theirs.
    input, activation
        What the code that writes this layout trains with; None where the layout does not tell.
    """

    name: str
    says: str
    recognise: Callable[[Stored], bool]
    rename: Callable[[str], str | None] = lambda key: key
    reshape: Callable[[str, torch.Tensor], torch.Tensor] = lambda _key, tensor: tensor
    labels: tuple[str, ...] = ()
    input: InputSpec | None = None
    activation: Literal["sigmoid", "softmax"] | None = None

    def convert(self, tensors: Tensors) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
        """Return the tensors under their names in timm's network, and the names of those dropped."""
        kept: dict[str, torch.Tensor] = {}
        dropped = []
        for key, tensor in tensors.items():
            new = self.rename(key)
            if new is None:
                dropped.append(key)
            elif new in kept:
                kept[key] = tensor  # two names for one place: strict loading names the second
            else:
                kept[new] = self.reshape(new, tensor)
        return kept, tuple(dropped)


# ---------------------------------------------------------------------------------------------------------------------
# Renaming

_BEFORE_TORCH_04 = re.compile(r"\.(norm|relu|conv)\.([12])\.")
_DENSENET = re.compile(r"^densenet(121|169|201)\.")


def _chexnet(key: str) -> str:
    """``densenet121.features.denseblock1.denselayer1.norm.1.weight`` -> ``features....norm1.weight``."""
    key = _BEFORE_TORCH_04.sub(r".\1\2.", _DENSENET.sub("", key))
    return re.sub(r"^classifier\.0\.", "classifier.", key)


_DECODER = ("decoder_", "mask_token")


def _pretrained_vit(key: str) -> str | None:
    return None if key.startswith(_DECODER) else key


_ENCODER = "model.encoder."
_CNN_DECODER = ("model.decoder.", "model.segmentation_head.", "model.mask_token")


def _pretrained_cnn(key: str) -> str | None:
    return None if key.startswith(_CNN_DECODER) else key.removeprefix(_ENCODER)


def _without_thresholds(key: str) -> str | None:
    return None if key == "op_threshs" else key


_TORCHVISION_VIT = (
    (re.compile(r"^class_token$"), "cls_token"),
    (re.compile(r"^conv_proj\."), "patch_embed.proj."),
    (re.compile(r"^encoder\.pos_embedding$"), "pos_embed"),
    (re.compile(r"^encoder\.ln\."), "norm."),
    (re.compile(r"^heads\.head\."), "head."),
    (re.compile(r"^encoder\.layers\.encoder_layer_(\d+)\."), r"blocks.\1."),
    (re.compile(r"^(blocks\.\d+)\.ln_([12])\."), r"\1.norm\2."),
    (re.compile(r"^(blocks\.\d+)\.self_attention\.in_proj_"), r"\1.attn.qkv."),
    (re.compile(r"^(blocks\.\d+)\.self_attention\.out_proj\."), r"\1.attn.proj."),
    (re.compile(r"^(blocks\.\d+)\.mlp\.(?:0|linear_1)\."), r"\1.mlp.fc1."),
    (re.compile(r"^(blocks\.\d+)\.mlp\.(?:3|linear_2)\."), r"\1.mlp.fc2."),
)


def _torchvision_vit(key: str) -> str:
    for pattern, new in _TORCHVISION_VIT:
        key = pattern.sub(new, key)
    return key


_VGG = {"classifier.0.": "pre_logits.fc1.", "classifier.3.": "pre_logits.fc2.", "classifier.6.": "head.fc."}


def _torchvision_vgg(key: str) -> str:
    for old, new in _VGG.items():
        if key.startswith(old):
            return key.replace(old, new)
    return key


def _as_convolution(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Torchvision's VGG flattens 7 x 7 features for a linear layer; timm's slides the same weights as a convolution."""
    if key == "pre_logits.fc1.weight" and tensor.ndim == 2 and tensor.shape[1] % 49 == 0:
        return tensor.reshape(tensor.shape[0], -1, 7, 7)
    return tensor[:, :, None, None] if key == "pre_logits.fc2.weight" and tensor.ndim == 2 else tensor


# ---------------------------------------------------------------------------------------------------------------------
# The table

FLAT = Format("state-dict", "a plain state dict of timm or torchvision", lambda _: True)

FORMATS: tuple[Format, ...] = (
    Format(
        "chexnet",
        "a CheXNet checkpoint (arnoweng, zoogzog)",
        lambda s: any(_DENSENET.match(key) for key in s.tensors),
        _chexnet,
        labels=NIH_LABELS,
        input=CHEXNET_INPUT,
        activation="sigmoid",
    ),
    Format(
        "jrzech",
        "the tensors of a reproduce-chexnet network (jrzech)",
        lambda s: s.any_start("features.denseblock") and s.any_start("classifier.0."),
        _chexnet,
        labels=NIH_LABELS,
        input=InputSpec(resize=224),
        activation="sigmoid",
    ),
    Format(
        "medical_mae-pretrained",
        "a masked autoencoder (medical_mae, MAE) before fine-tuning",
        lambda s: s.is_vit and s.any_start(*_DECODER),
        _pretrained_vit,
        input=MAE_INPUT,
    ),
    Format(
        "medical_mae-pretrained-cnn",
        "the encoder of a medical_mae pre-training",
        lambda s: s.wrapper == "model" and s.any_start(_ENCODER),
        _pretrained_cnn,
        input=MAE_INPUT,
    ),
    Format(
        "medical_mae",
        "a fine-tuned medical_mae network",
        lambda s: s.wrapper == "model" and "args" in s.entries,
        labels=NIH_LABELS,
        input=MAE_INPUT,
    ),
    Format(
        "vit-pneumonia",
        "a ViT pneumonia classifier (dropout, layer norm and linear as its head)",
        lambda s: s.most_start("vit.") and s.any_start("head.1.", "head.2."),
        lambda key: key.removeprefix("vit."),
        input=PNEUMONIA_INPUT,
        activation="softmax",
    ),
    Format(
        "torchxrayvision",
        "a torchxrayvision DenseNet",
        lambda s: "op_threshs" in s.tensors and s.any_start("features.denseblock"),
        _without_thresholds,
        input=XRV_INPUT,
        activation="sigmoid",
    ),
    Format(
        "attention-maps",
        "a ViT-B/16 of two classes (attention-maps)",
        lambda s: not s.wrapper and s.is_vit and s.shape("head.weight") == (2, 768) and "norm.weight" in s.tensors,
        input=InputSpec(),
        activation="softmax",
    ),
    Format(
        "vit-base",
        "a ViT without a head (MAE, DINO)",
        lambda s: s.is_vit and not s.any_start("head."),
        input=InputSpec(),
    ),
    Format(
        "torchvision-vit",
        "a torchvision vision transformer",
        lambda s: s.any_start("encoder.layers.encoder_layer_0.") and "class_token" in s.tensors,
        _torchvision_vit,
    ),
    Format(
        "torchvision-vgg",
        "a torchvision VGG",
        lambda s: s.shape("classifier.6.weight") != () and s.any_start("features.0."),
        _torchvision_vgg,
        _as_convolution,
    ),
    Format(
        "lightning",
        "a Lightning checkpoint",
        lambda s: s.wrapper == "state_dict" and s.most_start("model."),
        lambda key: key.removeprefix("model."),
    ),
    FLAT,
)


def recognise(stored: Stored) -> Format:
    """Return the format of a file: the first of the table that fits."""
    return next(form for form in FORMATS if form.recognise(stored))


# ---------------------------------------------------------------------------------------------------------------------
# What the tensors tell of their network

HEADS = ("classifier", "head.2", "head", "fc", "head.fc")
"""Where timm's networks have their last linear layer; ``head.2`` behind dropout and layer norm."""

_FIRST = ("features.conv0", "patch_embed.proj", "stem.proj", "conv1", "features.0", "conv_stem", "stem.0")
_DENSE: dict[tuple[int, ...], str] = {
    (6, 12, 24, 16): "densenet121",
    (6, 12, 32, 32): "densenet169",
    (6, 12, 48, 32): "densenet201",
}


def count_outputs(tensors: Tensors) -> int | None:
    """Return the number of outputs of the classification head, or None where no head is recognised."""
    for head in HEADS:
        weight = tensors.get(f"{head}.weight")
        if weight is not None and weight.ndim >= 2:
            return int(weight.shape[0])
    return None


def find_variant(tensors: Tensors) -> dict[str, Any]:
    """Return which variant of its architecture a network of these tensors is: keywords of ``build_variant``.

    ``fc_norm`` stands behind the mean of the patches, ``norm`` before the class token is read: the one is never
    taken for the other.
    """
    variant: dict[str, Any] = {}
    first = next((tensors[f"{k}.weight"] for k in _FIRST if f"{k}.weight" in tensors), None)
    if first is not None and first.ndim == 4 and first.shape[1] in (1, 3):
        variant["in_chans"] = int(first.shape[1])
    if "cls_token" in tensors and "patch_embed.proj.weight" in tensors:
        norms = {"avg": "fc_norm.", "token": "norm."}
        pools = {pool: any(key.startswith(norm) for key in tensors) for pool, norm in norms.items()}
        if sum(pools.values()) == 1:
            variant["global_pool"] = next(pool for pool, there in pools.items() if there)
        position, patch = tensors.get("pos_embed"), tensors["patch_embed.proj.weight"].shape[-1]
        side = 0 if position is None or position.ndim != 3 else round((position.shape[1] - 1) ** 0.5)
        if position is not None and side and side**2 + 1 == position.shape[1]:
            variant["img_size"] = (side * patch, side * patch)
    if {"head.1.weight", "head.2.weight"} <= tensors.keys() and tensors["head.1.weight"].ndim == 1:
        variant["head"] = "norm-linear"
    return variant


def guess_architecture(tensors: Tensors) -> str | None:
    """Return the name of the built-in model whose tensors these look like, or None."""
    width = {key: tuple(tensors[key].shape) for key in ("cls_token", "stem.proj.weight", "conv1.weight")
             if key in tensors}  # fmt: skip
    if "features.conv0.weight" in tensors:
        layers = [_count(tensors, rf"features\.denseblock{k}\.denselayer(\d+)\.") for k in (1, 2, 3, 4)]
        return _DENSE.get(tuple(layers))
    blocks = _count(tensors, r"blocks\.(\d+)\.")
    if "cls_token" in width and blocks == 12:
        large = "vit_pneumonia" if "head.2.weight" in tensors else "vit_base"
        return {384: "vit_small", 768: large}.get(width["cls_token"][-1])
    if "stem.proj.weight" in width and "blocks.0.mlp_tokens.fc1.weight" in tensors:
        return {(12, 768): "mixer_b16", (24, 384): "gmixer_24"}.get((blocks, width["stem.proj.weight"][0]))
    if "conv1.weight" in width and "layer1.0.conv3.weight" in tensors:
        return "resnet50" if [_count(tensors, rf"layer{k}\.(\d+)\.") for k in (1, 2, 3, 4)] == [3, 4, 6, 3] else None
    return "vgg16" if "pre_logits.fc1.weight" in tensors and _count(tensors, r"features\.(\d+)\.") == 13 else None


def _count(tensors: Tensors, pattern: str) -> int:
    """Return how many different numbers stand where `pattern` has its group."""
    compiled = re.compile(pattern)
    return len({match.group(1) for key in tensors if (match := compiled.match(key))})
