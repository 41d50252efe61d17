"""The kit of cxrx checks what the plugin brings, and one test says what the explainer is for."""

import torch
from torch import nn

import cxrx
from cxrx.testing import ExplainerConformance, ModelConformance


class TestTiles(ExplainerConformance):
    name = "template/tiles"


class TestSmall(ModelConformance):
    name = "template/small"


def test_the_tile_that_the_model_reads_is_found():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 1, bias=False))
    weight = torch.zeros(64, 64)
    weight[16:24, 40:48] = 1.0
    network[1].weight = nn.Parameter(weight.reshape(1, -1))
    x = torch.zeros(1, 1, 64, 64)
    x[:, :, 16:24, 40:48] = 1.0
    values = cxrx.explain(cxrx.wrap_model(network, ["patch"], 64), x, "tiles").values[0, 0]
    # the patch holds 64 ones, and the mean of 64 / 4096 takes their place
    assert values[2, 5] == 64 - 1
    assert abs(values).sum() == values[2, 5]
