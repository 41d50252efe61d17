"""Kill explain runs and their decode workers with SIGKILL at random moments, and resume each to the end.

Nothing finished may be lost or done again, and the file must equal that of an undisturbed run, bit for bit::

    python -m tests.bench.bench_kill [--films 200] [--kills 20] [--workers 0.5] [--seed 0] [--model ./net.py:build]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from cxrx.phantom import write_folder
from cxrx.results.contents import load_part
from cxrx.results.parts import PartStore
from tests.fuzz.watch import members, parent_of

METHODS = ("--method", "gradcam", "--method", "smoothgrad", "-O", "smoothgrad.n=8")


def start(films: Path, out: Path, model: str) -> subprocess.Popen[bytes]:
    """Start the run that is killed."""
    words = ["explain", str(films), "-m", model, *METHODS, "--device", "cpu", "--workers", "2", "-o", str(out)]
    words += ["--labels", "a,b"] if ":" in model else []
    said = out.with_suffix(".said").open("wb")
    return subprocess.Popen([sys.executable, "-m", "cxrx", *words], stdout=said, stderr=said, start_new_session=True)


def finished(out: Path) -> dict[str, tuple[str, int]]:
    """Return every finished film with the part it stands in and the part's time of writing."""
    store = PartStore(out)
    found: dict[str, tuple[str, int]] = {}
    for path in store.paths():
        for record in load_part(path).images:
            assert record.image_id not in found, "a film was done twice"
            found[record.image_id] = (path.name, path.stat().st_mtime_ns)
    return found


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all datasets but those of /runs."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as file:

        def visit(name: str, thing: object) -> None:
            if isinstance(thing, h5py.Dataset) and not name.startswith("runs"):
                found[name] = thing[()]

        file.visititems(visit)
    return found


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the decode workers, which are children of the fork server; a lock file of the run before says nothing."""
    return [pid for pid in members(process.pid) if parent_of(pid) not in {process.pid, os.getpid()}]


def disturb(process: subprocess.Popen[bytes], out: Path, rng: random.Random, longest: float, share: float) -> str:
    """Kill the program or one of its workers at a random moment of the work; return which, empty where it was done."""
    while process.poll() is None and not workers_of(process):
        time.sleep(0.02)  # aim at the work, not at the start of the program
    try:
        process.wait(rng.uniform(0.01, longest))
    except subprocess.TimeoutExpired:
        workers = workers_of(process)
        if workers and rng.random() < share:
            os.kill(rng.choice(workers), signal.SIGKILL)
            return "worker"
        process.send_signal(signal.SIGKILL)
        process.wait()
        return "program"
    return ""


def one_run(films: Path, out: Path, rng: random.Random, longest: float, arguments: argparse.Namespace) -> Counter[str]:
    """Run to the end, however often it is killed; return how often, and how often no new part was finished before."""
    kills: Counter[str] = Counter()
    kept = finished(out)
    process = start(films, out, arguments.model)
    while kills["program"] + kills["worker"] < arguments.kills and process.poll() is None:
        victim = disturb(process, out, rng, longest, arguments.workers)
        kills[victim or "ended"] += 1
        if victim == "program":
            if out.exists():
                break  # it was packed already, and killed while it cleared the parts away
            now = finished(out)
            assert all(now.get(film) == place for film, place in kept.items()), "a finished film was lost or redone"
            kills["early"] += len(now) == len(kept)
            kept = now
            process = start(films, out, arguments.model)
    if process.wait() != 0:
        assert start(films, out, arguments.model).wait() == 0, out.with_suffix(".said").read_text()
    return kills


def main() -> None:
    """Run, kill, resume, compare; again until there were as many kills as wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=float, default=0.5, help="share of the kills that hit a decode worker only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="demo-densenet")
    arguments = parser.parse_args()
    rng, kills, runs, wanted = random.Random(arguments.seed), Counter[str](), 0, arguments.kills
    with tempfile.TemporaryDirectory() as scratch:
        films, whole, out = Path(scratch) / "films", Path(scratch) / "whole.h5", Path(scratch) / "killed.h5"
        write_folder(films, arguments.films, arguments.seed)
        process = start(films, whole, arguments.model)
        while process.poll() is None and not workers_of(process):
            time.sleep(0.02)
        begun = time.monotonic()
        assert process.wait() == 0
        took, one = time.monotonic() - begun, arrays(whole)
        while (left := wanted - kills["program"] - kills["worker"]) > 0:
            arguments.kills = left
            kills += one_run(films, out, rng, took, arguments)
            runs += 1
            two = arrays(out)
            assert one.keys() == two.keys()
            for name, array in one.items():
                np.testing.assert_array_equal(array, two[name], err_msg=name)
            for path in Path(scratch).glob("killed*"):
                path.unlink()
    killed = f"{runs} runs with {kills['program']} kills of the program"
    print(f"{arguments.films} films, {took:.1f} s of work undisturbed; {killed}")
    print(f"({kills['early']} before a part was finished) and {kills['worker']} of its workers")
    print(f"no finished film was lost or done again; {len(one)} datasets are equal bit for bit")


if __name__ == "__main__":
    main()
