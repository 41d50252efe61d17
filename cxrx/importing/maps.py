"""Bring maps made elsewhere into results.h5: one .npy a film and finding, beside masks or a table of boxes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxrx.errors import UsageError
from cxrx.files import atomic
from cxrx.importing.folder import MapFile, MapFolder, Problems, find_maps, names_of
from cxrx.importing.pictures import find_pictures, stand_in
from cxrx.importing.truth import PictureTruth, read_picture_truth
from cxrx.reading.record import ImageRecord
from cxrx.results.pack import write_all
from cxrx.results.plan import Plan
from cxrx.results.private import private_path
from cxrx.results.ragged import Imported
from cxrx.results.records import FloatArray, check_key, fingerprint
from cxrx.results.schema import FINGERPRINT, SETTINGS
from cxrx.results.truth import check_truth

_IDENTITY = (
    "sha256 of the picture's name",
    "sha256 of the picture's file",
    "sha256 of the picture's file where it was found, else of its name",
)

log = logging.getLogger("cxrx")


@dataclass(frozen=True)
class ImportReport:
    """What was brought in.

    Attributes
    ----------
    maps
        How many of each method.
    pictures, marked
        How many pictures have maps, and how many of these a box or a mask.
    problems
        Sentences on what was left out, or is odd.
    """

    path: Path
    maps: dict[str, int]
    pictures: int
    marked: int
    problems: list[str]


def import_maps(
    folder: str | Path,
    truth: str | Path | None = None,
    out: str | Path = "results.h5",
    *,
    method: str | None = None,
    model: str = "imported",
    images: str | Path | None = None,
    force: bool = False,
) -> Path:
    """Write maps made elsewhere to a new results file, so that they can be compared.

    What was left out is reported on the logger ``cxrx``; :func:`import_folder` returns it.

    Parameters
    ----------
    folder
        Holds the maps, ``IMAGE__FINDING.npy``: two-dimensional arrays, each over the whole source picture, of any
        size, in the form that is to be compared (a CAM after its ReLU). What stands before the last ``__`` is the
        picture's name. Folders in it hold those of several methods: ``METHOD/IMAGE__FINDING.npy``.
    truth
        Folder of masks ``IMAGE__FINDING.png`` (above zero: present) in source pixels; or a table of labels or boxes, or
        a folder of some, or CheXlocalize's ``gt_segmentations*.json`` or ``gt_annotations*.json``. None: what of this
        lies beside the maps. With boxes, which do not give the size of a picture, either the table has columns
        ``rows`` and ``columns`` (or ``image_height`` and ``image_width``), or the data set draws on one grid, or the
        pictures are given, or the largest map of a picture must have its size.
    out
        The file to write.
    method, model
        What the maps in `folder` itself (None: ``"imported"``), and what made them, are to be called.
    images
        Folder of the pictures, where they are at hand. They have their own size, maps of them meet those of other
        results files, and a report can show them. Names are matched by path, base name or stem.
    force
        Write over `out` if it exists.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UsageError
        If `out` exists, no map is found, or maps and truth do not fit together as a whole. What does not fit singly is
        left out and reported.

    Notes
    -----
    Without its picture a film's identity is the sha256 of its name, and the attributes say so.

    Examples
    --------
    >>> from pathlib import Path
    >>> import cxrx, numpy as np
    >>> from PIL import Image
    >>> Path("maps").mkdir()
    >>> np.save("maps/film1__Mass.npy", np.eye(8, dtype=np.float32))
    >>> Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save("maps/film1__Mass.png")  # the truth
    >>> cxrx.import_maps("maps", out="results.h5").name
    'results.h5'
    """
    report = import_folder(folder, truth, out, method=method, model=model, images=images, force=force)
    for sentence in report.problems:
        log.warning("%s", sentence)
    return report.path


def import_folder(
    folder: str | Path,
    truth: str | Path | None = None,
    out: str | Path = "results.h5",
    *,
    method: str | None = None,
    model: str = "imported",
    images: str | Path | None = None,
    force: bool = False,
) -> ImportReport:
    """Do what :func:`import_maps` does and return what there was and what was left out.

    Parameters
    ----------
    folder, truth, out, method, model, images, force
        As for :func:`import_maps`.
    """
    folder, out, problems = Path(folder), Path(out), Problems()
    if out.is_dir() or (out.exists() and not force):
        raise UsageError(
            f"{out.name} exists already",
            "name another file with -o (cxrx merge joins files)" + ("" if out.is_dir() else ", or add --force"),
        )
    check_key(model, "model")
    if method is not None:
        check_key(method, "method")
    maps = find_maps(folder, method, problems)
    pictures = find_pictures(Path(images), names_of(maps), problems) if images is not None else {}
    known = read_picture_truth(Path(truth) if truth is not None else None, folder, maps, pictures, problems)
    plan = _plan(maps, known, pictures)
    identity = _IDENTITY[0 if not pictures else 1 if len(pictures) == len(known.ids) else 2]
    imported = {
        (model, name): _imported(name, own, known.ids, identity, problems) for name, own in maps.methods.items()
    }
    if out.exists():
        atomic.unlink(private_path(out))  # names of films that are no longer there must not stay
    write_all(out, plan, imported=imported)
    marked = sum(bool(known.boxes.get(image) or known.masks.get(image)) for image in known.ids)
    counts = {name: len(own) for name, own in maps.methods.items()}
    return ImportReport(out, counts, len(known.ids), marked, problems.sentences())


def _imported(
    method: str, maps: Sequence[MapFile], ids: Mapping[str, str], identity: str, problems: Problems
) -> Imported:
    attrs: dict[str, Any] = {
        "method": method,
        "space": "source",
        "identity": identity,
        "upsample": "none; a map covers the whole source picture",
        SETTINGS: {"imported": True, "method": method},
    }
    attrs[FINGERPRINT] = fingerprint(attrs[SETTINGS])

    def values() -> Iterator[FloatArray]:
        return (item.read(problems) for item in maps)

    keys = [(ids[item.image], item.finding) for item in maps]
    return Imported(attrs, keys, [item.shape for item in maps], values)


def _plan(maps: MapFolder, known: PictureTruth, pictures: Mapping[str, ImageRecord]) -> Plan:
    records = []
    for image in sorted(known.ids):
        record = pictures.get(image) or stand_in(image, *known.sizes.get(image, maps.largest[image]))
        records.append(replace(record, link=replace(record.link, patient=known.patients[image])))
    table = known.table()
    if table is not None:
        check_truth(table)
        table = table.normalised([record.image_id for record in records])
    findings = dict.fromkeys([*(item.finding for item in maps), *(table.findings if table else ())])
    return Plan(
        images=records,
        patients=_patients(records),
        findings=tuple(findings),
        layouts={},
        ragged={},
        failures=[],
        truth=table,
        runs=[{"command": "import", "maps": len(maps), "films": len(records)}],
        links=[record.link for record in records],
    )


def _patients(records: Sequence[ImageRecord]) -> dict[str, str]:
    """Return image_id to the smallest image_id of the same patient."""
    smallest: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record.image_id):
        if record.link.patient:
            smallest.setdefault(record.link.patient, record.image_id)
    return {record.image_id: smallest.get(record.link.patient, record.image_id) for record in records}
