"""Every input file is counted once, in the same words by the run, by `cxrx info` and in failures.csv."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from torch import nn
from typer.testing import CliRunner

import cxrx
from cxrx.cli import app
from cxrx.engine import interrupts
from cxrx.engine import run as engine
from cxrx.engine.api import run
from cxrx.engine.interrupts import Interrupts
from cxrx.errors import InterruptedRunError, exit_code_of
from cxrx.results.outcomes import WORDS

LABELS = "Nodule,Effusion,Mass"
NAN = """
import torch
from torch import nn
class Lost(nn.Module):
    def __init__(self, lost):
        super().__init__()
        self.conv, self.lost = nn.Conv2d(1, 3, 3), lost
    def forward(self, x):
        return self.conv(x).mean((2, 3)) * (torch.nan if self.lost else 1)
def build(labels):
    return Lost({lost})
"""


def cxrx_does(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + result.stderr
    return result.stdout


def told(stdout):
    """Return the counts of a run's last line."""
    line = stdout.strip().splitlines()[-1]
    return {word: int(n) for n, word in re.findall(rf"(\d+) ({'|'.join(WORDS)})\b", line)}


def kept(out):
    return json.loads(cxrx_does("info", out, "--json"))


def listed(out):
    """Return how many files failures.csv lists, by status."""
    with out.with_name("failures.csv").open(newline="") as file:
        return Counter(status for _, status in {(row["file"], row["status"]) for row in csv.DictReader(file)})


@pytest.fixture
def mixed(films):
    """Ten films, and of each other kind some files, with copies."""
    names = sorted(films.iterdir())
    shutil.copy(names[0], films / "zz-copy.png")
    shutil.copy(names[0], films / "zz-copy2.png")
    (films / "broken.png").write_bytes(names[1].read_bytes()[:60])
    shutil.copy(films / "broken.png", films / "broken2.png")
    (films / "no.dcm").write_bytes(b"this is no DICOM file")
    shutil.copy(films / "no.dcm", films / "no2.dcm")
    (films / "notes.txt").write_text("a text")
    return films


EXPECTED = {"ok": 10, "failed": 1, "skipped": 1, "duplicate": 4}


@pytest.mark.parametrize("packed", [False, True])
def test_every_file_is_in_one_of_the_counts_in_every_run(mixed, net, tmp_path, packed):
    out = tmp_path / "results.h5"
    films = Path(shutil.make_archive(str(tmp_path / "films"), "zip", mixed)) if packed else mixed
    words = ("predict", films, "-m", net, "--labels", LABELS, "--workers", 0, "-o", out, "--device", "cpu")
    # a member of an archive that is no film is not unpacked, so that nobody knows it for a copy
    expected = EXPECTED | {"skipped": 2, "duplicate": 3} if packed else EXPECTED
    assert sum(expected.values()) + 1 == len(list(mixed.iterdir()))
    for _ in range(3):
        assert told(cxrx_does(*words, code=3)) == expected
        info = kept(out)
        assert (info["films"], info["failures"], info["patients"]) == (expected, 1, 10)
        assert listed(out) == {word: n for word, n in expected.items() if word != "ok"}
    with (tmp_path / "failures.csv").open(newline="") as file:
        names = {row["file"].rsplit("/", 1)[-1]: row["status"] for row in csv.DictReader(file)}
    assert names == {
        "zz-copy.png": "duplicate", "zz-copy2.png": "duplicate", "broken.png": "failed", "broken2.png": "duplicate",
        "no.dcm": "skipped", "no2.dcm": "skipped" if packed else "duplicate",
    }  # fmt: skip
    assert json.loads(cxrx_does("info", out, "--json"))["runs"][0]["counts"]["passed over"] == 1


def test_names_of_copies_outlast_an_explanation(mixed, net, tmp_path):
    out = tmp_path / "results.h5"
    words = (mixed, "-m", net, "--labels", LABELS, "--workers", 0, "-o", out, "--device", "cpu")
    cxrx_does("predict", *words, code=3)
    before = (tmp_path / "failures.csv").read_text()
    assert told(cxrx_does("explain", out, "-m", net, "--labels", LABELS, "--method", "gradcam", "--workers", 0)) == {
        "ok": 10
    }
    assert (tmp_path / "failures.csv").read_text() == before
    assert told(cxrx_does("explain", *words, "--method", "gradcam", code=3)) == EXPECTED
    assert kept(out)["films"] == EXPECTED


def test_a_copy_alone_is_a_film(mixed, net, tmp_path):
    out = tmp_path / "results.h5"
    cxrx_does("predict", mixed, "-m", net, "--labels", LABELS, "--workers", 0, "-o", out, "--device", "cpu", code=3)
    alone = cxrx_does("predict", mixed / "zz-copy.png", "-m", net, "--labels", LABELS, "--workers", 0, "-o", out)
    assert told(alone) == {"ok": 1}


def test_films_whose_logits_or_maps_are_no_numbers_are_not_ok(films, net, tmp_path, monkeypatch):
    lost = tmp_path / "lost.py"
    lost.write_text(NAN.replace("{lost}", "True"))
    words = (films, "-m", f"{lost}:build", "--labels", LABELS, "--workers", 0, "--device", "cpu")
    out = tmp_path / "nan.h5"
    for _ in range(2):
        assert told(cxrx_does("predict", *words, "-o", out, code=3)) == {"failed": 10}
        assert kept(out)["films"] == {"failed": 10}
    monkeypatch.setattr("cxrx.engine.batch.np.isfinite", lambda values: np.full(values.shape, values.ndim == 1))
    out = tmp_path / "results.h5"
    words = (films, "-m", net, "--labels", LABELS, "--workers", 0, "--device", "cpu", "-o", out)
    assert told(cxrx_does("explain", *words, "--method", "gradcam", code=3)) == {"failed": 10}
    assert (kept(out)["films"], listed(out)) == ({"failed": 10}, {"failed": 10})
    monkeypatch.undo()
    assert told(cxrx_does("explain", *words, "--method", "gradcam", code=3)) == {"failed": 10}
    assert told(cxrx_does("explain", *words, "--method", "edge")) == {"ok": 10}
    assert told(cxrx_does("explain", *words, "--method", "gradcam", "--retry-failed")) == {"ok": 10}
    assert kept(out)["films"] == {"ok": 10}


def test_a_stopped_explanation_says_how_much_is_kept(films, net, tmp_path, monkeypatch):
    class Stopped(Interrupts):
        def batch(self):
            self.signal_number = 2
            return super().batch()

    model, out = cxrx.load_model(net, labels=LABELS.split(","), device="cpu"), tmp_path / "results.h5"
    run(model, films, out=out, workers=0)
    monkeypatch.setattr(engine, "Interrupts", Stopped)
    with pytest.raises(InterruptedRunError, match=r"the work on \d films is kept"):
        run(model, None, ("gradcam",), out, workers=0, batch_size=4)


def test_a_signal_inside_a_forward_pass_stops_the_run(films, tmp_path, monkeypatch):
    """Nearly all the time of a batch is spent there; the films before are kept."""

    class Slow(nn.Flatten):
        passes = -9  # when the model is wrapped

        def forward(self, x):
            self.passes += 1
            if self.passes == 2:
                signal.raise_signal(signal.SIGINT)
                time.sleep(60)  # until the grace time is over
            return super().forward(x)[:, :3]

    model = cxrx.wrap_model(nn.Sequential(Slow()), LABELS.split(","), 32)
    model.module[0].passes = 0
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", 0.01)
    with pytest.raises(InterruptedRunError, match=r"the work on \d films is kept") as error:
        run(model, films, out=tmp_path / "results.h5", workers=0, batch_size=4)
    assert exit_code_of(error.value) == 130
