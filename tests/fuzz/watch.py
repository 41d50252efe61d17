"""Run a process, look at its time and at the memory of all processes it starts, and end it where it stands still."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANG = 30.0
"""Seconds that one film, file or command may take."""


@dataclass
class Ended:
    """How a process ended: its exit code (-9 where it was stopped here), peak memory of all in MB, and what it said."""

    code: int
    memory: float
    said: str
    stood_still: bool
    seconds: float


def run(words: list[str], folder: Path, log: Path, patience: float = HANG) -> Ended:
    """Run ``python -m tests.fuzz.child WORDS`` in `folder`; it stands still where `log` does not grow."""
    out = folder / "said.txt"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CXRX_")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CXRX_OFFLINE": "1"}
    log.touch()
    begun, grown, size, memory, stood_still = time.monotonic(), time.monotonic(), 0, 0.0, False
    with out.open("wb") as said:
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.fuzz.child", *words],
            cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            while child.poll() is None:
                memory = max(memory, memory_of(child.pid))
                if log.stat().st_size + out.stat().st_size != size:
                    size, grown = log.stat().st_size + out.stat().st_size, time.monotonic()
                if stood_still := time.monotonic() - grown > patience:
                    break
                time.sleep(0.1)
        finally:
            _end(child)
    text = out.read_text(errors="replace")
    return Ended(child.returncode, memory, text, stood_still, time.monotonic() - begun)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and what is left of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def members(session: int) -> list[int]:
    """Return the processes of a session."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if (_stat(pid) or (0, 0, 0, 0))[3] == session]


def parent_of(pid: int) -> int:
    """Return the process that started another, 0 where that has gone."""
    return (_stat(pid) or (0, 0))[1]


def _stat(pid: int) -> tuple[int, ...] | None:
    """Return state, parent, group and session of a process; None where it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return ord(fields[0]), *map(int, fields[1:4])


def memory_of(session: int) -> float:
    """Return the memory of all processes of a session in MB; what they share is counted once (PSS)."""
    total = 0
    for pid in members(session):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024
