"""One picture with its maps, what is asked of the model about it, and what the answers say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from cxrx.compare.faithfulness.conventions import FloatArray, Settings, normalise
from cxrx.explainers.baselines import make_baseline
from cxrx.explainers.option_types import Baseline
from cxrx.explainers.seeds import derive_seed
from cxrx.metrics.order import Ranks, rank, spread
from cxrx.models.model import Model


@dataclass(frozen=True)
class Case:
    """One picture, and its different maps.

    Attributes
    ----------
    picture
        ``(C, H, W)`` prepared, on the model's device.
    maps
        The different maps ``(h, w)`` of it that are finite.
    seed
        All that is random about it comes from here.
    """

    model: Model
    picture: torch.Tensor
    maps: list[NDArray[np.generic]]
    seed: int
    settings: Settings
    _baselines: dict[Baseline, torch.Tensor] = field(default_factory=dict)

    def baseline(self, kind: Baseline) -> torch.Tensor:
        """Return the baseline ``(C, H, W)``, of this picture alone: a product's last bit depends on its shape."""
        if kind not in self._baselines:
            self._baselines[kind] = make_baseline(self.model, self.picture[None], kind)[0]
        return self._baselines[kind]

    @property
    def size(self) -> tuple[int, int]:
        """Return ``(H, W)``."""
        return self.picture.shape[1], self.picture.shape[2]

    @cached_property
    def relevance(self) -> list[FloatArray]:
        """Return the maps on the pixels of the input, ``(H, W)`` each."""
        return [spread(values, self.size) for values in self.maps]

    @cached_property
    def ranks(self) -> list[Ranks]:
        """Return the order of the pixels of every map, ``(H, W)``; ties fall the same way in all of them."""
        return [rank(values, self.derive("ties")) for values in self.relevance]

    def derive(self, what: str) -> int:
        """Return a seed for one purpose."""
        return derive_seed(self.seed, "faithfulness", what)


@dataclass(frozen=True)
class References:
    """Logits ``(K,)`` of the picture itself and of its baselines."""

    full: torch.Tensor
    baselines: dict[Baseline, torch.Tensor]


@dataclass(frozen=True)
class Pair:
    """One map (index into the maps of the case) and the logit that it explains."""

    map: int
    target: int


@dataclass(frozen=True)
class Answer:
    """Scores of one pair, and its curves ``(x (S,), f (S,))``."""

    scores: dict[str, float]
    curves: dict[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """Changed pictures ``(C, H, W)``, and how to read the logits ``(n, K)`` of them for one pair.

    `read` holds on to nothing large: it is kept until all pictures have been run.
    """

    pictures: Iterator[torch.Tensor]
    read: Callable[[torch.Tensor, References, Pair], Answer]


@dataclass(frozen=True)
class Response:
    """How one finding answers to changes of the picture: the logit f, and its probability.

    Attributes
    ----------
    f, p
        ``(S,)`` at every step.
    full, baseline
        (f, p) of the picture and of the baseline.
    """

    f: FloatArray
    p: FloatArray
    full: tuple[float, float]
    baseline: tuple[float, float]

    @classmethod
    def of(cls, model: Model, logits: torch.Tensor, references: References, kind: Baseline, target: int) -> Response:
        """Read the logits ``(S, K)`` of the changed pictures for one finding."""
        every = torch.cat([logits, references.full[None], references.baselines[kind][None]])
        f, p = (part[:, target].double().numpy() for part in (every, model.probabilities(every)))
        return cls(f[:-2], p[:-2], (float(f[-2]), float(p[-2])), (float(f[-1]), float(p[-1])))

    def scores(self, name: str, reduce: Callable[[FloatArray], float]) -> dict[str, float]:
        """Return `reduce` of the logit, of the probability, and of the logit on a scale from baseline to picture."""
        normalised = normalise(self.f, np.array(self.full[0]), np.array(self.baseline[0]))
        return {
            name: reduce(self.f),
            f"{name}_probability": reduce(self.p),
            f"{name}_normalised": reduce(normalised),
        }

    def baseline_share(self) -> float:
        """Return p(baseline) / p(x); NaN where p(x) is 0."""
        return self.baseline[1] / self.full[1] if self.full[1] > 0 else float("nan")
