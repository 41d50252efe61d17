"""``cxrx weights``, ``cxrx models --search`` and models that are named by their weights."""

from __future__ import annotations

import argparse
import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from cxrx.cli import app
from cxrx.models.load import load_model

runner = CliRunner()


def cxrx(*argv, code=0):
    done = runner.invoke(app, [str(word) for word in argv])
    assert done.exit_code == code, done.output + done.stderr
    return done


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A fine-tuned medical_mae network with its trainer's luggage, and what it was made of."""
    import timm

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch16_224", num_classes=14, global_pool="avg", img_size=32)
    args = argparse.Namespace(lr=1e-3)
    content = {"model": network.state_dict(), "optimizer": {}, "epoch": 74, "scaler": {}, "args": args}
    torch.save(content, folder / "mae.pth")
    base = {k: v for k, v in network.state_dict().items() if not k.startswith(("head.", "fc_norm."))}
    base |= {"norm.weight": torch.ones(384), "norm.bias": torch.zeros(384)}
    torch.save({"model": base | {"mask_token": torch.zeros(1, 1, 8)}, "args": args}, folder / "base.pth")
    torch.save(nn.Linear(2, 2).state_dict(), folder / "odd.pth")
    return folder


def test_show_tells_what_a_file_is(files):
    shown = json.loads(cxrx("weights", "show", files / "mae.pth", "--json").stdout)
    assert shown["format"] == "medical_mae"
    assert shown["model"] == "vit_small"
    assert shown["variant"] == {"in_chans": 3, "global_pool": "avg", "img_size": [32, 32]}
    assert shown["labels"][0] == "Atelectasis"
    assert shown["input"]["mean"] == [0.5056]
    assert shown["beside"] == {"optimizer": "dict", "epoch": "74", "scaler": "dict", "args": "Options"}
    assert shown["sha256"] == hashlib.sha256((files / "mae.pth").read_bytes()).hexdigest()
    plain = cxrx("weights", "show", files / "mae.pth").stdout
    assert "read as    a fine-tuned medical_mae network" in plain
    assert "Pleural_Thickening" in plain


def test_a_converted_file_tells_all_and_gives_the_same_logits(files, tmp_path):
    out = tmp_path / "mae.safetensors"
    printed = cxrx("weights", "convert", files / "mae.pth", out).stdout
    assert "vit_small from a fine-tuned medical_mae network" in printed
    before, after = load_model("vit_small", files / "mae.pth", device="cpu"), load_model("vit_small", out, device="cpu")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(before.logits(x), after.logits(x))
    assert (before.labels, before.input, before.activation) == (after.labels, after.input, after.activation)
    assert after.notes == ()
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["source_sha256"] == hashlib.sha256((files / "mae.pth").read_bytes()).hexdigest()
    assert metadata["recognised"] == "medical_mae"
    assert metadata["arch"] == "vit_small"


@pytest.mark.slow
def test_labels_given_at_conversion_stay_with_the_file(files, tmp_path):
    names = [f"finding {i}" for i in range(14)]
    out = tmp_path / "mae.safetensors"
    cxrx("weights", "convert", files / "mae.pth", out, "--labels", ",".join(names))
    assert list(load_model("vit_small", out, device="cpu").labels) == names


@pytest.mark.slow
def test_a_base_is_converted_without_its_decoder_and_still_predicts_nothing(files, tmp_path):
    out = tmp_path / "base.safetensors"
    done = cxrx("weights", "convert", files / "base.pth", out)
    assert "without 1 of a decoder" in done.stdout
    assert "to train from" in done.stderr
    (tmp_path / "films").mkdir()
    done = cxrx("predict", tmp_path / "films", "-m", "vit_small", "--weights", out, code=2)
    assert "without the head" in done.stderr
    assert load_model("vit_small", out, ["a"], "cpu", new_head=True).labels == ("a",)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("convert", "mae.pth", "out.pth"), "must end in .safetensors"),
        (("convert", "mae.pth", "out.safetensors", "-m", "densenet121"), "does not fit densenet121"),
        (("convert", "odd.pth", "out.safetensors"), "the network of odd.pth is not recognised"),
        (("convert", "none.pth", "out.safetensors"), "no weights file 'none.pth'"),
        (("show", "none.pth"), "no weights file 'none.pth'"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_nothing_is_written(argv, message, files, tmp_path):
    paths = {"mae.pth": files / "mae.pth", "odd.pth": files / "odd.pth", "none.pth": files / "none.pth"}
    paths |= {name: tmp_path / name for name in ("out.pth", "out.safetensors")}
    done = cxrx("weights", *(paths.get(word, word) for word in argv), code=2)
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_weights_cannot_ask_for_code_to_be_run(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n")
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(2, 2)}, path, {"arch": f"{tmp_path}/evil.py:build"})
    (tmp_path / "films").mkdir()
    cxrx("predict", tmp_path / "films", "--weights", path, code=2)
    cxrx("weights", "convert", path, tmp_path / "out.safetensors", code=2)
    assert not (tmp_path / "it ran").exists()


def test_a_file_is_not_converted_onto_itself(files, tmp_path):
    out = tmp_path / "mae.safetensors"
    cxrx("weights", "convert", files / "mae.pth", out)
    before = out.read_bytes()
    assert "cannot take the place" in cxrx("weights", "convert", out, out, code=2).stderr
    assert out.read_bytes() == before


def test_the_weights_name_their_model(files, tmp_path):
    (tmp_path / "films").mkdir()
    done = cxrx("predict", tmp_path / "films", "--weights", files / "mae.pth", "-o", tmp_path / "r.h5", code=4)
    assert "these are weights of vit_small" in done.stderr
    assert "read as a fine-tuned medical_mae network" in " ".join(done.stderr.split())
    done = cxrx("predict", tmp_path / "films", "--weights", files / "odd.pth", code=2)
    assert "--weights needs the network they belong to" in done.stderr


def test_ten_crops_need_something_to_crop(files, tmp_path):
    (tmp_path / "films").mkdir()
    done = cxrx("predict", tmp_path / "films", "--weights", files / "mae.pth", "--ten-crop", code=2)
    assert "nothing to crop ten times" in done.stderr  # 32 px, as its tensors say, and the whole film


def test_timms_networks_are_listed_and_shown():
    names = cxrx("models", "--search", "ReSNet18").stdout.split()
    assert "timm/resnet18" in names
    assert json.loads(cxrx("models", "--search", "resnet18", "--json").stdout) == names
    assert cxrx("models", "--search", "timm/resnet18").stdout.split() == names
    assert "no network with 'xyzzy'" in cxrx("models", "--search", "xyzzy", code=1).stderr
    shown = json.loads(cxrx("models", "show", "timm/vit_tiny_patch16_224", "--json").stdout)
    assert shown["input"] == {
        "size": [224, 224], "resize": 248, "fit": "crop", "interpolation": "bicubic", "channels": 3,
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "clahe": None, "crops": 1,
    }  # fmt: skip
    assert "timm/resnet18" in cxrx("models", "show", "timm/resnet81", code=2).stderr


def test_a_timm_network_needs_findings(tmp_path):
    (tmp_path / "films").mkdir()
    done = cxrx("predict", tmp_path / "films", "-m", "timm/resnet18", code=2)
    assert "built for a list of findings" in done.stderr
    assert load_model("timm/resnet18", labels=["a", "b"], device="cpu").labels == ("a", "b")
