"""Offline, with random weights: what torchxrayvision's networks compute, cxrx computes by their names."""

import json
import warnings

import pytest
import torch
import torchvision
from safetensors import safe_open
from torch import nn

from cxrx.errors import CxrxError, UsageError
from cxrx.models.load import load_model
from cxrx.registry import load as load_registry

with warnings.catch_warnings():  # it silences all warnings of the program
    xrv = pytest.importorskip("torchxrayvision", reason="torchxrayvision is not installed")

from cxrx_xrv.convert import convert
from cxrx_xrv.weights import OUTPUTS, WEIGHTS

NIH = "densenet121-res224-nih"
CLOSE = 1e-4  # of logits of order one, for inputs of order a thousand


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Give torchxrayvision a folder of its own, and no network."""
    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(xrv.utils, "download", refuse)


def refuse(*_):
    raise ConnectionError("no network here")


@pytest.fixture(scope="module")
def network():
    """A DenseNet of torchxrayvision with random weights and statistics, and a calibration."""
    torch.manual_seed(0)
    made = xrv.models.DenseNet()
    for key, value in made.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(1 + torch.rand(value.shape))
        elif key.endswith("running_mean"):
            value.copy_(0.1 * torch.randn(value.shape))
    made.op_threshs = torch.linspace(0.1, 0.9, 18)
    made.op_threshs[14:] = torch.nan
    return made.eval()


@pytest.fixture
def film():
    return 1024 * (2 * torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(1)) - 1)


def logits(network, x):
    """Return the outputs of torchxrayvision's network before its calibration."""
    with torch.inference_mode():
        return network.classifier(network.features2(x))


# ---------------------------------------------------------------------------------------------------------------------
# Names


def test_names_findings_and_sizes_are_torchxrayvisions():
    told = xrv.models.model_urls
    assert {w.name for w in WEIGHTS} == {name for name in told if "-" in name}
    for weights in WEIGHTS:
        assert weights.labels == tuple(label for label in told[weights.name]["labels"] if label)
        assert weights.size == told[weights.name]["input_resolution"]
        assert told[weights.name]["weights_url"].rpartition("/")[2].startswith(f"{weights.file}-")
    assert tuple(xrv.datasets.default_pathologies) == OUTPUTS


def test_all_are_registered_with_their_findings_and_input():
    registry = load_registry().models
    for weights in WEIGHTS:
        spec = registry.find(weights.name)
        assert registry.full_name(weights.name) == f"xrv/{weights.name}"
        assert "" not in spec.labels
        assert spec.input.channels == 1


def test_pixels_are_scaled_as_torchxrayvision_does(network, pickled, tmp_path):
    model = load_model(NIH, saved(network, pickled, tmp_path), device="cpu")
    grey = torch.tensor([[[0, 64, 128, 255]]], dtype=torch.float32)
    expected = torch.from_numpy(xrv.datasets.normalize(grey.numpy(), 255))
    assert torch.allclose(model.prepare(grey[:, 0:1] / 255).flatten(), expected.flatten(), atol=1e-3)


def saved(network, pickled, tmp_path):
    target = tmp_path / "converted.safetensors"
    convert(pickled(network, tmp_path / "nih-densenet121-d121-best.pt"), target)
    return target


# ---------------------------------------------------------------------------------------------------------------------
# Weights


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_by_name_the_logits_are_those_before_the_calibration(zipped, network, film, pickled, tmp_path, monkeypatch):
    file = xrv.models.model_urls[NIH]["weights_url"].rpartition("/")[2]
    pickled(network, tmp_path / "cache" / file, _use_new_zipfile_serialization=zipped)
    monkeypatch.setenv("CXRX_OFFLINE", "1")  # which it need not fetch
    model = load_model(NIH, device="cpu")
    assert model.labels == OUTPUTS[:14]
    z, raw = model.logits(film), logits(network, film)
    assert raw.std() > 0.01
    assert (z - raw[:, :14]).abs().max() <= CLOSE * raw.abs().max().clamp(min=1)
    with torch.inference_mode():
        calibrated = network(film)[:, :14]
    assert (model.probabilities(z) - calibrated).abs().max() > 0.05
    again = xrv.models.op_norm(torch.nn.functional.pad(model.probabilities(z), (0, 4)), network.op_threshs)[:, :14]
    assert torch.allclose(again, calibrated, atol=1e-4)
    (tmp_path / "cache" / file).unlink()
    assert torch.equal(load_model(NIH, device="cpu").logits(film), z)  # converted once, and kept


def test_operating_points_are_kept_beside_the_tensors(network, pickled, tmp_path):
    with safe_open(saved(network, pickled, tmp_path), "pt") as file:
        points = json.loads(file.metadata()["thresholds"])
        assert file.metadata()["threshold_rule"] == "youden"
    assert list(points) == list(OUTPUTS[:14])
    assert points["Hernia"] == pytest.approx(float(network.op_threshs[13]))


def test_the_resnet_of_512_pixels(pickled, tmp_path):
    torch.manual_seed(0)
    source = torchvision.models.resnet50(num_classes=18)
    source.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    path = pickled(source.eval().state_dict(), tmp_path / "pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt")
    convert(path, tmp_path / "w.safetensors")
    model = load_model("resnet50-res512-all", tmp_path / "w.safetensors", device="cpu")
    assert model.input.size == (512, 512)
    x = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        expected = source(x)
    assert (model.logits(x) - expected).abs().max() <= CLOSE * expected.abs().max()


def test_offline_without_the_file_is_a_sentence(monkeypatch):
    monkeypatch.setenv("CXRX_OFFLINE", "1")
    with pytest.raises(UsageError, match="CXRX_OFFLINE forbids to fetch"):
        load_model(NIH, device="cpu")


def test_a_failed_fetch_is_a_sentence_and_leaves_nothing(tmp_path, capsys):
    with pytest.raises(CxrxError, match=f"could not fetch {NIH}: ConnectionError"):
        load_model(NIH, device="cpu")
    said = capsys.readouterr()
    assert said.out == ""
    assert "licence: Apache-2.0" in said.err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (xrv.models.DenseNet, "no-such-weights", "torchxrayvision has no weights 'no-such-weights'"),
        (xrv.models.DenseNet, None, "the name of w.pt is none of torchxrayvision's files"),
        (lambda: xrv.models.DenseNet(num_classes=5), NIH, r"classifier\.weight must have 18 rows"),
        (lambda: {"epoch": 3}, NIH, "holds no network"),
        (lambda: xrv.models.DenseNet().features, NIH, r"classifier\.weight must have 18 rows"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_written(make, name, message, pickled, tmp_path):
    path = pickled(make(), tmp_path / "w.pt")
    with pytest.raises(UsageError, match=message):
        convert(path, tmp_path / "out.safetensors", name)
    assert not (tmp_path / "out.safetensors").exists()


def test_the_kit_is_content(network, pickled, tmp_path, monkeypatch):
    from cxrx.testing import check_model

    monkeypatch.setattr(xrv.models, "get_weights", lambda _name: pickled(network, tmp_path / "any.pt"))
    outcomes = check_model(load_registry().models.find("densenet121-res224-rsna"))
    assert len(outcomes) > 4
    assert [outcome for outcome in outcomes if not outcome.passed or "random" in outcome.message] == []


def test_without_a_network_the_kit_takes_random_weights(monkeypatch):
    from cxrx.testing import check_model

    monkeypatch.setenv("CXRX_OFFLINE", "1")
    outcomes = check_model(load_registry().models.find(NIH))
    assert all(outcome.passed for outcome in outcomes)
    (message,) = [outcome.message for outcome in outcomes if outcome.check == "weights"]
    assert "CXRX_OFFLINE forbids to fetch" in message
