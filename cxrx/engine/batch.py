"""The work on one batch of films: predict, check against what is stored, explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxrx.engine.estimate import Estimate
from cxrx.engine.ledger import Ledger
from cxrx.engine.options import MethodRequest, RunOptions
from cxrx.engine.report import RunReport, map_arrays
from cxrx.engine.targets import choose_targets
from cxrx.errors import CxrxError, PluginError
from cxrx.explainers.run import run_explainer
from cxrx.explainers.seeds import derive_seed
from cxrx.explainers.steps import share_done, watched
from cxrx.explainers.targets import EMPTY
from cxrx.models.inference import predict_logits
from cxrx.models.model import Model
from cxrx.reading.prepare import Prepared
from cxrx.reading.record import ImageRecord
from cxrx.specs import Explainer, Maps

SAME_LOGITS = {"fp32": 1e-4, "bf16": 0.1}
"""How far a film's logits may move when it is read again; bf16 rounds by the shape of the batch."""
CHEAP = 50
"""Evaluations at 224 px for which a method may take a whole batch in one call."""


@dataclass(frozen=True)
class PredictedFilm:
    """A film of a batch after its prediction.

    Attributes
    ----------
    x
        ``(C, H, W)``, the model's input.
    score
        ``(K,)``, what is explained.
    targets
        Indices of the findings to explain.
    """

    prepared: Prepared
    x: torch.Tensor
    score: NDArray[np.float32]
    targets: list[int]


@dataclass
class BatchWorker:
    """Predicts and explains batches with one model.

    Attributes
    ----------
    methods, explainers
        By the key under which their maps are stored.
    batch_size
        Every forward pass of a prediction has this many films.
    estimate
        Is told what there is to do, and what it took.
    labels
        What truth says of a film.
    """

    model: Model
    methods: dict[str, MethodRequest]
    explainers: dict[str, Explainer]
    options: RunOptions
    ledger: Ledger
    report: RunReport
    batch_size: int
    estimate: Estimate
    labels: Callable[[ImageRecord], Mapping[str, int]]
    explained: Model = field(init=False)
    """The model with what is explained as its output."""
    cost: dict[str, list[float]] = field(default_factory=dict, init=False)
    """Method to [seconds, maps] of this process; the reports turn it into seconds a map."""

    def __post_init__(self) -> None:
        self.explained = self.model.explaining(self.options.score)

    def process(self, batch: Sequence[Prepared]) -> None:
        """Predict and explain up to `batch_size` films."""
        if not batch:
            return
        x = self.model.prepare(torch.from_numpy(np.stack([film.pixels for film in batch])))  # (b, C, H, W)
        # where the raw logit is explained, one pass gives what is stored as well
        seen_as = self.explained if self.methods and self.options.score == "logit" else self.model
        try:
            outputs = predict_logits(seen_as, x, self.batch_size, self.options.dtype)
        except torch.cuda.OutOfMemoryError:
            for film in batch:
                self._fail(film, "predict", "out-of-memory", "one film does not fit")
            return
        logits, scores = self.model.scored(outputs), self.explained.scored(outputs).numpy()
        films = []
        for i, (film, logit, probability) in enumerate(
            zip(batch, logits.numpy(), self.model.probabilities(logits).numpy(), strict=True)
        ):
            if self._predicted(film, logit, probability):
                targets = self._targets(film, probability) if self.methods else []
                films.append(PredictedFilm(film, x[i], scores[i], targets))
        work = {key: self._lacking(key, films) for key in self.methods}
        self.estimate.batch(len(batch), {key: self._units(key, lacking) for key, lacking in work.items()})
        for key, lacking in work.items():
            self._explain(key, lacking)

    def _fail(self, film: Prepared, stage: str, code: str, message: str, method: str = "") -> None:
        self.report.fail(film.record.link.relative, film.image_id, stage, code, message, method)

    def _predicted(self, film: Prepared, logit: NDArray[np.float32], probability: NDArray[np.float32]) -> bool:
        """Store or check a film's prediction; return whether the film may be explained."""
        if not np.isfinite(logit).all():
            self._fail(film, "predict", "not-finite", "the model returned NaN or infinite logits")
            return False
        stored = self.ledger.logit.get(film.image_id)
        if stored is not None:
            moved = float(np.abs(stored - logit).max())
            if moved > SAME_LOGITS[self.options.dtype]:
                message = f"its logits moved by {moved:.2g} since the prediction: not the same input or software"
                for key in self.methods:
                    self._fail(film, "explain", "not-reproduced", message, key)
                return False
        elif not self.ledger.predicted(film.image_id):
            row: dict[str, NDArray[Any]] = {"logit": logit, "probability": probability, "affine": film.affine}
            self.report.prediction(film.image_id, row)
        return True

    def _targets(self, film: Prepared, probability: NDArray[np.float32]) -> list[int]:
        model = self.model
        labels = self.labels(film.record)
        return choose_targets(self.options.targets, model.labels, probability, labels, model.thresholds)

    def _lacking(self, key: str, films: Sequence[PredictedFilm]) -> list[PredictedFilm]:
        """Return the `films` that still lack maps of the method `key`, with the findings of these."""
        work: list[PredictedFilm] = []
        for film in films:
            done = self.ledger.mapped(film.prepared.image_id, key)
            targets = [k for k in film.targets if self.model.labels[k] not in done]
            if targets and not self.ledger.map_failed(film.prepared.image_id, key):
                work.append(replace(film, targets=targets))
        return work

    def _units(self, key: str, films: Sequence[PredictedFilm]) -> int:
        """Return how much work `films` are: maps, or films where all findings of a film come from one sweep."""
        spec = self.methods[key].spec
        each = "gradients" in spec.needs and spec.per_finding
        return sum(len(film.targets) for film in films) if each else len(films)

    def _explain(self, key: str, work: Sequence[PredictedFilm]) -> None:
        """Explain the findings of the films `work`."""
        step = self._films_a_call(self.methods[key])
        for first in range(0, len(work), step):
            part = work[first : first + step]
            units = self._units(key, part)
            with watched() as loops:
                self.estimate.begin(key, len(part), units, partial(share_done, loops))
                pieces = self._call(key, part, step)
            spent = self.cost.setdefault(key, [0.0, 0])
            spent[0] += self.estimate.end(key, units)
            spent[1] += sum(len(film.targets) for film in part)
            self._store(key, part, pieces)

    def _call(self, key: str, work: Sequence[PredictedFilm], size: int) -> list[Maps]:
        """Run the method on up to `size` films at once; no maps where memory runs out even for one film."""
        width = max(len(film.targets) for film in work)
        targets = torch.tensor([film.targets + [EMPTY] * (width - len(film.targets)) for film in work])  # (b, T)
        name = self.methods[key].spec.name
        seeds = torch.tensor([derive_seed(self.options.seed, name, film.prepared.image_id) for film in work])
        x = torch.stack([film.x for film in work])  # (b, C, H, W)
        try:
            return run_explainer(self.explained, self.explainers[key], x, targets, seeds, size)
        except torch.cuda.OutOfMemoryError:
            for film in work:
                self._fail(film.prepared, "explain", "out-of-memory", "one film does not fit", key)
            return []
        except CxrxError:
            raise
        except Exception as error:
            raise PluginError(f"the method {key} broke down: {type(error).__name__}: {error}") from error

    def _store(self, key: str, work: Sequence[PredictedFilm], pieces: Sequence[Maps]) -> None:
        if not pieces:
            return
        values = torch.cat([piece.values for piece in pieces]).numpy()  # (size, T, h, w)
        extras = {name: torch.cat([piece.extras[name] for piece in pieces]).numpy() for name in pieces[0].extras}
        for i, film in enumerate(work):
            T = len(film.targets)
            if not np.isfinite(values[i, :T]).all():
                self._fail(film.prepared, "explain", "not-finite", f"{key} gave NaN", key)
                continue
            own = {name: array[i, :T] for name, array in extras.items()}
            arrays = map_arrays(values[i, :T], film.score[film.targets], own)
            self.report.maps(key, film.prepared.image_id, film.targets, arrays)

    def _films_a_call(self, method: MethodRequest) -> int:
        """Return how many films one call explains: fewer for dear methods, so that little is lost on a stop.

        A rule, not a measurement: the same run must have the same shapes on every day.
        """
        height, width = self.model.input.size
        cost = method.evaluations * height * width / 224**2
        return int(np.clip(CHEAP * self.batch_size / max(cost, 1.0), 1, self.batch_size))
