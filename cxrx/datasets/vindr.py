"""VinDr-CXR (Nguyen et al. 2022): several readers a film, a row a box or a row a reader.

How readers are merged: a finding is present where more than half of a film's readers saw it, uncertain where some did
and no majority, absent where none did, every reader having looked for everything. Boxes are kept where the finding is
present; those of one finding that overlap by an IoU of at least 0.5 are one, the mean of them. The test films, whose
rows name no reader, are the consensus of five and count as one reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cxrx.datasets.names import NO_FINDING, canonical
from cxrx.datasets.plain import finding_columns
from cxrx.datasets.sheet import (
    IMAGE,
    Format,
    Sheet,
    Table,
    box_columns,
    cell,
    drafts_of,
    film_name,
    finished,
    label_of,
    read_box,
    split_in,
)
from cxrx.datasets.specs import VINDR
from cxrx.specs import Box

SAME = 0.5  # IoU from which two boxes of a finding are one


@dataclass
class _Votes:
    readers: set[str] = field(default_factory=set)
    saw: dict[str, set[str]] = field(default_factory=dict)  # finding -> readers
    boxes: list[Box] = field(default_factory=list)


def majority(saw: int, readers: int) -> int:
    """Return the label of a finding that `saw` of `readers` reported."""
    return 1 if 2 * saw > readers else -1 if saw else 0


def fused(boxes: list[Box]) -> list[Box]:
    """Join boxes of one finding whose IoU is `SAME` or more to their mean, each with the first group it fits."""
    groups: list[list[Box]] = []
    for box in boxes:
        group = next((g for g in groups if g[0].finding == box.finding and iou(_mean(g), box) >= SAME), None)
        if group is None:
            groups.append([box])
        else:
            group.append(box)
    return [_mean(group) for group in groups]


def _mean(group: list[Box]) -> Box:
    n = len(group)
    x, y, width, height = (sum(getattr(b, side) for b in group) / n for side in ("x", "y", "width", "height"))
    return Box(group[0].finding, x, y, width, height)


def iou(a: Box, b: Box) -> float:
    """Return the intersection over the union of two boxes."""
    across = max(0.0, min(a.x + a.width, b.x + b.width) - max(a.x, b.x))
    down = max(0.0, min(a.y + a.height, b.y + b.height) - max(a.y, b.y))
    both = across * down
    return both / (a.width * a.height + b.width * b.height - both)


def read_annotations(sheet: Sheet) -> Table:
    """Read a row a box and reader; "No finding" rows have none."""
    image, finding, reader = sheet.index(*IMAGE), sheet.required("class name"), sheet.index("rad id")
    layout = box_columns(sheet.columns)
    if layout is None:
        raise ValueError("the table has no box columns")
    drafts, rows = drafts_of(sheet, image)
    films = {name: _Votes() for name in drafts}
    findings: dict[str, None] = {}
    for row in rows:
        votes, name, who = films[film_name(cell(row, image))], canonical(cell(row, finding)), cell(row, reader)
        if not name:
            sheet.problems["rows without a finding were left out"] += 1
            continue
        votes.readers.add(who)
        if name != NO_FINDING:
            findings[name] = None
            votes.saw.setdefault(name, set()).add(who)
            if box := read_box(name, row, layout, sheet.problems):
                votes.boxes.append(box)
    split = split_in(sheet.path.name)
    for name, votes in films.items():
        draft = drafts[name]
        draft.labels = {f: majority(len(votes.saw.get(f, ())), len(votes.readers)) for f in findings}
        draft.boxes = fused([box for box in votes.boxes if draft.labels[box.finding] == 1])
        draft.split = draft.split or split
    return Table(sheet.path, "vindr", finished(drafts), tuple(findings), sheet.sentences())


def read_labels(sheet: Sheet) -> Table:
    """Read ``image_labels_train.csv``: a row a reader, a column a finding."""
    image, reader, found = sheet.index(*IMAGE), sheet.required("rad id"), finding_columns(sheet, blank=True)
    drafts, rows = drafts_of(sheet, image)
    films = {name: _Votes() for name in drafts}
    for row in rows:
        votes, who = films[film_name(cell(row, image))], cell(row, reader)
        sheet.problems["rows of a film that repeat a reader"] += who in votes.readers
        votes.readers.add(who)
        for index, finding in found.items():
            if label_of(cell(row, index)) == 1:
                votes.saw.setdefault(finding, set()).add(who)
    split, findings = split_in(sheet.path.name), tuple(dict.fromkeys(found.values()))
    for name, votes in films.items():
        drafts[name].labels = {f: majority(len(votes.saw.get(f, ())), len(votes.readers)) for f in findings}
        drafts[name].split = drafts[name].split or split
    return Table(sheet.path, "vindr-labels", finished(drafts), findings, sheet.sentences())


_CORNERS = frozenset({"image id", "class name", "x min", "y min", "x max", "y max"})
FORMATS = (
    Format(
        "vindr",
        _CORNERS | {"rad id"},
        read_annotations,
        VINDR,
        re.compile(r"annotations_train.*", re.IGNORECASE),
    ),
    Format(  # the consensus of the test films names no reader
        "vindr",
        _CORNERS,
        read_annotations,
        VINDR,
        re.compile(r"annotations_test.*", re.IGNORECASE),
        only_published=True,
    ),
    Format("vindr-labels", frozenset({"image id", "rad id"}), read_labels, VINDR),
)
