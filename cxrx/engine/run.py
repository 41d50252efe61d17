"""One run of one model: read, predict, explain, commit, pack."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxrx import __version__
from cxrx.datasets import FolderTruth, discover, read_truth
from cxrx.engine.interrupts import Interrupts
from cxrx.engine.ledger import Ledger
from cxrx.engine.options import MethodRequest, RunOptions, map_settings, prediction_settings
from cxrx.engine.part_builder import MapRow, PartBuilder, PredictionRow
from cxrx.engine.plan import Plan, file_digest, plan_films, with_data
from cxrx.engine.progress import Progress, duration
from cxrx.engine.source import decoded
from cxrx.engine.targets import choose_targets
from cxrx.errors import CxrxError, InterruptedRunError, NothingReadableError
from cxrx.explainers.run import run_explainer
from cxrx.explainers.seeds import derive_seed
from cxrx.explainers.targets import EMPTY
from cxrx.models.inference import auto_batch_size, predict_logits, tune_allocator
from cxrx.models.model import Model
from cxrx.reading.find import Item
from cxrx.reading.prepare import Prepared
from cxrx.results.atomic import write_file
from cxrx.results.lock import RunLock
from cxrx.results.pack import pack
from cxrx.results.parts import Done, PartStore
from cxrx.results.records import FailureRecord, ImageRecord, Status
from cxrx.results.truth import TruthTable
from cxrx.specs import Explainer, FilmTruth, Unreadable

log = logging.getLogger("cxrx")

FILMS_A_PART = 16
SECONDS_A_PART = 5.0
WORTH_AN_ESTIMATE = 10.0  # seconds
SAME_LOGITS = {"fp32": 1e-4, "bf16": 0.1}
"""How far a film's logits may move when it is read again; bf16 rounds by batch shape."""


@dataclass
class RunReport:
    """What a run did.

    Attributes
    ----------
    out
        The results file.
    counts
        Films of this run by status, and ``"kept"`` for those done before.
    failures
        What failed, with private relative paths.
    negatives
        Films that look like photographic negatives.
    conflicts
        Films that share a SOPInstanceUID with another one of other bytes.
    foreign
        Films that a demo model saw and ``cxrx phantom`` did not make.
    """

    out: Path
    model: str
    methods: tuple[str, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[FailureRecord] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    negatives: list[str] = field(default_factory=list)
    conflicts: int = 0
    foreign: int = 0
    polarity: str = "header"
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """How many things failed."""
        return len(self.failures)


@dataclass
class _Film:
    """A film on its way through a batch; `labels` is what truth says of it."""

    item: Item
    prepared: Prepared
    labels: Mapping[str, int]
    logit: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    probability: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))


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
    inputs
        Folders, films, archives, lists; None: the films of the existing file `out`.
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
        run = _Run(model, methods, store, options)
        return run.execute(inputs, argv)


class _Run:
    """The state of one run."""

    def __init__(self, model: Model, methods: Sequence[MethodRequest], store: PartStore, options: RunOptions) -> None:
        self.model = model
        self.methods = {method.key: method for method in methods}
        self.explainers: dict[str, Explainer] = {m.key: m.spec.build(m.options) for m in methods}
        self.store = store
        self.options = options
        self.ledger = Ledger.read(store.out, store, model.slug, retry_failed=options.retry_failed)
        settings = {"": prediction_settings(model, options)}
        settings |= {key: map_settings(model, options, method) for key, method in self.methods.items()}
        self.ledger.check(settings)
        store.check({(model.slug, key): value for key, value in settings.items()})
        self.batch_size = self._fixed_batch_size()
        self.builder = PartBuilder(
            model.slug,
            model.labels,
            _versions(model) | {"settings": settings[""], "demo": int(model.demo), "activation": model.activation},
            {key: self._map_attrs(method, settings[key]) for key, method in self.methods.items()},
        )
        self.report = RunReport(store.out, model.slug, tuple(self.methods), polarity=options.read.polarity)
        self.truth = FolderTruth()
        self.seen: set[str] = set()
        self.next_start = 0
        self.committed = time.monotonic()
        self.announced = False

    # -----------------------------------------------------------------------------------------------------------------
    # From start to end

    def execute(self, inputs: Sequence[Path] | None, argv: Sequence[str]) -> RunReport:
        started = time.time()
        plan = plan_films(inputs, self.ledger, self.store.out, self.options)
        if self.options.truth is not None:
            self.truth = read_truth(self.options.truth)
        elif inputs is not None:
            self.truth = discover(inputs)
        for problem in self.truth.problems:
            log.warning("truth: %s", problem)
        self._take_rejected(plan)
        todo = [item for item in plan.items if not self._finished(item, plan)]
        self.report.counts["kept"] = len(plan.items) - len(todo)
        if self.report.counts["kept"] and todo:
            log.info("%d of %d films are done already", self.report.counts["kept"], len(plan.items))
        with Interrupts() as interrupts:
            self._stream(todo, plan, inputs, interrupts)
            self._commit()
            if interrupts.signal_number is not None:
                raise InterruptedRunError(
                    f"stopped; {self._finished_count()} films are finished and kept",
                    interrupts.signal_number,
                    "the same command goes on from here",
                )
        self._pack(plan, argv, started)
        self.report.seconds = time.time() - started
        return self.report

    def _stream(self, todo: Sequence[Item], plan: Plan, inputs: Sequence[Path] | None, interrupts: Interrupts) -> None:
        workers = _default_workers() if self.options.workers is None else self.options.workers
        what = " ".join(["predict", *self.methods]) if self.methods else "predict"
        spec, read = self.model.input, self.options.read
        items = with_data(todo, plan, inputs, self.options)
        with (
            decoded(items, spec, read, workers, ahead=4 * self.batch_size) as films,
            Progress(len(todo), what) as progress,
        ):
            for batch, count in self._batches(films, plan):
                with interrupts.batch():
                    before = self.report.failed
                    self._process(batch, len(todo))
                    progress.update(count, self.report.failed - before)
                    self._commit_if_due()
                if interrupts.signal_number is not None:
                    return

    def _batches(
        self, films: Iterator[tuple[Item, list[Prepared | Unreadable]]], plan: Plan
    ) -> Iterator[tuple[list[_Film], int]]:
        """Gather readable films into batches of the fixed size; the unreadable ones are recorded on the way."""
        batch: list[_Film] = []
        items = 0
        for item, found in films:
            items += 1
            for result in found:
                film = self._take(item, result, plan)
                if film is not None:
                    batch.append(film)
            if len(batch) >= self.batch_size or items >= FILMS_A_PART:
                yield batch[: self.batch_size], items
                batch, items = batch[self.batch_size :], 0
        while batch or items:
            yield batch[: self.batch_size], items
            batch, items = batch[self.batch_size :], 0

    # -----------------------------------------------------------------------------------------------------------------
    # One film

    def _finished(self, item: Item, plan: Plan) -> bool:
        """Whether nothing of the film is left to do, as far as can be told without reading it."""
        image_id = self.ledger.known_id((str(item.path), item.member, item.size, item.mtime_ns))
        if image_id is None:
            return False
        expected = plan.expected.get((str(item.path), item.member))
        if expected is not None and expected != image_id:
            return False  # another film lies there now: reading it will say so
        if self.ledger.unusable(image_id):
            return True
        if not self.ledger.predicted(image_id):
            return False
        return all(self._map_finished(image_id, key) for key in self.methods)

    def _map_finished(self, image_id: str, key: str) -> bool:
        if self.ledger.map_failed(image_id, key):
            return True
        probability = self.ledger.base.probability.get(image_id)
        if probability is None:
            return self.ledger.taken_up(image_id, key)
        targets = self._targets(probability, self.ledger.base.labels.get(image_id, {}))
        return {self.model.labels[k] for k in targets} <= self.ledger.mapped(image_id, key)

    def _take(self, item: Item, result: Prepared | Unreadable, plan: Plan) -> _Film | None:
        """Record a film that was read; return it if there is work left on it."""
        if isinstance(result, Unreadable):
            self._take_unreadable(item, result)
            return None
        expected = plan.expected.get((str(item.path), item.member))
        if expected is not None and expected != result.image_id:
            self._fail(item, expected, "read", "changed", "the file is no longer the film that was predicted")
            return None
        if result.image_id in self.seen:
            self._skip(item, result.image_id, "duplicate", "the same bytes as another film: counted once")
            return None
        self.seen.add(result.image_id)
        truth = self.truth.truth(item.relative)
        if self.ledger.status(result.image_id) in {None, "failed"}:
            self.builder.images.append(_image_record(item, result, truth))
        labels = self.ledger.base.labels.get(result.image_id, {}) | dict(truth.labels if truth else {})
        self.report.counts["flagged" if result.flags else "ok"] += 1
        if result.negative:
            self.report.negatives.append(item.relative)
        self.report.foreign += not result.synthetic
        return _Film(item, result, labels)

    def _take_unreadable(self, item: Item, result: Unreadable) -> None:
        image_id = result.sha256[:16]
        if image_id and image_id in self.seen:
            self._skip(item, image_id, "duplicate", "the same bytes as another file: counted once")
            return
        self.seen.add(image_id)
        if image_id and self.ledger.status(image_id) in {None, "failed"}:
            status = Status.SKIPPED if result.kind == "skipped" else Status.FAILED
            self.builder.images.append(_unread_record(item, result, status))
        if result.kind == "skipped":
            self._skip(item, image_id, result.code, result.message)
        else:
            self._fail(item, image_id, "read", result.code, result.message)

    def _skip(self, item: Item, image_id: str, code: str, message: str) -> None:
        """Note what is no film; only what left no row in /images gets a line of its own in /failures."""
        self.report.counts["skipped"] += 1
        self.report.skipped.append((item.relative, f"{code}: {message}"))
        if not image_id or code == "duplicate":
            self.builder.failures.append(FailureRecord(image_id, "find", code, message, item.relative))

    def _fail(self, item: Item, image_id: str, stage: str, code: str, message: str, method: str = "") -> None:
        slug = self.model.slug if stage in {"predict", "explain"} else ""
        failure = FailureRecord(image_id, stage, code, message, item.relative, slug, method)
        self.builder.failures.append(failure)
        self.report.failures.append(failure)
        self.report.counts["failed"] += stage == "read"
        log.warning("failed: %s: %s", item.relative, message)

    def _take_rejected(self, plan: Plan) -> None:
        self.report.passed_over = plan.passed_over
        for rejected in plan.rejected:
            digest = rejected.reason.sha256 or file_digest(rejected.item)
            self._take_unreadable(rejected.item, replace(rejected.reason, sha256=digest))

    def _targets(self, probability: NDArray[np.float32], labels: Mapping[str, int]) -> list[int]:
        return choose_targets(self.options.targets, self.model.labels, probability, labels)

    # -----------------------------------------------------------------------------------------------------------------
    # One batch

    def _process(self, batch: list[_Film], films: int) -> None:
        """Predict and explain up to `batch_size` films, of `films` in all."""
        if not batch:
            return
        begun = time.monotonic()
        pixels = torch.from_numpy(np.stack([film.prepared.pixels for film in batch]))
        x = self.model.prepare(pixels)  # (b, C, H, W)
        logits = predict_logits(self.model, x, self.batch_size, self.options.dtype)
        probabilities = self.model.probabilities(logits)
        rows: list[int] = []
        for i, film in enumerate(batch):
            film.logit, film.probability = logits[i].numpy(), probabilities[i].numpy()
            if self._predicted(film):
                rows.append(i)
        if self.methods and not self.announced:
            self._announce(batch, (time.monotonic() - begun) / self.batch_size, films)
        for key in self.methods:
            self._explain(key, [(batch[i], x[i]) for i in rows])

    def _predicted(self, film: _Film) -> bool:
        """Store or check a film's prediction; return whether the film may be explained."""
        image_id = film.prepared.image_id
        if not np.isfinite(film.logit).all():
            self._fail(film.item, image_id, "predict", "not-finite", "the model returned NaN or infinite logits")
            return False
        stored = self.ledger.base.logit.get(image_id)
        if stored is not None:
            moved = float(np.abs(stored - film.logit).max())
            if moved > SAME_LOGITS[self.options.dtype]:
                message = f"its logits moved by {moved:.2g} since the prediction: not the same input or software"
                for key in self.methods:
                    self._fail(film.item, image_id, "explain", "not-reproduced", message, key)
                return False
        elif not self.ledger.predicted(image_id):
            row = PredictionRow(image_id, film.logit, film.probability, film.prepared.affine)
            self.builder.predictions.append(row)
        return True

    def _explain(self, key: str, films: Sequence[tuple[_Film, torch.Tensor]]) -> None:
        """Explain the findings of `films` that still lack a map of the method `key`."""
        work = []
        for film, x in films:
            image_id = film.prepared.image_id
            done = self.ledger.mapped(image_id, key)
            targets = [k for k in self._targets(film.probability, film.labels) if self.model.labels[k] not in done]
            if targets and not self.ledger.map_failed(image_id, key):
                work.append((film, x, targets))
        step = self._films_a_call(self.methods[key])
        for first in range(0, len(work), step):
            self._explain_films(key, work[first : first + step], step)

    def _explain_films(self, key: str, work: Sequence[tuple[_Film, torch.Tensor, list[int]]], size: int) -> None:
        width = max(len(chosen) for _, _, chosen in work)
        targets = torch.tensor([chosen + [EMPTY] * (width - len(chosen)) for _, _, chosen in work])
        name = self.methods[key].spec.name
        seeds = torch.tensor([derive_seed(self.options.seed, name, film.prepared.image_id) for film, _, _ in work])
        x = torch.stack([x for _, x, _ in work])  # (b, C, H, W)
        pieces = run_explainer(self.model, self.explainers[key], x, targets, seeds, size)
        values = torch.cat([piece.values for piece in pieces]).numpy()
        extras = {name: torch.cat([piece.extras[name] for piece in pieces]).numpy() for name in pieces[0].extras}
        for i, (film, _, chosen) in enumerate(work):
            T = len(chosen)
            if not np.isfinite(values[i, :T]).all():
                self._fail(film.item, film.prepared.image_id, "explain", "not-finite", f"{key} gave NaN", key)
                continue
            row_extras = {name: array[i, :T] for name, array in extras.items()}
            row = MapRow(film.prepared.image_id, chosen, values[i, :T], film.logit[chosen], row_extras)
            self.builder.maps.setdefault(key, []).append(row)

    def _films_a_call(self, method: MethodRequest) -> int:
        """Return how many films one call explains: fewer for dear methods, so that little is lost on a stop.

        A rule, not a measurement: the same run must have the same shapes on every day.
        """
        if method.spec.evaluations is None:
            return self.batch_size
        height, width = self.model.input.size
        cost = method.spec.evaluations(method.options) * height * width / 224**2
        return int(np.clip(50 * self.batch_size / max(cost, 1.0), 1, self.batch_size))

    def _announce(self, batch: Sequence[_Film], seconds_a_film: float, films: int) -> None:
        """Estimate the run from its first batch: an evaluation with its backward costs about three forwards."""
        self.announced = True
        evaluations = sum(m.spec.evaluations(m.options) if m.spec.evaluations else 1 for m in self.methods.values())
        findings = sum(len(self._targets(film.probability, film.labels)) for film in batch) / len(batch)
        seconds = films * seconds_a_film * (1 + 3 * evaluations * findings)
        if seconds > WORTH_AN_ESTIMATE:
            log.info("at most about %s for %d films with %.1f findings each", duration(seconds), films, findings)

    # -----------------------------------------------------------------------------------------------------------------
    # Storage

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

    def _map_attrs(self, method: MethodRequest, settings: dict[str, Any]) -> dict[str, Any]:
        spec = method.spec
        return _versions(self.model) | {
            "settings": settings,
            "method": spec.name,
            "options": settings["options"],
            "seed": self.options.seed,
            "space": spec.space,
            "signed": int(spec.signed),
            "relu": int(spec.relu),
            "control": int(spec.control),
            "upsample": "bilinear, align_corners=False" + (", after max(values, 0)" if spec.relu else ""),
            "citation": spec.citation,
        }

    def _commit_if_due(self) -> None:
        due = time.monotonic() - self.committed > SECONDS_A_PART
        if due or self.builder.films >= FILMS_A_PART:
            self._commit()

    def _commit(self) -> None:
        films = self.builder.films
        if films:
            self.store.write(self.builder.take(), self.next_start)
            self.next_start += films
        self.committed = time.monotonic()

    def _finished_count(self) -> int:
        return len(self.store.done().images) or sum(self.report.counts[s] for s in ("ok", "flagged"))

    def _pack(self, plan: Plan, argv: Sequence[str], started: float) -> None:
        done = self.store.done()
        uids = Counter(record.uid for record in done.images.values() if record.uid and record.status.processed)
        self.report.conflicts = sum(count for count in uids.values() if count > 1)
        processed = any(r.status.processed for r in done.images.values())
        if not processed and not any(s in {"ok", "flagged"} for s in self.ledger.base.status.values()):
            raise NothingReadableError("none of the inputs held a film that could be read", _why_nothing(self.report))
        run = {
            "argv": list(argv),
            "started": started,
            "seconds": time.time() - started,
            "device": str(self.model.device),
            "batch_size": self.batch_size,
            "films": len(plan.items),
            "counts": dict(self.report.counts),
            **_versions(self.model),
        }
        sources = {self.model.slug: self.model.source} if self.model.source else {}
        pack(self.store, self.store.out, truth=self._truth_table(done), run=run, model_sources=sources)

    def _truth_table(self, done: Done) -> TruthTable | None:
        if not self.truth.findings:
            return None
        labels: dict[str, dict[str, int]] = {}
        boxes = []
        names = self.ledger.base.names | {image_id: record.relative for image_id, record in done.images.items()}
        for image_id, name in names.items():
            known = self.truth.truth(name)
            if known is None:
                continue
            labels[image_id] = dict(known.labels)
            boxes += [(image_id, b.finding, b.x, b.y, b.width, b.height) for b in known.boxes]
        return TruthTable(self.truth.findings, labels, boxes)


def _image_record(item: Item, film: Prepared, truth: FilmTruth | None) -> ImageRecord:
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


def _unread_record(item: Item, result: Unreadable, status: Status) -> ImageRecord:
    return ImageRecord(
        image_id=result.sha256[:16],
        sha256=result.sha256,
        view="",
        rows=0,
        columns=0,
        decoder="",
        status=status,
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


def _versions(model: Model) -> dict[str, Any]:
    import timm

    return {
        "cxrx": __version__,
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "weights_sha256": model.weights_sha256,
        "model_name": model.name,
    }


def _default_workers() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _why_nothing(report: RunReport) -> str:
    reasons = Counter(f.message for f in report.failures) + Counter(reason for _, reason in report.skipped)
    told = "; ".join(f"{n} x {reason}" for reason, n in reasons.most_common(3))
    return told or "no DICOM, PNG or JPEG was found there"


__all__ = ["CxrxError", "RunReport", "execute"]
