"""Which row of which file goes where: the union of parts and results files, decided before a byte is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.errors import ResultsError, UsageError
from cxrx.reading.record import ImageRecord, Link, Status
from cxrx.results.contents import Contents
from cxrx.results.failures import link_rows, standing_failures
from cxrx.results.private import update
from cxrx.results.records import EXTRAS, Block, FailureRecord, Key, differences
from cxrx.results.schema import FINGERPRINT, SETTINGS
from cxrx.results.truth import TruthTable, check_truth


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each row (predictions) or map of a block comes from.

    Attributes
    ----------
    blocks
        What there is to take from, in order of precedence.
    block, row, column
        ``(N,)`` or ``(N, K)``: index into `blocks`, -1 for none, and the row and the column there.
    """

    attrs: dict[str, Any]
    findings: tuple[str, ...]
    blocks: list[Block]
    block: NDArray[np.int32]
    row: NDArray[np.int32]
    column: NDArray[np.int32]

    @property
    def present(self) -> NDArray[np.bool_]:
        """What there is, ``(N,)`` or ``(N, K)``."""
        return self.block >= 0


@dataclass(frozen=True, eq=False)
class Plan:
    """A results file before it is written; `patients` is image_id to the smallest image_id of the patient."""

    images: list[ImageRecord]
    patients: dict[str, str]
    findings: tuple[str, ...]
    layouts: dict[Key, Layout]
    ragged: dict[Key, tuple[dict[str, Any], list[Path]]]
    failures: list[FailureRecord]
    truth: TruthTable | None
    runs: list[dict[str, Any]]
    links: list[Link]

    def adds_to(self, base: Contents) -> bool:
        """Whether anything in it is not in `base` yet."""
        return not (
            [_public(record) for record in self.images] == [_public(record) for record in base.images]
            and self.patients == base.groups
            and self.findings == base.findings
            and self.layouts.keys() == base.blocks.keys()
            and self.ragged.keys() == base.ragged.keys()
            and all((layout.block <= 0).all() for layout in self.layouts.values())
            and [_shown(failure) for failure in self.failures] == [_shown(failure) for failure in base.failures]
            and (self.truth is None) == (base.truth is None)
            and (self.truth is None or base.truth is None or self.truth.same(base.truth))
        )


def _public(record: ImageRecord) -> ImageRecord:
    return replace(record, link=Link("film", record.image_id))


def _shown(failure: FailureRecord) -> FailureRecord:
    return replace(failure, relative="")


CONFLICT = "conflict: another film has the same SOPInstanceUID and other bytes"


def make_plan(sources: Sequence[Contents], truth: TruthTable | None, run: Mapping[str, Any] | None) -> Plan:
    """Put `sources` together: results files keep their order, films of parts follow by relative path.

    Raises
    ------
    UsageError
        If two blocks of one name were made with different settings.
    ResultsError
        If a block has rows of films that no source lists.
    """
    images = _with_conflicts(_images(sources), sources)
    rows = {record.image_id: i for i, record in enumerate(images)}
    layouts = {key: _layout(key, sources, rows) for key in sorted({key for s in sources for key in s.blocks})}
    ragged = _ragged(sources, layouts)
    if truth is not None:
        check_truth(truth)
    known = _truth([*(source.truth for source in sources), truth], rows)
    names = [name for source in sources for name in source.findings]
    names += [name for layout in layouts.values() for name in layout.findings]
    names += known.findings if known else ()
    processed = {record.image_id for record in images if record.status.processed}
    failures = standing_failures(sources, processed, _made(layouts, images))
    return Plan(
        images=images,
        patients=_patients(sources, images),
        findings=tuple(dict.fromkeys(names)),
        layouts=layouts,
        ragged=ragged,
        failures=failures,
        truth=known,
        runs=[*(known_run for source in sources for known_run in source.runs), *([dict(run)] if run else [])],
        links=update(_links(sources), link_rows(failures)),
    )


def _links(sources: Sequence[Contents]) -> list[Link]:
    """Return the link rows of all sources; labels of unread files mean something in the first one only."""
    first = sources[0].links if sources and not sources[0].is_part else []
    films = [row for source in sources for row in source.links if row.kind != "failure"]
    return update(first, sorted(films, key=lambda row: (row.kind, row.relative, row.image_id, row.path)))


# ---------------------------------------------------------------------------------------------------------------------
# Films


def _images(sources: Sequence[Contents]) -> list[ImageRecord]:
    best: dict[str, ImageRecord] = {}
    old = [(record, False) for source in sources if not source.is_part for record in source.images]
    new = [(record, True) for source in sources if source.is_part for record in source.images]
    for record, newer in old + sorted(new, key=lambda pair: (pair[0].link.relative, pair[0].link.path)):
        known = best.get(record.image_id)
        if known is None or _better(record, known, newer=newer):
            best[record.image_id] = record
    listed = dict.fromkeys(record.image_id for record, _ in old)
    added = [record for image_id, record in best.items() if image_id not in listed]
    return [best[image_id] for image_id in listed] + sorted(added, key=lambda r: (r.link.relative, r.image_id))


def _with_conflicts(images: list[ImageRecord], sources: Sequence[Contents]) -> list[ImageRecord]:
    """Flag films that claim to be one another: the same SOPInstanceUID over other bytes. Both are kept."""
    found = conflicting(row for source in sources for row in source.links)
    return [_flagged(record) if record.image_id in found else record for record in images]


def conflicting(links: Iterable[Link]) -> set[str]:
    """Return the films whose SOPInstanceUID another one has too."""
    by_uid: dict[str, set[str]] = {}
    for row in links:
        if row.kind == "film" and row.uid:
            by_uid.setdefault(row.uid, set()).add(row.image_id)
    return {image_id for ids in by_uid.values() if len(ids) > 1 for image_id in ids}


def _flagged(record: ImageRecord) -> ImageRecord:
    if not record.status.processed or CONFLICT in record.message:
        return record
    return replace(record, status=Status.FLAGGED, message="; ".join(filter(None, (record.message, CONFLICT))))


def _better(record: ImageRecord, known: ImageRecord, *, newer: bool) -> bool:
    """Whether `record` replaces `known`: success beats failure, a flag beats none, a newer failure an older one."""
    if not known.status.processed and not record.status.processed:
        return newer and (record.status, record.message) != (known.status, known.message)
    order = (Status.FLAGGED, Status.OK, Status.FAILED, Status.SKIPPED)
    return order.index(record.status) < order.index(known.status)


def _patients(sources: Sequence[Contents], images: Sequence[ImageRecord]) -> dict[str, str]:
    """Return image_id to the smallest image_id among the patient's films."""
    known = {record.image_id for record in images}
    links = [pair for source in sources for pair in source.groups.items() if pair[1] in known]
    links += [
        (row.image_id, f"~{row.patient}")  # a tilde sorts after every image_id, so that it never becomes the key
        for source in sources
        for row in source.links
        if row.kind == "film" and row.patient and row.image_id in known
    ]
    joined = smallest_of(links)
    return {record.image_id: joined.get(record.image_id, record.image_id) for record in images}


def smallest_of(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return for every name the smallest of those that `links` join it with, directly or over others (union-find)."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for one, other in links:
        smaller, larger = sorted((root(one), root(other)))
        parent[larger] = smaller
    return {name: root(name) for name in list(parent)}


# ---------------------------------------------------------------------------------------------------------------------
# Blocks


def name_of(key: Key) -> str:
    """Return how a block is called in a sentence."""
    model, method = key
    return f"maps of {method} on {model}" if method else f"predictions of {model}"


def _layout(key: Key, sources: Sequence[Contents], rows: Mapping[str, int]) -> Layout:
    blocks = [source.blocks[key] for source in sources if key in source.blocks]
    for block in blocks[1:]:
        _check_same(key, blocks[0], block)
    findings = tuple(dict.fromkeys(name for block in blocks for name in block.findings))
    shape = (len(rows), len(findings)) if key[1] else (len(rows),)
    layout = Layout(
        attrs={name: value for block in reversed(blocks) for name, value in block.attrs.items()},
        findings=findings,
        blocks=blocks,
        block=np.full(shape, -1, dtype=np.int32),
        row=np.zeros(shape, dtype=np.int32),
        column=np.zeros(shape, dtype=np.int32),
    )
    for index, block in enumerate(blocks):
        _place(layout, index, block, rows, key)
    return layout


def _place(layout: Layout, index: int, block: Block, rows: Mapping[str, int], key: Key) -> None:
    """Fill what is still free in `layout` from `block`."""
    if not rows.keys() >= set(block.image_ids):
        raise ResultsError(f"the {name_of(key)} have rows of films that are not listed")
    target = np.array([rows[image_id] for image_id in block.image_ids], dtype=np.int64)
    if key[1]:
        position = {name: k for k, name in enumerate(layout.findings)}
        columns = np.array([position[name] for name in block.findings], dtype=np.int64)
        i, k = np.nonzero(block.present)
        where: Any = (target[i], columns[k])
    else:
        i = k = np.flatnonzero(block.present)
        where = (target[i],)
    free = layout.block[where] < 0
    where = tuple(axis[free] for axis in where)
    layout.block[where], layout.row[where], layout.column[where] = index, i[free], k[free]


def _check_same(key: Key, first: Block, other: Block) -> None:
    if first.attrs.get(FINGERPRINT) != other.attrs.get(FINGERPRINT):
        differing = differences(first.attrs.get(SETTINGS, {}), other.attrs.get(SETTINGS, {}))
        raise _taken(key, f"with other settings: {'; '.join(differing[:5])}")
    if not key[1] and first.findings != other.findings:
        raise _taken(key, "for other findings")
    if first.grid != other.grid:
        raise _taken(key, "on another grid")
    for name in first.extras.keys() & other.extras.keys():
        if first.extras[name] != other.extras[name]:
            raise _taken(key, f"with another {name.removeprefix(EXTRAS)}")


def _taken(key: Key, how: str) -> UsageError:
    return UsageError(
        f"the {name_of(key)} are there already, made {how}", "keep both by giving the new one a name: --as NAME"
    )


def _ragged(sources: Sequence[Contents], layouts: Mapping[Key, Layout]) -> dict[Key, tuple[dict[str, Any], list[Path]]]:
    ragged: dict[Key, tuple[dict[str, Any], list[Path]]] = {}
    for source in sources:
        for key, attrs in source.ragged.items():
            known, paths = ragged.setdefault(key, (attrs, []))
            if key in layouts or known.get(FINGERPRINT) != attrs.get(FINGERPRINT):
                raise _taken(key, "in another way")
            paths.append(source.path)
    return dict(sorted(ragged.items()))


def _truth(tables: Iterable[TruthTable | None], image_ids: Iterable[str]) -> TruthTable | None:
    known: TruthTable | None = None
    for table in tables:
        if table is not None:
            known = table if known is None else known.updated(table)
    return known.normalised(image_ids) if known is not None else None


def _made(layouts: Mapping[Key, Layout], images: Sequence[ImageRecord]) -> set[tuple[str, str, str]]:
    made = set()
    for (model, method), layout in layouts.items():
        there = layout.present.any(axis=1) if method else layout.present
        made |= {(images[i].image_id, model, method) for i in np.flatnonzero(there).tolist()}
    return made
