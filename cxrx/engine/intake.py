"""The door of a run: which films need work, and what is noted of each as it comes in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cxrx.datasets import FolderTruth
from cxrx.engine.ledger import Ledger
from cxrx.engine.plan import Plan, file_digest
from cxrx.engine.recorder import FILMS_A_PART, Recorder, image_record, unread_record
from cxrx.engine.source import Reading
from cxrx.engine.targets import Rule, choose_targets
from cxrx.reading.find import Item
from cxrx.reading.gate import VIEW_GROUP
from cxrx.reading.prepare import Prepared
from cxrx.specs import Unreadable


@dataclass
class FilmAtWork:
    """A film on its way through a batch.

    Attributes
    ----------
    labels
        What truth says of it.
    logit, probability
        ``(K,)``, once it is predicted.
    """

    item: Item
    prepared: Prepared
    labels: Mapping[str, int]
    logit: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    probability: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def image_id(self) -> str:
        """The film's identity."""
        return self.prepared.image_id


@dataclass
class Intake:
    """Decides and notes what becomes of every file of the plan."""

    plan: Plan
    truth: FolderTruth
    ledger: Ledger
    recorder: Recorder
    findings: tuple[str, ...]
    thresholds: Mapping[str, float]
    rule: Rule
    views: tuple[str, ...]
    seen: set[str] = field(default_factory=set)

    def note_rejected(self) -> None:
        """Note what could be told to be no film without reading it."""
        self.recorder.report.passed_over = self.plan.passed_over
        for rejected in self.plan.rejected:
            digest = rejected.reason.sha256 or file_digest(rejected.item)
            self._take_unreadable(rejected.item, replace(rejected.reason, sha256=digest))

    def todo(self, methods: Collection[str]) -> list[Item]:
        """Return the files with work left, as far as can be told without reading them."""
        todo = [item for item in self.plan.items if not self._finished(item, methods)]
        self.recorder.report.counts["kept"] = len(self.plan.items) - len(todo)
        return todo

    def batches(self, films: Iterable[Reading], size: int) -> Iterator[tuple[list[FilmAtWork], int]]:
        """Gather readable films into batches of `size`; the others are noted on the way.

        Yields
        ------
        The films, and how many files of the plan were gone through for them.
        """
        batch: list[FilmAtWork] = []
        files = 0
        for item, found in films:
            files += 1
            batch += filter(None, (self._take(item, result) for result in found))
            if len(batch) >= size or files >= FILMS_A_PART:
                yield batch[:size], files
                batch, files = batch[size:], 0
        while batch or files:
            yield batch[:size], files
            batch, files = batch[size:], 0

    def _finished(self, item: Item, methods: Collection[str]) -> bool:
        image_id = self.ledger.known_id((str(item.path), item.member, item.size, item.mtime_ns))
        if image_id is None or image_id != self._expected(item, image_id):
            return False  # never seen, or another film lies there now: reading it will tell
        if self.ledger.unusable(image_id):
            return True
        return self.ledger.predicted(image_id) and all(self._map_finished(image_id, key) for key in methods)

    def _map_finished(self, image_id: str, key: str) -> bool:
        if self.ledger.map_failed(image_id, key):
            return True
        probability = self.ledger.base.probability.get(image_id)
        if probability is None:
            return self.ledger.taken_up(image_id, key)
        labels = self.ledger.base.labels.get(image_id, {})
        targets = choose_targets(self.rule, self.findings, probability, labels, self.thresholds)
        return {self.findings[k] for k in targets} <= self.ledger.mapped(image_id, key)

    def _expected(self, item: Item, otherwise: str) -> str:
        """Return the film that an existing results file knows to lie there."""
        return self.plan.expected.get((str(item.path), item.member), otherwise)

    def _take(self, item: Item, result: Prepared | Unreadable) -> FilmAtWork | None:
        """Note a file that was read; return its film if it is to be worked on."""
        if isinstance(result, Unreadable):
            self._take_unreadable(item, result)
            return None
        image_id = result.image_id
        if self._expected(item, image_id) != image_id:
            message = "the file is no longer the film that was predicted"
            self.recorder.fail(item, self._expected(item, image_id), "read", "changed", message)
            return None
        if image_id in self.seen:
            self.recorder.skip(item, image_id, "duplicate", "the same bytes as another film: counted once")
            return None
        truth = self.truth.truth(item.relative)
        group = VIEW_GROUP.get(result.view or (truth.view if truth else ""), "unknown")
        if not {group, "all"} & set(self.views):  # a PNG or JPEG leaves it to the tables
            message = f"the view is {group}, a table says; asked for: {', '.join(self.views)}"
            self._take_unreadable(item, Unreadable("skipped", "view", message, result.sha256))
            return None
        self.seen.add(image_id)
        if self.ledger.status(image_id) in {None, "failed"}:
            self.recorder.builder.images.append(image_record(item, result, truth))
        report = self.recorder.report
        report.counts["flagged" if result.flags else "ok"] += 1
        report.foreign += not result.synthetic
        if result.negative:
            report.negatives.append(item.relative)
        return FilmAtWork(item, result, self.ledger.base.labels.get(image_id, {}) | dict(truth.labels if truth else {}))

    def _take_unreadable(self, item: Item, result: Unreadable) -> None:
        image_id = result.sha256[:16]
        if image_id and image_id in self.seen:
            self.recorder.skip(item, image_id, "duplicate", "the same bytes as another file: counted once")
            return
        self.seen.add(image_id)
        if image_id and self.ledger.status(image_id) in {None, "failed"}:
            self.recorder.builder.images.append(unread_record(item, result))
        if result.kind == "skipped":
            self.recorder.skip(item, image_id, result.code, result.message)
        else:
            self.recorder.fail(item, image_id, "read", result.code, result.message)
