"""A training from beginning to end: what ``cxrx train`` calls."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxrx.errors import UsageError
from cxrx.models.model import Model
from cxrx.training.card import write_card
from cxrx.training.classifier import ClassifierTraining
from cxrx.training.data import SPLITS, Labelled, check_classes, fewer, of_one_class, read_labels
from cxrx.training.films import Decoded, Unread
from cxrx.training.metrics import Evaluation
from cxrx.training.network import make_network, weights_digest
from cxrx.training.recipes import notes_on
from cxrx.training.run import TrainingConfig, TrainingResult, decoded_films, in_folder, report_of
from cxrx.training.state import Progress, check_place, write_json
from cxrx.training.weights import MODEL, REPORT, read_model, write_curve


def train(
    config: TrainingConfig,
    *,
    log: Callable[[str], Any] = lambda _line: None,
    tick: Callable[[int], Any] = lambda _count: None,
) -> TrainingResult:
    """Train, choose by validation, test once, and write the run's folder.

    Parameters
    ----------
    log
        Takes lines for the user.
    tick
        Called with the number of films decoded.

    Raises
    ------
    CxrxError
        With a sentence that says what is wrong; whole epochs are kept.
    """
    recipe = config.recipe
    check_place(config.out, config.data)
    films = read_labels(config.data, recipe, config.labels, config.split)
    if config.films is not None:
        films = fewer(films, config.films, recipe.seed)
    model = make_network(config, films.findings, films.task, recipe, config.init)
    for note in (*films.notes, *model.notes, *notes_on(recipe, model.input)):
        log(f"note: {note}")
    settings = _settings(config, films, model)
    with in_folder(config, settings, model) as stop:
        if (report := report_of(config, log)) is not None:
            return _earlier_result(config.out, report)
        views = dict(zip(films.paths, films.views, strict=True))
        with decoded_films(config, films.paths, model, stop.watching(tick), views) as decoded:
            before, films = len(films.notes), films.without_copies(decoded.ids)
            check_classes(films)
        for note in films.notes[before:]:
            log(f"note: {note}")
        log(_summary(films, model, decoded))
        for note in _note_on_choice(films):
            log(f"note: {note}")
        training = ClassifierTraining(config, model, decoded, films, log)
        return _finish(training, training.fit(stop), settings)


# ---------------------------------------------------------------------------------------------------------------------
# What is written down


def _settings(config: TrainingConfig, films: Labelled, model: Model) -> dict[str, Any]:
    """Return all that decides the outcome."""
    digest = hashlib.sha256(films.labels.tobytes())
    digest.update("\n".join((*films.paths, *films.splits)).encode("utf-8", "surrogateescape"))
    return {
        "model": model.name, "task": films.task, "findings": list(films.findings), "input": asdict(model.input),
        "init": weights_digest(config.init), "recipe": asdict(config.recipe), "data": films.name,
        "films": digest.hexdigest(), "split": films.split_kind,
    }  # fmt: skip


def _summary(films: Labelled, model: Model, decoded: Decoded) -> str:
    sizes = ", ".join(f"{len(films.rows(split))} {split}" for split in SPLITS)
    unread = f", {len(decoded.unread)} unreadable" if decoded.unread else ""
    learned = f"{model.name}, {films.task}: {', '.join(films.findings)}"
    return f"{films.name}: {sizes}{unread} films ({films.split_kind}); {learned}"


def _note_on_choice(films: Labelled) -> list[str]:
    names = of_one_class(films)
    by = "without them" if len(names) < len(films.findings) else "by the loss"
    what = f"the best epoch is chosen {by}, and their threshold is 0.5"
    return [f"of {', '.join(names)}, validation films show one class only: {what}"] if names else []


def _earlier_result(folder: Path, report: dict[str, Any]) -> TrainingResult:
    parts = {split: Evaluation(**report[split]) if report.get(split) else None for split in ("valid", "test")}
    progress = Progress(epoch=report["epochs"], best_epoch=report["best_epoch"], finished=True)
    unread = tuple(Unread(**entry) for entry in report["unread"])
    return TrainingResult(
        folder, tuple(report["findings"]), progress, parts["valid"], parts["test"], unread, report["thresholds"]
    )


def _finish(training: ClassifierTraining, progress: Progress, settings: dict[str, Any]) -> TrainingResult:
    """Test the best weights and write report, curve and card: once, whatever comes later."""
    folder, films, recipe, unread = training.folder, training.films, training.recipe, training.decoded.unread
    if not (folder / MODEL).is_file():
        raise UsageError(f"{folder.name} holds no {MODEL} any more", "--no-resume starts anew")
    thresholds = read_model(folder, training.model.module)
    parts = {split: training.judge(split, thresholds) for split in ("valid", "test")}
    report = {
        "model": settings["model"], "task": films.task, "findings": list(films.findings),
        "epochs": progress.epoch, "best_epoch": progress.best_epoch, "thresholds": thresholds,
        "thresholds_chosen": "half, for every finding" if recipe.threshold == "half" else
        f"{recipe.threshold}, on the validation films of epoch {progress.best_epoch}",
        "films": {split: len(films.rows(split)) for split in SPLITS}, "unread": [asdict(one) for one in unread],
        "split": films.split_kind, "recipe": asdict(recipe),
        **{split: asdict(part) for split, part in parts.items() if part is not None},
    }  # fmt: skip
    write_curve(folder, progress.history, progress.best_epoch)
    result = TrainingResult(folder, films.findings, progress, parts["valid"], parts["test"], unread, thresholds)
    write_card(training, result)
    write_json(folder / REPORT, report)
    return result
