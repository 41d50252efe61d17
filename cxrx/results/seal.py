"""The checksum over a whole file, behind its HDF5 content, and the first look at files whose checksum tells nothing.

The last line of every file that cxrx writes is the sha256 of all bytes before it: data sets, attributes, names, and
what is unused. HDF5 reads up to the end that its own header names, so that no reader sees the line; a program that
opens the file for writing cuts it off. It costs a hash at packing (1.2 GB/s), and HDF5 need not be trusted to check it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Literal

from cxrx.errors import ResultsError
from cxrx.files import atomic
from cxrx.reading.processes import environment

Seal = Literal["whole", "broken", "none"]

SMALL = 64 << 20
"""Bytes of a file that is hashed whenever it is opened (50 ms); beyond, the child is faster."""
LOOK_SECONDS = 10
"""What a first look may take, and a second more for every 20 MB."""
_BYTES_A_SECOND = 20 << 20
BROKEN = "its bytes are not those that were written"
UNSEALED = "its checksum is gone, so another program has opened it for writing"
_MARK = b"\ncxrx sha256 "
_LENGTH = len(_MARK) + 64 + 1


def seal_bytes(digest: str) -> bytes:
    """Return the last line of a file whose other bytes have this sha256."""
    return _MARK + digest.encode("ascii") + b"\n"


def write_seal(fd: int) -> None:
    """Write the last line of the finished file behind `fd`."""
    size = os.fstat(fd).st_size
    atomic.write_at(fd, seal_bytes(_digest(fd, size)), size)


def seal_of(path: Path) -> Seal:
    """Return whether `path` has the bytes that were written; ``"none"``: it does not say. It is read once a process."""
    state = path.stat()
    return _seal_of(path.absolute(), state.st_size, state.st_mtime_ns, state.st_ino)


def seal_at_once(path: Path) -> Seal | None:
    """Return the seal of a file that is small enough to be hashed whenever it is opened; None: it is not."""
    return seal_of(path) if path.stat().st_size <= SMALL else None


def look_first(path: Path) -> None:
    """Let another process try an HDF5 file before this one does; small files whose checksum fits are spared it.

    HDF5 goes round in circles on some damaged files, or crashes, and nothing in the process itself can stop it. The
    look takes 0.25 s and leaves out the numbers, which HDF5 cannot get lost in.

    Raises
    ------
    ResultsError
        If it does not come to an end.
    """
    if seal_at_once(path) == "whole":
        return
    state = path.stat()
    code = _look(path.absolute(), state.st_size, state.st_mtime_ns, state.st_ino)
    if code == -signal.SIGALRM:
        raise ResultsError(f"{path.name} is damaged: HDF5 does not come to an end with it")
    if code < 0:
        raise ResultsError(f"{path.name} is damaged: HDF5 breaks down on it")


@lru_cache(maxsize=1024)
def _seal_of(path: Path, size: int, *_: int) -> Seal:
    fd = os.open(path, os.O_RDONLY)
    try:
        line = os.pread(fd, _LENGTH, max(size - _LENGTH, 0))
        if not line.startswith(_MARK):
            return "none"
        return "whole" if line == seal_bytes(_digest(fd, size - _LENGTH)) else "broken"
    finally:
        os.close(fd)


def _digest(fd: int, size: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, size, 1 << 20):
        digest.update(os.pread(fd, min(1 << 20, size - start), start))
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _look(path: Path, size: int, *_: int) -> int:
    """Return the exit status of :mod:`cxrx.results.probe` on a file: negative for the signal that ended it."""
    script, seconds = Path(__file__).with_name("probe.py"), LOOK_SECONDS + size // _BYTES_A_SECOND
    # -P: nothing is imported from the working folder, nor from ours
    command = [sys.executable, "-P", str(script), str(seconds), str(path)]
    null = subprocess.DEVNULL
    return subprocess.run(  # noqa: S603 - ours
        command, stdin=null, stdout=null, stderr=null, check=False, env=environment()
    ).returncode
