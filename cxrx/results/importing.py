"""Bring maps made elsewhere into results.h5: one .npy a film and finding, beside masks or a table of boxes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.datasets.truth import read_truth
from cxrx.errors import UsageError
from cxrx.results.pack import write_links, write_plan
from cxrx.results.plan import Plan
from cxrx.results.private import PrivateRow
from cxrx.results.ragged import Imported
from cxrx.results.records import FloatArray, ImageRecord, Status, fingerprint
from cxrx.results.schema import FINGERPRINT, SETTINGS
from cxrx.results.truth import Mask, TruthTable, check_truth

Name = tuple[str, str]
"""``(image, finding)``, as a file name has them: ``IMAGE__FINDING.npy``."""


@dataclass(frozen=True)
class _Map:
    path: Path
    image: str
    finding: str
    shape: tuple[int, int]

    def read(self) -> FloatArray:
        values: FloatArray = np.load(self.path, allow_pickle=False).astype(np.float32)
        return values


def import_maps(
    folder: str | Path,
    truth: str | Path | None = None,
    out: str | Path = "results.h5",
    *,
    method: str = "imported",
    model: str = "imported",
) -> Path:
    """Write maps made elsewhere to a new results file, so that they can be compared.

    Parameters
    ----------
    folder
        Holds the maps, ``IMAGE__FINDING.npy``: two-dimensional arrays, each over the whole source picture, of any
        size. What stands before the last ``__`` is the picture's name.
    truth
        Folder of masks ``IMAGE__FINDING.png`` (above zero: present) in source pixels, or a table of labels or boxes.
        None: masks beside the maps. With boxes, which do not tell the size of the picture, maps must have it.
    out
        The file to write; it must not exist.
    method, model
        What the maps are to be called.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UsageError
        If `out` exists, no map is found, or maps, masks and boxes do not fit together.

    Notes
    -----
    There may be no pictures here, so a film's identity is the sha256 of its name, and the attributes say so.
    """
    folder, out = Path(folder), Path(out)
    if out.exists():
        raise UsageError(f"{out.name} exists already.", "Name another file with -o.")
    maps = _find_maps(folder)
    table, sizes = _read_truth(Path(truth) if truth is not None else folder, maps, is_default=truth is None)
    attrs: dict[str, Any] = {
        "method": method,
        "space": "source",
        "identity": "sha256 of the picture's name",
        "upsample": "none; a map covers the whole source picture",
        SETTINGS: {"imported": True, "method": method},
    }
    attrs[FINGERPRINT] = fingerprint(attrs[SETTINGS])
    plan = _plan(maps, table, sizes)
    imported = Imported(
        attrs,
        [(_image_id(item.image), item.finding) for item in maps],
        [item.shape for item in maps],
        lambda: (item.read() for item in maps),
    )
    write_links(out, plan, {})
    write_plan(out, plan, (), {(model, method): imported})
    return out


def _image_id(image: str) -> str:
    return _sha256(image)[:16]


def _sha256(image: str) -> str:
    return hashlib.sha256(image.encode("utf-8", "surrogateescape")).hexdigest()


def _split(path: Path) -> Name | None:
    image, separator, finding = path.stem.rpartition("__")
    return (image, finding) if separator and image and finding else None


def _find_maps(folder: Path) -> list[_Map]:
    if not folder.is_dir():
        raise UsageError(f"{folder.name} is not a folder of maps.")
    maps = []
    for path in sorted(folder.glob("*.npy")):
        name = _split(path)
        if name is not None:
            maps.append(_Map(path, *name, _shape_of(path)))
    if not maps:
        raise UsageError(f"{folder.name} holds no maps.", "A map is a file IMAGE__FINDING.npy.")
    return sorted(maps, key=lambda item: (item.image, item.finding))


def _shape_of(path: Path) -> tuple[int, int]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path.name} is not a NumPy array.") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.size == 0 or array.dtype.kind not in "fiub":
        raise UsageError(f"{path.name} is not a map: a map is a two-dimensional array of real numbers.")
    return (int(array.shape[0]), int(array.shape[1]))


# ---------------------------------------------------------------------------------------------------------------------
# Truth


def _read_truth(
    truth: Path, maps: Sequence[_Map], *, is_default: bool
) -> tuple[TruthTable | None, dict[str, tuple[int, int]]]:
    """Return the truth of the mapped pictures, and their sizes: a mask tells it, else the largest map does."""
    sizes: dict[str, tuple[int, int]] = {}
    for item in maps:
        sizes[item.image] = max(sizes.get(item.image, (0, 0)), item.shape, key=lambda shape: shape[0] * shape[1])
    masks = {name: path for path in sorted(truth.glob("*.png")) if (name := _split(path)) and name[0] in sizes}
    if masks:
        return _mask_table(masks, sizes)
    if is_default:
        return None, sizes
    return _box_table(truth, sizes), sizes


def _mask_table(
    paths: dict[Name, Path], sizes: dict[str, tuple[int, int]]
) -> tuple[TruthTable, dict[str, tuple[int, int]]]:
    table = TruthTable()
    told: dict[str, tuple[int, int]] = {}
    for (image, finding), path in paths.items():
        mask = _read_mask(path)
        shape = (int(mask.shape[0]), int(mask.shape[1]))
        if told.setdefault(image, shape) != shape:
            raise UsageError(f"{path.name} has another size than the other masks of the same picture.")
        table.labels.setdefault(_image_id(image), {})[finding] = int(mask.any())
        if mask.any():
            table.masks.append(Mask.encode(_image_id(image), finding, mask))
    return table, sizes | told


def _read_mask(path: Path) -> NDArray[np.bool_]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            array = np.asarray(picture)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path.name} is not a mask that can be read.") from error
    if array.ndim == 3:  # the opacity of a transparent PNG is no mask
        array = array[..., : 1 if array.shape[2] == 2 else 3].max(axis=2)
    return array > 0


def _box_table(truth: Path, sizes: dict[str, tuple[int, int]]) -> TruthTable:
    known = read_truth(truth)
    if known.problems and not len(known):
        raise UsageError(known.problems[0])
    table = TruthTable()
    for image, (rows, columns) in sizes.items():
        film = known.truth(image)
        if film is None:
            continue
        table.labels[_image_id(image)] = dict(film.labels)
        for box in film.boxes:
            if box.x + box.width > columns + 1 or box.y + box.height > rows + 1:
                raise UsageError(
                    "A box reaches beyond its map, so the maps are not in source pixels.",
                    "Give maps of the pictures' full size, or masks.",
                )
            table.boxes.append((_image_id(image), box.finding, box.x, box.y, box.width, box.height))
        for mask in film.masks:
            if mask.shape != (rows, columns):
                raise UsageError(
                    "A mask has another size than its map, so the maps are not in source pixels.",
                    "Give maps of the pictures' full size.",
                )
            table.masks.append(Mask.of_film(_image_id(image), mask))
    if not table.labels:
        raise UsageError(f"{truth.name} speaks of none of the {len(sizes)} mapped pictures.")
    return table


# ---------------------------------------------------------------------------------------------------------------------
# The file


def _plan(maps: Sequence[_Map], table: TruthTable | None, sizes: dict[str, tuple[int, int]]) -> Plan:
    images = []
    for image, (rows, columns) in sorted(sizes.items()):
        digest = _sha256(image)
        images.append(
            ImageRecord(
                digest[:16], digest, "", rows, columns, "", Status.OK, "", synthetic=False, relative=image,
                path="", member="", uid="", patient="", size=0, mtime_ns=0,
            )
        )  # fmt: skip
    image_ids = [record.image_id for record in images]
    if table is not None:
        check_truth(table)
        table = table.normalised(image_ids)
    findings = dict.fromkeys([*(item.finding for item in maps), *(table.findings if table else ())])
    return Plan(
        images=images,
        patients={image_id: image_id for image_id in image_ids},
        findings=tuple(findings),
        layouts={},
        ragged={},
        failures=[],
        truth=table,
        runs=[{"command": "import", "maps": len(maps), "films": len(images)}],
        private=[PrivateRow("film", record.image_id, relative=record.relative) for record in images],
    )
