"""Anybody's own tables: ``path,<finding>,<finding>,...``, ``path,label`` and ``path,finding,x,y,w,h``."""

from __future__ import annotations

from cxrx.datasets.names import NO_FINDING, canonical, is_known
from cxrx.datasets.sheet import (
    FINDING,
    IMAGE,
    LABELS,
    PATIENT,
    SPLIT,
    VIEW,
    Sheet,
    Table,
    add_box,
    add_label,
    box_columns,
    cell,
    drafts_of,
    film_name,
    finished,
    read_box,
)

# Columns that may hold nothing but 0 and 1 and are no findings all the same.
_META = {
    "id", "index", "row", "sex", "gender", "age", "fold", "frontal/lateral", "bytes", "size", "rows", "columns",
    "width", "height", "frame", "follow-up #", "study", "study id", "series", "synthetic", "seed", "encoding",
    "status", "decoder", "shortcut", "inverted", "flipped", "rad id",
}  # fmt: skip


def finding_columns(sheet: Sheet, *, blank: bool = False) -> dict[int, str]:
    """Return the columns that are findings: those whose cells are 1, 0, -1 or blank, and not all blank.

    A column of a known finding is one even if some cells are not such; those are unknown and counted. With `blank`, it
    is one even if no cell says anything.
    """
    meta = {sheet.index(*names) for names in (IMAGE, PATIENT, VIEW, SPLIT)}
    found: dict[int, str] = {}
    for index, name in enumerate(sheet.header):
        if index in meta or not name.strip() or sheet.columns[index] in _META:
            continue
        filled = [text for row in sheet.rows if (text := cell(row, index))]
        bad = sum(text not in LABELS for text in filled)
        if (bad < len(filled) and (bad == 0 or is_known(name))) or (blank and not filled and is_known(name)):
            found[index] = canonical(name)
            if bad:
                sheet.problems["cells that are not 1, 0, -1 or blank were taken as unknown"] += bad
    return found


def read_labels(sheet: Sheet) -> Table:
    """Read ``path,<finding>,...``: 1 present, 0 absent, -1 uncertain, blank unknown; or ``path,label`` in words."""
    image, found = sheet.index(*IMAGE), finding_columns(sheet)
    if not found and sheet.index(*FINDING) is not None:
        return read_words(sheet)
    drafts, rows = drafts_of(sheet, image)
    seen: set[str] = set()
    for row in rows:
        name = film_name(cell(row, image))
        sheet.problems["rows of a film that had one before"] += name in seen
        seen.add(name)
        labels = drafts[name].labels
        for index, finding in found.items():
            if (label := LABELS.get(cell(row, index))) is not None:
                add_label(labels, finding, label, sheet.problems)
    findings = tuple(dict.fromkeys(found.values()))
    return Table(sheet.path, "labels", finished(drafts), findings, sheet.sentences())


def read_words(sheet: Sheet) -> Table:
    """Read ``path,label`` with the name of a finding in each row, or several with pipes between them.

    As in folders named by class, what a film's rows do not name is absent. It is such a table only if one of the names
    is a known finding.
    """
    image, finding = sheet.index(*IMAGE), sheet.index(*FINDING)
    drafts, rows = drafts_of(sheet, image)
    present: dict[str, dict[str, int]] = {}
    for row in rows:
        names = [canonical(part) for part in cell(row, finding).split("|") if part.strip()]
        if not names:
            sheet.problems["rows without a finding were left out"] += 1
            continue
        present.setdefault(film_name(cell(row, image)), {}).update(dict.fromkeys(names, 1))
    findings = tuple(dict.fromkeys(name for names in present.values() for name in names))
    if not any(map(is_known, findings)):
        findings = ()
    for name, labels in present.items():
        drafts[name].labels = dict.fromkeys(findings, 0) | labels
    return Table(sheet.path, "labels", finished(drafts), findings, sheet.sentences())


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
    return Table(sheet.path, kind, finished(drafts), tuple(findings), sheet.sentences(), "marks", side=side)
