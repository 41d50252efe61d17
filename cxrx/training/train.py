"""A training from beginning to end: what ``cxrx train`` calls."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

import cxrx
from cxrx.errors import CxrxError, UsageError
from cxrx.files.lock import RunLock
from cxrx.models.model import Model
from cxrx.training.card import write_card
from cxrx.training.data import SPLITS, Labelled, check_classes, fewer, read_labels, untold
from cxrx.training.films import Decoded, Unread, decode
from cxrx.training.loop import Study, fit, predict, score_films
from cxrx.training.metrics import Evaluation, Scorer
from cxrx.training.network import make_network, weights_digest
from cxrx.training.recipes import Recipe, SplitRule, notes_on
from cxrx.training.state import LAST, SETTINGS, Progress, check_place, claim, write_json
from cxrx.training.stop import Stop
from cxrx.training.weights import CARD, CURVE, FAILURES, METRICS, MODEL, REPORT, read_model, write_curve, write_failures

OUTPUTS = (LAST, MODEL, METRICS, CURVE, CARD, REPORT, FAILURES)
_CACHE, _LOCK = "films", ".lock"
_MOST_WORKERS = 16


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes
    ----------
    labels
        Findings to learn; None: all that the data speak of.
    films
        Training films to learn from; None: all.
    workers
        Processes that decode and augment; None: one a core for decoding, none for augmenting beside a network on the
        CPU.
    cache
        Folder for decoded films that other trainings may use too; None: in `out`, until the training ends.
    resume
        Go on with a training of the same settings in `out`.
    """

    data: Path
    model: str
    out: Path
    recipe: Recipe
    init: str = "random"
    labels: Sequence[str] | None = None
    input_size: int | None = None
    in_chans: Literal[1, 3] | None = None
    split: SplitRule = "auto"
    films: int | None = None
    device: str = "auto"
    workers: int | None = None
    cache: Path | None = None
    resume: bool = True


@dataclass
class Outcome:
    """What came of it.

    Attributes
    ----------
    valid, test
        Numbers of the best weights; `test` is None where there are no test films.
    unread
        Films that gave no pixels.
    """

    out: Path
    findings: tuple[str, ...]
    progress: Progress
    valid: Evaluation | None = None
    test: Evaluation | None = None
    unread: tuple[Unread, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)


def train(
    request: Request,
    scorer: Scorer,
    *,
    say: Callable[[str], Any] = lambda _line: None,
    tick: Callable[[int], Any] | None = None,
) -> Outcome:
    """Train, choose by validation, test once, and write the run's folder.

    Parameters
    ----------
    scorer
        See :data:`cxrx.training.metrics.Scorer`.
    say
        Takes lines for the user.
    tick
        Called with the number of films decoded.

    Raises
    ------
    CxrxError
        With a sentence that says what is wrong; whole epochs are kept.
    """
    recipe = request.recipe
    check_place(request.out, request.data)
    films = read_labels(request.data, recipe, request.labels, request.split)
    if request.films is not None:
        films = fewer(films, request.films, recipe.seed)
    model = make_network(
        request.model,
        films.findings,
        films.task,
        recipe,
        init=request.init,
        input_size=request.input_size,
        in_chans=request.in_chans,
        device=request.device,
    )
    for note in (*films.notes, *model.notes, *notes_on(recipe, model.input)):
        say(f"note: {note}")
    settings = _settings(request, films, model)
    with RunLock(request.out / _LOCK), Stop() as stop:
        claim(request.out, settings, resume=request.resume, outputs=OUTPUTS, made_by=versions(model))
        if (request.out / REPORT).is_file():
            say(f"{request.out.name} is finished; nothing to do (--no-resume starts anew)")
            return _finished(request.out)
        told = len(films.notes)
        films, decoded = _decoded(request, films, model, stop.watching(tick))
        for note in films.notes[told:]:
            say(f"note: {note}")
        say(_told(films, model, decoded))
        for note in _untold(films):
            say(f"note: {note}")
        study = Study(
            *(model, films, decoded, recipe, request.out, _metadata(request, films, model, decoded), scorer),
            workers=augmenting(request.workers, model.device.type),
            say=say,
        )
        outcome = _finish(study, fit(study, stop), settings)
        if request.cache is None:
            shutil.rmtree(request.out / _CACHE, ignore_errors=True)
    return outcome


def _decoded(request: Request, films: Labelled, model: Model, tick: Callable[[int], Any]) -> tuple[Labelled, Decoded]:
    """Decode the films; those that cannot be read, and copies, keep their row and lose their split."""
    cache = request.cache or request.out / _CACHE
    workers = cores() if request.workers is None else request.workers
    try:
        views = dict(zip(films.paths, films.views, strict=True))
        decoded = decode(request.data, films.paths, model.input, cache, workers=workers, views=views, tick=tick)
        placed = films.without_copies(decoded.ids)
        check_classes(placed)
    except CxrxError:
        if not (request.out / LAST).exists():  # a refused request leaves nothing behind
            (request.out / SETTINGS).unlink(missing_ok=True)
            shutil.rmtree(request.out / _CACHE, ignore_errors=True)
        raise
    write_failures(request.out, decoded.unread)
    return placed, decoded


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def augmenting(asked: int | None, device: str) -> int:
    """Return how many processes augment: beside a network on the CPU they would only take its cores."""
    return min(_MOST_WORKERS, cores() if asked is None else asked) if device != "cpu" else 0


# ---------------------------------------------------------------------------------------------------------------------
# What is written down


def _settings(request: Request, films: Labelled, model: Model) -> dict[str, Any]:
    """Return all that decides the outcome."""
    digest = hashlib.sha256(films.labels.tobytes())
    digest.update("\n".join((*films.paths, *films.splits)).encode("utf-8", "surrogateescape"))
    return {
        "model": model.name,
        "task": films.task,
        "findings": list(films.findings),
        "input": asdict(model.input),
        "init": weights_digest(request.init),
        "recipe": asdict(request.recipe),
        "data": films.name,
        "films": digest.hexdigest(),
        "split": films.split_kind,
    }


def _metadata(request: Request, films: Labelled, model: Model, decoded: Decoded) -> dict[str, str]:
    """Return what is stored beside the weights."""
    told = {
        "arch": model_name(request.model),
        "labels": json.dumps(list(films.findings)),
        "input": json.dumps(asdict(model.input)),
        "activation": model.activation,
        "output": "logits",
        "task": films.task,
        "recipe": json.dumps(asdict(request.recipe)),
        "init": request.init if not Path(request.init).exists() else weights_digest(request.init),
        "data": f"{films.name}, {len(films.rows('train'))} films",
        "source": f"cxrx train, cxrx {cxrx.__version__}",
    }
    return told | ({"demo": "1"} if decoded.synthetic else {})  # trained on synthetic films only


def model_name(name: str) -> str:
    """Return the name under which the network can be built again; of the user's own file only its name."""
    file, colon, function = name.rpartition(":")
    return f"{Path(file).name}:{function}" if colon else name


def _told(films: Labelled, model: Model, decoded: Decoded) -> str:
    sizes = ", ".join(f"{len(films.rows(split))} {split}" for split in SPLITS)
    unread = f", {len(decoded.unread)} unreadable" if decoded.unread else ""
    learned = f"{model.name}, {films.task}: {', '.join(films.findings)}"
    return f"{films.name}: {sizes}{unread} films ({films.split_kind}); {learned}"


def _untold(films: Labelled) -> list[str]:
    names = untold(films)
    by = "without them" if len(names) < len(films.findings) else "by the loss"
    what = f"the best epoch is chosen {by}, and their threshold is 0.5"
    return [f"of {', '.join(names)}, validation films show one side only: {what}"] if names else []


def versions(model: Model) -> dict[str, str]:
    """Return what a run was made with."""
    import timm
    import torch
    import torchvision

    return {
        "cxrx": cxrx.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type,
        "threads": str(torch.get_num_threads()),
    }


def _finished(home: Path) -> Outcome:
    """Return what an earlier run reported."""
    report = json.loads((home / REPORT).read_text(encoding="utf-8"))
    parts = {split: Evaluation(**report[split]) if report.get(split) else None for split in ("valid", "test")}
    progress = Progress(epoch=report["epochs"], best_epoch=report["best_epoch"], finished=True)
    unread = (Unread("", "", ""),) * report["unreadable"]
    return Outcome(
        home, tuple(report["findings"]), progress, parts["valid"], parts["test"], unread, report["thresholds"]
    )


def _finish(study: Study, progress: Progress, settings: dict[str, Any]) -> Outcome:
    """Test the best weights and write report, curve and card: once, whatever comes later."""
    home, films = study.home, study.films
    outcome = Outcome(home, films.findings, progress, unread=study.decoded.unread)
    if not (home / MODEL).is_file():
        raise UsageError(f"{home.name} holds no {MODEL} any more", "--no-resume starts anew")
    outcome.thresholds = read_model(home, study.model.module)
    parts: dict[str, Evaluation | None] = {}
    for split in ("valid", "test"):
        rows = films.rows(split)
        if len(rows):
            scores = study.model.probabilities(predict(study.model, study.decoded.store, rows)).numpy()
            parts[split] = score_films(study, rows, np.asarray(scores), outcome.thresholds)
    outcome.valid, outcome.test = parts.get("valid"), parts.get("test")
    report = {
        "model": settings["model"], "task": films.task, "findings": list(films.findings),
        "epochs": progress.epoch, "best_epoch": progress.best_epoch, "thresholds": outcome.thresholds,
        "thresholds_chosen": f"{study.recipe.threshold}, on the validation films of epoch {progress.best_epoch}",
        "films": {split: len(films.rows(split)) for split in SPLITS}, "unreadable": len(study.decoded.unread),
        "split": films.split_kind, "recipe": asdict(study.recipe),
        **{split: None if part is None else asdict(part) for split, part in parts.items()},
    }  # fmt: skip
    write_curve(home, progress.history, progress.best_epoch)
    write_card(home, study, progress, outcome.valid, outcome.test)
    write_json(home / REPORT, report)
    return outcome
