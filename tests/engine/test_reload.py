"""Models behind stored predictions are loaded again as the file records them, not as today's defaults say."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

import cxrx
from cxrx.engine.api import reload_model, run
from cxrx.errors import UsageError

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(CHANNELS, 4, 5, stride=4), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, 2))
"""


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (50, 60), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(channels):
        (tmp_path / "net.py").write_text(NET.replace("CHANNELS", str(channels)))
        from torch import nn

        torch.manual_seed(0)
        source = nn.Sequential(nn.Conv2d(channels, 4, 5, stride=4), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                               nn.Linear(4, 2))  # fmt: skip
        torch.save(source.state_dict(), tmp_path / "w.pth")
        return f"{tmp_path}/net.py:build", tmp_path / "w.pth"

    return write


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (3, {"input_size": 40}),
        (1, {"input_size": (40, 32)}),
        (1, {"input_size": 40, "in_chans": 1, "labels": ["x", "y"]}),
        (3, {"input": cxrx.InputSpec(size=(32, 32), resize=36, mean=(0.3,), std=(0.2,), clahe=(4.0, 2, 2))}),
        (3, {"input_size": 40, "activation": "softmax"}),
        (3, {"input_size": 40, "activation": "softmax", "labels": ["x"]}),
    ],
    ids=["size", "one channel", "labels", "CLAHE", "softmax", "two classes of one finding"],
)
def test_an_own_network_is_reloaded_with_all_that_decides_its_numbers(channels, options, films, own, tmp_path):
    name, weights = own(channels)
    model = cxrx.load_model(name, weights, device="cpu", **options)
    out = tmp_path / "r.h5"
    run(model, films, (), out, workers=0)
    with cxrx.open_results(out) as results:
        again = reload_model(results, model.slug, "cpu", name)
        stored = results.logits(model.slug)
    assert (again.input, again.labels, again.activation) == (model.input, model.labels, model.activation)
    report = run(again, None, ["saliency"], out, workers=0)  # which refuses films whose logits moved
    assert report.failed == 0
    assert report.methods == ("saliency",)
    assert np.isfinite(stored).all()


def test_a_timm_network_of_another_size_is_built_that_size_again(films, tmp_path):
    import timm

    source = timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=64, in_chans=1, depth=1)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"missing: blocks\.1\."):
        cxrx.load_model("timm/vit_tiny_patch16_224", tmp_path / "w.pth", device="cpu")
    source = timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=64, in_chans=1)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = cxrx.load_model("timm/vit_tiny_patch16_224", tmp_path / "w.pth", ["a", "b"], "cpu")
    assert (model.input.size, model.input.channels) == ((64, 64), 1)
    out = tmp_path / "r.h5"
    run(model, films, (), out, workers=0)
    with cxrx.open_results(out) as results:
        again = reload_model(results, model.slug, "cpu")
    assert again.input == model.input
    assert again.slug == model.slug


def test_weights_that_changed_are_told(films, own, tmp_path):
    name, weights = own(3)
    model = cxrx.load_model(name, weights, device="cpu", input_size=40)
    run(model, films, (), tmp_path / "r.h5", workers=0)
    state = torch.load(weights)
    state["4.bias"] += 1
    torch.save(state, weights)
    with cxrx.open_results(tmp_path / "r.h5") as results, pytest.raises(UsageError, match="cannot be found") as error:
        reload_model(results, model.slug, "cpu", name)
    assert "--weights" in error.value.hint
