"""Epochs: a step, a validation, what is kept of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cxrx.errors import CxrxError
from cxrx.models.inference import autocast
from cxrx.models.model import Model
from cxrx.training.data import Labelled
from cxrx.training.films import Decoded, FilmStore
from cxrx.training.loader import Loader, TrainingFilms
from cxrx.training.losses import balance, loss_of
from cxrx.training.metrics import Evaluation, Scorer, Scores, choose_thresholds, evaluate
from cxrx.training.recipes import Recipe
from cxrx.training.schedule import freeze, make_optimiser, parameter_groups, set_rate
from cxrx.training.seeds import epoch_order, in_batches, seed_of
from cxrx.training.state import Progress, load_state, plateau_of, save_state
from cxrx.training.stop import Stop
from cxrx.training.weights import write_metrics, write_model

CHECK_EVERY = 20  # steps between looks at the loss; each makes a GPU wait
_PREDICT = 64  # films a forward pass of validation


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that a training needs and that does not change.

    Attributes
    ----------
    films, decoded
        The same films in the same rows.
    home
        Folder of the run.
    metadata
        Words to store beside the weights.
    workers
        Processes that augment.
    say
        Takes a line for the user.
    """

    model: Model
    films: Labelled
    decoded: Decoded
    recipe: Recipe
    home: Path
    metadata: dict[str, str]
    scorer: Scorer
    workers: int = 0
    say: Callable[[str], Any] = lambda _line: None

    def mixed(self) -> AbstractContextManager[Any]:
        """Return the context in which the network learns."""
        bf16 = self.recipe.dtype == "bf16" or (self.recipe.dtype == "auto" and self.model.device.type == "cuda")
        return autocast(self.model.device, "bf16" if bf16 else "fp32")


def fit(study: Study, stop: Stop) -> Progress:
    """Train until the recipe ends; go on where an earlier run was killed.

    Raises
    ------
    InterruptedRunError
        Somebody asked to stop; whole epochs are kept.
    CxrxError
        The loss is no number any more; whole epochs are kept.
    """
    recipe, network, train = study.recipe, study.model.module, study.films.rows("train")
    still = freeze(network, recipe.frozen)
    groups = parameter_groups(network, recipe.weight_decay, recipe.layer_decay)
    optimiser = make_optimiser(recipe.optimiser, groups, recipe.momentum)
    progress = load_state(study.home, {"network": network}, optimiser)
    drawn, weight = balance(recipe.balance, study.films.task, study.films.labels[train])
    epochs = _Epochs(study, optimiser, still, None if weight is None else weight.to(study.model.device))
    plateau = plateau_of(progress, recipe.plateau_factor, recipe.plateau_patience)
    while progress.epoch < recipe.epochs and not _given_up(progress, recipe):
        began = time.monotonic()
        batches = in_batches(epoch_order(train, recipe.seed, progress.epoch, drawn), recipe.batch)
        scale = plateau.scale if recipe.schedule == "plateau" else 1.0
        loss, waited = epochs.train(progress.epoch, batches, scale, stop)
        seconds = time.monotonic() - began
        found, valid_loss, thresholds = validate(study)
        _check_loss(valid_loss, progress.epoch, len(batches) - 1, recipe)  # of the last step's weights
        score = found.overall["auroc"] if math.isfinite(found.overall["auroc"]) else -valid_loss
        progress.epoch += 1
        plateau.update(score)
        progress.plateau = {"best": plateau.best, "since": plateau.since, "scale": plateau.scale}
        of_epoch = {
            "epoch": progress.epoch,
            "train_loss": loss,
            "valid_loss": valid_loss,
            "lr": optimiser.param_groups[-1]["lr"],
            "seconds": round(seconds, 3),
            "waited": round(waited, 3),
            "films_per_second": round(sum(map(len, batches)) / seconds, 2),
        }
        progress.history += [of_epoch | row for row in found.rows]
        if score > progress.best:
            progress.best, progress.best_epoch = score, progress.epoch
            write_model(study.home, study.model, study.metadata, thresholds)
        write_metrics(study.home, progress.history)
        save_state(study.home, progress, {"network": network}, optimiser)
        study.say(_line(of_epoch, found, recipe.epochs))
    return progress


def _given_up(progress: Progress, recipe: Recipe) -> bool:
    return bool(recipe.patience) and progress.epoch - progress.best_epoch >= recipe.patience


def _line(of_epoch: dict[str, Any], found: Evaluation, epochs: int) -> str:
    told = "  ".join(f"{name} {found.overall[name]:.3f}" for name in ("auroc", "auprc", "f1", "accuracy"))
    return (
        f"epoch {of_epoch['epoch']}/{epochs}  loss {of_epoch['train_loss']:.4f}  valid {of_epoch['valid_loss']:.4f}  "
        f"{told}  {of_epoch['films_per_second']:.0f} films/s"
    )


@dataclass
class _Epochs:
    """Takes the steps of an epoch."""

    study: Study
    optimiser: torch.optim.Optimizer
    still: Sequence[nn.Module]
    weight: torch.Tensor | None

    def __post_init__(self) -> None:
        study = self.study
        films = TrainingFilms(study.decoded.store, study.decoded.ids, study.recipe, study.model.input.size)
        self._loader = Loader(films, study.workers, study.model.device)
        self._learning = [p for group in self.optimiser.param_groups for p in group["params"]]
        self._labels = torch.from_numpy(study.films.labels)

    def train(self, epoch: int, batches: Sequence[NDArray[np.intp]], scale: float, stop: Stop) -> tuple[float, float]:
        """Take a step for each batch; return the mean loss and the seconds that the network waited for films."""
        schedule = self.study.recipe.schedule_of(len(batches))
        self.study.model.module.train()
        for norm in self.still:
            norm.eval()
        torch.manual_seed(seed_of(self.study.recipe.seed, "epoch", epoch))  # dropout and stochastic depth
        total = torch.zeros((), device=self.study.model.device)
        waited, asked = 0.0, time.monotonic()
        for step, (films, rows) in enumerate(self._loader.epoch(epoch, batches)):
            waited += time.monotonic() - asked
            set_rate(self.optimiser, schedule.at(epoch * len(batches) + step) * scale)
            total += self._step(films, self._labels[rows])
            if (step + 1) % CHECK_EVERY == 0 or step + 1 == len(batches):
                _check_loss(float(total), epoch, step, self.study.recipe)
            stop.check(epoch)
            asked = time.monotonic()
        return float(total) / len(batches), waited

    def _step(self, films: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        study, recipe = self.study, self.study.recipe
        device = study.model.device
        x = study.model.prepare(films.to(device, non_blocking=True).float() / 255)
        with study.mixed():
            logits = study.model.forward(x)
        target = labels.to(device, non_blocking=True)
        loss = loss_of(study.films.task, logits, target, self.weight, recipe.smoothing)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip:
            nn.utils.clip_grad_norm_(self._learning, recipe.clip)
        self.optimiser.step()
        return loss.detach()


def _check_loss(total: float, epoch: int, step: int, recipe: Recipe) -> None:
    if not math.isfinite(total):
        raise CxrxError(
            f"the loss is no number, in epoch {epoch + 1} by step {step + 1}; {epoch} finished epochs are kept",
            f"a lower learning rate helps most often: -O lr={recipe.lr / 10:g}, or -O dtype=fp32, or -O clip=1"
            + (" (other values need another -o, or --no-resume)" if epoch else ""),
        )


# ---------------------------------------------------------------------------------------------------------------------
# Validation


def predict(model: Model, store: FilmStore, rows: NDArray[np.intp]) -> torch.Tensor:
    """Return logits ``(n, K)`` of films as they are, in float32."""
    model.module.eval()
    pieces = []
    for first in range(0, len(rows), _PREDICT):
        films = torch.from_numpy(store.pixels[rows[first : first + _PREDICT]])
        pieces.append(model.logits(model.prepare(films.float() / 255)).cpu())
    return torch.cat(pieces)


def validate(study: Study) -> tuple[Evaluation, float, dict[str, float]]:
    """Return the numbers of the validation films, their loss, and the thresholds chosen on them."""
    rows = study.films.rows("valid")
    logits = predict(study.model, study.decoded.store, rows)
    labels = study.films.labels[rows]
    loss = float(loss_of(study.films.task, logits, torch.from_numpy(labels), None, 0.0))
    scores: Scores = study.model.probabilities(logits).numpy()
    thresholds = choose_thresholds(study.recipe.threshold, labels, scores, study.films.findings)
    return score_films(study, rows, scores, thresholds), loss, thresholds


def score_films(study: Study, rows: NDArray[np.intp], scores: Scores, thresholds: dict[str, float]) -> Evaluation:
    """Return the numbers of some films at given thresholds."""
    patients = [study.films.patients[i] for i in rows.tolist()]
    films = study.films
    return evaluate(films.task, films.labels[rows], scores, films.findings, patients, thresholds, study.scorer)
