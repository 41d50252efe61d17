"""Which failures still stand when runs are put together, and the list of them for the user, failures.csv."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

import numpy as np

from cxrx.files import atomic
from cxrx.reading.record import ImageRecord, Link, Status
from cxrx.results.contents import Contents
from cxrx.results.outcomes import word_of
from cxrx.results.private import csv_bytes, failures_path
from cxrx.results.records import FailureRecord

UNREAD = "unread-"
"""Beginning of the label that stands in ``/failures/id`` for a file whose bytes could not be read."""

Made = AbstractSet[tuple[str, str, str]]
"""Every (image_id, model, method) that there is; the method of a prediction is empty."""


def standing_failures(sources: Sequence[Contents], processed: AbstractSet[str], made: Made) -> list[FailureRecord]:
    """Return the failures of all sources but those that a success has mended.

    A failure named by two sources is listed once: parts that are packed again after a crash add nothing.
    """
    parts = [source for source in sources if source.is_part]
    fresh = [_brought(source) for source in parts]
    readable = {record.link.relative for source in parts for record in source.images if record.status.processed} - {""}
    labels = _Labels(sources)
    standing: list[FailureRecord] = []
    for older in (source for source in sources if not source.is_part):
        rows = older.failures
        if older is not sources[0]:
            rows = [labels.label(row) if _unread(row) else row for row in rows]
        rows = [row for row in rows if not (_unread(row) and row.relative in readable)]
        _append(standing, [row for row in rows if not _mended(row, processed, made, fresh)])
    newer = {_order(row): row for source in parts for row in source.failures}
    rows = [labels.label(row) if _unread(row) else row for _, row in sorted(newer.items())]
    _append(standing, [row for row in rows if not _mended(row, processed, made, [])])
    return standing


def link_rows(failures: Iterable[FailureRecord]) -> list[Link]:
    """Return link rows for the files that have a label in the place of an image_id."""
    return [Link("failure", row.image_id, row.relative) for row in failures if _unread(row) and row.relative]


def write_failures(out: Path, failures: Sequence[FailureRecord], images: Iterable[ImageRecord]) -> Path:
    """Write failures.csv beside the results file `out`, for its owner's eyes: it holds file names.

    It lists all that is neither ok nor flagged (:mod:`cxrx.results.outcomes`); where there is nothing, an old list is
    removed. Returns its path.
    """
    path = failures_path(out)
    skipped = [record for record in images if record.status == Status.SKIPPED]
    reasons = [(record, *record.message.partition(": ")[::2]) for record in skipped]
    listed = [*failures, *(FailureRecord(r.image_id, "find", code, why, r.link.relative) for r, code, why in reasons)]
    if not listed:
        atomic.unlink(path)
        return path
    columns = ("file", "stage", "code", "message", "model", "method", "image_id", "status")
    rows = [
        (row.relative, row.stage, row.code, row.message, row.model, row.method, row.image_id,
         word_of(row.stage, row.code))
        for row in listed
    ]  # fmt: skip
    atomic.write_file(path, csv_bytes(columns, rows), mode=0o600)
    return path


class _Labels:
    """Labels of unread files: the one a file had in the first source, or the next free number."""

    def __init__(self, sources: Sequence[Contents]) -> None:
        first = sources[0].links if sources else []
        self.of = {row.relative: row.image_id for row in first if row.kind == "failure"}
        self.used = {row.image_id for source in sources for row in source.failures} | set(self.of.values())

    def label(self, failure: FailureRecord) -> FailureRecord:
        label = self.of.get(failure.relative, "")
        if not label:
            numbers = range(1, len(self.used) + 2)
            label = next(name for name in (f"{UNREAD}{i:04d}" for i in numbers) if name not in self.used)
            self.used.add(label)
            if failure.relative:
                self.of[failure.relative] = label
        return replace(failure, image_id=label)


def _unread(failure: FailureRecord) -> bool:
    return not failure.image_id or failure.image_id.startswith(UNREAD)


def _order(failure: FailureRecord) -> tuple[str, ...]:
    return (failure.relative, failure.image_id, failure.stage, failure.code, failure.model, failure.method)


def _append(standing: list[FailureRecord], rows: Sequence[FailureRecord]) -> None:
    """Append what is not listed yet, as often as `rows` have it (one film may have several duplicates)."""
    there = Counter(_order(replace(row, relative="")) for row in standing)
    for row in rows:
        key = _order(replace(row, relative=""))
        if there[key]:
            there[key] -= 1
        else:
            standing.append(row)


def _brought(source: Contents) -> dict[str, set[str]]:
    """Return stage to the films that a part brings results of."""
    ids: dict[str, set[str]] = {"predict": set(), "explain": set()}
    for (_, method), block in source.blocks.items():
        there = block.present.any(axis=1) if method else block.present
        ids["explain" if method else "predict"] |= {block.image_ids[i] for i in np.flatnonzero(there)}
    return ids


def _mended(
    failure: FailureRecord, processed: AbstractSet[str], made: Made, fresh: Sequence[Mapping[str, set[str]]]
) -> bool:
    """Whether what failed has succeeded since; `fresh` is what newer parts bring, for failures that name no model."""
    match failure.stage:
        case "find":  # a duplicate stays one
            return False
        case "read":
            return failure.image_id in processed
    if failure.model:
        return (failure.image_id, failure.model, failure.method) in made
    return any(failure.image_id in films[failure.stage] for films in fresh)
