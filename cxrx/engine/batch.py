"""The work on one batch of films: predict, check against what is stored, explain."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from cxrx.engine.intake import FilmAtWork
from cxrx.engine.ledger import Ledger
from cxrx.engine.options import MethodRequest, RunOptions
from cxrx.engine.part_builder import MapRow, PredictionRow
from cxrx.engine.progress import duration
from cxrx.engine.recorder import Recorder
from cxrx.engine.targets import choose_targets
from cxrx.errors import CxrxError, PluginError
from cxrx.explainers.run import run_explainer
from cxrx.explainers.seeds import derive_seed
from cxrx.explainers.targets import EMPTY
from cxrx.models.inference import predict_logits
from cxrx.models.model import Model
from cxrx.specs import Explainer, Maps

log = logging.getLogger("cxrx")

WORTH_AN_ESTIMATE = 10.0  # seconds
SAME_LOGITS = {"fp32": 1e-4, "bf16": 0.1}
"""How far a film's logits may move when it is read again; bf16 rounds by the shape of the batch."""
CHEAP = 50
"""Evaluations at 224 px for which a method may take a whole batch in one call."""

Work = tuple[FilmAtWork, torch.Tensor, list[int]]
"""A film, its input (C, H, W), and the findings to explain."""


@dataclass
class BatchWorker:
    """Predicts and explains batches with one model.

    Attributes
    ----------
    methods, explainers
        By the key under which their maps are stored.
    batch_size
        Every forward pass of a prediction has this many films.
    total
        Films of the whole run, for the estimate.
    """

    model: Model
    methods: dict[str, MethodRequest]
    explainers: dict[str, Explainer]
    options: RunOptions
    ledger: Ledger
    recorder: Recorder
    batch_size: int
    total: int
    announced: bool = field(default=False, init=False)
    cost: dict[str, list[float]] = field(default_factory=dict, init=False)
    """Method to [seconds, maps] of this process; the reports turn it into seconds a map."""

    def process(self, batch: Sequence[FilmAtWork]) -> None:
        """Predict and explain up to `batch_size` films."""
        if not batch:
            return
        begun = time.monotonic()
        x = self.model.prepare(torch.from_numpy(np.stack([film.prepared.pixels for film in batch])))  # (b, C, H, W)
        try:
            logits = predict_logits(self.model, x, self.batch_size, self.options.dtype)
        except torch.cuda.OutOfMemoryError:
            for film in batch:
                self.recorder.fail(film.item, film.image_id, "predict", "out-of-memory", "one film does not fit")
            return
        probabilities = self.model.probabilities(logits)
        for film, logit, probability in zip(batch, logits.numpy(), probabilities.numpy(), strict=True):
            film.logit, film.probability = logit, probability
        sound = [(film, x[i]) for i, film in enumerate(batch) if self._predicted(film)]
        if self.methods and not self.announced:
            self._announce(batch, (time.monotonic() - begun) / self.batch_size)
        for key in self.methods:
            self._explain(key, sound)

    def _predicted(self, film: FilmAtWork) -> bool:
        """Store or check a film's prediction; return whether the film may be explained."""
        if not np.isfinite(film.logit).all():
            message = "the model returned NaN or infinite logits"
            self.recorder.fail(film.item, film.image_id, "predict", "not-finite", message)
            return False
        stored = self.ledger.base.logit.get(film.image_id)
        if stored is not None:
            moved = float(np.abs(stored - film.logit).max())
            if moved > SAME_LOGITS[self.options.dtype]:
                message = f"its logits moved by {moved:.2g} since the prediction: not the same input or software"
                for key in self.methods:
                    self.recorder.fail(film.item, film.image_id, "explain", "not-reproduced", message, key)
                return False
        elif not self.ledger.predicted(film.image_id):
            row = PredictionRow(film.image_id, film.logit, film.probability, film.prepared.affine)
            self.recorder.builder.predictions.append(row)
        return True

    def _targets(self, film: FilmAtWork) -> list[int]:
        model = self.model
        return choose_targets(self.options.targets, model.labels, film.probability, film.labels, model.thresholds)

    def _explain(self, key: str, films: Sequence[tuple[FilmAtWork, torch.Tensor]]) -> None:
        """Explain the findings of `films` that still lack a map of the method `key`."""
        work: list[Work] = []
        for film, x in films:
            done = self.ledger.mapped(film.image_id, key)
            targets = [k for k in self._targets(film) if self.model.labels[k] not in done]
            if targets and not self.ledger.map_failed(film.image_id, key):
                work.append((film, x, targets))
        step = self._films_a_call(self.methods[key])
        for first in range(0, len(work), step):
            part = work[first : first + step]
            begun = time.monotonic()
            pieces = self._call(key, part, step)
            spent = self.cost.setdefault(key, [0.0, 0])
            spent[0] += time.monotonic() - begun
            spent[1] += sum(len(targets) for _, _, targets in part)
            self._store(key, part, pieces)

    def _call(self, key: str, work: Sequence[Work], size: int) -> list[Maps]:
        """Run the method on up to `size` films at once; no maps where memory runs out even for one film."""
        width = max(len(chosen) for _, _, chosen in work)
        targets = torch.tensor([chosen + [EMPTY] * (width - len(chosen)) for _, _, chosen in work])  # (b, T)
        name = self.methods[key].spec.name
        seeds = torch.tensor([derive_seed(self.options.seed, name, film.image_id) for film, _, _ in work])
        x = torch.stack([x for _, x, _ in work])  # (b, C, H, W)
        try:
            return run_explainer(self.model, self.explainers[key], x, targets, seeds, size)
        except torch.cuda.OutOfMemoryError:
            for film, _, _ in work:
                self.recorder.fail(film.item, film.image_id, "explain", "out-of-memory", "one film does not fit", key)
            return []
        except CxrxError:
            raise
        except Exception as error:
            raise PluginError(f"the method {key} broke down: {type(error).__name__}: {error}") from error

    def _store(self, key: str, work: Sequence[Work], pieces: Sequence[Maps]) -> None:
        if not pieces:
            return
        values = torch.cat([piece.values for piece in pieces]).numpy()  # (size, T, h, w)
        extras = {name: torch.cat([piece.extras[name] for piece in pieces]).numpy() for name in pieces[0].extras}
        for i, (film, _, chosen) in enumerate(work):
            T = len(chosen)
            if not np.isfinite(values[i, :T]).all():
                self.recorder.fail(film.item, film.image_id, "explain", "not-finite", f"{key} gave NaN", key)
                continue
            own = {name: array[i, :T] for name, array in extras.items()}
            row = MapRow(film.image_id, chosen, values[i, :T], film.logit[chosen], own)
            self.recorder.builder.maps.setdefault(key, []).append(row)

    def _films_a_call(self, method: MethodRequest) -> int:
        """Return how many films one call explains: fewer for dear methods, so that little is lost on a stop.

        A rule, not a measurement: the same run must have the same shapes on every day.
        """
        height, width = self.model.input.size
        cost = method.evaluations * height * width / 224**2
        return int(np.clip(CHEAP * self.batch_size / max(cost, 1.0), 1, self.batch_size))

    def _announce(self, batch: Sequence[FilmAtWork], seconds_a_film: float) -> None:
        """Estimate the run from its first batch: an evaluation with its backward costs about three forwards."""
        self.announced = True
        evaluations = sum(method.evaluations for method in self.methods.values())
        findings = sum(len(self._targets(film)) for film in batch) / len(batch)
        seconds = self.total * seconds_a_film * (1 + 3 * evaluations * findings)
        if seconds > WORTH_AN_ESTIMATE:
            log.info("at most about %s for %d films with %.1f findings each", duration(seconds), self.total, findings)
