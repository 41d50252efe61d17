"""The kit sees what is wrong with a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from cxrx.specs import InputSpec, ModelSpec
from cxrx.testing import ModelConformance, check_model
from cxrx.testing.models import CHECKS, DECLARATION

INPUT = InputSpec(size=(16, 24), channels=1, mean=(0.5,), std=(0.25,))


class Net(nn.Module):
    """A small CNN whose logits `spoil` changes."""

    def __init__(self, outputs, spoil):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, outputs)
        self.spoil = spoil

    def forward(self, x):
        return self.spoil(self.fc(self.relu(self.conv(x)).mean(dim=(2, 3))))


def spec_of(spoil=lambda z: z, outputs=None, **changes):
    def build(labels):
        torch.manual_seed(0)
        return Net(outputs or len(labels), spoil)

    return replace(ModelSpec("offender", build, ("Effusion", "Mass"), INPUT), **changes)


def failed(spec):
    return {outcome.check: outcome.message for outcome in check_model(spec) if not outcome.passed}


def test_a_sound_model_passes_everything():
    outcomes = check_model(spec_of())
    assert [outcome.check for outcome in outcomes] == [DECLARATION, "build", *CHECKS]
    assert all(outcome.passed for outcome in outcomes)
    assert outcomes[-1].message == "relu, 14 x 22"


@pytest.mark.parametrize(
    ("spec", "check", "message"),
    [
        (spec_of(outputs=5), "logits", "5 outputs, but 2 labels"),
        (spec_of(lambda z: z / 0), "logits", "NaN or infinity"),
        (spec_of(lambda z: z + torch.rand(1)), "repeatable", "two forward passes differ"),
        (spec_of(lambda z: z - z.mean(dim=0)), "batch", "neighbours"),
        (spec_of(lambda z: z.detach()), "gradients", "no gradient reaches the input"),
        (spec_of(cam_layer="layer9"), "cam layer", "cam_layer='layer9' cannot be used"),
        (spec_of(cam_layer="fc"), "cam layer", ""),
        (spec_of(build=lambda labels: 3), "build", "build returned int"),
        (spec_of(build=lambda labels: labels[7]), "build", "IndexError"),
        (spec_of(weights="nowhere.safetensors"), "weights", "no weights file"),
        (spec_of(weights=lambda: None), "weights", "raised TypeError"),
        (spec_of(labels=("Mass", "Mass")), DECLARATION, "differ"),
        (spec_of(name="My Model"), DECLARATION, "must be made of"),
        (spec_of(output="probability"), DECLARATION, "output is"),
        (spec_of(activation="relu"), DECLARATION, "activation is"),
        (spec_of(input=replace(INPUT, mean=(0.1, 0.2, 0.3))), DECLARATION, "mean has 3 values for 1 channels"),
        (spec_of(input=replace(INPUT, std=(0.0,))), DECLARATION, "std must be positive"),
    ],
)
def test_an_offender_is_caught(spec, check, message):
    assert message in failed(spec)[check]


def test_weights_that_may_not_be_fetched_are_left_out_and_the_rest_is_checked(monkeypatch, tmp_path):
    monkeypatch.setenv("CXRX_OFFLINE", "1")
    monkeypatch.setenv("CXRX_HOME", str(tmp_path))
    spec = spec_of(weights="https://example.org/w.safetensors", weights_sha256="0" * 64)
    outcomes = check_model(spec)
    assert [outcome.check for outcome in outcomes] == [DECLARATION, "build", "weights", *CHECKS]
    assert all(outcome.passed for outcome in outcomes)
    assert "random ones take their place: w.safetensors is not in" in outcomes[2].message
    assert failed(replace(spec, weights_sha256=""))["weights"].endswith("need the sha256 of the file")


def test_a_model_without_a_cam_layer_is_sound():
    spec = spec_of(build=lambda labels: nn.Sequential(nn.Flatten(), nn.Linear(16 * 24, len(labels))))
    outcomes = check_model(spec)
    assert all(outcome.passed for outcome in outcomes)
    assert outcomes[-1].message.startswith("no CAM: ")


def test_the_pytest_class_fails_with_what_is_wrong():
    class Offender(ModelConformance):
        spec = spec_of(lambda z: z.detach())

    Offender().test_contract("logits")
    Offender().test_contract("build")
    with pytest.raises(AssertionError, match="model offender: gradients: no gradient"):
        Offender().test_contract("gradients")
