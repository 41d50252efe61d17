"""Parts: the work on a few films as one immutable file, and the folder that collects them until they are packed."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cxrx.errors import LockedError
from cxrx.files import atomic
from cxrx.results.private import failures_path, private_path
from cxrx.results.records import (
    FailureRecord,
    ImageRecord,
    MapBlock,
    Part,
    PredictionBlock,
    Status,
    check_part,
    differences,
    fingerprint,
)
from cxrx.results.schema import (
    FINGERPRINT,
    LIBVER,
    PART_FORMAT,
    SCHEMA_VERSION,
    SETTINGS,
    create_maps,
    decode,
    get_attrs,
    open_checked,
    put_attrs,
    reading,
    round_mantissa,
    storable,
    storage_of,
)

Key = tuple[str, str]
"""``(model, method)``; ``(model, "")`` stands for the model's predictions."""

# Underlined, so that no attribute of a block can be meant.
_FINDINGS, _IMAGE_IDS = "_findings", "_image_ids"


@dataclass
class Done:
    """What the parts already hold.

    Attributes
    ----------
    images
        image_id to its record.
    predictions
        Model to the image_ids it has predictions for.
    maps
        ``(model, method)`` to image_id to the findings that have a map (an empty set: the film was taken up, and none
        of its findings was a target).
    failures
        All failures, in the order of the parts.
    files
        ``(path, member, size, mtime_ns)`` to image_id: films that need no second reading.
    """

    images: dict[str, ImageRecord] = field(default_factory=dict)
    predictions: dict[str, set[str]] = field(default_factory=dict)
    maps: dict[Key, dict[str, frozenset[str]]] = field(default_factory=dict)
    failures: list[FailureRecord] = field(default_factory=list)
    files: dict[tuple[str, str, int, int], str] = field(default_factory=dict)


class PartStore:
    """The folder ``<out>.parts`` beside the results file `out`.

    Parts are named after their content (settings, position in the plan, films), so that writing one again after a
    crash replaces it by itself.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out)
        self.folder = self.out.with_name(self.out.name + ".parts")
        self.lock_path = self.folder / "run.lock"
        self.plan_path = self.folder / "plan.json"  # what a run notes for its resumption

    def write(self, part: Part, start: int) -> Path:
        """Write `part`, whose first film has position `start` in the plan; return its path.

        Raises
        ------
        DiskFullError
            If the disk is full; the parts already written are intact.
        ValueError
            If `part` breaks the contract of :mod:`cxrx.results.records`.
        """
        check_part(part)
        atomic.make_folder(self.folder)
        path = self.folder / f"part-{_settings_hash(part)}-{start:08d}-{_ids_hash(part)}.h5"
        atomic.write_file(path, part_bytes(part), mode=0o600)
        return path

    def paths(self) -> list[Path]:
        """Return the finished parts, in the order of their names."""
        return sorted(self.folder.glob("part-*.h5"))

    def read(self, path: Path) -> Part:
        """Read a part back.

        Raises
        ------
        ResultsError
            If it is damaged.
        """
        with open_checked(path, PART_FORMAT) as file, reading(path.name):
            images, failures = read_records(file)
            predictions = [_read_predictions(group) for group in file["predictions"].values()]
            maps = [_read_maps(group) for model in file["maps"].values() for group in model.values()]
            return Part(images, failures, predictions, maps)

    def done(self) -> Done:
        """Return what the parts hold, without their arrays."""
        done = Done()
        for path in self.paths():
            with open_checked(path, PART_FORMAT) as file, reading(path.name):
                _add_done(done, file)
        return done

    def check(self, settings: Mapping[Key, Mapping[str, Any]]) -> None:
        """Make sure that every part was made with these settings; keys without an entry are not looked at.

        Raises
        ------
        LockedError
            If a part has others, naming the first few differences.
        """
        for path in self.paths():
            with open_checked(path, PART_FORMAT) as file, reading(path.name):
                for key, old in part_settings(file).items():
                    if key in settings and fingerprint(old) != fingerprint(settings[key]):
                        raise LockedError(
                            f"{self.folder.name} holds parts of another run: "
                            f"{'; '.join(differences(old, settings[key])[:5])}.",
                            "Finish that run, name another file with -o, or start afresh with --no-resume.",
                        )

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


def _settings_hash(part: Part) -> str:
    blocks = {block.model: block.attrs.get(SETTINGS, {}) for block in part.predictions}
    blocks |= {f"{block.model}/{block.method}": block.attrs.get(SETTINGS, {}) for block in part.maps}
    return fingerprint(blocks)


def _ids_hash(part: Part) -> str:
    images = sorted({(record.image_id, int(record.status), record.relative, record.member) for record in part.images})
    failures = sorted({(failure.image_id, failure.relative, failure.stage, failure.code) for failure in part.failures})
    blocks = sorted((block.model, "", *block.findings, *block.image_ids) for block in part.predictions)
    blocks += sorted((block.model, block.method, *block.findings, *block.image_ids) for block in part.maps)
    return hashlib.sha256(json.dumps([images, failures, blocks]).encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------------------
# One part as bytes


def part_bytes(part: Part) -> bytes:
    """Return `part` as an HDF5 file, built in memory: the same part gives the same bytes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=LIBVER) as file:
        put_attrs(file, {"format": PART_FORMAT, "schema_version": SCHEMA_VERSION})
        records = {
            "images": [asdict(record) for record in part.images],
            "failures": [asdict(record) for record in part.failures],
        }
        # JSON in ASCII keeps what a text of HDF5 cannot: file names that are no valid UTF-8.
        # A group made in passing would hold the time of its making.
        private = file.create_group("private")
        private["records"] = np.frombuffer(json.dumps(records).encode("ascii"), dtype=np.uint8)
        predictions, maps = file.create_group("predictions"), file.create_group("maps")
        for block in sorted(part.predictions, key=lambda block: block.model):
            _write_predictions(predictions.create_group(block.model), block)
        for maps_block in sorted(part.maps, key=lambda block: (block.model, block.method)):
            _write_maps(maps.require_group(maps_block.model).create_group(maps_block.method), maps_block)
        file.attrs["complete"] = 1
    return buffer.getvalue()


def _write_block(group: h5py.Group, block: PredictionBlock | MapBlock) -> None:
    settings = block.attrs.get(SETTINGS, {})
    put_attrs(group, block.attrs | {SETTINGS: settings, FINGERPRINT: fingerprint(settings)})
    put_attrs(group, {_FINDINGS: block.findings, _IMAGE_IDS: block.image_ids})


def _write_predictions(group: h5py.Group, block: PredictionBlock) -> None:
    _write_block(group, block)
    group["logit"] = block.logit.astype(np.float32, copy=False)
    group["probability"] = block.probability.astype(np.float32, copy=False)
    group["affine"] = block.affine.astype(np.float64, copy=False)


def _write_maps(group: h5py.Group, block: MapBlock) -> None:
    _write_block(group, block)
    present = block.present.astype(np.bool_, copy=False)
    space = block.attrs.get("space", "native")
    values = block.values.astype(np.float32, copy=False)
    _write_array(group, "values", round_mantissa(values) if space == "input" else values, present, space)
    group["present"] = present.astype(np.uint8)
    group["score"] = np.where(present, block.score, np.nan).astype(np.float32)
    extras = group.create_group("extras")
    for name in sorted(block.extras):
        _write_array(extras, name, storable(block.extras[name]), present, "native")


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
# And back


def read_records(file: h5py.File) -> tuple[list[ImageRecord], list[FailureRecord]]:
    """Read the records of a part."""
    records = json.loads(file["private/records"][:].tobytes())
    images = [ImageRecord(**row | {"status": Status(row["status"])}) for row in records["images"]]
    return images, [FailureRecord(**row) for row in records["failures"]]


def part_settings(file: h5py.File) -> dict[Key, dict[str, Any]]:
    """Return the settings of every block of a part."""
    settings = {(model, ""): decode(group.attrs[SETTINGS]) for model, group in file["predictions"].items()}
    for model, methods in file["maps"].items():
        settings |= {(model, method): decode(group.attrs[SETTINGS]) for method, group in methods.items()}
    return settings


def block_header(group: h5py.Group) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """Read a block's attributes, findings and image_ids."""
    attrs = get_attrs(group)
    findings, image_ids = tuple(attrs.pop(_FINDINGS)), tuple(attrs.pop(_IMAGE_IDS))
    return attrs, findings, image_ids


def _read_predictions(group: h5py.Group) -> PredictionBlock:
    attrs, findings, image_ids = block_header(group)
    logit, probability, affine = (group[name][...] for name in ("logit", "probability", "affine"))
    return PredictionBlock(group.name.split("/")[-1], findings, image_ids, logit, probability, affine, attrs)


def _read_maps(group: h5py.Group) -> MapBlock:
    attrs, findings, image_ids = block_header(group)
    _, _, model, method = group.name.split("/")
    values, present, score = (group[name][...] for name in ("values", "present", "score"))
    extras = {name: dataset[...] for name, dataset in group["extras"].items()}
    return MapBlock(model, method, findings, image_ids, values, present.astype(np.bool_), score, extras, attrs)


def _add_done(done: Done, file: h5py.File) -> None:
    images, failures = read_records(file)
    done.failures += failures
    for record in images:
        known = done.images.get(record.image_id)
        if known is None or (record.status.processed and not known.status.processed):
            done.images[record.image_id] = record
        done.files[record.path, record.member, record.size, record.mtime_ns] = record.image_id
    for model, group in file["predictions"].items():
        done.predictions.setdefault(model, set()).update(block_header(group)[2])
    for model, methods in file["maps"].items():
        for method, group in methods.items():
            _, findings, image_ids = block_header(group)
            films = done.maps.setdefault((model, method), {})
            for image_id, row in zip(image_ids, group["present"][...], strict=True):
                found = {finding for finding, is_present in zip(findings, row, strict=True) if is_present}
                films[image_id] = films.get(image_id, frozenset()) | found
