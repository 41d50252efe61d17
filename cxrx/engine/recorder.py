"""Where everything that happens to a film is written down: for the part in the making, and for the report."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from cxrx.engine.part_builder import PartBuilder
from cxrx.engine.report import RunReport
from cxrx.reading.find import Item
from cxrx.reading.prepare import Prepared
from cxrx.results.parts import PartStore
from cxrx.results.records import FailureRecord, ImageRecord, Status
from cxrx.specs import FilmTruth, Unreadable

log = logging.getLogger("cxrx")

FILMS_A_PART = 16
SECONDS_A_PART = 5.0


@dataclass
class Recorder:
    """Collects rows and commits them as parts, of at most 16 films or five seconds of work."""

    store: PartStore
    builder: PartBuilder
    report: RunReport
    committed: float = field(default_factory=time.monotonic)
    next_start: int = 0

    def skip(self, item: Item, image_id: str, code: str, message: str) -> None:
        """Note what is no film; only what leaves no row in /images gets a line of its own in /failures."""
        self.report.counts["skipped"] += 1
        self.report.skipped.append((item.relative, f"{code}: {message}"))
        if not image_id or code == "duplicate":
            self.builder.failures.append(FailureRecord(image_id, "find", code, message, item.relative))

    def fail(self, item: Item, image_id: str, stage: str, code: str, message: str, method: str = "") -> None:
        """Note what failed; `method` is the key of the method where the stage is ``"explain"``."""
        model = self.builder.model if stage in {"predict", "explain"} else ""
        failure = FailureRecord(image_id, stage, code, message, item.relative, model, method)
        self.builder.failures.append(failure)
        self.report.failures.append(failure)
        self.report.counts["failed"] += stage == "read"
        log.warning("failed: %s: %s", item.relative, message)

    def commit_if_due(self) -> None:
        """Write a part if there is enough for one."""
        if self.builder.films >= FILMS_A_PART or time.monotonic() - self.committed > SECONDS_A_PART:
            self.commit()

    def commit(self) -> None:
        """Write what there is as a part."""
        films = self.builder.films
        if films:
            self.store.write(self.builder.take(), self.next_start)
            self.next_start += films
        self.committed = time.monotonic()


def image_record(item: Item, film: Prepared, truth: FilmTruth | None) -> ImageRecord:
    """Return the row of a film that was read; tables fill in what the file does not tell."""
    return ImageRecord(
        image_id=film.image_id,
        sha256=film.sha256,
        view=film.view or (truth.view if truth else ""),
        rows=film.rows,
        columns=film.columns,
        decoder=film.decoder,
        status=Status.FLAGGED if film.flags else Status.OK,
        message="; ".join(film.flags),
        synthetic=film.synthetic,
        relative=item.relative,
        path=str(item.path),
        member=item.member,
        uid=film.uid,
        patient=film.patient or (truth.patient if truth else ""),
        size=item.size,
        mtime_ns=item.mtime_ns,
    )


def unread_record(item: Item, result: Unreadable) -> ImageRecord:
    """Return the row of a file that gave no film."""
    return ImageRecord(
        image_id=result.sha256[:16],
        sha256=result.sha256,
        view="",
        rows=0,
        columns=0,
        decoder="",
        status=Status.SKIPPED if result.kind == "skipped" else Status.FAILED,
        message=f"{result.code}: {result.message}",
        synthetic=False,
        relative=item.relative,
        path=str(item.path),
        member=item.member,
        uid="",
        patient="",
        size=item.size,
        mtime_ns=item.mtime_ns,
    )
