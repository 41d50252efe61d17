"""A program of its own: reads every name, attribute, text and index of chunks of an HDF5 file, and h5py alone.

Run as ``python -P probe.py SECONDS FILE``; the alarm ends it in whatever circle HDF5 is caught, and whoever started it.
"""

from __future__ import annotations

import signal
import sys

import h5py

DEEPEST = 8  # as deep as a results file can be, and more
ROWS = 1 << 16  # texts that are read at once


def look(group: h5py.Group, depth: int = 0) -> None:
    """Read what `group` holds but its numbers; links elsewhere are left alone."""
    dict(group.attrs)
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Group):
            if depth < DEEPEST:
                look(item, depth + 1)
            continue
        dict(item.attrs)
        if not isinstance(item, h5py.Dataset) or item.is_virtual or item.external:
            continue
        if item.chunks:
            item.id.get_num_chunks()
        if item.dtype.kind == "O" and item.ndim:
            for start in range(0, item.shape[0], ROWS):
                item[start : start + ROWS]


if __name__ == "__main__":
    signal.alarm(int(sys.argv[1]))
    with h5py.File(sys.argv[2], "r", locking="best-effort") as file:
        look(file)
