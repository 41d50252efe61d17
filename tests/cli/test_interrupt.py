from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import cxrx
from cxrx.results.parts import PartStore

LABELS = "Nodule,Effusion,Mass"
pytestmark = pytest.mark.slow


@pytest.fixture
def many(films):
    """Return forty films: the ten, and each with a few other pixels."""
    for path in sorted(films.iterdir()):
        for k in range(3):
            picture = Image.open(path)
            picture.putpixel((k, 0), 255)
            picture.save(films / f"{path.stem}-{k}.png")
    return films


def start(films, net, out, n):
    words = [sys.executable, "-m", "cxrx", "explain", films, "-m", net, "--labels", LABELS, "--method", "smoothgrad"]
    words += ["-O", f"n={n}", "--batch-size", "2", "--workers", "1", "--device", "cpu", "-o", out]
    return subprocess.Popen([str(word) for word in words], stderr=subprocess.PIPE, text=True)


def wait_for_part(out, process):
    store = PartStore(out)
    while process.poll() is None and not store.paths():
        time.sleep(0.02)
    assert process.poll() is None, f"the run ended before a part was written: {process.stderr.read()}"


def wait_for_lock(out, process):
    while process.poll() is None and not PartStore(out).lock_path.exists():
        time.sleep(0.02)
    assert process.poll() is None, f"the run ended at once: {process.stderr.read()}"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_keeps_finished_work_and_the_same_command_goes_on(many, net, tmp_path, number, code):
    whole, out = tmp_path / "whole.h5", tmp_path / "stopped.h5"
    process = start(many, net, out, 400)
    wait_for_part(out, process)
    os.kill(process.pid, number)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == code, told
    assert "goes on from here" in told
    assert "Traceback" not in told
    assert not out.exists()
    kept = sum(len(part.images) for part in PartStore(out).contents())
    assert 0 < kept < 40
    assert f"the work on {kept} films is kept" in told
    again = start(many, net, out, 400)
    told = again.communicate(timeout=200)[1]
    assert again.returncode == 0, told
    assert f"{kept} of 40 films are done already" in told
    start(many, net, whole, 400).communicate(timeout=200)
    with cxrx.open_results(whole) as one, cxrx.open_results(out) as two:
        assert one.images().equals(two.images())
        (slug,) = one.models()
        everything = slice(None)
        assert (one.logits(slug) == two.logits(slug)).all()
        a, b = (r.values(slug, "smoothgrad", everything) for r in (one, two))
        assert ((a == b) | (a != a) & (b != b)).all()  # noqa: PLR0124 - NaN where there is no map


def test_a_batch_that_takes_too_long_is_abandoned(many, net, tmp_path):
    out = tmp_path / "slow.h5"
    process = start(many, net, out, 1_000_000)
    wait_for_lock(out, process)
    time.sleep(3)
    os.kill(process.pid, signal.SIGINT)
    told = process.communicate(timeout=60)[1]  # it would take hours
    assert process.returncode == 130, told


def test_the_second_signal_ends_at_once(many, net, tmp_path):
    out = tmp_path / "slow.h5"
    process = start(many, net, out, 1_000_000)
    wait_for_lock(out, process)
    time.sleep(3)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_decode_workers_die_with_a_killed_run(many, net, tmp_path):
    out = tmp_path / "killed.h5"
    process = start(many, net, out, 1_000_000)
    wait_for_lock(out, process)
    time.sleep(3)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    mine = [int(pid) for pid in children.stdout.split()]
    assert mine
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in mine) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in mine)
    shutil.rmtree(PartStore(out).folder)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
