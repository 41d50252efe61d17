"""Pickled networks: their tensors come out, and nothing in them runs. Needs no torchxrayvision."""

import os
import pickle

import pytest
import torch
from cxrx_xrv.convert import Layer, read_network
from cxrx_xrv.legacy import BEGINNING
from torch import nn
from typer.testing import CliRunner

from cxrx.cli import app
from cxrx.errors import UsageError
from cxrx.models.load import load_model
from cxrx.registry import load as load_registry


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("parallel", [True, False], ids=["DataParallel", "plain"])
def test_jrzechs_checkpoint_is_converted_by_the_command(zipped, parallel, jrzech, pickled, tmp_path):
    source = jrzech()
    content = {"model": nn.DataParallel(source) if parallel else source, "best_loss": 0.1, "epoch": 3, "LR": 0.01}
    path = pickled(content, tmp_path / "checkpoint", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match="a whole network") as error:
        load_model("densenet121", path, device="cpu")
    assert "cxrx xrv convert checkpoint" in error.value.hint
    target = tmp_path / "chexnet.safetensors"
    done = CliRunner().invoke(app_with_plugins(), ["xrv", "convert", str(path), str(target)])
    assert done.exit_code == 0, done.output
    assert "jrzech" in done.stdout
    model = load_model("densenet121", target, device="cpu")
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = source(x)
    assert torch.allclose(model.probabilities(model.logits(x)), expected, atol=1e-5)
    assert len(model.labels) == 14


def app_with_plugins():
    if "xrv" not in [group.name for group in app.registered_groups]:
        load_registry().add_commands(app)
    return app


class Trap(nn.Linear):
    """A layer that nobody declared; its state makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_what_is_not_declared_is_refused_and_nothing_runs(zipped, pickled, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "it ran"))
    network = nn.Sequential(nn.Linear(2, 2), Trap(2, 2))
    path = pickled({"model": network}, tmp_path / "checkpoint", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match="without running code"):
        read_network(path)
    assert not (tmp_path / "it ran").exists()
    with pytest.raises(UsageError, match="without running code"):
        read_network(pickled(nn.Sequential(nn.Dropout()), tmp_path / "other"))


def test_listing_costs_nothing():
    import subprocess
    import sys

    code = "import sys, cxrx_xrv\nassert not {'torch', 'torchxrayvision', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---------------------------------------------------------------------------------------------------------------------
# Files of PyTorch before 1.6


def test_tensors_of_old_files_are_torchs_own(pickled, tmp_path):
    whole = torch.arange(12, dtype=torch.float64)
    state = {
        "shared": whole[3:9:2],
        "turned": whole.view(3, 4).t(),
        "half": torch.ones(2, dtype=torch.float16),
        "count": torch.tensor(7),
        "empty": torch.zeros(0),
        "yes": torch.tensor([True, False]),
        "parameter": nn.Parameter(torch.randn(2, 3)),
    }
    path = pickled(state, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    found = read_network(path)
    for key, value in state.items():
        assert torch.equal(found[key], value.detach()), key
        assert found[key].dtype == value.dtype


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_a_cut_file_is_a_sentence(cut, jrzech, pickled, tmp_path):
    path = pickled(jrzech(2), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(UsageError, match=r"no PyTorch checkpoint, or damaged|without running code"):
        read_network(path)


@pytest.mark.parametrize(
    "body",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",  # a function
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",  # a path through an attribute
        b"ctorch.nn.modules.linear\nLinear\n(N}S'__setstate__'\ncbuiltins\nset\nstb.",  # a class is changed
        b"ctorch._utils\n_rebuild_tensor\n(N}S'_run'\ncbuiltins\nset\nstb.",  # a stand-in is changed
        b"cposix\nsystem\n(S'touch it_ran'\ntR.",
        b"\x80\x02}X\x05\x00\x00\x00modelctorch._utils\n_rebuild_tensor\n(NK\x00K\x01K\x01tRs.",  # no storage
    ],
)
def test_crafted_pickles_reach_nothing(body, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = BEGINNING + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + body + pickle.dumps([], 2)
    (tmp_path / "w.pt").write_bytes(whole)
    with pytest.raises((UsageError, pickle.UnpicklingError)):
        read_network(tmp_path / "w.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]
    assert "__setstate__" not in vars(Layer)
