"""Loading by name and from the user's own file: labels by rank, devices, notes."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from cxrx.errors import UsageError
from cxrx.models import load
from cxrx.models.load import load_model, pick_device
from cxrx.registry import Registry
from cxrx.specs import InputSpec, ModelSpec

SMALL = InputSpec(size=(8, 8), channels=1, mean=(0.5,), std=(0.25,))


class Small(nn.Module):
    """Has a head of a name that checkpoints are recognised by."""

    def __init__(self, outputs):
        super().__init__()
        self.fc = nn.Linear(64, outputs)

    def forward(self, x):
        return self.fc(x.flatten(1))


@pytest.fixture
def register(monkeypatch):
    """Register small models of the findings Effusion and Mass, and nothing else."""
    registry = Registry("model", ModelSpec)
    monkeypatch.setattr(load, "load_registry", lambda: SimpleNamespace(models=registry))

    def add(name="small", labels=("Effusion", "Mass"), **options):
        registry.add("test", ModelSpec(name, lambda labels: Small(len(labels)), labels, SMALL, **options))

    return add


@pytest.fixture
def save(tmp_path):
    """Save weights of a small network with `outputs` outputs; a .safetensors may carry metadata."""

    def write(outputs, name="w.safetensors", **metadata):
        path = tmp_path / name
        tensors = Small(outputs).state_dict()
        if path.suffix == ".safetensors":
            save_file(tensors, path, {key: json.dumps(value) for key, value in metadata.items()})
        else:
            torch.save(tensors, path)
        return path

    return write


# ---------------------------------------------------------------------------------------------------------------------
# Labels by rank: given > checkpoint > spec, if the head fits > class0...


@pytest.mark.parametrize(
    ("outputs", "in_file", "given", "expected"),
    [
        (2, ["a", "b"], ["x", "y"], ("x", "y")),
        (2, ["a", "b"], None, ("a", "b")),
        (3, ["a", "b", "c"], None, ("a", "b", "c")),
        (2, None, None, ("Effusion", "Mass")),
        (3, None, None, ("class0", "class1", "class2")),
        (3, None, ["x", "y", "z"], ("x", "y", "z")),
    ],
)
def test_labels_are_chosen_by_rank(outputs, in_file, given, expected, register, save):
    register()
    model = load_model("small", save(outputs, **({"labels": in_file} if in_file else {})), given, "cpu")
    assert model.labels == expected
    assert model.logits(torch.zeros(1, 1, 8, 8)).shape == (1, outputs)
    assert any("class0" in note for note in model.notes) == (expected[0] == "class0")


def test_without_weights_the_labels_of_the_spec_hold_and_the_user_is_told_that_weights_are_random(register):
    register()
    model = load_model("small", device="cpu")
    assert model.labels == ("Effusion", "Mass")
    assert "random weights" in model.notes[0]


def test_labels_that_do_not_fit_the_weights_are_refused(register, save):
    register()
    with pytest.raises(UsageError, match=r"of another shape: .*fc.weight"):
        load_model("small", save(3), ["a", "b"], "cpu")


def test_the_input_of_the_file_goes_before_that_of_the_spec(register, save):
    register()
    path = save(2, input={"size": [8, 8], "channels": 1, "mean": [0.1], "std": [0.9], "new_in_a_later_version": 1})
    assert load_model("small", path, device="cpu").input == InputSpec(size=(8, 8), channels=1, mean=(0.1,), std=(0.9,))


def test_the_input_that_is_given_goes_before_all_and_size_and_channels_before_it():
    given = InputSpec(size=(96, 96), resize=110, mean=(0.2,), std=(0.3,))
    assert load_model("timm/resnet18", labels=["a"], device="cpu", input=given).input == given
    model = load_model("timm/resnet18", labels=["a"], device="cpu", input=given, input_size=64)
    assert model.input == InputSpec(size=(64, 64), mean=(0.2,), std=(0.3,))


def test_only_its_own_weights_make_a_demo_model_a_demo(register, save):
    register("demo", demo=True, weights=save(2, "own.safetensors"))
    register("plain")
    assert load_model("demo", device="cpu").demo
    assert not load_model("demo", save(2), device="cpu").demo
    assert not load_model("plain", save(2), device="cpu").demo


def test_a_mistyped_name_is_answered_with_the_nearest(register):
    register()
    with pytest.raises(UsageError, match="no model named 'smal'") as error:
        load_model("smal")
    assert "small" in error.value.hint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("model.pth.tar", b"", "a file, and no model is called so"), ("vgg16.h5", b"", "is a Keras file")],
)
def test_weights_in_place_of_a_name_are_answered_with_where_they_belong(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        load_model(str(tmp_path / name), device="cpu")
    assert error.value.hint == ("" if name == "vgg16.h5" else f"weights are named by --weights {tmp_path / name}")


def test_the_input_of_the_file_decides_between_rectangles_of_as_many_patches(tmp_path):
    """4 x 9 patches are as many as 6 x 6, and the tensors do not tell them apart."""
    network = timm.create_model("vit_small_patch16_224", num_classes=2, img_size=(64, 144), in_chans=1)
    told = {"labels": '["a", "b"]', "input": '{"size": [64, 144], "channels": 1, "mean": [0.5], "std": [0.5]}'}
    save_file(network.state_dict(), tmp_path / "w.safetensors", told)
    model = load_model("vit_small", tmp_path / "w.safetensors", device="cpu")
    assert model.input.size == (64, 144)
    x = torch.randn(1, 1, 64, 144)
    with torch.inference_mode():
        assert torch.allclose(model.logits(x), network.eval()(x), atol=1e-5)


def test_a_spec_that_builds_no_network_is_told(monkeypatch):
    registry = Registry("model", ModelSpec)
    registry.add("test", ModelSpec("three", lambda labels: 3, ("a",), SMALL))
    registry.add("test", ModelSpec("broken", lambda labels: labels[9], ("a",), SMALL))
    monkeypatch.setattr(load, "load_registry", lambda: SimpleNamespace(models=registry))
    with pytest.raises(UsageError, match=r"build returned int, not a torch\.nn\.Module"):
        load_model("three", device="cpu")
    with pytest.raises(UsageError, match="broken could not be built: IndexError"):
        load_model("broken", device="cpu")


# ---------------------------------------------------------------------------------------------------------------------
# The user's own file

HEADER = """
from __future__ import annotations
from torch import nn

def net(channels, outputs):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a file of the user's and return how it is named; sys.path and sys.modules are restored."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)

    def write(source, function="build"):
        (tmp_path / "net.py").write_text(HEADER + source)
        return f"{tmp_path}/net.py:{function}"

    yield write
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "labels", "expected"),
    [
        ("def build(labels): return net(3, len(labels))", ["a", "b"], ("a", "b")),
        ("def build(labels=('q',)): return net(3, len(labels))", ["a", "b"], ("a", "b")),
        ("def build(): return net(3, 2)", ["a", "b"], ("a", "b")),
        ("def build(): return net(3, 5)", None, ("class0", "class1", "class2", "class3", "class4")),
        ("def build(dropout=0.1): return net(3, 2)", None, ("class0", "class1")),
    ],
)
def test_an_own_function_may_take_labels_or_not(source, labels, expected, own):
    model = load_model(own(source), labels=labels, device="cpu")
    assert model.labels == expected
    assert model.name == "net"
    assert model.logits(torch.zeros(1, 3, *model.input.size)).shape == (1, len(expected))


def test_an_own_function_that_needs_labels_is_not_given_none(own):
    with pytest.raises(UsageError, match="built for a list of findings, and none are known") as error:
        load_model(own("def build(labels): return net(3, len(labels))"), device="cpu")
    assert "--labels" in error.value.hint


def test_an_own_class_of_one_channel_gets_grey_films(own):
    source = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = net(1, 2)

    def forward(self, x):
        return self.layers(x)
"""
    model = load_model(own(source, "Net"), labels=["a", "b"], device="cpu")
    assert model.input.channels == 1
    assert model.prepare(torch.zeros(1, 224, 224)).shape == (1, 1, 224, 224)


def test_an_own_file_may_hold_dataclasses_an_input_and_import_from_beside_it(own, tmp_path):
    (tmp_path / "beside_net.py").write_text("OUTPUTS = 2\n")
    source = """
from dataclasses import dataclass
from beside_net import OUTPUTS
from cxrx import InputSpec

INPUT = InputSpec(size=(16, 24), channels=1, mean=(0.5,), std=(0.5,))

@dataclass
class Config:
    outputs: int = OUTPUTS

def build():
    return net(1, Config().outputs)
"""
    model = load_model(own(source), device="cpu")
    assert model.input == InputSpec(size=(16, 24), channels=1, mean=(0.5,), std=(0.5,))
    assert len(model.labels) == 2


def test_own_weights_are_loaded_strictly(own, tmp_path):
    name = own("def build(): return net(3, 2)")
    torch.save({"state_dict": {"module.3.weight": torch.zeros(2, 4)}}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"missing: 0\.bias, 0\.weight, 3\.bias"):
        load_model(name, tmp_path / "w.pth", device="cpu")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "has no function 'build'"),
        ("def (", "raised SyntaxError"),
        ("import sys; sys.exit('usage: train.py')", "raised SystemExit: usage: train.py"),
        ("def build(): return 3", "not a torch.nn.Module"),
        ("def build(): return nn.Linear(2, 2)", "does not take an input of shape"),
        ("def build(): raise OSError('no disk')", "could not be built: OSError: no disk"),
    ],
)
def test_what_is_wrong_with_an_own_file_is_a_sentence(source, message, own):
    with pytest.raises(UsageError, match=message):
        load_model(own(source), device="cpu")


def test_an_own_file_that_is_not_there():
    with pytest.raises(UsageError, match=r"no file '\./nowhere\.py'"):
        load_model("./nowhere.py:build")


# ---------------------------------------------------------------------------------------------------------------------
# Devices


@pytest.mark.parametrize("device", ["banana", "meta", "xpu", ""])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(UsageError, match="is no device"):
        pick_device(device)


def test_a_device_that_is_not_here_is_refused_and_auto_falls_back(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda", "cuda:1", "mps", "cpu:3"):
        with pytest.raises(UsageError, match="not available here"):
            pick_device(device)
    assert pick_device("auto") == torch.device("cpu") == pick_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UsageError, match="'cuda:1' is not available here"):
        pick_device("cuda:1")


BUILDS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.fc = None, nn.Linear(8, 2)

    def forward(self, x):
        if self.body is None:
            self.body = nn.Conv2d(x.shape[1], 8, 3, 2)
        return self.fc(torch.relu(self.body(x)).mean((2, 3)))

def build():
    return Net()

def lazy():
    return nn.Sequential(nn.LazyConv2d(8, 3, 2), nn.LazyBatchNorm2d(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.LazyLinear(2))
"""


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("function", ["build", "lazy"])
def test_weights_of_a_network_that_builds_layers_in_its_first_pass(tmp_path, function, channels):
    (tmp_path / "net.py").write_text(BUILDS)
    scope: dict = {}
    exec(BUILDS, scope)
    trained = scope[function]().eval()
    x = torch.rand(2, channels, 32, 32)
    expected = trained(x).detach()
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    model = load_model(f"{tmp_path}/net.py:{function}", tmp_path / "w.pth", input_size=32, device="cpu")
    assert model.input.channels == channels
    assert torch.allclose(model.logits(x), expected, atol=1e-6)
    torch.save({**trained.state_dict(), "extra.weight": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(UsageError, match=r"left over: extra\.weight"):
        load_model(f"{tmp_path}/net.py:{function}", tmp_path / "more.pth", input_size=32, device="cpu")
