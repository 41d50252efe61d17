"""Methods that take long say from inside how far they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cxrx.explainers.run import run_explainer
from cxrx.explainers.steps import looping, share_done, told, watched
from cxrx.models.load import wrap_model
from cxrx.options import parse_options
from cxrx.registry import load


def test_the_share_counts_loops_within_loops():
    seen = []
    with watched() as loops:
        for _ in told("ab", 2):
            seen.append(share_done(loops))
            for _ in told(range(4), 4):
                seen.append(share_done(loops))
    assert seen == [0, 0, 1 / 8, 2 / 8, 3 / 8, 1 / 2, 4 / 8, 5 / 8, 6 / 8, 7 / 8]
    assert loops == []
    with looping(0) as loop:  # nobody watches
        assert share_done([loop]) == 0


LONG = {
    "smoothgrad": {"n": 40},
    "integrated-gradients": {"steps": 40},
    "gradientshap": {"n": 40},
    "deeplift": {},
    "occlusion": {},
    "rise": {"masks": 64},
    "lime": {"samples": 64, "segments": 9, "shape": "grid"},
    "kernelshap": {"samples": 64, "segments": 9, "shape": "grid"},
    "scorecam": {"batch": 2},
    "ablationcam": {"batch": 2},
    "extremal": {"steps": 20},
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_method_tells_its_share_while_it_runs(name):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    model = wrap_model(network, ["a", "b", "c"], input_size=32, in_chans=1)
    spec = load().explainers.find(name)
    targets = torch.tensor([[0, 2], [-1, -1], [1, -1]])  # padded to five pictures
    shares = []
    with watched() as loops:
        handle = network.register_forward_hook(lambda *_: shares.append(share_done(loops)))
        run_explainer(
            model, spec.build(parse_options(spec.options, LONG[name], name)), torch.rand(3, 1, 32, 32), targets,
            torch.tensor([1, 2, 3]), 5,
        )  # fmt: skip
        handle.remove()
    assert loops == []
    during = [share for share in shares if share]
    assert during == sorted(during), "it went back"
    assert 0 < during[0] < 1
    assert 0.4 <= during[-1] < 1
