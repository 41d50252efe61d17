"""Read label, box and mask tables. A table is recognised by its header, never by its file name alone.

Understood: ChestX-ray14, RSNA pneumonia, CheXpert and CheXlocalize, MIMIC-CXR-JPG, VinDr-CXR, SIIM-ACR (a module each),
and plain tables ``path,<finding>,<finding>,...`` (1 present, 0 absent, -1 uncertain, blank unknown) and
``path,finding,x,y,w,h``.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from cxrx.datasets import chexpert, mimic, nih, plain, rsna, siim, vindr
from cxrx.datasets.listing import SPREADSHEETS
from cxrx.datasets.names import is_known
from cxrx.datasets.sheet import (
    BOX_LAYOUTS,
    FIELD_LIMIT,
    FINDING,
    IMAGE,
    MOST_BYTES,
    STUDY,
    Format,
    NotReadError,
    Sheet,
    Table,
    box_columns,
    cell,
    column,
    decoded,
    first,
    headers,
    is_blank,
    read_bytes,
    read_rows,
    sizes_in,
)
from cxrx.datasets.specs import CHEXPERT, MIMIC, NIH, RSNA

FORMATS: tuple[Format, ...] = (
    *nih.FORMATS, *rsna.FORMATS, *mimic.FORMATS, *vindr.FORMATS, *siim.FORMATS, *chexpert.FORMATS,
)  # fmt: skip
BOXES = Format("boxes", frozenset(), plain.read_boxes)
PLAIN = Format("labels", frozenset(), plain.read_labels)

DATASET_OF = {form.kind: form.dataset for form in FORMATS} | {
    "list": NIH, "mimic": MIMIC, "mimic-negbio": MIMIC, "chexlocalize": CHEXPERT,
}  # fmt: skip
"""Kind of table to the data set it is of; plain tables are of none."""

# Columns of results, file lists and run records: a table that has one of them is no truth, whatever else it holds.
_NOT_TRUTH = {
    "epoch",
    "method",
    "metric",
    "stage",
    "code",
    "logit",
    "probability",
    "model",
    "md5",
    "sha256",
    "mtime ns",
}

_BINARY = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1")  # a zip as Office has it, an older workbook, Parquet
_ROUNDING = 1e-3


# Words of a header that may be repeated: what else stands in a first line may be a patient's.
_SAYABLE = re.compile(
    r"image|img|file|path|name|id$|index|label|finding|class|patient|study|film|scan|dicom|target|box|diagnos|disease"
)


def format_of(path: Path, columns: list[str]) -> Format | None:
    """Say what table a header (in normal spelling) belongs to.

    A plain label table needs a look at its cells as well (:func:`read_table` does so): ``path,bytes`` has the shape of
    a label table and is none.
    """
    names, image = set(columns), first(columns, IMAGE)
    if _is_no_truth(columns):
        return None
    for form in FORMATS:
        if form.needs <= names and (form.is_named(path) or not form.only_published) and not _is_joined(form, columns):
            return form
    if image is None:
        return PLAIN if first(columns, STUDY) is not None else None
    if first(columns, FINDING) is not None and box_columns(columns) is not None:
        return BOXES
    return PLAIN if len(columns) > 1 else None


def _is_joined(form: Format, columns: list[str]) -> bool:
    """Tell whether a table has more than the data set's: it was joined from several, and names films itself."""
    if form.kind == "mimic-films":
        return any(map(is_known, columns))
    image = first(columns, IMAGE)
    return image is not None and (form.kind == "mimic-studies" or form.dataset == RSNA)


def _is_no_truth(columns: list[str]) -> bool:
    if _NOT_TRUTH & set(columns) or any(name.startswith("prob ") for name in columns):
        return True
    return "region" in columns and first(columns, FINDING) is None


def lacking(path: Path, columns: list[str]) -> str:
    """Say which columns a table lacks that by its name, or by its other columns, is one of ours; empty if it is not."""
    names = set(columns)
    for form in FORMATS:
        if form.is_named(path) and not form.needs <= names:
            return f"lacks the columns {_listed(sorted(form.needs - names))}"
    if _is_no_truth(columns):
        return ""
    image, finding = first(columns, IMAGE), first(columns, FINDING)
    if image is not None and finding is not None:
        there, layout = max(((len(names & set(layout)), layout) for layout in BOX_LAYOUTS), key=lambda item: item[0])
        if 2 <= there < 4 and names & set(layout[:2]):
            return f"lacks the columns {_listed([name for name in layout if name not in names])} of a table of boxes"
    if (
        image is None
        and first(columns, STUDY) is None
        and ("finding labels" in names or sum(is_known(name) for name in columns) >= 2)
    ):
        return f"has findings and lacks a column that names the films, such as path; {_said(columns)}"
    return ""


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _said(columns: list[str]) -> str:
    """Name the columns of a table as far as they are no cells, which a table without a header has in its place."""
    named = [name for name in columns if len(name) < 40 and (_SAYABLE.search(name) or is_known(name))]
    if not named or any(re.search(r" (png|jpe?g|dcm|dicom)$", name) for name in columns):  # the dot is a blank here
        return "its first line is no header that is understood"
    return f"its columns are {_listed(named[:8])}" + (" and others" if len(named) < len(columns) else "")


def read_table(path: Path, problems: list[str] | None = None, *, strange: bool = True) -> Table | None:
    """Read one file; None where it is no truth, which its header, or for plain label tables the cells, show.

    Parameters
    ----------
    path
        A table, a list of films or the JSON of CheXlocalize.
    problems
        A sentence on a table that was not understood is appended.
    strange
        Say so also of a table that nothing shows to be of films.
    """
    said = [] if problems is None else problems
    try:
        return _read(path, strange)
    except NotReadError as error:
        said.append(f"{path.name} {error}")
    except OSError as error:
        said.append(f"{path.name} could not be read: {error.strerror or 'it is damaged'}")
    return None


def _read(path: Path, strange: bool) -> Table | None:
    name = path.name.lower()
    if name.endswith(".json"):
        if strange and not chexpert.JSON_NAME.fullmatch(path.name) and b'"file_name"' in read_bytes(path, 1 << 16):
            raise NotReadError("has the form of COCO's JSON, which is not read; give its boxes in a table")
        return chexpert.read_json(path)
    if name.endswith(".txt") and (listed := nih.read_list(path)) is not None:
        return listed
    strange = strange and (not name.endswith(".txt") or nih.LIST_NAME.fullmatch(name) is not None)  # few are tables
    text, guessed = _text(path)
    form, header, delimiter, at = _header(path, text)
    columns = [column(cell) for cell in header]
    reason = lacking(path, columns) if form in {None, PLAIN} else ""
    if reason and not name.endswith(".txt"):
        raise NotReadError(reason)
    if form is None or reason:
        own = [name for name in columns if name in _NOT_TRUTH]
        if own and format_of(path, [name for name in columns if name not in own]) not in {None, PLAIN}:
            raise NotReadError(
                f"has the column {own[0]!r}, as results have, and is not read; leave that out if it is truth"
            )
        if strange and not _is_no_truth(columns):
            raise NotReadError(f"was not understood: no column names the films; {_said(columns)}")
        return None
    problems: Counter[str] = Counter()
    try:
        sheet = Sheet(path, header, columns, read_rows(text[at:], header, delimiter, problems), problems)
    except csv.Error as error:
        raise NotReadError(f"was not understood: a cell is longer than {FIELD_LIMIT:,} characters") from error
    table = form.read(sheet)
    if form is PLAIN and not table.findings:
        if strange:
            raise NotReadError(f"was not understood: {_without_findings(sheet)}")
        return None
    if guessed:
        table.problems.append(f"it is not in Unicode and was read as {guessed}")
    _settle_units(table, sheet)
    return table


def _text(path: Path) -> tuple[str, str]:
    """Return the text of a table, and its encoding where that was guessed."""
    name = path.name.lower()
    data = _BINARY[0] if name.endswith(SPREADSHEETS) else read_bytes(path, MOST_BYTES)
    if data.startswith(_BINARY):
        raise NotReadError("is a spreadsheet or a binary table, which is not read; save it as CSV")
    if len(data) >= MOST_BYTES:
        raise NotReadError(f"is larger than {MOST_BYTES >> 20} MiB")
    return decoded(data)


def _header(path: Path, text: str) -> tuple[Format | None, list[str], str, int]:
    """Find the header: the first line that is understood, else the first."""
    lines = []
    for line in headers(text):
        if form := format_of(path, [column(cell) for cell in line[0]]):
            return form, *line
        lines.append(line)
    return None, *max(lines, key=lambda line: len(line[0]) > 1, default=([], ",", 0))


def _without_findings(sheet: Sheet) -> str:
    word = sheet.index(*FINDING)
    if word is not None and not all(is_blank(cell(row, word)) for row in sheet.rows):
        return f"the column {sheet.header[word].strip()!r} names no known finding and holds no labels"
    return f"no column holds a finding as 1, 0, -1 or blank; {_said(sheet.columns)}"


def _settle_units(table: Table, sheet: Sheet) -> None:
    """Tell boxes in fractions from those in pixels, and note the sizes of pictures that columns give."""
    image = sheet.index(*IMAGE, "patientid")
    table.sizes = sizes_in(sheet, image) if image is not None else {}
    boxes = [box for film in table.films.values() for box in film.boxes]
    tiny = [box for box in boxes if max(box.width, box.height) < 1]
    if boxes and all(max(box.x + box.width, box.y + box.height) <= 1 + _ROUNDING for box in boxes):
        table.side = 1
        table.problems.append(
            f"boxes are in fractions of the picture, whose size turns them into pixels ({len(boxes)})"
        )
    elif tiny:
        table.problems.append(f"boxes smaller than a pixel, as fractions among pixels are, were left out ({len(tiny)})")
        for name, film in table.films.items():
            table.films[name] = replace(film, boxes=tuple(box for box in film.boxes if max(box.width, box.height) >= 1))


def kind_of_file(path: Path) -> str | None:
    """Say what table a file is, from its first lines alone; as :func:`read_table` does of the formats of data sets."""
    name = path.name.lower()
    if name.endswith(".json"):
        return "chexlocalize" if chexpert.JSON_NAME.fullmatch(name) else None
    if name.endswith(".txt") and nih.LIST_NAME.fullmatch(name):
        return "list"
    if name.endswith(SPREADSHEETS):
        return None
    try:
        form = _header(path, decoded(read_bytes(path, 1 << 16))[0])[0]
    except (OSError, NotReadError):
        return None
    return None if form is None else form.kind
