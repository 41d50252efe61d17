"""Imported maps, each of its own size: one flat array, and for every map its film, finding, shape and beginning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cxrx.results.records import FloatArray
from cxrx.results.schema import label, put, put_attrs, scale, texts

RAGGED = "ragged"
_CHUNK = 1 << 18  # elements: 1 MB


@dataclass(frozen=True, eq=False)
class Imported:
    """Maps on their way into a file.

    Attributes
    ----------
    keys
        ``(image_id, finding)`` of each map.
    read
        Returns the maps one after the other, of the shapes `shapes`.
    """

    attrs: Mapping[str, Any]
    keys: Sequence[tuple[str, str]]
    shapes: Sequence[tuple[int, int]]
    read: Callable[[], Iterable[FloatArray]]

    @property
    def size(self) -> int:
        """How many values the maps have together."""
        return sum(rows * columns for rows, columns in self.shapes)


def write_ragged(group: h5py.Group, imported: Imported, check: Callable[[], None]) -> None:
    """Write `imported` into `group`; `check` is called before each write and may raise."""
    keys, shapes = imported.keys, imported.shapes
    put_attrs(group, dict(imported.attrs) | {"layout": RAGGED})
    sizes = [rows * columns for rows, columns in shapes]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    total = int(starts[-1])
    axis = scale(group, "map", len(keys), "one map after the other")
    extent = scale(group, "extent", ("rows", "columns"), "parts of a shape")
    element = scale(group, "element", total, "values of all maps, one map after the other, each in row-major order")
    put(group, "image", [image for image, _ in keys], (axis,), "image_id of the film the map lies on")
    put(group, "finding", [finding for _, finding in keys], (axis,), "finding the map explains")
    put(group, "shape", np.array(shapes, np.int32).reshape(-1, 2), (axis, extent), "size of the map", units="pixel")
    put(group, "start", starts[:-1], (axis,), "where in values the map begins")
    storage: dict[str, Any] = (
        {"chunks": (min(_CHUNK, total),), "shuffle": True, "compression": "gzip", "compression_opts": 1}
        if total
        else {}
    )
    values = group.create_dataset("values", shape=(total,), dtype="f4", track_times=False, **storage)
    label(values, (element,), "raw attribution")
    for run, first in _joined(imported.read()):
        check()
        values[first : first + len(run)] = run


def _joined(maps: Iterable[FloatArray]) -> Iterator[tuple[FloatArray, int]]:
    """Yield (values, position) in whole chunks, so that none is compressed twice."""
    held: list[NDArray[np.float32]] = []
    count, first = 0, 0
    for values in maps:
        held.append(np.ascontiguousarray(values, dtype=np.float32).ravel())
        count += held[-1].size
        whole = count - count % _CHUNK
        if whole:
            flat = np.concatenate(held)
            yield flat[:whole], first
            held, count, first = [flat[whole:]], count - whole, first + whole
    if count:
        yield np.concatenate(held), first


def join_ragged(attrs: Mapping[str, Any], sources: Sequence[h5py.Group]) -> Imported:
    """Return the maps of all `sources`; of two with one film and finding the first is taken."""
    taken: dict[tuple[str, str], tuple[int, int, tuple[int, int]]] = {}  # key -> source, start, shape
    for index, source in enumerate(sources):
        for key, start, shape in index_ragged(source):
            taken.setdefault(key, (index, start, shape))

    def values() -> Iterator[FloatArray]:
        for index, start, shape in taken.values():
            yield sources[index]["values"][start : start + shape[0] * shape[1]]

    return Imported(attrs, list(taken), [shape for _, _, shape in taken.values()], values)


def index_ragged(group: h5py.Group) -> list[tuple[tuple[str, str], int, tuple[int, int]]]:
    """Return ((image_id, finding), start, shape) of every map."""
    keys = zip(texts(group["image"]), texts(group["finding"]), strict=True)
    shapes = [(int(rows), int(columns)) for rows, columns in group["shape"][...]]
    return list(zip(keys, group["start"][...].tolist(), shapes, strict=True))
