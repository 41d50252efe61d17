"""Kill an explain run with SIGKILL twenty times at random moments, and resume it to the end.

Nothing finished may be lost or done again, and the file must equal that of an undisturbed run, bit for bit::

    python tests/bench/bench_kill.py [--films 200] [--kills 20] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from cxrx.phantom import write_folder
from cxrx.results.contents import load_part
from cxrx.results.parts import PartStore

METHODS = ("--method", "gradcam", "--method", "smoothgrad", "-O", "smoothgrad.n=8")


def command(films: Path, out: Path) -> list[str]:
    """Return the run that is killed."""
    return [sys.executable, "-m", "cxrx", "explain", str(films), *METHODS, "--device", "cpu", "-o", str(out)]


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


def main() -> None:
    """Run, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        films, whole, out = Path(scratch) / "films", Path(scratch) / "whole.h5", Path(scratch) / "killed.h5"
        write_folder(films, arguments.films, arguments.seed)
        begun = time.monotonic()
        subprocess.run(command(films, whole), check=True, capture_output=True)
        took = time.monotonic() - begun
        kills, early, kept = 0, 0, finished(out)
        while kills < arguments.kills:
            process = subprocess.Popen(command(films, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and not PartStore(out).lock_path.exists():
                time.sleep(0.02)  # aim at the work, not at the start of the program
            try:
                process.wait(rng.uniform(0.1, 8))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            if out.exists():
                break  # it was packed already, and killed while it cleared the parts away
            now = finished(out)
            assert all(now.get(film) == place for film, place in kept.items()), "a finished film was lost or redone"
            early += len(now) == len(kept)
            kept = now
        subprocess.run(command(films, out), check=True, capture_output=True)
        one, two = arrays(whole), arrays(out)
        assert one.keys() == two.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, two[name], err_msg=name)
    print(f"{arguments.films} films, undisturbed run {took:.1f} s, {kills} kills ({early} before a part was finished)")
    print(f"{len(kept)} films were finished before the last start; none was lost or done again")
    print(f"{len(one)} datasets are equal bit for bit")


if __name__ == "__main__":
    main()
