"""Networks of the user's own: whether they end in logits or in probabilities, and what a file of theirs becomes."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from cxrx.cli import app
from cxrx.cli.runs import note_own_code
from cxrx.errors import UsageError
from cxrx.models.architectures import is_code
from cxrx.models.load import find_spec, load_model

NET = """
import torch
import torchvision
from torch import nn
from cxrx import InputSpec

INPUT = InputSpec(size=(16, 16), channels=1, mean=(0.5,), std=(0.25,))

class Gate(nn.Module):
    '''Squashes on the way, as a squeeze-and-excitation block does, and not at the end.'''
    def forward(self, x):
        return x * self.gate(x)

    def __init__(self):
        super().__init__()
        self.gate = nn.Sigmoid()

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = net()

    def forward(self, x):
        return torch.sigmoid(self.layers(x))

def net(*last, outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 8), Gate(), nn.Linear(8, outputs), *last)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a file of the user's and return how it is named."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)

    def write(source):
        (tmp_path / "net.py").write_text(NET + source)
        return f"{tmp_path}/net.py:build"

    yield write
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def x():
    return torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(5))


def outputs(name, x, **options):
    """Return what the network itself returns, and the model."""
    model = load_model(name, labels=["a", "b", "c"], device="cpu", **options)
    with torch.inference_mode():
        return model.module(x), model


@pytest.mark.parametrize("last", ["nn.Sigmoid()", "nn.Sigmoid(), nn.Dropout()", "nn.Sigmoid(), nn.Flatten()"])
def test_a_network_that_ends_in_a_sigmoid_is_not_squashed_twice(last, own, x):
    p, model = outputs(own(f"def build(): return net({last})"), x)
    assert (model.output, model.activation) == ("probabilities", "sigmoid")
    z = model.logits(x)
    assert torch.allclose(z, p.logit(), atol=1e-5)
    assert torch.allclose(model.probabilities(z), p, atol=1e-6)
    assert "ends in a sigmoid" in model.notes[-1]


def test_nor_is_one_that_ends_in_a_softmax(own, x):
    p, model = outputs(own("def build(): return net(nn.Softmax(dim=1))"), x)
    assert (model.output, model.activation) == ("probabilities", "softmax")
    assert torch.allclose(model.logits(x), p.log(), atol=1e-5)
    assert torch.allclose(model.probabilities(model.logits(x)), p, atol=1e-6)


def test_two_classes_of_one_finding_behind_a_softmax(own, x):
    model = load_model(own("def build(): return net(nn.Softmax(dim=1), outputs=2)"), labels=["ill"], device="cpu")
    with torch.inference_mode():
        p = model.module(x)
    assert torch.allclose(model.probabilities(model.logits(x))[:, 0], p[:, 1], atol=1e-6)


def test_logits_are_left_alone_and_a_sigmoid_within_is_none_at_the_end(own, x):
    z, model = outputs(own("def build(): return net()"), x)
    assert (model.output, model.notes) == ("logits", ())
    assert torch.equal(model.logits(x), z)


def test_a_sigmoid_that_is_no_layer_is_asked_about_and_can_be_told(own, x):
    p, model = outputs(own("build = Functional"), x)
    assert model.output == "logits"
    assert "OUTPUT = 'probabilities'" in model.notes[-1]
    p, model = outputs(own("build = Functional\nOUTPUT = 'probabilities'"), x)
    assert model.notes == ()
    assert torch.allclose(model.logits(x), p.logit(), atol=1e-5)
    with pytest.raises(UsageError, match=r"OUTPUT in '.*' is 'logits' or 'probabilities', not 'odds'"):
        outputs(own("build = Functional\nOUTPUT = 'odds'"), x)


def test_their_weights_are_converted_under_their_own_names(own, tmp_path):
    """Names that look like CheXNet's: read for densenet121 they are renamed, for the user's network they are not."""
    source = "class Own(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    source += "        self.densenet121 = nn.Sequential()\n"
    source += "        self.densenet121.features = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))\n"
    source += "        self.densenet121.classifier = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid())\n"
    source += "    def forward(self, x):\n"
    source += "        return self.densenet121.classifier(self.densenet121.features(x))\n"
    name = own(f"{source}build = Own")
    torch.manual_seed(1)
    made = load_model(name, device="cpu")
    torch.save({"state_dict": {f"module.{k}": v for k, v in made.module.state_dict().items()}}, tmp_path / "w.pth.tar")
    words = ["weights", "convert", str(tmp_path / "w.pth.tar"), str(tmp_path / "w.safetensors"), "-m", name]
    done = CliRunner().invoke(app, [*words, "--labels", "a,b,c"])
    assert done.exit_code == 0, done.output + done.stderr
    assert load_file(tmp_path / "w.safetensors").keys() == made.module.state_dict().keys()
    model = load_model(name, tmp_path / "w.safetensors", device="cpu")
    assert model.input == made.input  # as the user's file declares it, whatever the names look like
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(model.logits(x), made.logits(x))
    assert model.labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./net.py:build", True), ("/a:b/net.py:build", True), ("runs/a:b", False), ("runs/net.py:3/best", False),
        ("net.so:build", False), ("net:build", False), ("net.py", False), ("densenet121", False),
    ],
)  # fmt: skip
def test_only_a_python_file_with_a_function_is_code(name, expected, capsys):
    assert is_code(name) is expected
    note_own_code(name)
    assert ("running your code" in capsys.readouterr().err) is expected
    if not expected and name != "densenet121":
        with pytest.raises(UsageError, match="there is no model named"):
            find_spec(name)
