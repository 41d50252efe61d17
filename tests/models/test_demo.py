"""The demo weights: small, and honest about themselves."""

from __future__ import annotations

import json

import torch
from safetensors import safe_open

from cxrx.models.checkpoints import input_from_json
from cxrx.models.demo import DEMO_DENSENET, DEMO_VIT, WEIGHTS
from cxrx.phantom import FINDINGS

SPECS = [DEMO_DENSENET, DEMO_VIT]


def test_weights_are_small_and_say_what_they_are():
    assert sum(spec.weights.stat().st_size for spec in SPECS) < 6_000_000
    for spec in SPECS:
        assert spec.demo
        with safe_open(spec.weights, framework="pt") as file:
            metadata = file.metadata()
        assert tuple(json.loads(metadata["labels"])) == FINDINGS == spec.labels
        assert input_from_json(metadata["input"]) == spec.input
        assert (metadata["arch"], metadata["demo"]) == (spec.name, "1")
        card = spec.weights.with_suffix(".md").read_text(encoding="utf-8")
        for phrase in ("synthetic films only", "not a medical\ndevice", "seed 100", *FINDINGS):
            assert phrase in card
    assert {path.suffix for path in WEIGHTS.iterdir()} == {".safetensors", ".md"}


def test_networks_have_the_shapes_that_explainers_need():
    from timm.models.densenet import DenseNet
    from timm.models.vision_transformer import VisionTransformer

    x = torch.zeros(2, 1, 128, 128)
    densenet, vit = DEMO_DENSENET.build(FINDINGS).eval(), DEMO_VIT.build(FINDINGS).eval()
    with torch.inference_mode():
        assert densenet.features.norm5(densenet.features[:-1](x)).shape[2:] == (8, 8)  # stride 16
        assert densenet(x).shape == vit(x).shape == (2, len(FINDINGS))
        assert vit.forward_features(x).shape[1] == 8 * 8 + 1
    assert isinstance(densenet, DenseNet)
    assert isinstance(vit, VisionTransformer)
    assert vit.global_pool == "token"
    assert all(hasattr(block.attn, "attn_drop") for block in vit.blocks)
    assert DEMO_DENSENET.build(("a", "b"))(x).shape == (2, 2)
