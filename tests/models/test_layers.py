"""The layer for CAM methods of networks as they come, with random weights and small inputs."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from cxrx.errors import UsageError
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


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mixer_s32_224", "swin_tiny_patch4_window7_224"])
def test_attention_is_offered_by_plain_transformers_only(name):
    options, size, *_ = FOUND[name]
    model = wrap_model(timm.create_model(name, num_classes=3, **options), list("abc"), size, 3)
    assert ("attention" in model.offers()) == name.startswith("vit")
    assert {"gradients", "cam"} <= model.offers()
