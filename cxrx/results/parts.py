"""Parts: the work on a few films as one immutable file, and the folder that collects them until they are packed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cxrx.files import atomic
from cxrx.results.contents import FINDINGS, IMAGE_IDS, Contents, load_part
from cxrx.results.private import failures_path, private_path
from cxrx.results.records import EXTRAS, STAGES, Block, fingerprint
from cxrx.results.schema import (
    FINGERPRINT,
    LIBVER,
    PART_FORMAT,
    SCHEMA_VERSION,
    SETTINGS,
    create_maps,
    put_attrs,
    round_mantissa,
    storable,
    storage_of,
)
from cxrx.results.seal import seal_bytes

_IMAGE_ID = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"[^\s/\x00-\x1f]+")


class PartStore:
    """The folder ``<out>.parts`` beside the results file `out`.

    Parts are named after their content (settings, position in the run, films), so that writing one again after a
    crash replaces it by itself.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out)
        self.folder = self.out.with_name(self.out.name + ".parts")
        self.lock_path = self.folder / "run.lock"
        self.plan_path = self.folder / "plan.json"  # what a run notes for its resumption

    def write(self, part: Contents, start: int) -> Path:
        """Write `part`, whose first film has position `start` in the run; return its path.

        Raises
        ------
        DiskFullError
            If the disk is full; the parts already written are intact.
        ValueError
            If `part` breaks the contract.
        """
        check_part(part)
        atomic.make_folder(self.folder)
        path = self.folder / f"part-{_settings_hash(part)}-{start:08d}-{_ids_hash(part)}.h5"
        atomic.write_file(path, part_bytes(part), mode=0o600)
        return path

    def paths(self) -> list[Path]:
        """Return the finished parts, in the order of their names."""
        return sorted(self.folder.glob("part-*.h5"))

    def contents(self) -> list[Contents]:
        """Return what the parts hold, without their arrays.

        Raises
        ------
        ResultsError
            If one is damaged.
        """
        return [load_part(path) for path in self.paths()]

    def clean_strays(self) -> None:
        """Remove temporary files of killed writers, here and beside `out`; call it under the lock."""
        real = Path(os.path.realpath(self.out))
        names = (real.name, private_path(real).name, failures_path(real).name)
        for path in (*atomic.strays(self.folder), *atomic.strays(real.parent, names)):
            atomic.unlink(path)

    def remove(self) -> None:
        """Remove the parts, the lock file and the folder, in an order that a crash may interrupt."""
        self.clean_strays()
        for path in (*self.paths(), self.plan_path):
            atomic.unlink(path)
        if self.folder.is_dir():
            atomic.unlink(self.lock_path)
            if not any(self.folder.iterdir()):  # something of the user's: leave it
                self.folder.rmdir()


def _settings_hash(part: Contents) -> str:
    return fingerprint(
        {"/".join(filter(None, key)): block.attrs.get(SETTINGS, {}) for key, block in part.blocks.items()}
    )


def _ids_hash(part: Contents) -> str:
    films = {(record.image_id, int(record.status), record.link.relative, record.link.member) for record in part.images}
    failures = sorted({(failure.image_id, failure.relative, failure.stage, failure.code) for failure in part.failures})
    blocks = sorted((*key, *block.findings, *block.image_ids) for key, block in part.blocks.items())
    return hashlib.sha256(json.dumps([sorted(films), failures, blocks]).encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------------------
# One part as bytes


def part_bytes(part: Contents) -> bytes:
    """Return `part` as an HDF5 file, built in memory: the same part gives the same bytes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=LIBVER) as file:
        put_attrs(file, {"format": PART_FORMAT, "schema_version": SCHEMA_VERSION})
        records = {
            "images": [asdict(record) for record in part.images],
            "failures": [asdict(record) for record in part.failures],
            "links": [asdict(link) for link in part.links],
        }
        # JSON in ASCII keeps what a text of HDF5 cannot: file names that are no valid UTF-8.
        # A group made in passing would hold the time of its making.
        private = file.create_group("private")
        private["records"] = np.frombuffer(json.dumps(records).encode("ascii"), dtype=np.uint8)
        predictions, maps = file.create_group("predictions"), file.create_group("maps")
        for key, block in sorted(part.blocks.items()):
            if block.method:
                _write_maps(maps.require_group(key[0]).create_group(key[1]), block)
            else:
                _write_predictions(predictions.create_group(key[0]), block)
        file.attrs["complete"] = 1
    buffer.seek(0, io.SEEK_END)
    buffer.write(seal_bytes(hashlib.sha256(buffer.getvalue()).hexdigest()))
    return buffer.getvalue()


def _write_header(group: h5py.Group, block: Block) -> None:
    settings = block.attrs.get(SETTINGS, {})
    put_attrs(group, block.attrs | {SETTINGS: settings, FINGERPRINT: fingerprint(settings)})
    put_attrs(group, {FINDINGS: block.findings, IMAGE_IDS: block.image_ids})


def _write_predictions(group: h5py.Group, block: Block) -> None:
    _write_header(group, block)
    for name, kind in (("logit", np.float32), ("probability", np.float32), ("affine", np.float64)):
        group[name] = block.arrays[name].astype(kind, copy=False)


def _write_maps(group: h5py.Group, block: Block) -> None:
    _write_header(group, block)
    present = block.present.astype(np.bool_, copy=False)
    space = block.attrs.get("space", "native")
    values = block.arrays["values"].astype(np.float32, copy=False)
    _write_array(group, "values", round_mantissa(values) if space == "input" else values, present, space)
    group["present"] = present.astype(np.uint8)
    group["score"] = np.where(present, block.arrays["score"], np.nan).astype(np.float32)
    group.create_group("extras")
    for name in sorted(name for name in block.arrays if name.startswith(EXTRAS)):
        _write_array(group, name, storable(block.arrays[name]), present, "native")


def _write_array(group: h5py.Group, name: str, array: NDArray[Any], present: NDArray[np.bool_], space: str) -> None:
    """Write what is present; the rest stays fill, in chunks that are not allocated."""
    storage = storage_of(space, array.shape[2:])
    dataset = create_maps(group, name, array.shape, array.dtype, storage)
    if storage == "map":
        for i, k in np.argwhere(present):
            dataset[i, k] = array[i, k]
    else:
        absent = np.asarray(dataset.fillvalue, dtype=array.dtype)
        dataset[...] = np.where(present.reshape(present.shape + (1,) * (array.ndim - 2)), array, absent)


# ---------------------------------------------------------------------------------------------------------------------
# Checks at the door: a part that breaks the contract is a bug, not bad input


def check_part(part: Contents) -> None:
    """Raise ValueError where `part` breaks the contract: shapes, ids, names."""
    _check_ids([record.image_id for record in part.images], unique=False)
    for failure in part.failures:
        _require(failure.stage in STAGES, f"{failure.stage!r} is no stage; stages are {', '.join(STAGES)}")
        _check_ids([failure.image_id] if failure.image_id else [])
    for block in part.blocks.values():
        _check_block(block)


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ValueError(message)


def is_image_id(text: str) -> bool:
    """Whether `text` has the form of an image_id: 16 hex digits."""
    return _IMAGE_ID.fullmatch(text) is not None


def _check_ids(image_ids: Iterable[str], *, unique: bool = True) -> None:
    listed = list(image_ids)
    _require(all(is_image_id(image_id) for image_id in listed), "an image_id is not 16 hex digits")
    _require(not unique or len(set(listed)) == len(listed), "an image_id came twice in a block")


def _check_block(block: Block) -> None:
    for name in filter(None, block.key):
        _require(_NAME.fullmatch(name) and name not in {".", ".."}, f"{name!r} cannot name a group")
    _check_ids(block.image_ids)
    _require(block.image_ids and block.findings, f"{block.group} has no films or no findings")
    _require(len(set(block.findings)) == len(block.findings), f"{block.group} names a finding twice")
    n, K = len(block.image_ids), len(block.findings)
    shapes = {"score": (n, K)} if block.method else {"logit": (n, K), "probability": (n, K), "affine": (n, 2, 3)}
    for name, shape in shapes.items():
        _require(block.arrays[name].shape == shape, f"{name} is {block.arrays[name].shape}, not {shape}")
    if block.method:
        _check_maps(block, n, K)


def _check_maps(block: Block, n: int, K: int) -> None:
    values = block.arrays["values"]
    _require(values.ndim == 4 and values.shape[:2] == (n, K), f"values is {values.shape}")
    _require(values.size, "values has an empty grid")
    _require(block.present.shape == (n, K), f"present is {block.present.shape}, not {(n, K)}")
    _require(block.attrs.get("space", "native") in {"native", "input"}, "space is native or input")
    for name, extra in block.arrays.items():
        if name.startswith(EXTRAS):
            _require(_NAME.fullmatch(name.removeprefix(EXTRAS)), f"{name!r} cannot name an extra")
            _require(extra.shape[:2] == (n, K), f"{name} is {extra.shape}, not {(n, K)} and more")
            _require(extra.size, f"{name} has an empty axis")
            _require(extra.dtype.kind in "fiub", f"{name} is of type {extra.dtype}")
