"""Read label and box tables. A table is recognised by its header, never by its file name.

Understood: ChestX-ray14 ``Data_Entry`` and ``BBox_List``, RSNA pneumonia, VinDr-CXR, and plain tables
``path,<finding>,<finding>,...`` (1 present, 0 absent, -1 uncertain, blank unknown) and ``path,finding,x,y,w,h``.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from cxrx.datasets.names import NIH_FINDINGS, NO_FINDING, canonical, is_known
from cxrx.specs import Box, FilmTruth

Kind = Literal["nih-labels", "rsna", "vindr", "boxes", "labels"]

RSNA_FINDING = "Pneumonia"
_IMAGE = ("path", "image", "image index", "image id", "image path", "image name", "filename", "file name", "file")
_PATIENT = ("patient", "patient id", "patientid", "subject id")
_VIEW = ("view", "view position", "viewposition", "ap/pa")
_FINDING = ("finding", "finding label", "class name", "class", "label", "pathology")
_CORNER_SIZE = (("x", "y", "w", "h"), ("x", "y", "width", "height"))
_CORNERS = (("x min", "y min", "x max", "y max"), ("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))
# Columns of results, file lists and run records: a table that has one of them is no truth, whatever else it holds.
_NOT_TRUTH = {"method", "metric", "stage", "code", "logit", "probability", "model", "md5", "sha256", "mtime ns"}
_LABELS = {"1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1}


@dataclass
class Table:
    """The films of one table, keyed by the name the table gives them.

    Attributes
    ----------
    kind
        What its header was recognised as.
    films
        Name in the table (posix) to what the table says.
    findings
        The findings it can speak of, in the order of its columns or of their first mention.
    problems
        Sentences on rows and columns that were left out; they hold counts, never cells.
    """

    path: Path
    kind: Kind
    films: dict[str, FilmTruth]
    findings: tuple[str, ...]
    problems: list[str]


@dataclass
class _Draft:
    labels: dict[str, int] = field(default_factory=dict)
    boxes: list[Box] = field(default_factory=list)
    patient: str = ""
    view: str = ""
    normal: bool = False  # a row says "no finding"


def _column(name: str) -> str:
    """Normalise a header cell: ``"Bbox [x"`` and ``"X "`` are ``"x"``, ``"Patient_ID"`` is ``"patient id"``."""
    name = re.sub(r"^bbox\s*\[|\]$", "", name.strip().casefold())
    return re.sub(r"[\s_]+", " ", name).strip()


def _first(columns: list[str], names: tuple[str, ...]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _box_columns(columns: list[str]) -> tuple[list[int], bool] | None:
    """Return the four box columns and whether the last two are corners rather than sizes."""
    for layouts, corners in ((_CORNER_SIZE, False), (_CORNERS, True)):
        for names in layouts:
            if all(name in columns for name in names):
                return [columns.index(name) for name in names], corners
    return None


def kind_of(header: list[str]) -> Kind | None:
    """Say what table a header row belongs to; None where it is no truth table or only the cells can tell.

    A plain label table needs a look at its cells as well (:func:`read_table` does so): ``path,bytes`` has the shape
    of a label table and is none.
    """
    columns = [_column(name) for name in header]
    if _NOT_TRUTH & set(columns) or any(name.startswith("prob ") for name in columns):
        return None
    if {"image index", "finding labels"} <= set(columns):
        return "nih-labels"
    if {"patientid", "x", "y", "width", "height", "target"} <= set(columns):
        return "rsna"
    if _first(columns, _IMAGE) is None:
        return None
    if _first(columns, _FINDING) is not None and _box_columns(columns) is not None:
        return "vindr" if {"class name", "rad id"} <= set(columns) else "boxes"
    return "labels" if len(columns) > 1 else None


def read_table(path: Path) -> Table | None:
    """Read one table; None where the header (or, for plain label tables, the cells) say that it is no truth table.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    problems: Counter[str] = Counter()
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        first = stream.readline(1 << 16)
        delimiter = max(",;\t", key=first.count)
        try:
            header = next(csv.reader([first], delimiter=delimiter), [])
            kind = kind_of(header)
            if kind is None:
                return None
            rows = [row for row in csv.reader(stream, delimiter=delimiter) if any(cell.strip() for cell in row)]
        except csv.Error:
            return None  # a binary or broken file with a comma in its first line
    columns = [_column(name) for name in header]
    films: dict[str, FilmTruth] | None
    if kind == "nih-labels":
        films, findings = _nih_labels(columns, rows)
    elif kind == "rsna":
        films, findings = _rsna(columns, rows, problems)
    elif kind == "labels":
        films, findings = _plain_labels(header, columns, rows, problems)
        if not findings:
            return None
    else:
        films, findings = _boxes(columns, rows, kind == "vindr", problems)
    return Table(path, kind, films, findings, [f"{text} ({n})" for text, n in problems.items()])


def _cell(row: list[str], index: int | None) -> str:
    return row[index].strip() if index is not None and index < len(row) else ""


def _name(cell: str) -> str:
    """Spell a film's name in posix and without a leading ``./``."""
    return str(PurePosixPath(cell.replace("\\", "/"))) if cell else ""


def _drafts(columns: list[str], rows: list[list[str]], image: int | None) -> tuple[dict[str, _Draft], list[list[str]]]:
    """Start one draft per film, with patient and view; also return the rows that name a film."""
    patient, view = _first(columns, _PATIENT), _first(columns, _VIEW)
    drafts: dict[str, _Draft] = {}
    named = [row for row in rows if _cell(row, image)]
    for row in named:
        draft = drafts.setdefault(_name(_cell(row, image)), _Draft())
        draft.patient = draft.patient or _cell(row, patient)
        draft.view = draft.view or _cell(row, view).upper()
    return drafts, named


def _finished(drafts: dict[str, _Draft]) -> dict[str, FilmTruth]:
    return {name: FilmTruth(d.labels, tuple(d.boxes), d.patient, d.view) for name, d in drafts.items()}


def _nih_labels(columns: list[str], rows: list[list[str]]) -> tuple[dict[str, FilmTruth], tuple[str, ...]]:
    """Read ``Data_Entry_2017``: pipe-separated findings; what is not named is absent."""
    image, cell = columns.index("image index"), columns.index("finding labels")
    drafts, rows = _drafts(columns, rows, image)
    extra: dict[str, None] = {}
    for row in rows:
        present = [canonical(name) for name in _cell(row, cell).split("|") if name.strip()]
        present = [name for name in present if name != NO_FINDING]
        draft = drafts[_name(_cell(row, image))]
        draft.labels = dict.fromkeys(NIH_FINDINGS, 0) | dict.fromkeys(present, 1)
        extra |= dict.fromkeys(name for name in present if name not in NIH_FINDINGS)
    return _finished(drafts), (*NIH_FINDINGS, *extra)


def _rsna(
    columns: list[str], rows: list[list[str]], problems: Counter[str]
) -> tuple[dict[str, FilmTruth], tuple[str, ...]]:
    """Read ``stage_2_train_labels``: a row a box, Target 0 or 1; one film per patient."""
    image, target = columns.index("patientid"), columns.index("target")
    drafts, rows = _drafts(columns, rows, image)
    for row in rows:
        draft = drafts[_name(_cell(row, image))]
        label = _LABELS.get(_cell(row, target))
        if label is None:
            problems["rows whose Target is neither 0 nor 1 were left out"] += 1
            continue
        draft.labels[RSNA_FINDING] = max(label, draft.labels.get(RSNA_FINDING, 0))
        if label == 1:
            _add_box(draft, RSNA_FINDING, columns, row, problems)
    return _finished(drafts), (RSNA_FINDING,)


def _boxes(
    columns: list[str], rows: list[list[str]], closed: bool, problems: Counter[str]
) -> tuple[dict[str, FilmTruth], tuple[str, ...]]:
    """Read a row-a-box table.

    A box means that the finding is present. What a film has no box of is absent where the table is `closed` (VinDr-CXR:
    every reader looked for every finding) or a row says "no finding", and unknown elsewhere.
    """
    image, finding = _first(columns, _IMAGE), _first(columns, _FINDING)
    drafts, rows = _drafts(columns, rows, image)
    findings: dict[str, None] = {}
    for row in rows:
        draft, name = drafts[_name(_cell(row, image))], canonical(_cell(row, finding))
        if not name:
            problems["rows without a finding were left out"] += 1
        elif name == NO_FINDING:
            draft.normal = True
        else:
            findings[name] = None
            draft.labels[name] = 1
            _add_box(draft, name, columns, row, problems)
    for draft in drafts.values():
        if closed or (draft.normal and not draft.boxes):
            draft.labels = dict.fromkeys(findings, 0) | draft.labels
    return _finished(drafts), tuple(findings)


def _add_box(draft: _Draft, finding: str, columns: list[str], row: list[str], problems: Counter[str]) -> None:
    layout = _box_columns(columns)
    if layout is None:
        raise ValueError("the table has no box columns")
    indices, corners = layout
    cells = [_cell(row, index) for index in indices]
    if not any(cells):
        return  # a label without a box
    try:
        x, y, a, b = (float(cell) for cell in cells)
    except ValueError:
        x = y = a = b = math.nan
    width, height = (a - x, b - y) if corners else (a, b)
    if not (math.isfinite(x + y + width + height) and width > 0 and height > 0):
        problems["boxes without a finite position and a positive size were left out"] += 1
        return
    box = Box(finding, x, y, width, height)
    if box not in draft.boxes:
        draft.boxes.append(box)


def _plain_labels(
    header: list[str], columns: list[str], rows: list[list[str]], problems: Counter[str]
) -> tuple[dict[str, FilmTruth], tuple[str, ...]]:
    """Read ``path,<finding>,...``: a column is a finding where its cells are 1, 0, -1 or blank (and not all blank).

    A column of a known finding stays one even if some cells are not such; those are unknown and counted.
    """
    image = _first(columns, _IMAGE)
    meta = {image, _first(columns, _PATIENT), _first(columns, _VIEW)}
    found: dict[int, str] = {}
    for index, name in enumerate(header):
        cells = [_cell(row, index) for row in rows]
        bad = sum(cell not in _LABELS for cell in cells if cell)
        if index in meta or not name.strip() or columns[index] in _META or not any(cells):
            continue
        if bad == 0 or (is_known(name) and bad < len(cells)):
            found[index] = canonical(name)
            if bad:
                problems["cells that are not 1, 0, -1 or blank were taken as unknown"] += bad
    drafts, rows = _drafts(columns, rows, image)
    for row in rows:
        labels = drafts[_name(_cell(row, image))].labels
        for index, name in found.items():
            if (label := _LABELS.get(_cell(row, index))) is not None:
                labels[name] = label
    return _finished(drafts), tuple(dict.fromkeys(found.values()))


# Columns of plain tables that may hold nothing but 0 and 1 and are no findings all the same.
_META = {
    "id", "index", "row", "sex", "gender", "age", "split", "fold", "frontal/lateral", "bytes", "size", "rows",
    "columns", "width", "height", "frame", "follow-up #", "study", "series", "synthetic", "seed", "encoding",
    "status", "decoder", "shortcut", "inverted", "flipped",
}  # fmt: skip
