"""Read label, box and mask tables. A table is recognised by its header, never by its file name alone.

Understood: ChestX-ray14, RSNA pneumonia, CheXpert and CheXlocalize, MIMIC-CXR-JPG, VinDr-CXR, SIIM-ACR (a module each),
and plain tables ``path,<finding>,<finding>,...`` (1 present, 0 absent, -1 uncertain, blank unknown) and
``path,finding,x,y,w,h``.
"""

from __future__ import annotations

import csv
import zlib
from pathlib import Path

from cxrx.datasets import chexpert, mimic, nih, plain, rsna, siim, vindr
from cxrx.datasets.names import is_known
from cxrx.datasets.sheet import (
    BOX_LAYOUTS,
    FINDING,
    IMAGE,
    Format,
    Sheet,
    Table,
    box_columns,
    column,
    first,
    open_text,
    read_header,
    read_rows,
)
from cxrx.datasets.specs import CHEXPERT, MIMIC, NIH

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
_NOT_TRUTH = {"method", "metric", "stage", "code", "logit", "probability", "model", "md5", "sha256", "mtime ns"}


def format_of(path: Path, columns: list[str]) -> Format | None:
    """Say what table a header (in normal spelling) belongs to.

    A plain label table needs a look at its cells as well (:func:`read_table` does so): ``path,bytes`` has the shape of
    a label table and is none.
    """
    names = set(columns)
    if _NOT_TRUTH & names or any(name.startswith("prob ") for name in columns):
        return None
    for form in FORMATS:
        if form.needs <= names and (form.is_named(path) or not form.only_published):
            return form
    if first(columns, IMAGE) is None:
        return None
    if first(columns, FINDING) is not None and box_columns(columns) is not None:
        return BOXES
    return PLAIN if len(columns) > 1 else None


def kind_of(header: list[str]) -> str | None:
    """Say what table a header row belongs to; None where it is none of ours."""
    form = format_of(Path(), [column(name) for name in header])
    return None if form is None else form.kind


def lacking(path: Path, columns: list[str]) -> str:
    """Say which columns a table lacks that by its name, or by its other columns, is one of ours; empty if it is not."""
    names = set(columns)
    for form in FORMATS:
        if form.is_named(path) and not form.needs <= names:
            return f"lacks the columns {_listed(sorted(form.needs - names))}"
    if _NOT_TRUTH & names:
        return ""
    image, finding = first(columns, IMAGE), first(columns, FINDING)
    if image is not None and finding is not None:
        there, layout = max(((len(names & set(layout)), layout) for layout in BOX_LAYOUTS), key=lambda item: item[0])
        if 2 <= there < 4:
            return f"lacks the columns {_listed([name for name in layout if name not in names])} of a table of boxes"
    if image is None and ("finding labels" in names or sum(is_known(name) for name in columns) >= 2):
        return "has findings and lacks a column that names the films, such as path"
    return ""


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def read_table(path: Path, problems: list[str] | None = None) -> Table | None:
    """Read one file; None where it is no truth, which its header, or for plain label tables the cells, show.

    Parameters
    ----------
    problems
        A sentence on a table that lacks columns is appended.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    if path.suffix.lower() == ".json":
        return chexpert.read_json(path)
    if path.suffix.lower() == ".txt":
        return nih.read_list(path)
    try:
        with open_text(path) as stream:
            header, delimiter = read_header(stream)
            columns = [column(name) for name in header]
            form = format_of(path, columns)
            if form is None or (form is PLAIN and lacking(path, columns)):
                if problems is not None and (text := lacking(path, columns)):
                    problems.append(f"{path.name} {text}")
                return None
            sheet = Sheet(path, header, columns, read_rows(stream, delimiter))
    except (csv.Error, EOFError, zlib.error):
        return None  # a binary or broken file with a comma in its first line
    table = form.read(sheet)
    return None if form is PLAIN and not table.findings else table


def kind_of_file(path: Path) -> str | None:
    """Say what table a file is, from its first line alone; as :func:`read_table` does of the formats of data sets."""
    if path.suffix.lower() == ".json":
        return "chexlocalize" if chexpert.JSON_NAME.fullmatch(path.name) else None
    if path.suffix.lower() == ".txt":
        return "list" if nih.LIST_NAME.fullmatch(path.name) else None
    try:
        with open_text(path) as stream:
            form = format_of(path, [column(name) for name in read_header(stream)[0]])
    except (OSError, csv.Error, EOFError, zlib.error):
        return None
    return None if form is None else form.kind
