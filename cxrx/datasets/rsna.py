"""RSNA Pneumonia Detection (2018): ``stage_2_train_labels.csv`` and ``stage_2_detailed_class_info.csv``.

A row a box, in pixels of the 1024 x 1024 films, which are called ``<patientId>.dcm``. ``Target`` is given as
``Pneumonia``; the detailed classes as ``Lung Opacity`` and ``No Finding`` ("Normal"), both absent for "No Lung
Opacity / Not Normal".
"""

from __future__ import annotations

import re

from cxrx.datasets.names import NO_FINDING
from cxrx.datasets.sheet import (
    Format,
    Sheet,
    Table,
    add_box,
    add_label,
    box_columns,
    cell,
    drafts_of,
    film_name,
    finished,
    label_of,
    read_box,
)
from cxrx.datasets.specs import RSNA

SIDE = 1024
FINDING = "Pneumonia"
OPACITY = "Lung Opacity"
_CLASSES = {
    "lung opacity": {OPACITY: 1, NO_FINDING: 0},
    "no lung opacity / not normal": {OPACITY: 0, NO_FINDING: 0},
    "normal": {OPACITY: 0, NO_FINDING: 1},
}


def read_labels(sheet: Sheet) -> Table:
    """Read a row a box, ``Target`` 0 or 1."""
    image, target, layout = sheet.required("patientid"), sheet.required("target"), box_columns(sheet.columns)
    drafts, rows = drafts_of(sheet, image)
    for row in rows:
        draft, label = drafts[film_name(cell(row, image))], label_of(cell(row, target))
        if label not in {0, 1}:
            sheet.problems["rows whose Target is neither 0 nor 1 were left out"] += 1
            continue
        add_label(draft.labels, FINDING, label, sheet.problems)
        if label == 1 and layout is not None:
            add_box(draft, read_box(FINDING, row, layout, sheet.problems))
    return Table(sheet.path, "rsna", finished(drafts), (FINDING,), sheet.sentences(), side=SIDE)


def read_classes(sheet: Sheet) -> Table:
    """Read the detailed classes; a film has as many rows as boxes."""
    image, kind = sheet.required("patientid"), sheet.required("class")
    drafts, rows = drafts_of(sheet, image)
    for row in rows:
        labels = _CLASSES.get(cell(row, kind).casefold())
        if labels is None:
            sheet.problems["rows of a class that is none of the three were left out"] += 1
            continue
        for finding, value in labels.items():
            add_label(drafts[film_name(cell(row, image))].labels, finding, value, sheet.problems)
    return Table(sheet.path, "rsna-classes", finished(drafts), (OPACITY, NO_FINDING), sheet.sentences())


FORMATS = (
    Format(
        "rsna",
        frozenset({"patientid", "x", "y", "width", "height", "target"}),
        read_labels,
        RSNA,
        re.compile(r"stage_[12]_train_labels.*", re.IGNORECASE),
    ),
    Format(
        "rsna-classes",
        frozenset({"patientid", "class"}),
        read_classes,
        RSNA,
        re.compile(r"stage_[12]_detailed_class_info.*", re.IGNORECASE),
    ),
)
