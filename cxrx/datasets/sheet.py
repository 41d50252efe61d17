"""One table on disk, and what becomes of it: rows and columns in, what is known of every film out."""

from __future__ import annotations

import csv
import gzip
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal

from cxrx.specs import Box, FilmTruth, Split

Role = Literal["labels", "marks", "split"]

IMAGE = (
    "path", "image", "image index", "image id", "image path", "image name", "filename", "file name", "file",
)  # fmt: skip
PATIENT = ("patient", "patient id", "patientid", "subject id")
VIEW = ("view", "view position", "viewposition", "ap/pa")
FINDING = ("finding", "finding label", "class name", "class", "label", "pathology")
SPLIT = ("split", "set", "subset", "fold name")
_CORNER_SIZE = (("x", "y", "w", "h"), ("x", "y", "width", "height"))
_CORNERS = (("x min", "y min", "x max", "y max"), ("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))
BOX_LAYOUTS = (*_CORNER_SIZE, *_CORNERS)

LABELS = {
    "1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1,
    "True": 1, "False": 0, "TRUE": 1, "FALSE": 0, "true": 1, "false": 0,
}  # fmt: skip
"""What a cell may say: 1 present, 0 absent, -1 uncertain."""

_SPLITS: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "valid", "valid": "valid", "validate": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
    "train val": "train+valid", "trainval": "train+valid",
}  # fmt: skip

FIELD_LIMIT = 1 << 24
"""Characters a cell may have; run-length encodings of masks are longer than the csv module's own limit."""


@dataclass
class Table:
    """The films of one table, keyed by the name the table gives them.

    Attributes
    ----------
    kind
        What it was recognised as, e.g. ``"nih-labels"``.
    films
        Name in the table (posix) to what the table says.
    findings
        The findings it can speak of, in the order of its columns or of their first mention.
    problems
        Sentences on rows and columns that were left out; they hold counts, never cells.
    role
        What its silence means: of a film's other findings a table of ``"marks"`` (boxes, masks) says nothing.
    name_of
        Turns the path of a film into the name to look for.
    side
        Grid in pixels that its boxes or masks were drawn on where that is not each film's own; else 0.
    min_parts
        How many of the last parts of a path must agree; more than one where every film is called ``view1_frontal.jpg``.
    """

    path: Path
    kind: str
    films: dict[str, FilmTruth]
    findings: tuple[str, ...]
    problems: list[str]
    role: Role = "labels"
    name_of: Callable[[str], str] | None = None
    side: int = 0
    min_parts: int = 1


@dataclass
class Sheet:
    """Header and rows of a table.

    Attributes
    ----------
    columns
        The header in normal spelling, see :func:`column`.
    problems
        What was left out, by how many rows or cells.
    """

    path: Path
    header: list[str]
    columns: list[str]
    rows: list[list[str]]
    problems: Counter[str] = field(default_factory=Counter)

    def index(self, *names: str) -> int | None:
        """Return the first column that has one of these names."""
        return first(self.columns, names)

    def required(self, name: str) -> int:
        """Return the column of this name, which the header is known to have."""
        return self.columns.index(name)

    def sentences(self) -> list[str]:
        """Return the problems."""
        return [f"{text} ({n})" for text, n in self.problems.items() if n]


@dataclass(frozen=True)
class Format:
    """A kind of table.

    Attributes
    ----------
    needs
        Columns, in normal spelling, by which a header is recognised.
    dataset
        The data set that a folder with such a table is.
    published
        What the data set calls its file; a file of that name without the columns is reported to lack them.
    only_published
        The columns alone are not enough: the file must have that name too.
    """

    kind: str
    needs: frozenset[str]
    read: Callable[[Sheet], Table]
    dataset: str = ""
    published: re.Pattern[str] | None = None
    only_published: bool = False

    def is_named(self, path: Path) -> bool:
        """Tell whether a file has the name that the data set gives it."""
        return self.published is not None and self.published.fullmatch(path.name) is not None


@dataclass
class Draft:
    """A film in the making."""

    labels: dict[str, int] = field(default_factory=dict)
    boxes: list[Box] = field(default_factory=list)
    patient: str = ""
    view: str = ""
    split: Split = ""
    normal: bool = False  # a row says "no finding"

    def finished(self) -> FilmTruth:
        """Return what is known of it."""
        return FilmTruth(self.labels, tuple(self.boxes), self.patient, self.view, split=self.split)


def open_text(path: Path) -> IO[str]:
    """Open a table, gzipped or not."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig", errors="replace")
    return path.open(newline="", encoding="utf-8-sig", errors="replace")


def read_header(stream: IO[str]) -> tuple[list[str], str]:
    """Read the first line; return its cells and the delimiter."""
    line = stream.readline(1 << 16)
    delimiter = max(",;\t", key=line.count)
    return next(csv.reader([line], delimiter=delimiter), []), delimiter


def read_rows(stream: IO[str], delimiter: str) -> list[list[str]]:
    """Read the other lines, without those that are blank."""
    limit = csv.field_size_limit(FIELD_LIMIT)
    try:
        return [row for row in csv.reader(stream, delimiter=delimiter) if any(row)]
    finally:
        csv.field_size_limit(limit)


def column(name: str) -> str:
    """Normalise a header cell: ``"Bbox [x"`` and ``"X "`` are ``"x"``, ``"Patient_ID"`` is ``"patient id"``."""
    name = re.sub(r"^bbox\s*\[|\]$", "", name.strip().casefold())
    return re.sub(r"[\s_]+", " ", name).strip()


def first(columns: list[str], names: Iterable[str]) -> int | None:
    """Return the first of `names` among the columns."""
    return next((columns.index(name) for name in names if name in columns), None)


def cell(row: list[str], index: int | None) -> str:
    """Return a cell; empty where the row is too short or there is no such column."""
    return row[index].strip() if index is not None and index < len(row) else ""


def labels_in(row: list[str], found: dict[int, str], shared: dict[tuple[str, ...], dict[str, int]]) -> dict[str, int]:
    """Return what a row says of the findings in the columns `found`; rows of the same cells share one mapping."""
    cells = tuple(cell(row, index) for index in found)
    if cells not in shared:
        labels = zip(found.values(), map(LABELS.get, cells), strict=True)
        shared[cells] = {finding: label for finding, label in labels if label is not None}
    return shared[cells]


def film_name(text: str) -> str:
    """Spell a film's name in posix and without a leading ``./``."""
    if "/" not in text and "\\" not in text:
        return text
    parts = text.replace("\\", "/").split("/")  # a Path for each of 200,000 rows takes seconds
    return "/".join([*parts[:1], *(part for part in parts[1:] if part not in {"", "."})]).removeprefix("./")


@lru_cache(maxsize=4096)
def split_word(text: str) -> Split:
    """Return the split that a word names; empty where it names none."""
    return _SPLITS.get(" ".join(re.split(r"[\s_-]+", text.strip().casefold())), "")


def split_in(name: str) -> Split:
    """Return the split that a file or folder name gives, as ``annotations_test.csv`` and ``dicom-images-train`` do."""
    found = {split_word(word) for word in re.split(r"[^a-z]+", name.casefold())} - {""}
    if found == {"train", "valid"}:
        return "train+valid"
    return found.pop() if len(found) == 1 else ""


def split_of_path(name: str) -> Split:
    """Return the split that the folders in a film's name give."""
    found = [split for part in name.split("/")[:-1] if (split := split_word(part))]
    return found[0] if found else ""


def drafts_of(sheet: Sheet, image: int | None) -> tuple[dict[str, Draft], list[list[str]]]:
    """Start one draft per film, with patient, view and split; also return the rows that name a film."""
    patient, view, split = (sheet.index(*names) for names in (PATIENT, VIEW, SPLIT))
    drafts: dict[str, Draft] = {}
    named = [row for row in sheet.rows if cell(row, image)]
    if len(named) < len(sheet.rows):
        sheet.problems["rows that name no film were left out"] += len(sheet.rows) - len(named)
    for row in named:
        name = film_name(cell(row, image))
        draft = drafts.get(name)
        if draft is None:
            draft = drafts[name] = Draft()
        draft.patient = draft.patient or cell(row, patient)
        draft.view = draft.view or cell(row, view).upper()
        draft.split = draft.split or split_word(cell(row, split)) or split_of_path(name)
    return drafts, named


def finished(drafts: dict[str, Draft]) -> dict[str, FilmTruth]:
    """Return what is known of every film."""
    return {name: draft.finished() for name, draft in drafts.items()}


def box_columns(columns: list[str]) -> tuple[list[int], bool] | None:
    """Return the four box columns and whether the last two are corners rather than sizes."""
    for names in BOX_LAYOUTS:
        if all(name in columns for name in names):
            return [columns.index(name) for name in names], names in _CORNERS
    return None


def read_box(finding: str, row: list[str], layout: tuple[list[int], bool], problems: Counter[str]) -> Box | None:
    """Return the box of a row; None where its cells are blank, or are no box.

    Parameters
    ----------
    finding, row
        What it shows, and the cells.
    layout
        What :func:`box_columns` returned.
    problems
        Counts what is no box.
    """
    indices, corners = layout
    cells = [cell(row, index) for index in indices]
    if not any(cells):
        return None  # a label without a box
    try:
        x, y, a, b = (float(text) for text in cells)
    except ValueError:
        x = y = a = b = math.nan
    width, height = (a - x, b - y) if corners else (a, b)
    if not (math.isfinite(x + y + width + height) and width > 0 and height > 0):
        problems["boxes without a finite position and a positive size were left out"] += 1
        return None
    return Box(finding, x, y, width, height)


def add_box(draft: Draft, box: Box | None) -> None:
    """Give a film a box, once."""
    if box is not None and box not in draft.boxes:
        draft.boxes.append(box)


def add_label(labels: dict[str, int], finding: str, value: int, problems: Counter[str]) -> None:
    """Give a film a label; two rows that contradict each other make it uncertain.

    Parameters
    ----------
    labels
        The film's, changed in place.
    finding, value
        1 present, 0 absent, -1 uncertain.
    problems
        Counts contradictions.
    """
    if labels.setdefault(finding, value) != value:
        labels[finding] = -1
        problems["labels on which two rows of a film contradict each other were taken as uncertain"] += 1
