"""CheXpert (Irvin et al. 2019) and CheXlocalize (Saporta et al. 2022).

``train.csv`` and ``valid.csv`` have ``Path`` with a leading folder (``CheXpert-v1.0-small/train/patient00001/...``)
that need not exist here. A blank cell means that the report does not mention the finding: unknown; -1 is uncertain.
CheXlocalize's ``gt_segmentations_*.json`` holds masks in COCO's encoding, in native pixels (empty ones where the
finding is absent), ``gt_annotations_*.json`` the polygons they were made from; the other files of its folder, of the
same form, are saliency maps and human benchmarks and are no truth.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrx.datasets import rle
from cxrx.datasets.names import CHEXPERT_FINDINGS, canonical
from cxrx.datasets.plain import finding_columns
from cxrx.datasets.sheet import (
    MOST_BYTES,
    Format,
    Sheet,
    Table,
    cell,
    decoded,
    film_name,
    labels_in,
    read_bytes,
    split_in,
    split_of_path,
)
from cxrx.datasets.specs import CHEXPERT
from cxrx.specs import FilmTruth, Mask, Split

JSON_NAME = re.compile(r"gt_(segmentations|annotations).*\.json", re.IGNORECASE)
LARGEST = 1 << 26  # pixels a mask may have; what a damaged file asks for is not allocated
_PATIENT = re.compile(r"(?:^|/)(patient\d+)(?:/|$)")
_FLAT = re.compile(r"(patient\d+)_(study\d+)_(view[^/]*)$")


def unfolded(path: str) -> str:
    """Return ``patient1_study1_view1_frontal`` as the path ``patient1/study1/view1_frontal``."""
    return _FLAT.sub(r"\1/\2/\3", path)


def read_labels(sheet: Sheet) -> Table:
    """Read ``train.csv``, ``valid.csv`` or a table of the test labels."""
    path_at, found = sheet.required("path"), finding_columns(sheet, blank=True)
    frontal, along = sheet.index("frontal/lateral"), sheet.index("ap/pa")
    own_split = split_in(sheet.path.name)
    shared: dict[tuple[str, ...], dict[str, int]] = {}
    films: dict[str, FilmTruth] = {}
    for row in sheet.rows:
        name = film_name(cell(row, path_at))
        if not name:
            sheet.problems["rows that name no film were left out"] += 1
            continue
        labels = labels_in(row, found, shared)
        if name in films:
            sheet.problems["rows of a film that had one before were left out"] += 1
            sheet.problems["of these, rows that contradict the first"] += labels != films[name].labels
            continue
        patient = _PATIENT.search(name)
        view = _view(cell(row, frontal), cell(row, along))
        split: Split = split_of_path(name) or own_split
        films[name] = FilmTruth(labels, (), patient[1] if patient else "", view, split=split)
    findings = tuple(dict.fromkeys(found.values()))
    return Table(sheet.path, "chexpert", films, findings, sheet.sentences(), name_of=unfolded, min_parts=3)


def _view(side: str, along: str) -> str:
    if side.casefold() == "lateral":
        return "LATERAL"
    return along.upper() if along.upper() in {"AP", "PA"} else side.upper()


def read_json(path: Path) -> Table | None:
    """Read the masks of CheXlocalize; None for any other file, and for polygons whose masks lie beside them.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    match = JSON_NAME.fullmatch(path.name)
    if not match:
        return None
    outlines = match[1].lower() == "annotations"
    if outlines and path.with_name(re.sub("annotations", "segmentations", path.name, flags=re.IGNORECASE)).exists():
        return None
    try:
        data = read_bytes(path, MOST_BYTES)
        content = json.loads(decoded(data)[0]) if len(data) < MOST_BYTES else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not any(isinstance(film, dict) for film in content.values()):
        return Table(path, "chexlocalize", {}, (), ["it is not the JSON of CheXlocalize"], "marks")
    problems: Counter[str] = Counter()
    films = {}
    for name, film in content.items():
        if not isinstance(film, dict):
            problems["films whose entry is not of the form of CheXlocalize were left out"] += 1
            continue
        masks = _outlined(film, problems) if outlines else _segmented(film, problems)
        films[unfolded(film_name(name))] = FilmTruth({mask.finding: 1 for mask in masks}, masks=tuple(masks))
    findings = tuple(dict.fromkeys(mask.finding for film in films.values() for mask in film.masks))
    in_order = tuple(sorted(findings, key=_order))
    sentences = [f"{text} ({n})" for text, n in problems.items()]
    return Table(path, "chexlocalize", films, in_order, sentences, "marks", unfolded, min_parts=3)


def _order(finding: str) -> int:
    return CHEXPERT_FINDINGS.index(finding) if finding in CHEXPERT_FINDINGS else len(CHEXPERT_FINDINGS)


def _segmented(film: Mapping[str, Any], problems: Counter[str]) -> list[Mask]:
    """Return the masks of a film that are not empty: ``{finding: {"size": [rows, columns], "counts": "..."}}``."""
    masks = []
    for name, coded in film.items():
        try:
            shape = _shape(coded["size"])
            counts = rle.from_coco(coded["counts"], shape)
        except (ValueError, TypeError, KeyError, OverflowError):
            problems["masks that are no COCO encoding were left out"] += 1
            continue
        if rle.area(counts):
            masks.append(Mask(canonical(name), shape, counts))
    return masks


def _outlined(film: Mapping[str, Any], problems: Counter[str]) -> list[Mask]:
    """Return the filled polygons of a film: ``{"img_size": [rows, columns], finding: [[[x, y], ...], ...]}``."""
    masks = []
    for name, polygons in film.items():
        if name == "img_size":
            continue
        try:
            shape = _shape(film["img_size"])
            counts = rle.from_polygons(polygons, shape)
        except (ValueError, TypeError, KeyError, OverflowError):
            problems["polygons that cannot be drawn were left out"] += 1
            continue
        if rle.area(counts):
            masks.append(Mask(canonical(name), shape, counts))
    return masks


def _shape(size: Any) -> tuple[int, int]:
    rows, columns = (int(side) for side in size)
    if rows <= 0 or columns <= 0 or rows * columns > LARGEST:
        raise ValueError("a mask of an impossible size")
    return rows, columns


FORMATS = (
    Format(
        "chexpert",
        frozenset({"path", "enlarged cardiomediastinum", "lung opacity", "support devices"}),
        read_labels,
        CHEXPERT,
    ),
)
