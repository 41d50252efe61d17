"""One table on disk, and what becomes of it: rows and columns in, what is known of every film out."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal

from cxrx.specs import Box, FilmTruth, Split

Role = Literal["labels", "marks", "split"]
Shape = tuple[int, int]
_Kind = Literal["sizes", "corners", "centre"]
Layout = tuple[list[int], _Kind]
"""The four columns of a box, and what they hold: a corner and sizes, two corners, or the centre and sizes."""

# Names of columns; blanks in them do not count, so that ``image id`` is also PadChest's ``ImageID``.
IMAGE = (
    "path", "image", "image index", "image id", "image path", "image name", "filename", "file name", "file",
    "file path", "image file", "image filename", "img", "img id", "img name", "img path", "dicom id", "dicom",
    "dicom path", "dicom file", "dcm", "dcm path", "png", "png path", "jpg path", "sop instance uid", "image uid",
    "film", "film id", "scan",
)  # fmt: skip
STUDY = ("study id", "study", "study instance uid")
PATIENT = ("patient", "patient id", "subject id", "subject")
VIEW = ("view", "view position", "ap/pa", "projection", "view position dicom")
FINDING = (
    "finding", "finding label", "class name", "class", "label", "pathology", "finding labels", "labels", "findings",
    "diagnosis", "disease", "category",
)  # fmt: skip
SPLIT = ("split", "set", "subset", "fold name")
_ROWS = ("rows", "image height", "img height", "picture height", "original height", "dim0", "height")
_COLUMNS = ("columns", "image width", "img width", "picture width", "original width", "dim1", "width")
_BOTH_SIDES = ("img size", "image size", "picture size")
_CORNER = (("x", "y"), ("x min", "y min"), ("left", "top"), ("x0", "y0"), ("x1", "y1"), ("bbox x", "bbox y"))
_FAR_CORNER = (("x max", "y max"), ("x2", "y2"), ("right", "bottom"), ("x1", "y1"))
_CENTRE = (
    ("x center", "y center"), ("x centre", "y centre"), ("center x", "center y"), ("centre x", "centre y"),
    ("cx", "cy"), ("xc", "yc"),
)  # fmt: skip
_SIZE = (("w", "h"), ("width", "height"), ("box width", "box height"), ("bbox width", "bbox height"))
BOX_LAYOUTS = (
    *((*near, *far) for near in _CORNER for far in _FAR_CORNER if near != far),
    *((*at, *size) for at in (*_CORNER, *_CENTRE) for size in _SIZE),
)

_LABELS = {
    "true": 1, "false": 0, "yes": 1, "no": 0, "y": 1, "n": 0, "positive": 1, "negative": 0, "pos": 1, "neg": 0,
    "present": 1, "absent": 0, "uncertain": -1, "equivocal": -1,
}  # fmt: skip
_BLANK = {"", "nan", "na", "n/a", "<na>", "null", "unknown", "missing", "?", "-"}

VIEWS = {"L": "LATERAL", "LL": "LATERAL", "RL": "LATERAL", "LAT": "LATERAL", "LPO": "OBLIQUE", "RPO": "OBLIQUE",
         "LAO": "OBLIQUE", "RAO": "OBLIQUE", "SWIMMERS": "OBLIQUE", "XTABLE LATERAL": "LATERAL",
         "AP_HORIZONTAL": "AP", "FRONTAL": "FRONTAL"}  # fmt: skip
"""Views as tables write them to those of films."""

_SPLITS: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "valid", "valid": "valid", "validate": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
    "train val": "train+valid", "trainval": "train+valid",
}  # fmt: skip

FIELD_LIMIT = 1 << 24
"""Characters a cell may have; run-length encodings of masks are longer than the csv module's own limit."""

MOST_BYTES = 1 << 28
MOST_CELLS = 20_000_000
"""What a table may unpack to and hold: three times the largest public one."""

HEADER_LINES = 20
_DECIMAL_COMMA = re.compile(r"\s*(-?\d+),(\d+)\s*\Z")  # where commas do not part the cells


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
        Grid in pixels that its boxes or masks were drawn on where that is not each film's own; else 0. It is 1 where
        boxes are in fractions of the picture.
    min_parts
        How many of the last parts of a path must agree; more than one where every film is called ``view1_frontal.jpg``.
    shared
        Several films may have the same entry, as those of a study have.
    sizes
        Rows and columns of the picture that the columns of the table give a film.
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
    shared: bool = False
    sizes: dict[str, Shape] = field(default_factory=dict)

    def grid(self, entry: str) -> Shape | None:
        """Return rows and columns of what the boxes of a film were drawn on; None where that is the film itself."""
        return (self.side, self.side) if self.side else self.sizes.get(entry)


class NotReadError(ValueError):
    """A table cannot be read; the text says why, and follows the table's name in a sentence."""


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


# ---------------------------------------------------------------------------------------------------------------------
# From bytes to rows


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the first `limit` bytes of a table, gzipped or not.

    Raises
    ------
    NotReadError
        If it is gzipped and damaged.
    OSError
        If it cannot be read.
    """
    if path.suffix.lower() != ".gz":
        with path.open("rb") as stream:
            return stream.read(limit)
    try:
        with gzip.open(path) as packed:
            return packed.read(limit)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise NotReadError("is no gzip file, or is damaged") from error


def decoded(data: bytes) -> tuple[str, str]:
    """Return the text of a table, and its encoding where that is not Unicode and was guessed."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _lines(data.removeprefix(mark).decode(encoding, "replace")), ""
    if (zeros := data[:1000].count(0)) and 3 * zeros > len(data[:1000]):  # UTF-16 without its mark
        return _lines(data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le", "replace")), ""
    for encoding, name in (("utf-8", ""), ("cp1252", "Windows-1252")):
        try:
            return _lines(data.decode(encoding)), name
        except UnicodeDecodeError:
            continue
    return _lines(data.decode("latin-1")), "Latin-1"  # which takes any byte


_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def headers(text: str) -> Iterator[tuple[list[str], str, int]]:
    """Yield what may be the header: the first lines that are neither blank nor remarks.

    Yields
    ------
    The cells, what stands between them, and where the line begins.
    """
    at, given = 0, ""
    for line in islice(_lines_from(text, 0), HEADER_LINES):
        if match := re.fullmatch(r"\ufeff?sep=(.)", line.strip(), re.IGNORECASE):  # as Excel writes it
            given = match[1]
        elif line.strip():
            bare = re.sub(r'"[^"]*"', "", line)
            delimiter = given or max(",;\t|", key=bare.count)
            with contextlib.suppress(csv.Error):
                yield next(rows_of(_lines_from(text, at), delimiter), []), delimiter, at
        at += len(line)


def _lines_from(text: str, at: int) -> Iterator[str]:
    """Yield the lines of a text, which may be long, one by one."""
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        yield text[at:end]
        at = end


def rows_of(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """Yield the rows of a table that are not blank.

    Raises
    ------
    csv.Error
        A cell is too long.
    """
    limit = csv.field_size_limit(FIELD_LIMIT)
    try:
        yield from (row for row in csv.reader(lines, delimiter=delimiter) if any(row))
    finally:
        csv.field_size_limit(limit)


def read_rows(text: str, header: list[str], delimiter: str, problems: Counter[str]) -> list[list[str]]:
    """Read the rows below a header.

    Parameters
    ----------
    text
        From the header on.
    header, delimiter
        Its cells, and what stands between them.
    problems
        Counts rows that are longer than the header: it cannot be told what their cells are.

    Raises
    ------
    NotReadError
        There are more cells than any table of films has.
    """
    rows, cells = [], 0
    lines = rows_of(io.StringIO(text), delimiter)
    next(lines, None)
    for row in lines:
        cells += len(row)
        if cells > MOST_CELLS:
            raise NotReadError(f"has more than {MOST_CELLS:,} cells")
        if len(row) > len(header) and any(row[len(header) :]):
            problems["rows with more cells than the header were left out"] += 1
            continue
        rows.append(row if delimiter == "," else [_DECIMAL_COMMA.sub(r"\1.\2", text) for text in row])
    return rows


def column(name: str) -> str:
    """Normalise a header cell: ``"Bbox [x"`` and ``"X "`` are ``"x"``, ``"Patient_ID"`` is ``"patient id"``."""
    name = unicodedata.normalize("NFKC", name).strip(" \t#'\"\ufeff").casefold()
    return re.sub(r"[\s_.-]+", " ", re.sub(r"^bbox\s*\[|\]$", "", name)).strip()


def first(columns: list[str], names: Iterable[str]) -> int | None:
    """Return the first of `names` among the columns; blanks in either do not count."""
    compact = [name.replace(" ", "") for name in columns]
    wanted = (name.replace(" ", "") for name in names)
    return next((compact.index(name) for name in wanted if name in compact), None)


def cell(row: list[str], index: int | None) -> str:
    """Return a cell; empty where the row is too short or there is no such column."""
    return row[index].strip() if index is not None and index < len(row) else ""


@lru_cache(maxsize=4096)
def label_of(text: str) -> int | None:
    """Return what a cell says: 1 present, 0 absent, -1 uncertain; None where it is blank or no label."""
    word = text.casefold()
    try:
        number = float(word.replace(",", "."))
    except ValueError:
        return _LABELS.get(word)
    return int(number) if number in {1, 0, -1} else None


def is_blank(text: str) -> bool:
    """Tell whether a cell says nothing."""
    return text.casefold() in _BLANK


def view_of(text: str) -> str:
    """Return a view as films have it."""
    return VIEWS.get(text.upper(), text.upper())


def labels_in(row: list[str], found: dict[int, str], shared: dict[tuple[str, ...], dict[str, int]]) -> dict[str, int]:
    """Return what a row says of the findings in the columns `found`; rows of the same cells share one mapping."""
    cells = tuple(cell(row, index) for index in found)
    if cells not in shared:
        labels = zip(found.values(), map(label_of, cells), strict=True)
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
        draft = drafts.setdefault(name, Draft())
        new = cell(row, patient), view_of(cell(row, view)), split_word(cell(row, split))
        old = draft.patient, draft.view, draft.split
        if any(a and b and a != b for a, b in zip(old, new, strict=True)):
            sheet.problems[
                "rows of another patient, view or split than one before of their film; the first counts"
            ] += 1
        draft.patient, draft.view = old[0] or new[0], old[1] or new[1]
        draft.split = old[2] or new[2]
    for name, draft in drafts.items():
        draft.split = draft.split or split_of_path(name)
    return drafts, named


def finished(drafts: dict[str, Draft]) -> dict[str, FilmTruth]:
    """Return what is known of every film."""
    return {name: draft.finished() for name, draft in drafts.items()}


def box_columns(columns: list[str]) -> Layout | None:
    """Return the four box columns and what they hold."""
    for names in BOX_LAYOUTS:
        found = [first(columns, [name]) for name in names]
        if None not in found:
            kind: _Kind = "corners" if names[2:] in _FAR_CORNER else "centre" if names[:2] in _CENTRE else "sizes"
            return [index for index in found if index is not None], kind
    return None


def read_box(finding: str, row: list[str], layout: Layout, problems: Counter[str]) -> Box | None:
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
    indices, kind = layout
    cells = [cell(row, index) for index in indices]
    if all(map(is_blank, cells)):
        return None  # a label without a box
    try:
        x, y, a, b = (float(text) for text in cells)
    except ValueError:
        x = y = a = b = math.nan
    width, height = (a - x, b - y) if kind == "corners" else (a, b)
    if kind == "centre":
        x, y = x - width / 2, y - height / 2
    if not (math.isfinite(x + y + width + height) and width > 0 and height > 0):
        problems["boxes without a finite position and a positive size were left out"] += 1
        return None
    return Box(finding, x, y, width, height)


def sizes_in(sheet: Sheet, image: int) -> dict[str, Shape]:
    """Return the size of the picture that columns such as ``rows,columns`` or ``img_size`` give a film."""
    layout = box_columns(sheet.columns)
    free = ["" if layout is not None and i in layout[0] else name for i, name in enumerate(sheet.columns)]
    both, height, width = (first(free, names) for names in (_BOTH_SIDES, _ROWS, _COLUMNS))
    if both is None and (height is None or width is None):
        return {}
    sizes: dict[str, Shape] = {}
    for row in sheet.rows:
        text = cell(row, both) if both is not None else f"{cell(row, height)} {cell(row, width)}"
        sides = [int(number) for number in re.findall(r"\d{1,6}", re.sub(r"\.0*\b", "", text))]
        if len(sides) in {1, 2} and min(sides) > 0:
            sizes.setdefault(film_name(cell(row, image)), (sides[0], sides[-1]))
    return sizes


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
