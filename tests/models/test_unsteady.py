"""Networks whose answer is random, or depends on the other films of the batch: told once, with the cause."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional

from cxrx.models.load import wrap_model
from cxrx.models.unsteady import is_plain


class Small(nn.Module):
    """A sound network, but for what is done to its picture or its features."""

    def __init__(self, at_picture=None, at_features=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 8, 3, 2)
        self.head = nn.Linear(8, 2)
        self.at_picture, self.at_features = at_picture, at_features

    def forward(self, x):
        x = x if self.at_picture is None else self.at_picture(x)
        h = torch.relu(self.conv(x)).mean((2, 3))
        return self.head(h if self.at_features is None else self.at_features(h))


class BatchAttention(nn.MultiheadAttention):
    def forward(self, h):
        return super().forward(h[:, None], h[:, None], h[:, None])[0][:, 0]


def batch_attention():
    torch.manual_seed(0)
    return BatchAttention(8, 2)  # batch_first=False: the batch is its sequence


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return x.flatten(1)[:, :2] + self.passes


RANDOM = {
    "functional dropout": (lambda: Small(at_features=lambda h: functional.dropout(h, 0.5)), "dropout that is on"),
    "dropout of few": (lambda: Small(at_features=lambda h: functional.dropout(h, 0.02)), "dropout that is on"),
    "noise": (lambda: Small(lambda x: x + 0.01 * torch.randn_like(x)), "noise drawn"),
    "noise of uniform numbers": (lambda: Small(lambda x: x * torch.empty_like(x).uniform_(0.9, 1.1)), "noise drawn"),
    "a picture shifted at random": (lambda: Small(lambda x: x.roll(int(torch.randint(9, ())), 3)), "noise drawn"),
    "a state": (Counting, "changes from pass to pass"),
}
MIXING = {
    "statistics of the batch": (lambda: Small(lambda x: (x - x.mean()) / x.std()), r"batch statistics \(mean, std\)"),
    "the largest of the batch": (lambda: Small(lambda x: x / x.abs().max()), r"batch statistics \(max\)"),
    "centred features": (lambda: Small(at_features=lambda h: h - h.mean(0)), r"batch statistics \(mean\)"),
    "normalised over the batch": (lambda: Small(at_features=lambda h: functional.normalize(h, dim=0)), "vector_norm"),
    "softmax over the batch": (lambda: Small(at_features=lambda h: h.softmax(0)), "softmax over the batch"),
    "attention over the batch": (
        lambda: Small(at_features=batch_attention()),
        "'at_features' takes the first axis for its",
    ),
    "a neighbour": (lambda: Small(at_features=lambda h: h + h.roll(1, 0)), "something in its forward pass mixes them"),
    "batch norm without statistics": (
        lambda: Small(nn.BatchNorm2d(1, track_running_stats=False)),
        "'at_picture' is a batch norm without running statistics",
    ),
    "functional batch norm": (
        lambda: Small(at_features=lambda h: functional.batch_norm(h, None, None, training=True)),
        "takes the statistics of the batch",
    ),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_a_random_answer_is_told_with_its_cause(kind):
    build, cause = RANDOM[kind]
    (note,) = wrap_model(build(), ["a", "b"], 32, name="net").notes
    assert note.startswith("the answer of net is random")
    assert cause.replace("\\", "") in note


@pytest.mark.parametrize("kind", MIXING)
def test_an_answer_that_depends_on_other_films_is_told_with_its_cause(kind):
    build, cause = MIXING[kind]
    (note,) = wrap_model(build(), ["a", "b"], 32, name="net").notes
    assert note.startswith("the answer of net to a film depends on the other films of its batch")
    assert cause.replace("\\", "") in note


@pytest.mark.parametrize("build", [
    lambda: timm.create_model("resnet18", in_chans=1, num_classes=2,
                              norm_layer=lambda *a, **k: nn.BatchNorm2d(*a, track_running_stats=False)),
    lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Softmax(dim=0), nn.Linear(3600, 2)),
])  # fmt: skip
def test_networks_of_known_layers_are_told_too(build):
    (note,) = wrap_model(build(), ["a", "b"], 32).notes
    assert "other films" in note


def test_both_are_told():
    network = Small(lambda x: x / x.abs().max(), lambda h: functional.dropout(h, 0.5))
    notes = wrap_model(network, ["a", "b"], 32).notes
    assert ["random" in note for note in notes] == [True, False]


@pytest.mark.parametrize(
    "build",
    [
        Small,
        lambda: Small(nn.BatchNorm2d(1), nn.Dropout(0.5)),
        lambda: Small(lambda x: (x - x.mean((1, 2, 3), True)) / x.std((1, 2, 3), keepdim=True)),
        lambda: Small(nn.InstanceNorm2d(1), nn.LayerNorm(8)),
        lambda: timm.create_model("resnet18", in_chans=1, num_classes=2),
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=1, num_classes=2, depth=2),
        lambda: Small().bfloat16(),
        lambda: Small(at_features=lambda h: h / 0),  # NaN and infinities
    ],
)
def test_a_sound_network_is_not_accused_and_draws_nothing(build):
    network = build()
    state = torch.get_rng_state()
    assert wrap_model(network, ["a", "b"], 32).notes == ()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_look_at_a_random_network_leaves_what_the_user_draws_next_as_one_pass_would():
    network = Small(lambda x: x + torch.randn(()))
    torch.manual_seed(1)
    wrap_model(network, ["a", "b"], 32)
    after = torch.rand(())
    torch.manual_seed(1)
    torch.randn(())
    torch.randn(())  # two passes; the others have generators of their own
    assert torch.equal(torch.rand(()), after)


def test_torchvisions_layers_are_known():
    assert is_plain(torchvision.models.mobilenet_v3_small(weights=None, num_classes=2))
