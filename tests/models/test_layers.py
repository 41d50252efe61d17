"""The layer for CAM methods of networks as they come, with random weights and small inputs."""

from __future__ import annotations

import re
import weakref

import pytest
import timm
import torch
from torch import nn

from cxrx.errors import UsageError
from cxrx.explainers.run import explain
from cxrx.models.layers import find_cam_layer
from cxrx.models.load import wrap_model

FOUND = {
    "densenet121": ({}, (64, 96), "features.norm5", (1024, 2, 3)),
    "vgg16": ({"mlp_ratio": 1 / 64}, (64, 96), "features.29", (512, 4, 6)),
    "resnet18": ({}, (64, 96), "layer4.1.act2", (512, 2, 3)),
    "vit_tiny_patch16_224": ({"img_size": (64, 96)}, (64, 96), "blocks.11.norm1", (192, 4, 6)),
    "mixer_s32_224": ({"img_size": (64, 96)}, (64, 96), "norm", (512, 2, 3)),
    # the last layer of a block is not the block's output, and a Swin keeps its channels last
    "convnext_atto": ({}, (64, 96), "stages.3.blocks.1", (320, 2, 3)),
    "swin_tiny_patch4_window7_224": ({"img_size": (64, 96), "depths": (1, 1, 1, 1)}, (64, 96), "norm", (768, 2, 3)),
}
POOLINGS = {
    "token": ({}, "blocks.2.norm1"),
    "average with a class token": ({"global_pool": "avg"}, "blocks.2"),
    "average without one": ({"global_pool": "avg", "class_token": False}, "blocks.2"),
    "registers": ({"reg_tokens": 4}, "blocks.2.norm1"),
}


def grid_of(network, size):
    """Return the name of the layer and the grid that it gives."""
    model = wrap_model(network, [f"f{i}" for i in range(3)], size, 3)
    layer = model.cam_layer()
    outputs = []
    handle = layer.module.register_forward_hook(lambda *call: outputs.append(call[2]))
    model.logits(torch.rand(1, 3, *size))
    handle.remove()
    return layer.name, layer.to_grid(outputs[-1], size)


@pytest.mark.parametrize("name", FOUND)
def test_the_layer_of_a_known_network_is_found(name):
    options, size, expected, shape = FOUND[name]
    found, grid = grid_of(timm.create_model(name, num_classes=3, **options), size)
    assert found == expected
    assert grid.shape == (1, *shape)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_layer_of_a_transformer_follows_its_pooling(pooling):
    options, expected = POOLINGS[pooling]
    network = small_vit(**options)
    found, grid = grid_of(network, (32, 48))
    assert found == expected
    assert grid.shape == (1, 24, 4, 6)


def small_vit(**options):
    return timm.models.VisionTransformer(
        img_size=(32, 48), patch_size=8, num_classes=3, embed_dim=24, depth=3, num_heads=2, **options
    )


def test_patches_land_where_they_are_in_the_picture():
    """The grid of a transformer: change one patch, and its cell of the first block's input changes, no other."""
    network = small_vit(reg_tokens=2)
    model = wrap_model(network, ["a", "b", "c"], (32, 48), 3, cam_layer="norm_pre")
    layer = model.cam_layer()
    outputs = []
    layer.module.register_forward_hook(lambda *call: outputs.append(call[2]))
    x = torch.rand(1, 3, 32, 48)
    model.logits(x)
    x[:, :, 8:16, 32:40] += 1
    model.logits(x)
    first, second = (layer.to_grid(output, (32, 48)) for output in outputs)
    assert (first != second).any(dim=1).nonzero().tolist() == [[0, 1, 4]]


def test_a_network_wrapped_in_the_users_own_is_looked_through():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = small_vit()
            self.backbone.reset_classifier(0)
            self.top = nn.Linear(24, 3)

        def forward(self, x):
            return self.top(self.backbone(x))

    found, grid = grid_of(Own(), (32, 48))
    assert found == "backbone.blocks.2.norm1"
    assert grid.shape == (1, 24, 4, 6)


def test_a_plain_network_gives_its_last_map_before_the_pool():
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Dropout(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    found, grid = grid_of(network, (16, 20))
    assert found == "0.3"
    assert grid.shape == (1, 5, 12, 16)


def test_a_named_layer_is_taken_as_named():
    model = wrap_model(timm.create_model("resnet18", num_classes=3), list("abc"), 64, 3, cam_layer="layer2")
    assert model.cam_layer().name == "layer2"
    with pytest.raises(UsageError, match="no layer named 'layer9'"):
        find_cam_layer(model.module, "layer9", (3, 64, 64))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)),
        # a map of patches becomes a sequence: what the first convolution gives is not what the head reads
        nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4), nn.Flatten(2), nn.Linear(16, 16), nn.Flatten(), nn.Linear(8 * 16, 3)
        ),
    ],
    ids=["no map", "tokens"],
)
def test_a_network_without_a_map_before_its_head_is_refused(network):
    model = wrap_model(network, list("abc"), 16, 3)
    with pytest.raises(UsageError, match="no layer with a spatial output") as error:
        model.cam_layer()
    assert "--layer" in error.value.hint
    assert "cam" not in model.offers()


@pytest.mark.parametrize("network", [nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten()), nn.Flatten()])
def test_the_layer_or_that_there_is_none_is_found_once(network):
    model, passes = wrap_model(nn.Sequential(network, nn.LazyLinear(2)), ["a", "b"], 16, 1), []
    model.module.register_forward_pre_hook(lambda *_: passes.append(1))
    offered = model.offers()
    passes.clear()
    assert model.explaining("logit").offers() == model.offers() == offered
    assert passes == []


def test_looking_for_the_layer_keeps_no_outputs():
    kept, alive = [], []

    class Layer(nn.Conv2d):
        def forward(self, x):
            alive.append(sum(output() is not None for output in kept))
            out = super().forward(x)
            kept.append(weakref.ref(out))
            return out

    layers = [Layer(1, 1, 3) for _ in range(4)]
    model = wrap_model(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), ["a"], 16, 1)
    alive.clear()
    kept.clear()
    assert model.cam_layer().name == "3"
    assert max(alive) == 1  # what the layer reads


# ---------------------------------------------------------------------------------------------------------------------
# Channels last


class Turned(nn.Module):
    """Its last map is ``(B, h, w, C)``, and `head` is what follows."""

    def __init__(self, head, channels=24, stride=8):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, channels, stride, stride)
        self.body = Turn()
        self.fc = nn.Linear(channels, 2)
        self.head = head

    def forward(self, x):
        return self.head(self.body(self.conv(x)), self.fc)


class Turn(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1).contiguous()


MEAN, LINEAR, BACK = (
    lambda h, fc: fc(torch.relu(h).mean((1, 2))),
    lambda h, fc: fc(h).mean((1, 2)),
    lambda h, fc: fc(nn.functional.adaptive_avg_pool2d(h.permute(0, 3, 1, 2), 1).flatten(1)),
)


def cell_of(network, size, row, column):
    """Return the cells of the CAM layer's grid that change where a patch of 8 pixels does."""
    model = wrap_model(network, ["a", "b"], size, 1)
    layer = model.cam_layer()
    outputs = []
    layer.module.register_forward_hook(lambda *call: outputs.append(call[2]))
    x = torch.rand(1, 1, *size)
    model.logits(x)
    x[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1
    model.logits(x)
    first, second = (layer.to_grid(output, size) for output in outputs)
    return tuple(first.shape[1:]), (first != second).any(dim=1).nonzero()[:, 1:].tolist()


@pytest.mark.parametrize("head", [MEAN, LINEAR, BACK])
@pytest.mark.parametrize(("channels", "size"), [(24, (96, 96)), (12, (96, 96)), (8, (64, 64)), (5, (40, 64))])
def test_channels_that_stand_last_are_told_by_shape_or_by_what_follows(head, channels, size):
    shape, cells = cell_of(Turned(head, channels), size, 2, 4)
    assert shape == (2 if head is LINEAR else channels, size[0] // 8, size[1] // 8)
    assert cells == [[2, 4]]


@pytest.mark.parametrize("channels", [24, 12])
def test_a_layer_norm_of_ones_own_and_channels_that_stand_first(channels):
    class Own(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(1, channels, 8, 8), norm, nn.Linear(channels, 2)

        def forward(self, x):
            x = self.conv(x)
            last = isinstance(self.norm, nn.LayerNorm)
            return self.fc(self.norm(x.permute(0, 2, 3, 1) if last else x).mean((1, 2) if last else (2, 3)))

    for norm in (nn.LayerNorm(channels), nn.Tanh(), nn.BatchNorm2d(channels), nn.GroupNorm(2, channels)):
        assert cell_of(Own(norm), (96, 96), 3, 7)[0] == (channels, 12, 12)
    assert cell_of(Own(nn.LayerNorm(channels)), (96, 96), 3, 7)[1] == [[3, 7]]


def test_a_layout_that_nothing_tells_is_refused():
    class Flat(Turned):
        def __init__(self):
            super().__init__(lambda h, fc: fc(h.flatten(1)), 12)
            self.fc = nn.Linear(12**3, 2)

    model = wrap_model(Flat(), ["a", "b"], 96, 1)
    with pytest.raises(UsageError, match=r"'body' returns \(1, 12, 12, 12\) .* channels may stand first or last"):
        model.cam_layer()
    with pytest.raises(UsageError, match=r"gradcam needs a spatial layer.*first or last") as error:
        explain(model, torch.zeros(1, 1, 96, 96), "gradcam")
    assert "saliency" in error.value.hint
    assert "gradcam" not in error.value.hint
    assert model.cam_layer("conv").to_grid(torch.zeros(1, 12, 12, 12), (96, 96)).shape == (1, 12, 12, 12)


def test_a_pooled_map_is_none():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(1, 12, 8, 8), nn.LayerNorm(12), nn.Linear(12, 2)

        def forward(self, x):
            return self.fc(self.norm(self.conv(x).permute(0, 2, 3, 1).mean((1, 2), keepdim=True)))[:, 0, 0]

    assert wrap_model(Pooled(), ["a", "b"], 96, 1).cam_layer().name == "conv"


@pytest.mark.parametrize(
    ("name", "options", "size", "expected", "shape"),
    [
        ("nest_tiny", {"img_size": 64}, (64, 64), "norm", (384, 4, 4)),
        ("swin_tiny_patch4_window7_224", {"img_size": 96, "depths": (1, 1, 1, 1)}, (96, 96), "norm", (768, 3, 3)),
        ("convnext_atto", {}, (64, 64), "stages.3.blocks.1", (320, 2, 2)),
        # the patches without their class token, and with it
        ("cait_xxs24_224", {"img_size": 64, "depth": 2}, (64, 64), "blocks_token_only.1.norm1", (192, 4, 4)),
        ("xcit_nano_12_p16_224", {"depth": 2}, (64, 96), "cls_attn_blocks.1.norm1", (128, 4, 6)),
        ("deit_tiny_distilled_patch16_224", {"img_size": 64, "depth": 2}, (64, 64), "blocks.1.norm1", (192, 4, 4)),
        ("beit_base_patch16_224", {"img_size": 64, "depth": 1, "embed_dim": 48}, (64, 64), "blocks.0", (48, 4, 4)),
    ],
)
def test_layouts_that_are_not_the_plain_ones(name, options, size, expected, shape):
    found, grid = grid_of(timm.create_model(name, num_classes=3, **options), size)
    assert found == expected
    assert grid.shape == (1, *shape)


@pytest.mark.parametrize(("name", "options"), [("tnt_s_patch16_224", {"depth": 1}), ("crossvit_9_240", {})])
def test_tokens_whose_grid_is_unknown_are_refused_naming_what_fits(name, options):
    size = 240 if name.endswith("240") else 64
    network = timm.create_model(name, num_classes=2, in_chans=1, **({"img_size": size} | options))
    model = wrap_model(network, ["a", "b"], size, 1)
    for method in ("gradcam", "eigencam", "attention", "rollout", "chefer"):
        with pytest.raises(UsageError, match=f"{re.escape(method)} needs") as error:
            explain(model, torch.zeros(1, 1, size, size), method)
        assert error.value.hint.startswith("these fit: saliency")
        assert "rollout" not in error.value.hint


def test_a_layer_that_runs_again_is_taken_for_what_it_puts_out_last():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.pool = nn.Conv2d(1, 4, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.act(self.pool(self.act(self.conv(x)))).flatten(1))

    found = wrap_model(Again(), ["a", "b"], 32, 1).cam_layer().name
    assert found == "conv"


def test_windows_are_no_grid():
    network = timm.create_model("swin_tiny_patch4_window7_224", img_size=112, depths=(1, 1, 1, 1), num_classes=3)
    model = wrap_model(network, list("abc"), 112, 3)
    with pytest.raises(UsageError, match=r"has no grid|cannot tell the patch grid|maps for a picture"):
        model.cam_layer("layers.0.blocks.0.attn")


# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mixer_s32_224", "swin_tiny_patch4_window7_224"])
def test_attention_is_offered_by_plain_transformers_only(name):
    options, size, *_ = FOUND[name]
    model = wrap_model(timm.create_model(name, num_classes=3, **options), list("abc"), size, 3)
    assert ("attention" in model.offers()) == name.startswith("vit")
    assert {"gradients", "cam"} <= model.offers()
