"""NIH ChestX-ray14 (Wang et al. 2017): ``Data_Entry_2017.csv``, ``BBox_List_2017.csv`` and the lists of films.

Boxes are in pixels of the 1024 x 1024 PNG files. What ``Finding Labels`` does not name is absent. The published lists
are ``train_val_list.txt`` and ``test_list.txt``; those of CheXNet's reproductions (``train_list.txt``, ...) have
fourteen labels after each name, in NIH's order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cxrx.datasets.names import NIH_FINDINGS, NO_FINDING, canonical
from cxrx.datasets.plain import read_boxes
from cxrx.datasets.sheet import (
    MOST_BYTES,
    PATIENT,
    VIEW,
    Format,
    Sheet,
    Table,
    cell,
    decoded,
    film_name,
    first,
    read_bytes,
    split_in,
)
from cxrx.datasets.specs import NIH
from cxrx.specs import FilmTruth

SIDE = 1024
LIST_NAME = re.compile(r"(train|val|valid|validation|test|train_?val)(_?list)?(_\d+)?\.txt", re.IGNORECASE)
_OF_PATIENT = re.compile(r"(?:.*/)?(\d{8})_\d{3}\.png")  # 00001335_006.png: the seventh film of patient 1335
_PICTURE = re.compile(r"\.(png|jpe?g|dcm|dicom)$", re.IGNORECASE)


def read_labels(sheet: Sheet) -> Table:
    """Read ``Data_Entry_2017``: findings separated by pipes."""
    image, labels_at = sheet.required("image index"), sheet.required("finding labels")
    patient, view = first(sheet.columns, PATIENT), first(sheet.columns, VIEW)
    known: dict[str, Mapping[str, int]] = {}  # films with the same cell share what it says
    extra: dict[str, None] = {}
    films: dict[str, FilmTruth] = {}
    for row in sheet.rows:
        name, text = film_name(cell(row, image)), cell(row, labels_at)
        if not name:
            sheet.problems["rows that name no film were left out"] += 1
            continue
        if text not in known:
            known[text] = _labels(text, extra)
        if name in films:
            sheet.problems["rows of a film that had one before"] += 1
            if known[text] != films[name].labels:
                sheet.problems["rows that contradict an earlier one were left out"] += 1
            continue
        films[name] = FilmTruth(known[text], patient=cell(row, patient), view=cell(row, view).upper())
    for finding in extra:
        sheet.problems[f"{finding!r} is none of the 14 findings"] = sum(
            film.labels.get(finding) == 1 for film in films.values()
        )
    return Table(sheet.path, "nih-labels", films, (*NIH_FINDINGS, *extra), sheet.sentences())


def _labels(text: str, extra: dict[str, None]) -> Mapping[str, int]:
    if not text:
        return {}  # a blank cell says nothing
    present = [name for part in text.split("|") if (name := canonical(part)) and name != NO_FINDING]
    extra |= dict.fromkeys(name for name in present if name not in NIH_FINDINGS)
    return dict.fromkeys(NIH_FINDINGS, 0) | dict.fromkeys(present, 1)


def read_bounding_boxes(sheet: Sheet) -> Table:
    """Read ``BBox_List_2017``, whose header has more cells than names: the commas of ``Bbox [x,y,w,h]`` split it."""
    table = read_boxes(sheet, "nih-boxes", SIDE)
    table.films = {name: replace(film, patient=patient_of(name)) for name, film in table.films.items()}
    return table


def patient_of(name: str) -> str:
    """Return the patient that a film's name holds, as ``Data_Entry_2017.csv`` writes it; empty for other names."""
    match = _OF_PATIENT.fullmatch(name)
    return str(int(match[1])) if match else ""


def read_list(path: Path) -> Table | None:
    """Read a list of films, one a line, of the split that the file's name gives; None if it is no such list.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    if not LIST_NAME.fullmatch(path.name):
        return None
    split = split_in(path.name)
    films: dict[str, FilmTruth] = {}
    labelled = False
    for line in decoded(read_bytes(path, MOST_BYTES))[0].split("\n"):
        name, *labels = line.split()[:15] or [""]
        if not name:
            continue
        if not _PICTURE.search(name):
            return None
        known = {}
        if len(labels) == len(NIH_FINDINGS) and set(labels) <= {"0", "1"}:
            known, labelled = dict(zip(NIH_FINDINGS, map(int, labels), strict=True)), True
        films[film_name(name)] = FilmTruth(known, patient=patient_of(name), split=split)
    return Table(path, "list", films, NIH_FINDINGS if labelled else (), [], "labels" if labelled else "split")


FORMATS = (
    Format(
        "nih-labels",
        frozenset({"image index", "finding labels"}),
        read_labels,
        NIH,
        re.compile(r"data_entry_2017.*", re.IGNORECASE),
    ),
    Format(
        "nih-boxes",
        frozenset({"image index", "finding label", "x", "y", "w"}),
        read_bounding_boxes,
        NIH,
        re.compile(r"bbox_list_2017.*", re.IGNORECASE),
    ),
)
