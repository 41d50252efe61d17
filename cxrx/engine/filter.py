"""Which films need work, and what is noted of each as it comes in."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cxrx.datasets import FolderTruth
from cxrx.engine.films import FilmList
from cxrx.engine.ledger import Ledger
from cxrx.engine.report import FILMS_A_PART, RunReport
from cxrx.engine.source import Reading
from cxrx.engine.targets import Rule, choose_targets
from cxrx.reading.gate import VIEW_GROUP
from cxrx.reading.item import Item, safe_relative
from cxrx.reading.options import ReadOptions
from cxrx.reading.pool import NO_ANSWER
from cxrx.reading.prepare import Prepared
from cxrx.reading.record import ImageRecord, Status, record_of
from cxrx.reading.refusal import RefusalError
from cxrx.reading.source import digest, file_digest, load
from cxrx.results.outcomes import DUPLICATE
from cxrx.specs import FilmTruth, Unreadable

log = logging.getLogger("cxrx")


@dataclass
class FilmFilter:
    """Decides and notes what becomes of every file of a run.

    Attributes
    ----------
    findings, thresholds
        Of the model.
    rule
        Which findings are explained.
    read
        Which views are wanted, and what reading may take.
    seen
        Films of this run.
    """

    films: FilmList
    truth: FolderTruth
    ledger: Ledger
    report: RunReport
    findings: tuple[str, ...]
    thresholds: Mapping[str, float]
    rule: Rule
    read: ReadOptions
    seen: set[str] = field(default_factory=set)

    def note_rejected(self) -> None:
        """Note what can be seen to be no film without reading it."""
        self.report.passed_over = self.films.passed_over
        self.report.counts["passed over"] = self.films.passed_over.total()
        for rejected in self.films.rejected:
            digest = rejected.reason.sha256 or file_digest(rejected.item)
            self._note_unreadable(rejected.item, replace(rejected.reason, sha256=digest))

    def todo(self, methods: Collection[str]) -> list[Item]:
        """Return the files with work left, as far as can be seen without reading them."""
        todo = []
        for item in self.films.items:
            if self._finished(item, methods):
                self._keep(item)
            else:
                todo.append(item)
        self.report.kept = len(self.films.items) - len(todo)
        return todo

    def _keep(self, item: Item) -> None:
        """Count the films of a file with nothing left to do."""
        for image_id in sorted(self._expected(item) or self.ledger.known(item)):
            if image_id in self.seen:
                self.report.counts[DUPLICATE] += 1
            else:
                self.seen.add(image_id)
                record = self.ledger.records[image_id]
                word = self._word(record)
                self.report.count(image_id, word)
                if word == "failed":
                    why = record.message if record.status is Status.FAILED else "maps"
                    log.warning("failed before: %s: %s; --retry-failed tries it again", item.relative, why)

    def _word(self, record: ImageRecord) -> str:
        """Return what has become of a film so far."""
        lost = any(self.ledger.map_failed(record.image_id, key) for key in self.report.methods)
        return "failed" if lost else record.status.name.lower()

    def batches(self, readings: Iterable[Reading], size: int) -> Iterator[tuple[list[Prepared], int]]:
        """Gather readable films into batches of `size`; the others are noted on the way.

        Yields
        ------
        The films, and how many files of the run were gone through for them.
        """
        batch: list[Prepared] = []
        files = 0
        for item, found in readings:
            files += 1
            batch += self._films(item, found)
            while len(batch) >= size or files >= FILMS_A_PART:
                yield batch[:size], files
                batch, files = batch[size:], 0
        while batch or files:
            yield batch[:size], files
            batch, files = batch[size:], 0

    def labels(self, record: ImageRecord) -> dict[str, int]:
        """Return what truth says of a film: finding to 1, 0 or -1."""
        truth = truth_of(self.truth, record)
        return self.ledger.labels.get(record.image_id, {}) | dict(truth.labels if truth else {})

    def _finished(self, item: Item, methods: Collection[str]) -> bool:
        known, expected = self.ledger.known(item), self._expected(item)
        if not known or not self.ledger.read_whole(item) or (expected is not None and not expected <= known):
            return False  # never seen, or another film lies there now: reading it will show
        return all(self._film_finished(image_id, methods) for image_id in expected or known)

    def _film_finished(self, image_id: str, methods: Collection[str]) -> bool:
        if self.ledger.unusable(image_id):
            return True
        return self.ledger.predicted(image_id) and all(self._map_finished(image_id, key) for key in methods)

    def _map_finished(self, image_id: str, key: str) -> bool:
        if self.ledger.map_failed(image_id, key):
            return True
        probability = self.ledger.probability.get(image_id)
        if probability is None:
            return self.ledger.processed(image_id, key)
        labels = self.ledger.labels.get(image_id, {})
        targets = choose_targets(self.rule, self.findings, probability, labels, self.thresholds)
        return {self.findings[k] for k in targets} <= self.ledger.mapped(image_id, key)

    def _expected(self, item: Item) -> frozenset[str] | None:
        """Return the films that an existing results file knows to lie there; None where the inputs were named."""
        return self.films.expected.get((str(item.path), item.member))

    def _films(self, item: Item, found: Sequence[Prepared | Unreadable]) -> Iterator[Prepared]:
        """Note what was read from a file; yield its films that are to be worked on."""
        expected = self._expected(item)
        for result in found:
            if isinstance(result, Unreadable):
                if expected is None:
                    if result.code in NO_ANSWER:
                        # a worker that died left no digest; with one the film has a row, and can be tried again
                        result = replace(result, sha256=_digest(item, self.read.memory))  # noqa: PLW2901
                    self._note_unreadable(item, result)
            elif expected is None or result.image_id in expected:
                film = self._film(item, result)
                if film is not None:
                    yield film
        read = {result.image_id for result in found if isinstance(result, Prepared)}
        for image_id in sorted((expected or frozenset()) - read):
            code, message = "changed", "the file is no longer the film that was predicted"
            if len(found) == 1 and isinstance(found[0], Unreadable):
                code, message = found[0].code, found[0].message
            self.report.lose(item.relative, image_id, code, message)

    def _film(self, item: Item, film: Prepared) -> Prepared | None:
        """Note a film that was read; return it if it is to be worked on."""
        image_id, report = film.image_id, self.report
        if image_id in self.seen:
            report.duplicate(film.record.link)
            return None
        record = self._completed(film.record)
        group = VIEW_GROUP.get(record.view, "unknown")
        if not {group, "all"} & set(self.read.views):  # a PNG or JPEG leaves it to the tables
            message = f"the view is {group}, a table says; asked for: {', '.join(self.read.views)}"
            unwanted = Unreadable("skipped", "view", message, record.sha256, record.link.member)
            self._note_unreadable(item, unwanted)
            return None
        self.seen.add(image_id)
        if self.ledger.wants_record(image_id):
            report.image(record)
        report.count(image_id, self._word(record))
        report.foreign += not record.synthetic
        if film.negative:
            report.negatives.append(record.link.relative)
        return replace(film, record=record)

    def _completed(self, record: ImageRecord) -> ImageRecord:
        """Fill in from tables what the file does not say."""
        truth = truth_of(self.truth, record)
        if truth is None:  # films of a results file: their tables were read with the prediction
            known = self.ledger.records.get(record.image_id)
            return record if record.view or known is None else replace(record, view=known.view)
        link = replace(record.link, patient=record.link.patient or truth.patient)
        return replace(record, view=record.view or truth.view, link=link)

    def _note_unreadable(self, item: Item, result: Unreadable) -> None:
        image_id, record = result.sha256[:16], record_of(item, result)
        relative = record.link.relative
        if image_id and image_id in self.seen:
            self.report.duplicate(record.link)
            return
        self.seen.add(image_id)
        if image_id and self.ledger.wants_record(image_id):
            self.report.image(record)
        if result.kind == "skipped":
            self.report.skip(relative, image_id, result.code, result.message)
        else:
            self.report.fail(relative, image_id, "read", result.code, result.message)


def _digest(item: Item, memory: int) -> str:
    """Return the sha256 of what a worker could not read; empty where nothing can."""
    try:
        return digest(load(item, memory)) if item.member else file_digest(item)
    except RefusalError:
        return ""


def truth_of(tables: FolderTruth, record: ImageRecord) -> FilmTruth | None:
    """Return what tables say of a film, under its own name or that of the file that holds it with others."""
    link, size = record.link, (record.rows, record.columns) if record.rows else None
    truth = tables.truth(link.relative, path_of(link.path, link.member), size)
    if truth is None and link.member:
        truth = tables.truth(link.relative.removesuffix(f"/{safe_relative(link.member)}"), link.path, size)
    return truth


def path_of(path: str | Path, member: str) -> str:
    """Return the whole path of a film, that of a member below its archive; empty where it is unknown."""
    whole = Path(path).as_posix() if path else ""
    return f"{whole}/{safe_relative(member)}" if whole and member else whole
