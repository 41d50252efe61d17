"""One picture with its maps, and how the model's answers about it are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from cxrx.explainers.baselines import make_baseline
from cxrx.explainers.option_types import Baseline
from cxrx.explainers.seeds import derive_seed
from cxrx.metrics.geometry import Float
from cxrx.metrics.perturbation import Ranks, normalise, rank, upsample
from cxrx.models.model import Model
from cxrx.specs import Score


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
    def relevance(self) -> list[Float]:
        """Return the maps on the pixels of the input, ``(H, W)`` each."""
        return [upsample(values, self.size) for values in self.maps]

    @cached_property
    def ranks(self) -> list[Ranks]:
        """Return the order of the pixels of every map, ``(H, W)``; ties fall the same way in all of them."""
        return [rank(values, self.derive("ties")) for values in self.relevance]

    def derive(self, what: str) -> int:
        """Return a seed for one purpose."""
        return derive_seed(self.seed, "faithfulness", what)

    def tensor(self, values: NDArray[np.generic]) -> torch.Tensor:
        """Return an array on the picture's device."""
        return torch.from_numpy(values).to(self.picture.device)

    def replaced(
        self, order: NDArray[np.integer], taken: list[int], first: torch.Tensor, then: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Yield, for every n in `taken`, the n first pixels in `order` ``(H, W)`` of `first`, the others of `then`.

        Parameters
        ----------
        order
            ``(H, W)`` place of each pixel in the order.
        taken
            How many pixels of `first` each picture has.
        first, then
            ``(C, H, W)``.
        """
        places = self.tensor(order)
        for n in taken:
            yield torch.where(places < n, first, then)


@dataclass(frozen=True)
class Explained:
    """One map (index into the maps of the case), and the logit that it explains."""

    map: int
    target: int


@dataclass(frozen=True)
class Response:
    """How one finding answers to changes of the picture: what was explained, f, and its probability.

    Attributes
    ----------
    f, p
        ``(S,)`` at every step.
    full, baseline
        (f, p) of the picture and of the baseline.
    """

    f: Float
    p: Float
    full: tuple[float, float]
    baseline: tuple[float, float]

    def scores(self, name: str, reduce: Callable[[Float], float]) -> dict[str, float]:
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


@dataclass(frozen=True)
class References:
    """Logits ``(K,)`` of the picture itself and of its baselines, and the score of them that is measured."""

    model: Model
    score: Score
    full: torch.Tensor
    baselines: dict[Baseline, torch.Tensor]

    def response(self, logits: torch.Tensor, kind: Baseline, of: Explained) -> Response:
        """Read the logits ``(S, K)`` of the changed pictures for one finding."""
        every = torch.cat([logits, self.full[None], self.baselines[kind][None]])
        parts = self.scored(every), self.model.probabilities(every)
        f, p = (part[:, of.target].double().numpy() for part in parts)
        return Response(f[:-2], p[:-2], (float(f[-2]), float(p[-2])), (float(f[-1]), float(p[-1])))

    def scored(self, logits: torch.Tensor) -> torch.Tensor:
        """Return what is explained, ``(S, K)``, of logits ``(S, K)``."""
        return self.model.explaining(self.score).scored(logits)

    def response_between(self, logits: torch.Tensor, kind: Baseline, of: Explained, *, shown: bool = False) -> Response:
        """Read a curve whose ends are the picture and the baseline (`shown`: the other way), which all maps share.

        Parameters
        ----------
        logits
            ``(n, K)`` of the pictures between the ends.
        kind
            The baseline.
        of
            What the map explains.
        shown
            Whether the curve begins at the baseline.
        """
        ends = [self.full[None], self.baselines[kind][None]]
        start, end = ends[::-1] if shown else ends
        return self.response(torch.cat([start, logits, end]), kind, of)


Curves: TypeAlias = dict[str, tuple[Float, Float]]
"""Curve to ``(x (S,), f (S,))``: the logit explained at each share x of changed pixels."""
Scored: TypeAlias = tuple[dict[str, float], Curves]
Read: TypeAlias = Callable[[torch.Tensor, References, Explained], Scored]
"""Turns the logits ``(n, K)`` of all changed pictures into scores and curves of one map and logit."""
Asked: TypeAlias = tuple[Iterator[torch.Tensor], Read]
