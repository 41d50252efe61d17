"""A folder of phantoms: DICOM films, the tables of truth, and the masks."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.errors import UsageError
from cxrx.files.atomic import sentence
from cxrx.phantom import FINDINGS
from cxrx.phantom.dicom import Encoding, to_dicom
from cxrx.phantom.film import Phantom, make_film


def write_folder(
    out: Path,
    n: int,
    seed: int,
    *,
    size: tuple[int, int] = (512, 448),
    shortcut: str | None = None,
    shortcut_strength: float = 0.9,
    encodings: Sequence[Encoding] = (Encoding(),),
    masks: bool = True,
    progress: Callable[[int], Any] | None = None,
) -> None:
    """Write `n` films into the folder `out`, which must be new or empty.

    ``films/000001.dcm`` ...; ``truth.csv`` (path, a column of 0 or 1 per finding, patient, view); ``boxes.csv`` (path,
    finding, x, y, w, h in pixels of the film, one row per lesion); ``masks/000001__Nodule.png`` ... (255 inside), one
    per film and finding; with a shortcut, what ``cxrx compare`` needs to catch a model that reads it: ``regions.csv``
    (path, region, x, y, w, h: the ``marker``) and ``regions/000001__lungs.png`` ... A quarter of the patients have two
    films.

    Parameters
    ----------
    out, n
        The folder, and the number of films.
    seed, size, shortcut, shortcut_strength
        As in :func:`~cxrx.phantom.film.make_film`.
    encodings
        Used in turn, film by film.
    masks
        Whether to write masks.
    progress
        Called with 1 after each film, like ``tqdm.update``.

    Raises
    ------
    UsageError
        `out` is not empty, `n` is no positive number, or `shortcut` is no finding.
    DiskFullError, ResultsError
        The system refuses a write; nothing is left behind.
    """
    if n < 1:
        raise UsageError(f"the number of films must be at least 1, not {n}")
    if shortcut is not None and shortcut not in FINDINGS:
        raise UsageError(f"{shortcut!r} is no phantom finding", f"there are {', '.join(FINDINGS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder", "name a new folder for the phantoms")
    truth, boxes, tokens = [], [], []
    with _whole(out):
        (out / "films").mkdir(parents=True)
        for index, patient in enumerate(patients(n, seed)):
            film = make_film(
                seed, index, size=size, patient=patient, shortcut=shortcut, shortcut_strength=shortcut_strength
            )
            path = f"films/{index + 1:06d}.dcm"
            write_film(film, out / path, encodings[index % len(encodings)])
            if masks:
                _write_masks(film, out / "masks", f"{index + 1:06d}")
            truth.append([path, *film.labels.values(), f"PHANTOM{patient + 1:04d}", film.view])
            boxes += [[path, b.finding, *map(_pixels, (b.x, b.y, b.width, b.height))] for b in film.boxes]
            if film.shortcut is not None:
                b = film.shortcut
                tokens.append([path, "marker", *map(_pixels, (b.x, b.y, b.width, b.height))])
            if shortcut is not None:
                _write_mask(film.lungs, out / "regions" / f"{index + 1:06d}__lungs.png")
            if progress is not None:
                progress(1)
        _write_table(out / "truth.csv", ["path", *FINDINGS, "patient", "view"], truth)
        _write_table(out / "boxes.csv", ["path", "finding", "x", "y", "w", "h"], boxes)
        if shortcut is not None:
            _write_table(out / "regions.csv", ["path", "region", "x", "y", "w", "h"], tokens)


@contextmanager
def _whole(out: Path) -> Iterator[None]:
    """Write everything or nothing: films without all of their tables have no truth."""
    there = out.exists()
    try:
        yield
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        if there:
            out.mkdir(exist_ok=True)
        raise sentence(error, out.name, "make room and start the same command again") from error


def patients(n: int, seed: int) -> list[int]:
    """Return the patient of each of `n` films: of every four patients in turn, one (drawn) has two films."""
    rng = np.random.default_rng([seed, 4])
    order: list[int] = []
    first = 0
    while len(order) < n:
        group = [first, first + 1, first + 2, first + 3]
        group.insert(twice := int(rng.integers(4)), group[twice])
        order += group
        first += 4
    return order[:n]


def write_film(film: Phantom, path: Path, encoding: Encoding) -> None:
    """Write one film as DICOM."""
    data = io.BytesIO()  # to the disk in one piece: libraries hide why a write failed
    to_dicom(film, **asdict(encoding)).save_as(data, enforce_file_format=True)
    path.write_bytes(data.getvalue())


def _write_masks(film: Phantom, folder: Path, stem: str) -> None:
    folder.mkdir(exist_ok=True)
    for finding, mask in film.masks.items():
        _write_mask(mask, folder / f"{stem}__{finding}.png")


def _write_mask(mask: NDArray[np.bool_], path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    data = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(data, "PNG")
    path.write_bytes(data.getvalue())


def _write_table(path: Path, header: list[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _pixels(value: float) -> int:
    """Boxes of phantoms lie on whole pixels."""
    return round(value)
