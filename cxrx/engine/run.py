"""One run of one model: read, predict, explain, commit, pack."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from cxrx import __version__
from cxrx.datasets import FolderTruth, discover, read_truth
from cxrx.engine.batch import BatchWorker
from cxrx.engine.estimate import Estimate
from cxrx.engine.films import FilmList, list_films, with_data
from cxrx.engine.filter import FilmFilter, path_of, truth_of
from cxrx.engine.interrupts import Interrupts
from cxrx.engine.ledger import Ledger, records_of
from cxrx.engine.options import MethodRequest, RunOptions, map_settings, prediction_settings
from cxrx.engine.progress import Progress, telling
from cxrx.engine.report import RunReport
from cxrx.engine.source import decoded
from cxrx.errors import InterruptedRunError, NothingReadableError
from cxrx.files.atomic import write_file
from cxrx.files.lock import RunLock
from cxrx.models.inference import auto_batch_size, tune_allocator
from cxrx.models.model import Model
from cxrx.reading.item import Item
from cxrx.reading.pool import cores
from cxrx.reading.record import ImageRecord
from cxrx.results.pack import pack
from cxrx.results.parts import PartStore
from cxrx.results.plan import conflicting
from cxrx.results.truth import Mask, TruthTable

log = logging.getLogger("cxrx")


def execute(
    model: Model,
    methods: Sequence[MethodRequest],
    inputs: Sequence[Path] | None,
    out: Path,
    options: RunOptions,
    *,
    argv: Sequence[str] = (),
) -> RunReport:
    """Predict and explain films, and pack everything into `out`.

    Parameters
    ----------
    model
        What predicts.
    methods
        The attribution methods; none: predict only.
    inputs
        Folders, films, archives, lists; None: the films of the existing file `out`.
    out
        The results file.
    options
        How to go about it.
    argv
        The command, without paths, for the file's record of its runs.

    Raises
    ------
    CxrxError
        As its subclasses say; finished work is kept in parts whatever happens.
    """
    tune_allocator()
    store = PartStore(out)
    with RunLock(store.lock_path):
        store.clean_strays()
        if not options.resume:
            for path in store.paths():
                path.unlink()
        try:
            return _Run(model, methods, inputs, store, options).execute(argv)
        finally:
            if not store.paths():
                store.remove()  # nothing to go on from: leave no empty folder behind


class _Run:
    """What a run knows from its beginning: the work, what is done of it, and where it is written down."""

    def __init__(
        self,
        model: Model,
        methods: Sequence[MethodRequest],
        inputs: Sequence[Path] | None,
        store: PartStore,
        options: RunOptions,
    ) -> None:
        self.model, self.inputs, self.store, self.options = model, inputs, store, options
        self.methods = {method.key: method for method in methods}
        settings = {"": prediction_settings(model, options)}
        settings |= {key: map_settings(model, options, method) for key, method in self.methods.items()}
        read = options.read  # what takes more films must look again at those that were skipped
        wider = read.non_chest or read.for_processing or read.force_dicom
        self.ledger = Ledger(store, model.slug, retry_failed=options.retry_failed, retry_skipped=wider)
        self.ledger.check(settings)
        attrs: dict[str, dict[str, Any]] = {"": {"demo": int(model.demo), "activation": model.activation}}
        if model.thresholds:
            attrs[""] |= {"thresholds": dict(model.thresholds), "threshold_rule": model.threshold_rule}
        attrs |= {key: _map_attrs(method, options) for key, method in self.methods.items()}
        attrs = {key: _versions(model) | {"settings": settings[key]} | own for key, own in attrs.items()}
        self.report = RunReport(store, model.slug, model.labels, attrs, options.read.polarity)
        self.batch_size = self._fixed_batch_size()
        self.cost: dict[str, list[float]] = {}

    def execute(self, argv: Sequence[str]) -> RunReport:
        started = time.time()
        with telling("looking for films"):
            films = list_films(self.inputs, self.ledger, self.store.out, self.options)
        truth, report = self._truth(films.items), self.report
        film_filter = FilmFilter(
            films, truth, self.ledger, report, self.model.labels, self.model.thresholds, self.options.targets,
            self.options.read,
        )  # fmt: skip
        film_filter.note_rejected()
        todo = film_filter.todo(self.methods)
        if report.kept and todo:
            log.info("%d of %d films are done already", report.kept, len(films.items))
        with Interrupts() as interrupts:
            self._stream(todo, films, film_filter, interrupts)
            report.commit()
            if interrupts.signal_number is not None:
                kept = set[str]().union(*(part.films() for part in self.store.contents()))
                message = f"stopped; the work on {len(kept)} films is kept"
                raise InterruptedRunError(message, interrupts.signal_number, "the same command goes on from here")
        self._pack(films, truth, argv, started)
        report.seconds = time.time() - started
        return report

    def _truth(self, films: Sequence[Item]) -> FolderTruth:
        if self.options.truth is not None:
            truth = read_truth(self.options.truth)
        else:
            truth = discover(self.inputs) if self.inputs is not None else FolderTruth()
        truth.settle(truth.place(item.relative, path_of(item.path, item.member)) for item in films)
        for problem in truth.problems:
            log.warning("truth: %s", problem)
        return truth

    def _stream(self, todo: Sequence[Item], films: FilmList, film_filter: FilmFilter, interrupts: Interrupts) -> None:
        """Work through `todo` until it is done or somebody wants to stop."""
        explainers = {key: method.spec.build(method.options) for key, method in self.methods.items()}
        estimate = Estimate(len(todo), self.methods)
        worker = BatchWorker(
            self.model, self.methods, explainers, self.options, self.ledger, self.report, self.batch_size, estimate,
            film_filter.labels,
        )  # fmt: skip
        self.cost = worker.cost
        workers = cores() if self.options.workers is None else self.options.workers
        items = with_data(todo, films, self.inputs, self.options)
        with (
            decoded(items, self.model.input, self.options.read, workers, ahead=4 * self.batch_size) as readings,
            Progress(estimate, " ".join(["predict", *self.methods])) as progress,
        ):
            for batch, files in film_filter.batches(readings, self.batch_size):
                with interrupts.batch():
                    worker.process(batch)
                    progress.update(files, self.report.failed)
                    self.report.commit_if_due()
                if interrupts.signal_number is not None:
                    return

    def _fixed_batch_size(self) -> int:
        """Return the batch size; ``auto`` is kept with the parts, so that a resumed run computes in the same shapes."""
        if self.options.batch_size != "auto":
            return self.options.batch_size
        path = self.store.plan_path
        if self.store.paths() and path.is_file():
            return int(json.loads(path.read_text(encoding="utf-8"))["batch_size"])
        size = auto_batch_size(self.model.device)
        write_file(path, json.dumps({"batch_size": size}).encode(), mode=0o600)
        return size

    def _pack(self, films: FilmList, truth: FolderTruth, argv: Sequence[str], started: float) -> None:
        report, parts = self.report, self.store.contents()
        new = records_of(parts)
        processed = [record for record in new.values() if record.status.processed]
        if not processed and not any(record.status.processed for record in self.ledger.records.values()):
            raise NothingReadableError("none of the inputs held a film that could be read", report.why_nothing())
        links = [*self.ledger.links, *(row for part in parts for row in part.links)]
        records = self.ledger.records | new
        found = {image_id for image_id in conflicting(links) & records.keys() if records[image_id].status.processed}
        report.conflicts = len(found & new.keys())
        report.flag(found)
        run = _versions(self.model) | {
            "argv": list(argv),
            "started": started,
            "seconds": time.time() - started,
            "device": str(self.model.device),
            "batch_size": self.batch_size,
            "films": len(films.items),
            "counts": dict(report.counts),
            "model": self.model.slug,
            "cost": {key: {"seconds": seconds, "maps": int(maps)} for key, (seconds, maps) in self.cost.items()},
        }
        sources = {self.model.slug: self.model.source} if self.model.source else {}
        table = self._truth_table(truth, records)
        with telling(f"writing {self.store.out.name}"):
            pack(self.store, self.store.out, truth=table, run=run, model_sources=sources)

    def _truth_table(self, truth: FolderTruth, records: Mapping[str, ImageRecord]) -> TruthTable | None:
        """Return what the tables say, by image_id instead of by file name."""
        if not truth.findings:
            return None
        table = TruthTable(truth.findings)
        for image_id, record in records.items():
            known = truth_of(truth, record) if record.link.relative else None  # without the link table it has no name
            if known is not None:
                table.labels[image_id] = dict(known.labels)
                table.boxes += [(image_id, b.finding, b.x, b.y, b.width, b.height) for b in known.boxes]
                table.masks += [Mask.of_film(image_id, mask) for mask in known.masks]
        for note in truth.notes():
            log.warning("truth: %s", note)
        return table


def _map_attrs(method: MethodRequest, options: RunOptions) -> dict[str, Any]:
    spec = method.spec
    return {
        "method": spec.name,
        "options": method.plain_options(),
        "seed": options.seed,
        "score": options.score,
        "space": spec.space,
        "signed": int(spec.signed),
        "relu": int(spec.relu),
        "control": int(spec.control),
        "upsample": "bilinear, align_corners=False" + (", after max(values, 0)" if spec.relu else ""),
        "citation": spec.citation,
    }


def _versions(model: Model) -> dict[str, Any]:
    return {
        "cxrx": __version__,
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "weights_sha256": model.weights_sha256,
        "model_name": model.name,
    }
