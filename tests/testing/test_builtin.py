"""Everything built in keeps the contract that plugins are held to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cxrx.models.load import wrap_model
from cxrx.registry import load
from cxrx.testing import (
    ExplainerConformance,
    ModelConformance,
    check_dataset,
    check_explainer,
    check_exporter,
    check_metric,
    check_model,
    check_reader,
)
from cxrx.testing.explainers import CHECKS, DECLARATION

REGISTRY = load()

QUICK = {
    "smoothgrad": {"n": 4},
    "smoothgrad-squared": {"n": 4},
    "vargrad": {"n": 4},
    "integrated-gradients": {"steps": 6},
    "gradientshap": {"n": 4},
    "lime": {"samples": 20},
    "kernelshap": {"samples": 20},
    "extremal": {"steps": 3},
    "rise": {"masks": 16},
    "occlusion": {"window": 64, "stride": 32},
}
"""The contract holds for any number of steps; few are quick. Where maps lie is in test_placement.py."""


def assert_all_passed(outcomes):
    assert outcomes
    failed = [f"{outcome.subject}: {outcome.check}: {outcome.message}" for outcome in outcomes if not outcome.passed]
    assert not failed, "\n".join(failed)


DEAR = {"cxrx/extremal", "cxrx/kernelshap", "cxrx/lime"}
EXPLAINERS = [
    pytest.param(name, marks=pytest.mark.slow if name in DEAR else ())
    for name in REGISTRY.explainers
    if name.startswith("cxrx/")
]


@pytest.mark.parametrize("name", EXPLAINERS)
def test_every_explainer(name):
    spec = REGISTRY.explainers[name]
    assert_all_passed(check_explainer(spec, options=QUICK.get(spec.name), only=[DECLARATION, *CHECKS]))


@pytest.mark.parametrize("name", ["demo-densenet", "demo-vit", pytest.param("densenet121", marks=pytest.mark.slow)])
def test_models(name):
    assert_all_passed(check_model(REGISTRY.models.find(name)))


@pytest.mark.parametrize(
    ("kind", "check"),
    [("metrics", check_metric), ("readers", check_reader), ("datasets", check_dataset), ("exporters", check_exporter)],
)
def test_every_metric_reader_data_set_and_exporter(kind, check):
    specs = list(getattr(REGISTRY, kind).values())
    assert specs
    assert_all_passed([outcome for spec in specs for outcome in check(spec)])


class TestSaliency(ExplainerConformance):
    """The kit as a plugin's author uses it."""

    name = "saliency"


class TestGradCamOnOwnModel(ExplainerConformance):
    """On a model of the author's own."""

    name = "cxrx/gradcam"

    def model(self):
        torch.manual_seed(0)
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1))
        network = nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), *head)
        return wrap_model(network, ["only"], (16, 20), 3)


@pytest.mark.slow
class TestResNet(ModelConformance):
    """A model by its registered name."""

    name = "resnet50"
