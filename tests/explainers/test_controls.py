from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel

from cxrx.explainers.controls import build_centre, build_edge, build_random
from cxrx.explainers.option_types import CentreOptions, NoOptions, RandomOptions

TARGETS = torch.tensor([[0, 2], [1, -1], [2, 0]])
SEEDS = torch.tensor([11, 12, 13])
NO_MODEL = object()
CONTROLS = {
    "random": build_random(RandomOptions()),
    "edge": build_edge(NoOptions()),
    "centre": build_centre(CentreOptions()),
}


@pytest.fixture
def x():
    return torch.randn(3, 3, 20, 30, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_never_look_at_the_model(x, name):
    values = CONTROLS[name](NO_MODEL, x, TARGETS, SEEDS).values
    assert values.shape[:2] == (3, 2)
    assert values.dtype == torch.float32
    assert values.min() >= 0


def test_random_depends_on_picture_and_finding_and_on_nothing_else(x):
    random = CONTROLS["random"]
    values = random(NO_MODEL, x, TARGETS, SEEDS).values
    assert values.shape == (3, 2, 7, 7)
    assert values[1, 1].max() == 0
    assert not torch.equal(values[0, 0], values[0, 1])
    assert not torch.equal(values[0, 1], values[2, 0])  # the same finding of another picture
    other = random(NO_MODEL, x.flip(0), TARGETS.flip(1).flip(0), SEEDS.flip(0)).values
    assert torch.equal(other.flip(0).flip(1), values)


def test_random_is_uniform(x):
    many = build_random(RandomOptions(grid=64))(NO_MODEL, x, TARGETS, SEEDS).values[0, 0]
    assert abs(many.mean() - 0.5) < 0.02
    assert abs(many.var() - 1 / 12) < 0.005


def test_edge_is_scipys_sobel(x):
    values = CONTROLS["edge"](NO_MODEL, x, TARGETS, SEEDS).values
    for b, grey in enumerate(x.mean(1).numpy()):
        expected = np.hypot(sobel(grey, 0, mode="nearest"), sobel(grey, 1, mode="nearest")) / 8
        np.testing.assert_allclose(values[b, 0], expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(values[b, 0], values[b, 1])


def test_centre_is_a_symmetric_bell(x):
    values = CONTROLS["centre"](NO_MODEL, x, TARGETS, SEEDS).values[2, 1]
    torch.testing.assert_close(values, values.flip(0, 1))
    assert values.argmax().item() in {9 * 30 + 14, 9 * 30 + 15, 10 * 30 + 14, 10 * 30 + 15}
    # One sigma (a quarter of the side) from the middle, the bell is at exp(-1/2) of its height.
    wide = build_centre(CentreOptions())(NO_MODEL, torch.zeros(3, 1, 4, 400), TARGETS, SEEDS).values[0, 0]
    assert wide[2, 300] / wide[2, 200] == pytest.approx(0.606, abs=5e-3)
