"""Decoded films on the input grid, each decoded once: a memory-mapped array that every epoch reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.errors import CxrxError, NothingReadableError
from cxrx.files import atomic
from cxrx.reading.find import find
from cxrx.reading.gate import VIEW_GROUP
from cxrx.reading.item import Item, Rejected
from cxrx.reading.options import ReadOptions
from cxrx.reading.pool import DecodePool
from cxrx.reading.prepare import Prepared, prepare_item
from cxrx.specs import InputSpec, Unreadable

MOST_UNREADABLE = 0.1
"""Share of the films that may fail: with more, what is wrong is not the films."""

_PIXELS, _INDEX = "pixels.npy", "index.json"
_SHOWN = 3
_OPTIONS = ReadOptions()
_Entry = tuple[str, str, Item | Rejected | None]  # path, view, and what lies there


@dataclass(frozen=True)
class Unread:
    """A film that gave no pixels, and why."""

    path: str
    code: str
    message: str


class FilmStore:
    """``(N, H, W)`` uint8 films in a file, opened where they are needed: in this process or in a loader's worker."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pixels: NDArray[np.uint8] | None = None

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The array, mapped into memory."""
        if self._pixels is None:
            self._pixels = np.load(self.path, mmap_mode="r")
        return self._pixels

    def __reduce__(self) -> tuple[type[FilmStore], tuple[Path]]:
        return FilmStore, (self.path,)  # a worker maps the file, it is not sent the pixels


@dataclass(frozen=True, eq=False)
class Decoded:
    """The films of a list, a row each.

    Attributes
    ----------
    ids
        Identity of each film; empty where it was not read, whose row is black.
    unread
        Those films, with their reasons.
    synthetic
        Whether ``cxrx phantom`` made all of them.
    """

    store: FilmStore
    ids: tuple[str, ...]
    unread: tuple[Unread, ...]
    synthetic: bool

    @property
    def readable(self) -> NDArray[np.intp]:
        """Rows that hold a film."""
        return np.flatnonzero([bool(image_id) for image_id in self.ids])


def films_below(folder: Path) -> dict[str, Item | Rejected]:
    """Return what lies in and below a folder, by the path relative to it."""
    found = find([folder])
    return {(entry.item if isinstance(entry, Rejected) else entry).relative: entry for entry in found}


def decode(
    folder: Path,
    paths: Sequence[str],
    spec: InputSpec,
    cache: Path,
    *,
    workers: int,
    views: Mapping[str, str] | None = None,
    tick: Callable[[int], Any] = lambda _count: None,
) -> Decoded:
    """Decode the films at `paths` in `folder` onto the grid of `spec`, or take them from `cache`.

    Parameters
    ----------
    cache
        Folder for decoded films; those of the same files and the same input are used again.
    workers
        Decode processes; 0: this one.
    views
        Path to the view that a table tells, where it tells one; laterals give no film.
    tick
        Called with the number of films done.

    Raises
    ------
    NothingReadableError
        No film can be read.
    CxrxError
        More than a tenth cannot, or the disk is full.
    """
    there = films_below(folder)
    entries = [(path, (views or {}).get(path, ""), there.get(path)) for path in paths]
    home = cache / _key(entries, spec)
    if not (home / _INDEX).is_file():
        shutil.rmtree(home, ignore_errors=True)  # of a run that was killed while it decoded
        atomic.make_folder(home)
        _fill(home, _read(entries, spec, workers), (len(paths), *spec.size), tick)
    index = json.loads((home / _INDEX).read_text(encoding="utf-8"))
    unread = tuple(Unread(**entry) for entry in index["unread"])
    _check_share(unread, len(paths))
    return Decoded(FilmStore(home / _PIXELS), tuple(index["ids"]), unread, index["synthetic"])


def _key(entries: Sequence[_Entry], spec: InputSpec) -> str:
    """Return a name for these files on this grid; mean and std act later and do not matter."""
    geometry = {k: v for k, v in asdict(spec).items() if k not in {"mean", "std", "channels", "crops"}}
    digest = hashlib.sha256(json.dumps([geometry, asdict(_OPTIONS)], sort_keys=True).encode())
    for path, view, item in entries:
        state = (item.size, item.mtime_ns) if isinstance(item, Item) else None
        digest.update(f"{path!r}{view}{state}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


_Reading = tuple[str, Prepared | Unreadable]


def _read(entries: Sequence[_Entry], spec: InputSpec, workers: int) -> Iterator[_Reading]:
    """Yield what each path gives, in order."""
    prepare = partial(prepare_item, spec=replace(spec, crops=1), options=_OPTIONS)
    wanted = [item for _, _, item in entries if isinstance(item, Item)]
    with DecodePool(workers) if workers and wanted else nullcontext() as pool:
        results = pool.map(prepare, wanted) if pool is not None else ((item, prepare(item)) for item in wanted)
        for path, view, item in entries:
            if isinstance(item, Item):
                _, result = next(results)
                yield path, _only_film([result] if isinstance(result, Unreadable) else result, view)
            elif isinstance(item, Rejected):
                yield path, item.reason
            else:
                yield path, Unreadable("failed", "not-found", "the tables name it, and there is no such film")


def _only_film(results: Sequence[Prepared | Unreadable], view: str) -> Prepared | Unreadable:
    if len(results) != 1:
        return Unreadable("failed", "several-films", f"the file holds {len(results)} films, and labels are for one")
    result = results[0]
    if isinstance(result, Prepared):
        group = VIEW_GROUP.get(result.record.view or view, "unknown")
        if group not in {"frontal", "unknown"}:  # a PNG or JPEG leaves it to the tables
            return Unreadable("skipped", "view", f"the view is {group}")
    return result


def _fill(home: Path, readings: Iterator[_Reading], shape: tuple[int, int, int], tick: Callable[[int], Any]) -> None:
    """Write pixels and then the index, whose being there says that the pixels are whole."""
    ids: list[str] = []
    unread: list[Unread] = []
    synthetic = True
    pixels = _allocated(home / _PIXELS, shape)
    for row, (path, result) in enumerate(readings):
        if isinstance(result, Prepared):
            # 8 bits: half a grey level of error, a quarter of the memory
            pixels[row] = np.round(result.pixels * 255).astype(np.uint8)
            ids.append(result.image_id)
            synthetic &= result.record.synthetic
        else:
            ids.append("")
            unread.append(Unread(path, result.code, result.message))
        tick(1)
    pixels.flush()
    index = {"ids": ids, "unread": [asdict(entry) for entry in unread], "synthetic": synthetic}
    atomic.write_file(home / _INDEX, json.dumps(index).encode(), mode=0o600)


def _allocated(path: Path, shape: tuple[int, int, int]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Create the array with all its blocks: on a full disk a mapped file kills its process instead of raising."""
    size = int(np.prod(shape, dtype=np.int64))
    atomic.require_space(path.parent, size, "the decoded films")
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        atomic.allocate(fd, path.stat().st_size)
    except OSError as error:
        raise atomic.sentence(error, "the decoded films") from error
    finally:
        os.close(fd)
    return array


def _check_share(unread: Sequence[Unread], total: int) -> None:
    failed = [entry for entry in unread if entry.code != "view"]
    reasons = "; ".join(f"{entry.path}: {entry.message}" for entry in failed[:_SHOWN])
    if len(unread) == total:
        raise NothingReadableError(f"none of the {total} films can be read ({reasons or 'all are of another view'})")
    if len(failed) > MOST_UNREADABLE * total:
        raise CxrxError(
            f"{len(failed)} of {total} films cannot be read ({reasons})",
            f"a training goes on without films only up to {MOST_UNREADABLE:.0%}: mend them or take them out",
        )
