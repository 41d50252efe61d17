"""Anybody's own tables: ``path,<finding>,<finding>,...``, ``path,label`` and ``path,finding,x,y,w,h``."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import partial

from cxrx.datasets.names import NO_FINDING, canonical, is_known
from cxrx.datasets.sheet import (
    FINDING,
    IMAGE,
    PATIENT,
    SPLIT,
    STUDY,
    VIEW,
    Draft,
    Sheet,
    Table,
    add_box,
    add_label,
    box_columns,
    cell,
    drafts_of,
    film_name,
    finished,
    is_blank,
    label_of,
    read_box,
)

# Columns that may hold nothing but 0 and 1 and are no findings all the same.
_META = {
    "id", "index", "row", "sex", "gender", "age", "fold", "frontal/lateral", "bytes", "size", "rows", "columns",
    "width", "height", "frame", "follow up", "study", "study id", "subject id", "series", "synthetic", "seed",
    "encoding", "status", "decoder", "shortcut", "inverted", "flipped", "rad id", "imagedir", "image dir",
}  # fmt: skip
# Columns that say whether, and not what.
_VALUE = {"label", "labels", "target", "class", "value", "present", "presence", "result", "outcome", "y"}
_BOX_CELLS = {"bbox", "bboxes", "box", "boxes", "bounding box", "bounding boxes"}

_Rows = list[list[str]]
_Drafts = dict[str, Draft]


def finding_columns(sheet: Sheet, *, blank: bool = False) -> dict[int, str]:
    """Return the columns that are findings: those whose cells are labels or blank, and not all blank.

    A column of a known finding is one even if some cells are not such; those are unknown and counted. With `blank`, it
    is one even if no cell says anything.
    """
    layout = box_columns(sheet.columns)
    meta = {sheet.index(*names) for names in (IMAGE, PATIENT, VIEW, SPLIT)} | set(layout[0] if layout else ())
    found: dict[int, str] = {}
    for index, name in enumerate(sheet.header):
        normal = sheet.columns[index]
        if index in meta or not normal or normal in _META or normal.startswith("unnamed:") or normal.endswith(" dicom"):
            continue
        filled = [text for row in sheet.rows if not is_blank(text := cell(row, index))]
        bad = sum(label_of(text) is None for text in filled)
        if (bad < len(filled) and (bad == 0 or is_known(name))) or (blank and not filled and is_known(name)):
            found[index] = canonical(name)
        if bad and is_known(name):
            sheet.problems[f"cells of {name.strip()!r} that are not 1, 0, -1 or blank were taken as unknown"] += bad
    return found


def read_labels(sheet: Sheet) -> Table:
    """Read ``path,<finding>,...``: 1 present, 0 absent, -1 uncertain, blank unknown; or ``path,label`` in words.

    A row may also name a finding in one column, and say in another whether it is there.
    """
    image, found = sheet.index(*IMAGE), finding_columns(sheet)
    study = image is None
    image = sheet.index(*STUDY) if study else image
    word = _word_column(sheet, found)
    values = [index for index in found if sheet.columns[index] in _VALUE]
    drafts, rows = drafts_of(sheet, image)
    names = [film_name(cell(row, image)) for row in rows]
    if _BOX_CELLS & set(sheet.columns):
        sheet.problems["boxes in one column are not read; give them in columns such as x,y,w,h"] = 1
    if word is None and len(names) > len(drafts):
        sheet.problems["rows of a film that had one before"] = len(names) - len(drafts)
    if word is not None and values and len(values) == len(found):
        findings = _read_pairs(sheet, rows, [drafts[name] for name in names], (word, values[0]))
    else:
        findings = _read_columns(sheet, rows, drafts, names, found)
        if word is not None:
            findings = tuple(dict.fromkeys([*_read_words(sheet, rows, drafts, names, word), *findings]))
    table = Table(sheet.path, "labels", finished(drafts), findings, sheet.sentences())
    if study:
        table.name_of, table.shared = partial(_study_in, studies=drafts.keys()), True
    return table


def _study_in(path: str, studies: Collection[str]) -> str:
    """Return the study that a folder of a path is named by, with an s before it or not; the deepest counts."""
    parts = path.split("/")[::-1]
    return next((name for part in parts for name in (part, part.removeprefix("s")) if name in studies), path)


def _read_columns(
    sheet: Sheet, rows: _Rows, drafts: _Drafts, names: Sequence[str], found: dict[int, str]
) -> tuple[str, ...]:
    """Take columns of labels.

    Parameters
    ----------
    sheet
        Counts problems.
    rows, names
        Those that name a film, and its name.
    drafts
        The films, changed in place.
    found
        The columns, and the findings that they are.
    """
    for index in found:
        if sheet.columns[index] in _VALUE:
            text = f"the column {sheet.header[index].strip()!r} does not say of which finding it is; name it after that"
            sheet.problems[text] = 1
    for row, name in zip(rows, names, strict=True):
        for index, finding in found.items():
            if (label := label_of(cell(row, index))) is not None:
                add_label(drafts[name].labels, finding, label, sheet.problems)
    return tuple(dict.fromkeys(found.values()))


def _word_column(sheet: Sheet, found: Collection[int]) -> int | None:
    """Return the column that names findings in words; one of them must be known."""
    for at in (sheet.index(name) for name in FINDING):
        if at is not None and at not in found:
            texts = {cell(row, at) for row in sheet.rows}
            if any(is_known(name) for text in texts for name in names_in(text)):
                return at
    return None


def names_in(text: str) -> list[str]:
    """Return the findings that a cell names: one, several with pipes between them, or a list as Python writes it."""
    parts = text.strip("[]").split("|")
    if len(parts) == 1 and not is_known(text):
        several = re.split("[,;]", parts[0])
        parts = several if text.startswith("[") or any(is_known(part.strip(" '\"")) for part in several) else parts
    return [name for part in parts if (name := canonical(part.strip(" '\"")))]


def _read_words(sheet: Sheet, rows: _Rows, drafts: _Drafts, names: Sequence[str], word: int) -> tuple[str, ...]:
    """Take findings in words; as in folders named by class, what a film's rows do not name is absent.

    Parameters
    ----------
    sheet
        Counts problems.
    rows, names
        Those that name a film, and its name.
    drafts
        The films, changed in place.
    word
        The column.
    """
    present: dict[str, dict[str, int]] = {}
    for row, name in zip(rows, names, strict=True):
        said = names_in(cell(row, word))
        if said:
            present.setdefault(name, {}).update(dict.fromkeys(said, 1))
        else:
            sheet.problems["rows without a finding were left out"] += 1
    findings = tuple(dict.fromkeys(finding for said in present.values() for finding in said))
    for name, labels in present.items():
        drafts[name].labels = dict.fromkeys(findings, 0) | labels | drafts[name].labels
        sheet.problems["films that are called normal and have a finding too"] += (
            len(labels) > 1 and NO_FINDING in labels
        )
    return findings


def _read_pairs(sheet: Sheet, rows: _Rows, drafts: Sequence[Draft], columns: tuple[int, int]) -> tuple[str, ...]:
    """Take rows that name a finding in one column and say in another whether it is there.

    Parameters
    ----------
    sheet
        Counts problems.
    rows, drafts
        Those that name a film, and the film of each.
    columns
        The name, and whether.
    """
    findings: dict[str, None] = {}
    for row, draft in zip(rows, drafts, strict=True):
        label, said = label_of(cell(row, columns[1])), names_in(cell(row, columns[0]))
        if label is None or not said:
            sheet.problems["rows without a finding, or without a label of it, were left out"] += 1
            continue
        for finding in said:
            findings[finding] = None
            add_label(draft.labels, finding, label, sheet.problems)
    return tuple(findings)


def read_boxes(sheet: Sheet, kind: str = "boxes", side: int = 0) -> Table:
    """Read ``path,finding,x,y,w,h``, a row a box.

    A box means that the finding is present. Of what a film has no box of nothing is known, unless a row says that there
    is no finding.
    """
    image, finding = sheet.index(*IMAGE), sheet.index(*FINDING)
    layout = box_columns(sheet.columns)
    if layout is None:
        raise ValueError("the table has no box columns")
    drafts, rows = drafts_of(sheet, image)
    findings: dict[str, None] = {}
    for row in rows:
        draft, name = drafts[film_name(cell(row, image))], canonical(cell(row, finding))
        if not name:
            sheet.problems["rows without a finding were left out"] += 1
        elif name == NO_FINDING:
            draft.normal = True
        else:
            findings[name] = None
            draft.labels[name] = 1
            add_box(draft, read_box(name, row, layout, sheet.problems))
    for draft in drafts.values():
        if draft.normal and not draft.boxes:
            draft.labels = dict.fromkeys(findings, 0) | draft.labels
        sheet.problems["films that are called normal and have a box"] += draft.normal and bool(draft.boxes)
    if findings and all(name.isdigit() for name in findings):
        sheet.problems["boxes of findings that are numbers; name them"] = sum(
            len(draft.boxes) for draft in drafts.values()
        )
    return Table(sheet.path, kind, finished(drafts), tuple(findings), sheet.sentences(), "marks", side=side)
