"""Checkpoint files: nothing in them runs, every key must fit, and what does not is named."""

from __future__ import annotations

import fractions
import os
import pickle
import warnings
import zipfile
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cxrx.errors import UsageError
from cxrx.models.checkpoints import read_checkpoint


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.84},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["flat", "state_dict", "model", "DataParallel"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_the_usual_layouts_load_bit_for_bit(wrap, zipped, tmp_path):
    torch.manual_seed(0)
    source, target = network(), network()
    torch.save(wrap(source.state_dict()), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    read_checkpoint(tmp_path / "w.pth").load_into(target, "net")
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


def test_safetensors_carry_labels_and_input(tmp_path):
    source, target = network(), network()
    spec = '{"size": [8, 10], "channels": 1, "mean": [0.5], "std": [0.25]}'
    save_file(source.state_dict(), tmp_path / "w.safetensors", {"labels": '["Mass", "Épanchement"]', "input": spec})
    checkpoint = read_checkpoint(tmp_path / "w.safetensors")
    assert checkpoint.labels == ("Mass", "Épanchement")
    assert checkpoint.input.size == (8, 10)
    assert checkpoint.input.mean == (0.5,)
    checkpoint.load_into(target, "net")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_half_precision_on_disk_is_float32_in_memory(tmp_path):
    halves = {
        key: value.half() if value.is_floating_point() else value for key, value in network().state_dict().items()
    }
    save_file(halves, tmp_path / "w.safetensors")
    tensors = read_checkpoint(tmp_path / "w.safetensors").tensors
    assert {value.dtype for key, value in tensors.items() if "num_batches" not in key} == {torch.float32}
    assert tensors["1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.bias"), r"w\.pth does not fit net: missing: 0\.bias$"),
        (lambda s: s.update({"9.weight": torch.zeros(1)}), r"left over: 9\.weight$"),
        (lambda s: s.update({"3.w": s.pop("3.weight")}), r"missing: 3\.weight; left over: 3\.w$"),
        (lambda s: s.update({"3.bias": torch.zeros(5)}), r"of another shape: 3\.bias \(5,\) instead of \(3,\)$"),
        (lambda s: s.pop("1.running_var"), r"missing: 1\.running_var$"),
    ],
    ids=["missing", "extra", "renamed", "shape", "buffer"],
)
def test_keys_that_do_not_fit_are_named_and_nothing_is_loaded(change, message, tmp_path):
    state = network().state_dict()
    change(state)
    target = network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(UsageError, match=message):
        read_checkpoint(saved(tmp_path / "w.pth", state)).load_into(target, "net")
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_of_many_keys_that_do_not_fit_some_are_named_and_the_rest_counted(tmp_path):
    path = saved(tmp_path / "w.pth", {f"k{i}": torch.zeros(1) for i in range(9)})
    with pytest.raises(UsageError, match="left over: k0, k1, k2, k3, k4 and 4 more"):
        read_checkpoint(path).load_into(network(), "net")


def test_the_step_counter_of_batch_norm_may_be_missing_as_in_old_checkpoints(tmp_path):
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    read_checkpoint(saved(tmp_path / "w.pth", state)).load_into(network(), "net")


@pytest.mark.parametrize(
    ("keys", "outputs"),
    [({"classifier.weight": (14, 4)}, 14), ({"head.fc.weight": (5, 4, 1, 1)}, 5), ({"top.weight": (3, 4)}, None)],
)
def test_the_head_tells_the_number_of_outputs(keys, outputs, tmp_path):
    path = saved(tmp_path / "w.pth", {key: torch.zeros(shape) for key, shape in keys.items()})
    assert read_checkpoint(path).outputs == outputs


# ---------------------------------------------------------------------------------------------------------------------
# Files that are not what they should be


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("kind", ["bare pickle", "beside a state dict", "before torch 1.6"])
def test_code_in_a_checkpoint_is_refused_and_never_runs(kind, tmp_path):
    trap, path = tmp_path / "it ran", tmp_path / "w.pth"
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps(Malicious(trap), protocol=2))
    else:
        content = {"state_dict": network().state_dict(), "extra": Malicious(trap)}
        torch.save(content, path, _use_new_zipfile_serialization=kind != "before torch 1.6")
    with pytest.raises(UsageError, match="without running code from it, which cxrx never does") as error:
        read_checkpoint(path)
    assert "safetensors" in error.value.hint
    assert not trap.exists()
    load = pickle.load if kind == "bare pickle" else partial(torch.load, weights_only=False)
    with path.open("rb") as file:
        load(file)
    assert trap.exists()  # the trap was a real one


@pytest.mark.parametrize("content", [network(), {"lr": fractions.Fraction(1, 3), "w": torch.zeros(1)}])
def test_whole_modules_and_foreign_objects_need_code_too(content, tmp_path):
    with pytest.raises(UsageError, match="without running code"):
        read_checkpoint(saved(tmp_path / "w.pth", content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"<!DOCTYPE html><title>404</title>",
        lambda whole: b"version https://git-lfs.github.com/spec/v1\n",
        lambda whole: bytes(range(256)) * 8,
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:20] + b"\xff" * 40 + whole[60:],
    ],
    ids=["empty", "web page", "git-lfs pointer", "noise", "half", "overwritten"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_damaged_file_is_a_sentence(damage, zipped, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=r"^w\.pth is no PyTorch checkpoint, or damaged$"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds no state dict"),
        ([1, 2], "holds no state dict"),
        ({}, "holds no state dict"),
        ({"epoch": 3, "loss": 0.1}, "holds no state dict"),
        ({0: torch.zeros(3)}, "left over: 0$"),
    ],
    ids=["tensor", "list", "empty", "numbers", "keys that are no names"],
)
def test_a_file_without_a_fitting_state_dict_is_told(content, message, tmp_path):
    path = saved(tmp_path / "w.pth", content)
    with pytest.raises(UsageError, match=message):
        read_checkpoint(path).load_into(network(), "net")


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, 3, device="meta")], ids=["sparse", "meta"])
def test_tensors_that_are_no_plain_numbers_are_refused(tensor, tmp_path):
    torch.save({"fc.weight": tensor}, tmp_path / "odd.pt")
    with pytest.raises(UsageError, match=r"fc\.weight is sparse, quantised or without data"):
        read_checkpoint(tmp_path / "odd.pt")


def test_an_archive_with_a_broken_directory_is_a_sentence(tmp_path):
    torch.save({"fc.weight": torch.eye(3)}, tmp_path / "broken.pt")
    data = bytearray((tmp_path / "broken.pt").read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at : at + 4] = b"PKxx"
    (tmp_path / "broken.pt").write_bytes(data)
    with pytest.raises(UsageError, match=r"broken\.pt"):
        read_checkpoint(tmp_path / "broken.pt")


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": '["a\\u0000b"]'},
        *({"labels": text} for text in ("Mass", '"Mass"', "3", "[1, 2]", '[["a"]]')),
        *({"input": text} for text in ("[1]", "{", '{"size": [8]}', '{"size": [8, "8"]}', '{"size": 8}')),
        *(
            {"input": f'{{"channels": 1, "mean": [0.5], {text}}}'}
            for text in ('"std": [0]', '"std": [1, 1]', '"std": 1')
        ),
        *(
            {"input": text}
            for text in ('{"channels": 2}', '{"fit": "squeeze"}', '{"clahe": [4, 7]}', '{"resize": "256"}')
        ),
    ],
    ids=lambda metadata: "".join(metadata.values()),
)
def test_damaged_metadata_is_a_sentence(metadata, tmp_path):
    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors", metadata)
    with pytest.raises(UsageError, match=r"metadata of w\.safetensors"):
        read_checkpoint(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"{}", "no safetensors file"),
        ("w.h5", b"\x89HDF", "Keras"),
        ("w.keras", b"", "Keras"),
    ],
)
def test_other_kinds_of_files_are_told_by_kind(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_checkpoint(tmp_path / name)


def test_keras_is_known_by_its_bytes_too(tmp_path):
    (tmp_path / "vgg.pth").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model.weights.h5", b"")
    for name in ("vgg.pth", "model.pt"):
        with pytest.raises(UsageError, match=rf"{name} is a Keras file"):
            read_checkpoint(tmp_path / name)


def test_a_torchscript_program_is_not_run_and_told_by_kind(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have something newer
        torch.jit.trace(network(), torch.zeros(1, 1, 4, 4)).save(tmp_path / "net.pt")
    with pytest.raises(UsageError, match=r"net\.pt is a TorchScript program, which cxrx does not run"):
        read_checkpoint(tmp_path / "net.pt")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_named(bad, tmp_path):
    state = network().state_dict()
    state["3.weight"][1, 2] = bad
    with pytest.raises(UsageError, match=r"w\.pth holds NaN or infinity in 3\.weight$"):
        read_checkpoint(saved(tmp_path / "w.pth", state)).load_into(network(), "net")


class Declared:
    """Something that another package of the process declared to be safe."""


def test_what_others_declared_to_be_safe_is_not_let_through(tmp_path):
    path = saved(tmp_path / "w.pth", {"state_dict": network().state_dict(), "extra": Declared()})
    with torch.serialization.safe_globals([Declared]):
        before = torch.serialization.get_safe_globals()
        assert isinstance(torch.load(path, weights_only=True)["extra"], Declared)
        with pytest.raises(UsageError, match="without running code"):
            read_checkpoint(path)
        assert set(torch.serialization.get_safe_globals()) == set(before)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"no weights file 'w\.pth'"):
        read_checkpoint(tmp_path / "w.pth")
