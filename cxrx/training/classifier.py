"""The training of a classifier on labelled films: its loss, its validation, what is kept of an epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import cxrx
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.models.model import Model
from cxrx.training.data import Labelled
from cxrx.training.films import Decoded, FilmStore
from cxrx.training.loop import Training
from cxrx.training.losses import class_weights, loss_of, sampling_weights
from cxrx.training.metrics import N_BOOT, RULES, Evaluation, Scores, choose_thresholds, evaluate
from cxrx.training.network import weights_digest
from cxrx.training.run import TrainingConfig, model_name
from cxrx.training.schedule import Plateau, freeze
from cxrx.training.state import Progress
from cxrx.training.weights import write_metrics, write_model

_PREDICT = 64  # films a forward pass of validation


class ClassifierTraining(Training):
    """Learns findings, chooses weights and thresholds on validation films.

    Parameters
    ----------
    config, model, decoded, log
        See :class:`cxrx.training.loop.Training`.
    films
        What is known of the films, a row each.
    """

    def __init__(
        self, config: TrainingConfig, model: Model, decoded: Decoded, films: Labelled, log: Callable[[str], Any]
    ) -> None:
        recipe, train = config.recipe, films.rows("train")
        self._frozen_norms = freeze(model.module, recipe.frozen)
        drawn = sampling_weights(films.task, films.labels[train]) if recipe.balance == "sampler" else None
        super().__init__(config, recipe, model, decoded, rows=train, drawn=drawn, network=model.module, log=log)
        self.films, self.metadata = films, _metadata(config, films, model, decoded)
        self._weight: torch.Tensor | None = None
        if recipe.balance == "pos-weight":
            self._weight = torch.from_numpy(class_weights(films.task, films.labels[train])).to(self.device)
        self._labels = torch.from_numpy(films.labels)

    def start_epoch(self, epoch: int) -> None:  # noqa: ARG002 - what is drawn hangs on torch's own seed
        """Leave the statistics of frozen norms as they are."""
        for norm in self._frozen_norms:
            norm.eval()

    def loss(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the loss over known labels."""
        with self.mixed():
            logits = self.model.forward(x)
        target = self._labels[rows].to(self.device, non_blocking=True)
        return loss_of(self.films.task, logits, target, self._weight, self.recipe.smoothing)

    def finish_epoch(self, progress: Progress, row: dict[str, Any]) -> str:
        """Validate, and write the weights where no earlier ones were better."""
        found, valid_loss, thresholds = self.validate()
        self.check_loss(valid_loss, progress.epoch, self._steps - 1)  # of the last step's weights
        score = found.overall["auroc"] if math.isfinite(found.overall["auroc"]) else -valid_loss
        plateau = Plateau(self.recipe.plateau_factor, self.recipe.plateau_patience, **progress.plateau)  # type: ignore[arg-type]  # `since` is a whole number
        plateau.update(score)
        progress.plateau = {"best": plateau.best, "since": plateau.since, "scale": plateau.scale}
        of_epoch = {"train_loss": row["loss"], "valid_loss": valid_loss} | {k: v for k, v in row.items() if k != "loss"}
        progress.history += [of_epoch | numbers for numbers in found.rows]
        if score > progress.best:
            progress.best, progress.best_epoch = score, row["epoch"]
            write_model(self.folder, self.model, self.metadata | {"thresholds": json.dumps(thresholds)})
        write_metrics(self.folder, progress.history)
        numbers = "  ".join(f"{name} {found.overall[name]:.3f}" for name in ("auroc", "auprc", "f1", "accuracy"))
        return f"  valid {valid_loss:.4f}  {numbers}"

    def validate(self) -> tuple[Evaluation, float, dict[str, float]]:
        """Return the numbers of the validation films, their loss, and the thresholds chosen on them."""
        rows = self.films.rows("valid")
        logits = predict(self.model, self.decoded.store, rows)
        labels = self.films.labels[rows]
        loss = float(loss_of(self.films.task, logits, torch.from_numpy(labels), None, 0.0))
        scores: Scores = self.model.probabilities(logits).numpy()
        chosen = choose_thresholds(self.recipe.threshold, labels, scores)
        thresholds = dict(zip(self.films.findings, chosen, strict=True))
        return self._evaluate(rows, scores, thresholds), loss, thresholds

    def judge(self, split: str, thresholds: Mapping[str, float]) -> Evaluation | None:
        """Return the numbers of a split at given thresholds; None: it has no films."""
        rows = self.films.rows(split)
        if not len(rows):
            return None
        scores = self.model.probabilities(predict(self.model, self.decoded.store, rows)).numpy()
        return self._evaluate(rows, scores, thresholds)

    def _evaluate(self, rows: NDArray[np.intp], scores: Scores, thresholds: Mapping[str, float]) -> Evaluation:
        films, patients = self.films, [self.films.patients[i] for i in rows.tolist()]
        bootstrap = PatientBootstrap(patients, N_BOOT, self.recipe.seed)
        return evaluate(
            films.task, films.labels[rows], scores, films.findings,
            patients=patients, thresholds=thresholds, bootstrap=bootstrap,
        )  # fmt: skip


def _metadata(config: TrainingConfig, films: Labelled, model: Model, decoded: Decoded) -> dict[str, str]:
    """Return what is stored beside the weights."""
    metadata = {
        "arch": model_name(config.model), "labels": json.dumps(list(films.findings)),
        "input": json.dumps(asdict(model.input)), "activation": model.activation, "output": "logits",
        "task": films.task, "threshold_rule": RULES[config.recipe.threshold],
        "recipe": json.dumps(asdict(config.recipe)),
        "init": config.init if not Path(config.init).exists() else weights_digest(config.init),
        "data": f"{films.name}, {len(films.rows('train'))} films", "source": f"cxrx train, cxrx {cxrx.__version__}",
    }  # fmt: skip
    return metadata | ({"demo": "1"} if decoded.synthetic else {})  # trained on synthetic films only


def predict(model: Model, store: FilmStore, rows: NDArray[np.intp]) -> torch.Tensor:
    """Return logits ``(n, K)`` of films as they are, in float32."""
    model.module.eval()
    pieces = []
    for first in range(0, len(rows), _PREDICT):
        films = torch.from_numpy(store.pixels[rows[first : first + _PREDICT]])
        pieces.append(model.logits(model.prepare(films.float() / 255)).cpu())
    return torch.cat(pieces)
