"""Requests that cannot be met: a sentence that says what fits, exit 2, and nothing written."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import cxrx
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


# ---------------------------------------------------------------------------------------------------------------------
# Numbers, names and places that no command can follow


def commands(group, *names):
    """Yield (names, command) of every command below `group`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        yield (*names, name), command


def helped():
    """Yield (words, flag) of every option that takes a whole number, as the pages of help have it."""
    for words, _ in commands(get_command(app)):
        page = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).output
        yield from ((words, flag) for flag in re.findall(r"(?i)(--[a-z-]+)(?: +-\w)? +<?int", page))


COUNTS = sorted(helped())


@pytest.mark.parametrize(
    ("words", "flag"), COUNTS, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_numbers_without_end_are_refused(words, flag, place):
    for number in ("99999999999999999999", "-99999999999", "9" * 5000):
        done = CliRunner().invoke(app, [*words, flag, number])
        assert done.exit_code == 2, done.output
        said = " ".join(done.stderr.replace("│", " ").split())
        assert f"Invalid value for '{flag}'" in said


def test_there_are_such_options():
    assert {flag for _, flag in COUNTS} >= {
        "--workers",
        "--seed",
        "--limit",
        "--n-boot",
        "--max-pairs",
        "--n",
        "--films",
    }


@pytest.mark.parametrize("number", ["99999999999", "0", "-1", "²", "1e3", "9" * 5000, "65537", " 4"])
def test_batches_without_end_are_refused(number, place):
    done = explain("Network", "--method", "saliency", "--batch-size", number)
    assert done.exit_code == 2
    assert "--batch-size is auto or a number of films, 1 to 65536" in " ".join(done.stderr.split())


NAMES = ["a/b", "..", ".", "", "a\nb", "a b", "a\tb", "x" * 300, "/etc/x", "a\x00b", "a\u202eb", "\udcff"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_no_group_can_have_are_refused_before_anything_is_done(name, place):
    before = sorted(place.rglob("*.h5*"))
    done = explain("Network", "--method", "saliency", "--as", name)
    assert (done.exit_code, sorted(place.rglob("*.h5*"))) == (2, before), done.output
    assert "cannot name a method" in " ".join(done.stderr.split())
    np.save(place / "films" / "0__a.npy", np.eye(4))
    for flag in ("--method", "--model"):
        done = CliRunner().invoke(app, ["import-maps", "films", flag, name])
        assert done.exit_code == 2
        assert f"cannot name a {flag[2:]}" in " ".join(done.stderr.split())


def test_a_network_may_have_any_file_name(place):
    """Blanks and much length are for the file, not for the name in the results."""
    odd = place / f"my net {'x' * 200}.py"
    odd.write_text("import torch\ntorch.manual_seed(0)\n" + (place / "net.py").read_text())
    words = ("--labels", "a,b", "--input-size", "32", "--workers", "0")
    done = CliRunner().invoke(app, ["explain", "films", "-m", f"{odd}:network", *words, "--method", "saliency"])
    assert done.exit_code == 0, done.output
    with cxrx.open_results("results.h5") as results:
        (slug,) = results.models()
    assert slug.startswith("my-net-xxx")
    done = CliRunner().invoke(
        app, ["explain", "results.h5", "-m", f"{odd}:network", "--workers", "0", "--method", "edge"]
    )
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("form", ["--csv", "--chexnet-csv", "--png"])
def test_an_export_into_a_folder_that_is_not_there_is_refused(form, tiny, place):
    done = CliRunner().invoke(app, ["export", str(tiny.results), form, "-o", "missing/deep/x"])
    assert done.exit_code == 2, done.output
    assert "there is no folder missing/deep" in done.stderr


@pytest.mark.parametrize("words", [("models", "--json"), ("predict", "--help"), ("explainers",)], ids=" ".join)
def test_an_output_that_is_full_is_twenty_eight(words):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    env = os.environ | {"PYTHONPATH": str(Path(cxrx.__file__).parents[1])}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "cxrx", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=env, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (28, "cxrx: the disk is full")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b.h5"), RuntimeError(
    f"a library: {os.strerror(errno.EDQUOT)}"), OSError(errno.EACCES, os.strerror(errno.EACCES), "/a/b.h5"),
    MemoryError()], ids=repr)  # fmt: skip
def test_what_the_system_refuses_is_a_sentence_of_its_own(error, monkeypatch, tiny):
    def refuse(*_):
        raise error

    monkeypatch.setattr("cxrx.cli.info.describe", refuse)
    done = CliRunner().invoke(app, ["info", str(tiny.results)])
    full = "the disk is full" in done.stderr
    assert done.exit_code == (28 if full else 1)
    assert full == (error.args[:1] == (errno.ENOSPC,) or "quota" in str(error))
    assert full or "b.h5 cannot be read or written: Permission denied" in done.stderr or "memory" in done.stderr
    assert "internal error" not in done.stderr
