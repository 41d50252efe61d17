"""Write a planned results file: texts, then arrays gathered chunk by chunk from where the plan found them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

import cxrx
from cxrx.results.contents import Files
from cxrx.results.plan import Layout, Plan
from cxrx.results.ragged import Imported, join_ragged, write_ragged
from cxrx.results.records import EXTRAS, Key
from cxrx.results.schema import (
    LIBVER,
    RESULTS_FORMAT,
    SCHEMA_VERSION,
    chunk_rows,
    create_maps,
    label,
    put,
    put_attrs,
    reading,
    round_mantissa,
    scale,
    storage_of,
)
from cxrx.results.sink import Sink
from cxrx.results.truth import write_truth


@dataclass(frozen=True)
class _Job:
    """Where arrays come from, and what to ask whether the disk still takes them."""

    files: Files
    sink: Sink


def write_results(plan: Plan, sink: Sink, imported: Mapping[Key, Imported]) -> None:
    """Write `plan` as an HDF5 file into `sink`; the same plan gives the same bytes.

    Raises
    ------
    DiskFullError, ResultsError
        If `sink` could not be written, or a source could not be read.
    """
    with Files() as files, h5py.File(sink, "w", libver=LIBVER) as file:
        put_attrs(file, {"format": RESULTS_FORMAT, "schema_version": SCHEMA_VERSION})
        file.attrs["created_by"] = f"cxrx {cxrx.__version__}"
        image_ids = scale(
            file, "image_id", [record.image_id for record in plan.images], "first 16 hex digits of the file's sha256"
        )
        findings = scale(file, "finding", plan.findings, "every finding of a model or of the truth")
        _write_images(file.create_group("images"), plan, image_ids)
        if plan.truth is not None:
            rows = {record.image_id: i for i, record in enumerate(plan.images)}
            write_truth(file.create_group("truth"), plan.truth, image_ids, findings, rows)
        job = _Job(files, sink)
        predictions, maps = file.create_group("predictions"), file.create_group("maps")
        for (model, method), layout in plan.layouts.items():
            sink.check()
            if method:
                _write_maps(maps.require_group(model).create_group(method), layout, image_ids, job)
            else:
                _write_predictions(predictions.create_group(model), layout, image_ids, job)
        for (model, method), (attrs, paths) in plan.ragged.items():
            group = maps.require_group(model).create_group(method)
            joined = join_ragged(attrs, [files.get(path)[f"maps/{model}/{method}"] for path in paths])
            write_ragged(group, joined, sink.check)
        for (model, method), maps_of in imported.items():
            write_ragged(maps.require_group(model).create_group(method), maps_of, sink.check)
        _write_failures(file.create_group("failures"), plan)
        runs = file.create_group("runs")
        for i, run in enumerate(plan.runs):
            put_attrs(runs.create_group(f"{i:05d}"), run)
        file.attrs["complete"] = 1


def padding(plan: Plan) -> int:
    """Return how many bytes the dense arrays of `plan` may take for what is absent, beyond what their sources take."""
    total = 0
    for (_, method), layout in plan.layouts.items():
        absent = int((~layout.present).sum())
        if not method:
            total += absent * (8 * len(layout.findings) + 48)  # logit, probability, affine
            continue
        space = layout.attrs.get("space", "native")
        arrays = [(space, layout.blocks[0].grid, 4)]
        arrays += [("native", trailing, dtype.itemsize) for trailing, dtype in _extras(layout).values()]
        total += sum(
            absent * math.prod(trailing) * itemsize
            for where, trailing, itemsize in arrays
            if storage_of(where, trailing) == "dense"
        )
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def _write_images(group: h5py.Group, plan: Plan, image_ids: h5py.Dataset) -> None:
    images, axes = plan.images, (image_ids,)
    meaning = "smallest image_id among the films of the same patient"
    put(group, "patient", [plan.patients[record.image_id] for record in images], axes, meaning)
    put(group, "sha256", [record.sha256 for record in images], axes, "sha256 of the file's bytes")
    put(group, "view", [record.view for record in images], axes, "projection; empty: unknown")
    height = np.array([record.rows for record in images], np.int32)
    put(group, "rows", height, axes, "height of the source", units="pixel")
    width = np.array([record.columns for record in images], np.int32)
    put(group, "columns", width, axes, "width of the source", units="pixel")
    put(group, "decoder", [record.decoder for record in images], axes, "what decoded the pixels")
    status = np.array([record.status for record in images], np.uint8)
    dataset = put(group, "status", status, axes, "0 ok, 1 flagged, 2 failed, 3 skipped")
    dataset.attrs["flag_values"] = np.arange(4, dtype=np.uint8)
    dataset.attrs["flag_meanings"] = "ok flagged failed skipped"
    put(group, "message", [record.message for record in images], axes, "why it is not ok; empty where it is")
    synthetic = np.array([record.synthetic for record in images], np.uint8)
    put(group, "synthetic", synthetic, axes, "1: made by cxrx phantom")


def _write_failures(group: h5py.Group, plan: Plan) -> None:
    failures = plan.failures
    axis = (scale(group, "failure", len(failures), "one failure after the other"),)
    put(group, "id", [row.image_id for row in failures], axis, "image_id, or a label where the file was unreadable")
    put(group, "stage", [row.stage for row in failures], axis, "find, read, predict or explain")
    put(group, "code", [row.code for row in failures], axis, "cause, one stable word")
    put(group, "message", [row.message for row in failures], axis, "cause, one sentence")
    put(group, "model", [row.model for row in failures], axis, "model that failed; empty: none in particular")
    put(group, "method", [row.method for row in failures], axis, "method that failed; empty: none in particular")


# ---------------------------------------------------------------------------------------------------------------------
# Arrays


def _write_predictions(group: h5py.Group, layout: Layout, image_ids: h5py.Dataset, job: _Job) -> None:
    put_attrs(group, layout.attrs)
    finding = scale(group, "finding", layout.findings, "findings of the model, in the order of its outputs")
    xy = scale(group, "xy", ("x", "y"), "coordinates of the source")
    term = scale(group, "term", ("x", "y", "1"), "coordinates of the input grid, and the constant")
    N, K = len(layout.block), len(layout.findings)
    put(group, "present", layout.present.astype(np.uint8), (image_ids,), "1: the film went through the model")
    for name, shape, dtype, axes, meaning, units in (
        ("logit", (N, K), "f4", (image_ids, finding), "raw output of the model", "1"),
        ("probability", (N, K), "f4", (image_ids, finding), "the model's probability of the finding", "1"),
        (
            "affine",
            (N, 2, 3),
            "f8",
            (image_ids, xy, term),
            "input grid to source pixels, (x, y, 1) to (x, y); pixel centres at integers",
            "pixel",
        ),
    ):
        dataset = create_maps(group, name, shape, dtype, "dense")
        _gather(dataset, layout, name, job)
        label(dataset, axes, meaning, units)


def _write_maps(group: h5py.Group, layout: Layout, image_ids: h5py.Dataset, job: _Job) -> None:
    put_attrs(group, layout.attrs)
    finding = scale(group, "finding", layout.findings, "findings that were explained")
    h, w = layout.blocks[0].grid
    grid = (scale(group, "y", h, "rows of the map, downwards"), scale(group, "x", w, "columns of the map"))
    axes = (image_ids, finding)
    put(group, "present", layout.present.astype(np.uint8), axes, "1: there is a map")
    score = create_maps(group, "score", layout.block.shape, "f4", "dense")
    _gather(score, layout, "score", job)
    label(score, axes, "logit that was explained; NaN where there is no map")
    space = layout.attrs.get("space", "native")
    meaning = "raw attribution, signed where the method is; NaN where there is no map"
    values = _write_array(group, "values", layout, trailing=(h, w), dtype="f4", space=space, job=job)
    label(values, (*axes, *grid), meaning)
    extras = group.create_group("extras")
    for path, (trailing, dtype) in _extras(layout).items():
        dataset = _write_array(group, path, layout, trailing=trailing, dtype=dtype, space="native", job=job)
        name = path.removeprefix(EXTRAS)
        steps = [scale(extras, f"{name}_{i}", size, f"axis {i} of {name}") for i, size in enumerate(trailing, 2)]
        label(dataset, (*axes, *steps), f"{name} of the method")


def _extras(layout: Layout) -> dict[str, tuple[tuple[int, ...], Any]]:
    return {name: kind for block in reversed(layout.blocks) for name, kind in sorted(block.extras.items())}


def _write_array(
    group: h5py.Group,
    name: str,
    layout: Layout,
    *,
    trailing: tuple[int, ...],
    dtype: Any,
    space: str,
    job: _Job,
) -> h5py.Dataset:
    storage = storage_of(space, trailing)
    dataset = create_maps(group, name, (*layout.block.shape, *trailing), dtype, storage)
    if storage == "map":
        _copy_chunks(dataset, layout, name, space, job)
    else:
        _gather(dataset, layout, name, job)
    return dataset


def _takes(layout: Layout, rows: slice) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    """Yield each block that `rows` take from, with the places (relative to the first row) it fills."""
    part = layout.block[rows]
    for index in np.unique(part[part >= 0]):
        yield int(index), np.nonzero(part == index)


def _source(layout: Layout, index: int, name: str, files: Files) -> h5py.Dataset | None:
    block = layout.blocks[index]
    with reading(block.path.name):
        return files.get(block.path)[block.group].get(name)  # None: an extra that this part does not have


def _gather(dataset: h5py.Dataset, layout: Layout, name: str, job: _Job) -> None:
    """Fill a dense data set one chunk of rows after the other; chunks without a map stay unallocated."""
    N = dataset.shape[0]
    step = chunk_rows(dataset.shape, dataset.dtype) if N else 1
    for start in range(0, N, step):
        job.sink.check()
        rows = slice(start, min(start + step, N))
        buffer = np.full((rows.stop - start, *dataset.shape[1:]), dataset.fillvalue, dtype=dataset.dtype)
        filled = False
        for index, places in _takes(layout, rows):
            source = _source(layout, index, name, job.files)
            if source is None:
                continue
            block = layout.blocks[index]
            with reading(block.path.name):
                there = layout.row[rows][places]
                lowest = int(there.min())
                values = source[lowest : int(there.max()) + 1]  # (n, ...), one read
            columns = (layout.column[rows][places],) if layout.block.ndim == 2 else ()
            buffer[places] = values[(there - lowest, *columns)]
            filled = True
        if filled:
            dataset[rows] = buffer


def _copy_chunks(dataset: h5py.Dataset, layout: Layout, name: str, space: str, job: _Job) -> None:
    """Copy maps stored one a chunk, without decoding them where the source is stored alike."""
    rest = (0,) * (dataset.ndim - 2)
    for i in range(dataset.shape[0]):
        job.sink.check()
        for k in np.flatnonzero(layout.block[i] >= 0):
            index, row, column = (int(axis[i, k]) for axis in (layout.block, layout.row, layout.column))
            source = _source(layout, index, name, job.files)
            if source is None:
                continue
            with reading(layout.blocks[index].path.name):
                if _alike(source, dataset):
                    mask, data = source.id.read_direct_chunk((row, column, *rest))
                else:
                    mask, data = None, source[row, column]
            if mask is not None:
                dataset.id.write_direct_chunk((i, int(k), *rest), data, mask)
            else:
                dataset[i, k] = round_mantissa(data) if space == "input" else data


def _alike(source: h5py.Dataset, target: h5py.Dataset) -> bool:
    return bool(
        source.chunks == target.chunks
        and source.dtype == target.dtype
        and (source.shuffle, source.compression, source.fletcher32)
        == (target.shuffle, target.compression, target.fletcher32)
    )
