"""The epochs of a training, whatever it learns from; how they stop, go on and fail is written once, here."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cxrx.errors import CxrxError
from cxrx.models.inference import autocast
from cxrx.models.model import Model
from cxrx.training.films import Decoded
from cxrx.training.loader import Loader, TrainingFilms
from cxrx.training.recipes import Recipe
from cxrx.training.run import RunConfig, Stop, augmenting
from cxrx.training.schedule import make_optimiser, make_scheduler, parameter_groups, schedule_of
from cxrx.training.seeds import epoch_order, in_batches, seed_of
from cxrx.training.state import Progress, load_state, save_state

CHECK_EVERY = 20  # steps between looks at the loss; each makes a GPU wait


class Training(ABC):
    """Takes the steps of all epochs.

    Parameters
    ----------
    config, recipe
        What the user asks for, and what decides the steps.
    model
        Prepares films, on its device.
    decoded
        Films, a row each.
    rows
        Those to learn from, ``(n,)``.
    drawn
        ``(n,)`` how often each of `rows` is to be drawn; None: once an epoch.
    network
        What learns: the model's own, or one around it.
    log
        Takes a line for the user.
    """

    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    remedies: ClassVar[tuple[str, ...]] = ("dtype=fp32", "clip=1")  # for a loss that is no number
    key = "network"  # of the state

    def __init__(
        self,
        config: RunConfig,
        recipe: Recipe,
        model: Model,
        decoded: Decoded,
        *,
        rows: NDArray[np.intp],
        drawn: NDArray[np.float64] | None,
        network: nn.Module,
        log: Callable[[str], Any],
    ) -> None:
        self.folder, self.recipe, self.model, self.decoded = config.out, recipe, model, decoded
        self.device, self.log, self.network = model.device, log, network
        self._rows, self._drawn = rows, drawn
        self._steps = len(in_batches(rows, recipe.batch))  # of an epoch
        groups = parameter_groups(network, recipe.weight_decay, recipe.layer_decay)
        self.optimiser = make_optimiser(recipe, groups, self.betas)
        self._learning = [p for group in self.optimiser.param_groups for p in group["params"]]
        films = TrainingFilms(decoded.store, decoded.ids, recipe, model.input.size)
        self._loader = Loader(films, augmenting(config.workers, model.device.type), model.device)

    @abstractmethod
    def start_epoch(self, epoch: int) -> None:
        """Make the network, and what its steps draw, ready for an epoch."""

    @abstractmethod
    def loss(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the loss of prepared films ``(B, C, H, W)``, which stand in `rows` ``(B,)``."""

    @abstractmethod
    def finish_epoch(self, progress: Progress, row: dict[str, Any]) -> str:
        """Judge the weights, write what is kept of an epoch whose numbers are `row`; return what the user should see.

        It goes on in :attr:`Progress.history`, and where the epoch is the best so far, that is noted.
        """

    def fit(self, stop: Stop) -> Progress:
        """Train until the recipe ends; go on where an earlier run was killed.

        Raises
        ------
        InterruptedRunError
            Somebody asked to stop; whole epochs are kept.
        CxrxError
            The loss is no number any more; whole epochs are kept.
        """
        recipe = self.recipe
        progress = load_state(self.folder, self)
        while progress.epoch < recipe.epochs:
            if recipe.patience and progress.epoch - progress.best_epoch >= recipe.patience:
                break
            row = self._epoch(progress, stop)
            more = self.finish_epoch(progress, row)
            progress.epoch += 1
            save_state(self.folder, progress, self)
            numbers = f"loss {row['loss']:.4f}{more}  {row['films_per_second']:.0f} films/s"
            self.log(f"epoch {progress.epoch}/{recipe.epochs}  {numbers}")
        return progress

    def _epoch(self, progress: Progress, stop: Stop) -> dict[str, Any]:
        """Take a step for each batch; return the mean loss and how long it took."""
        recipe, epoch, began = self.recipe, progress.epoch, time.monotonic()
        batches = in_batches(epoch_order(self._rows, recipe.seed, epoch, self._drawn), recipe.batch)
        scale = progress.plateau.get("scale", 1.0) if recipe.schedule == "plateau" else 1.0
        rates = make_scheduler(self.optimiser, schedule_of(recipe, self._steps), scale, epoch * self._steps)
        self.network.train()
        torch.manual_seed(seed_of(recipe.seed, "epoch", epoch))  # dropout and stochastic depth
        self.start_epoch(epoch)
        total = torch.zeros((), device=self.device)
        waited, asked = 0.0, time.monotonic()
        for step, (films, rows) in enumerate(self._loader.epoch(epoch, batches)):
            waited += time.monotonic() - asked
            if step:
                rates.step()
            total += self._step(films, rows)
            if (step + 1) % CHECK_EVERY == 0 or step + 1 == self._steps:
                self.check_loss(float(total), epoch, step)
            stop.check(epoch)
            asked = time.monotonic()
        seconds = time.monotonic() - began
        return {
            "epoch": epoch + 1,
            "loss": float(total) / self._steps,
            "lr": self.optimiser.param_groups[-1]["lr"],
            "seconds": round(seconds, 3),
            "waited": round(waited, 3),  # for films
            "films_per_second": round(sum(map(len, batches)) / seconds, 2),
        }

    def _step(self, films: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        loss = self.loss(self.prepare(films), rows)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self._learning, self.recipe.clip)
        self.optimiser.step()
        return loss.detach()

    def prepare(self, films: torch.Tensor) -> torch.Tensor:
        """Return ``(B, H, W)`` uint8 films as the network's input ``(B, C, H, W)``."""
        return self.model.prepare(films.to(self.device, non_blocking=True).float() / 255)

    def mixed(self) -> AbstractContextManager[Any]:
        """Return the context in which the network learns."""
        bf16 = self.recipe.dtype == "bf16" or (self.recipe.dtype == "auto" and self.device.type == "cuda")
        return autocast(self.device, "bf16" if bf16 else "fp32")

    def check_loss(self, total: float, epoch: int, step: int) -> None:
        """Raise CxrxError where a loss is no number."""
        if not math.isfinite(total):
            options = "".join(f", or -O {option}" for option in self.remedies)
            raise CxrxError(
                f"the loss is no number, in epoch {epoch + 1} by step {step + 1}; {epoch} finished epochs are kept",
                f"a lower learning rate helps most often: -O lr={self.recipe.lr / 10:g}{options}"
                + (" (other values need another -o, or --no-resume)" if epoch else ""),
            )
