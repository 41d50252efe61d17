"""Requests that cannot be met: a sentence that says what fits, exit 2, and nothing written."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cxrx.cli import app

NETWORKS = textwrap.dedent("""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Conv2d(1, 4, 3, stride=4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.features(x).relu().mean((2, 3)))

    class Detached(Network):
        def forward(self, x):
            return super().forward(x).detach()

    class Rounded(Network):
        def forward(self, x):
            return super().forward(x.round().detach())

    class Overwritten(Network):
        def forward(self, x):
            a = self.features(x).sigmoid()
            a.mul_(2)
            return self.head(a.mean((2, 3)))

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(32 * 32, 2)

        def forward(self, x):
            return self.head(x.flatten(1))
""")
KINDS = ("Network", "Detached", "Rounded", "Overwritten", "Flat")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder with two films and some networks, and stand in it."""
    (tmp_path / "films").mkdir()
    for i in range(2):
        grey = np.random.default_rng(i).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / "films" / f"{i}.png")
    builds = "".join(f"\ndef {kind.lower()}():\n    return {kind}()\n" for kind in KINDS)
    (tmp_path / "net.py").write_text(NETWORKS + builds)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explain(network, *arguments):
    own = ("-m", f"./net.py:{network.lower()}", "--labels", "a,b", "--input-size", "32", "--in-chans", "1")
    return CliRunner().invoke(app, ["explain", "films", "--workers", "0", *own, *arguments])


@pytest.mark.parametrize(
    ("network", "arguments", "sentence", "hint"),
    [
        ("Network", ("--method", "chefer"), "chefer needs attention", "gradcam"),
        ("Network", ("--method", "chefer-lrp"), "chefer-lrp needs attention and plain transformer blocks", "rise"),
        ("Network", ("--method", "gradcam", "--method", "rollout"), "rollout needs attention", "rise"),
        ("Network", ("--method", "fullgrad"), "fullgrad needs convolutions with biases", "gradcam"),
        ("Flat", ("--method", "gradcam"), "gradcam needs a spatial layer", "saliency"),
        ("Network", ("--method", "gradcan"), "gradcan", "gradcam"),
        ("Network", ("--method", "saliency", "--targets", "Edema"), "Edema", "a, b"),
        ("Network", ("--method", "saliency", "--targets", "2"), "2", ""),
        ("Network", ("--method", "extremal", "-O", "stepz=3"), "no option 'stepz'", "steps"),
        ("Network", ("--method", "extremal", "-O", "steps=many"), "steps must be a whole number", ""),
        ("Network", ("--method", "rise", "-O", "keep=1.5"), "keep between 0 and 1", ""),
        ("Network", ("--method", "lime", "-O", "shape=round"), "shape must be slic | grid", ""),
        ("Network", ("--method", "gradcam", "--layer", "nothing"), "no layer named 'nothing'", ""),
        ("Network", ("--method", "gradcam", "--layer", "head"), "no grid", ""),
        ("Network", ("--method", "saliency", "--layer", "features"), "no options", ""),
        ("Detached", ("--method", "saliency"), "no gradient reaches this network's input", "rise, occlusion"),
        ("Rounded", ("--method", "extremal"), "no gradient reaches this network's input", "rise, occlusion"),
        ("Detached", ("--method", "gradcam"), "no gradient reaches layer 'features'", "rise, occlusion"),
        ("Overwritten", ("--method", "smoothgrad"), "in-place operation", "rise, occlusion"),
    ],
)
def test_the_sentence_says_what_fits_and_nothing_is_written(place, network, arguments, sentence, hint):
    before = sorted(place.rglob("*"))
    done = explain(network, *arguments)
    assert done.exit_code == 2, done.output
    assert sentence in " ".join(done.stderr.split())
    assert hint in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    assert [path for path in sorted(place.rglob("*")) if "__pycache__" not in path.parts] == before


def test_what_needs_no_gradients_still_runs(place):
    done = explain("Detached", "--method", "occlusion", "--method", "random", "--targets", "all")
    assert done.exit_code == 0, done.output
    assert (place / "results.h5").is_file()
