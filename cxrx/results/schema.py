"""The layout of results.h5 in small pieces: attributes, texts, scales, storage of maps.

Everything here is plain HDF5 1.10 without plugin filters, so that h5py, HDFView, MATLAB, R and netCDF can read it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrx.errors import ResultsError, UsageError
from cxrx.results.records import FloatArray, plain
from cxrx.results.seal import BROKEN, UNSEALED, look_first, seal_of

RESULTS_FORMAT = "cxrx-results"
PART_FORMAT = "cxrx-part-2"
SCHEMA_VERSION = "1.1"  # since 1.1 with a checksum, see cxrx.results.seal
LIBVER = ("v110", "v110")
SETTINGS, FINGERPRINT = "settings", "fingerprint"
CHUNK_ROWS, CHUNK_BYTES = 256, 4 << 20
TEXT = h5py.string_dtype()

# The marks netCDF gives a dimension that carries no coordinate values of its own.
_DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable. %9d"
_DEEPEST = 8
_AGAIN = {
    RESULTS_FORMAT: "cxrx export writes what can be read; predict anew into another file: -o FILE",
    PART_FORMAT: "remove it, and the same command works on its films again",
}
log = logging.getLogger("cxrx")

Storage = Literal["map", "dense"]


# ---------------------------------------------------------------------------------------------------------------------
# Attributes and texts


def encode(value: Any) -> str | int | float | np.uint64:
    """Return `value` as an HDF5 attribute: numbers and plain texts as they are, all else as JSON.

    Raises
    ------
    TypeError
        If JSON has no word for it.
    OverflowError
        If it is an integer of more than 64 bits.
    """
    value = plain(value)
    if isinstance(value, str) and not _looks_like_json(value) and text(value) == value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else np.uint64(value)
    if isinstance(value, float):
        return value
    return json.dumps(value, sort_keys=True)


def decode(value: Any) -> Any:
    """Return what :func:`encode` was given (tuples as lists)."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, str) and _looks_like_json(value):
        try:
            return json.loads(value)
        except json.JSONDecodeError:  # written by another program: a text that begins with a bracket
            return value
    return value


def _looks_like_json(value: str) -> bool:
    return value.startswith(("{", "[", '"')) or value in {"true", "false", "null"}


def text(value: str) -> str:
    """Return `value` without what an HDF5 text cannot hold: NUL and lone surrogates become U+FFFD."""
    return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def put_attrs(group: h5py.Group, attrs: Mapping[str, Any]) -> None:
    """Write attributes in sorted order."""
    for name in sorted(attrs):
        group.attrs[name] = encode(attrs[name])


def get_attrs(group: h5py.Group) -> dict[str, Any]:
    """Read attributes back."""
    return {name: decode(group.attrs[name]) for name in sorted(group.attrs)}


def texts(dataset: h5py.Dataset) -> list[str]:
    """Read a data set of texts, of variable or of fixed length."""
    return [value.decode("utf-8", "replace") for value in dataset[:]]


# ---------------------------------------------------------------------------------------------------------------------
# Data sets


def scale(group: h5py.Group, name: str, values: Sequence[str] | NDArray[Any] | int, meaning: str) -> h5py.Dataset:
    """Create a dimension scale.

    Parameters
    ----------
    group, name
        Where it goes.
    values
        One value a step, ``(n,)``; a number: a bare dimension of that many steps.
    meaning
        For the attribute ``long_name``.
    """
    if isinstance(values, int):
        dataset = group.create_dataset(name, shape=(values,), dtype="f4", track_times=False)
        dataset.make_scale(_DIMENSION_ONLY % values)
    else:
        dataset = _create(group, name, values)
        dataset.make_scale(name)
    _describe(dataset, name, meaning, "1")
    return dataset


def put(
    group: h5py.Group,
    name: str,
    data: ArrayLike | Sequence[str],
    axes: Sequence[h5py.Dataset],
    meaning: str,
    *,
    units: str = "1",
) -> h5py.Dataset:
    """Create a small data set.

    Parameters
    ----------
    group, name
        Where it goes.
    data
        An array, or texts.
    axes, meaning, units
        As for :func:`label`.
    """
    return label(_create(group, name, data), axes, meaning, units)


def label(dataset: h5py.Dataset, axes: Sequence[h5py.Dataset], meaning: str, units: str = "1") -> h5py.Dataset:
    """Attach scales and the attributes ``units``, ``axes`` and ``long_name``.

    Parameters
    ----------
    dataset
        A data set without them.
    axes
        The scale of each of its axes.
    meaning
        For the attribute ``long_name``.
    units
        As UDUNITS writes them, e.g. ``"pixel"``; ``"1"`` for numbers without one.
    """
    for dimension, axis in zip(dataset.dims, axes, strict=True):
        dimension.attach_scale(axis)
    _describe(dataset, " ".join(axis.name.rsplit("/", 1)[-1] for axis in axes), meaning, units)
    return dataset


def _create(group: h5py.Group, name: str, data: Any) -> h5py.Dataset:
    if isinstance(data, np.ndarray):
        return group.create_dataset(name, data=data, track_times=False)
    return group.create_dataset(name, data=[text(value) for value in data], dtype=TEXT, track_times=False)


def _describe(dataset: h5py.Dataset, axes: str, meaning: str, units: str) -> None:
    dataset.attrs["axes"] = axes
    dataset.attrs["long_name"] = meaning
    dataset.attrs["units"] = units


# ---------------------------------------------------------------------------------------------------------------------
# Storage of maps


def storage_of(space: str, trailing: tuple[int, ...]) -> Storage:
    """Return how arrays with this trailing shape are stored: one compressed chunk a map, or densely."""
    return "map" if trailing and (space == "input" or math.prod(trailing) >= 1024) else "dense"


def create_maps(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, storage: Storage) -> h5py.Dataset:
    """Create the data set for one array of maps.

    Parameters
    ----------
    group, name
        Where it goes.
    shape
        ``(N, K, ...)``, or ``(N, ...)`` of predictions.
    dtype
        Its fill value is NaN for floats, else 0.
    storage
        ``"map"``: chunks ``(1, 1, ...)``, shuffle and gzip-1; a chunk that is never written takes no space and reads
        as the fill value. ``"dense"``: chunks of up to 256 films, uncompressed, with a checksum.
    """
    dtype = np.dtype(dtype)
    fill = np.nan if dtype.kind == "f" else 0
    if storage == "map":
        chunks = (1, 1, *shape[2:])
        filters: dict[str, Any] = {"shuffle": True, "compression": "gzip", "compression_opts": 1}
    else:
        chunks = (chunk_rows(shape, dtype), *shape[1:])
        filters = {"fletcher32": True}
    return group.create_dataset(
        name, shape=shape, dtype=dtype, chunks=chunks, fillvalue=fill, track_times=False, **filters
    )


def chunk_rows(shape: tuple[int, ...], dtype: Any) -> int:
    """Return how many rows of an array of `shape` make a chunk: at most 256, and about 4 MB."""
    row = math.prod(shape[1:]) * int(np.dtype(dtype).itemsize)
    return max(1, min(shape[0], CHUNK_ROWS, CHUNK_BYTES // max(row, 1)))


def storable(array: NDArray[Any]) -> NDArray[Any]:
    """Return `array` in a type every reader knows: bool as u1, no float16, native byte order."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def round_mantissa(values: FloatArray) -> FloatArray:
    """Round float32 to 10 bits of mantissa (half to even), as float16 has; the range stays that of float32.

    The relative error is at most 2**-11. What would overflow keeps its value; NaN and infinity are untouched.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    dropped = 23 - 10
    half = np.uint32((1 << (dropped - 1)) - 1)
    with np.errstate(over="ignore"):
        rounded = (bits + half + ((bits >> dropped) & np.uint32(1))) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    result = rounded.view(np.float32)
    return np.where(np.isfinite(values) & np.isfinite(result), result, values).astype(np.float32, copy=False)


# ---------------------------------------------------------------------------------------------------------------------
# Opening


UNREADABLE = (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError)
"""What h5py, or NumPy on what h5py returns, raises on damaged files: a group may be a data set there."""


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what h5py raises on a damaged file called `name` into one sentence."""
    try:
        yield
    except UNREADABLE as error:
        raise ResultsError(f"{name} is damaged: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return what `error` says, without what comes after a line break."""
    lines = str(error).strip("'\"").splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def open_checked(path: Path, kind: str = RESULTS_FORMAT, *, packing: bool = False) -> h5py.File:
    """Open `path` for reading and make sure it is a finished file of ours.

    Parameters
    ----------
    path
        The file.
    kind
        What it must be.
    packing
        Whether its content goes into a new file, whose checksum would cover up damage to this one; it must be whole.

    Raises
    ------
    UsageError
        If it is missing.
    ResultsError
        If it is damaged, foreign, unfinished, of another major schema version, or reaches into other files.
    """
    if not path.is_file():
        raise UsageError(f"there is no results file {path.name}", "write one with: cxrx predict DIR")
    try:
        seal = seal_of(path) if packing else None
        if seal == "broken":
            raise ResultsError(f"{path.name} is damaged: {BROKEN}", _AGAIN[kind])
        if seal != "whole":
            look_first(path)
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if error.errno:  # the system's word, not one about the content: permissions, locks, too many open files
            raise ResultsError(f"{path.name} cannot be opened: {os.strerror(error.errno)}") from error
        reason = "damaged or unfinished" if h5py.is_hdf5(path) else "not a results file of cxrx"
        raise ResultsError(f"{path.name} is {reason}") from error
    try:
        with reading(path.name):
            _check_header(file, path.name, kind)
            if seal == "none" and is_sealed(file):
                _note_unsealed(path, kind)
            if kind == RESULTS_FORMAT:  # parts lie in a folder that nobody else can write to
                _refuse_foreign(file, path.name)
    except BaseException:
        file.close()
        raise
    return file


@cache
def _note_unsealed(path: Path, kind: str) -> None:
    """Tell, once, of a file that lost its checksum: a results file may have its editors, a part has none."""
    if kind == PART_FORMAT:
        raise ResultsError(f"{path.name} is damaged: {UNSEALED}", _AGAIN[kind])
    log.warning("%s: %s", path.name, UNSEALED)


def is_sealed(file: h5py.File) -> bool:
    """Whether `file` was written with a checksum over all of it."""
    return str(decode(file.attrs.get("schema_version", ""))) != "1.0"


def _check_header(file: h5py.File, name: str, kind: str) -> None:
    found = str(decode(file.attrs.get("format", "")))
    if kind == PART_FORMAT and found.startswith("cxrx-part") and found != kind:
        raise ResultsError(f"{name} was left by another version of cxrx", "start afresh with --no-resume")
    if found != kind:
        raise ResultsError(f"{name} is an HDF5 file, but not one of cxrx")
    version = str(decode(file.attrs.get("schema_version", "")))
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise ResultsError(
            f"{name} has schema version {version or 'none'}; this cxrx reads {SCHEMA_VERSION}", "update cxrx"
        )
    if int(file.attrs.get("complete", 0)) != 1:
        raise ResultsError(f"{name} is unfinished: its writer stopped before the end")


def _refuse_foreign(group: h5py.Group, name: str, depth: int = 0) -> None:
    """Refuse whatever reaches into other files; the depth limit also ends loops of links."""
    if depth > _DEEPEST:
        raise ResultsError(f"{name} is nested deeper than a results file can be")
    for key in group:
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise ResultsError(f"{name} holds a link ({group.name.rstrip('/')}/{key}); links are refused")
        item = group[key]
        if isinstance(item, h5py.Group):
            _refuse_foreign(item, name, depth + 1)
        elif isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            raise ResultsError(f"{name} keeps the data of {item.name} in another file; such files are refused")
