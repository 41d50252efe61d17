"""Everything that is asked about a batch, run in one sweep of forward passes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cxrx.compare.faithfulness import DEFAULT, FAMILIES
from cxrx.compare.faithfulness.case import Case, Curves, Explained, Read, References
from cxrx.compare.faithfulness.family import Family
from cxrx.errors import UsageError
from cxrx.explainers.guard import guard
from cxrx.explainers.sweep import sweep, sweep_rows
from cxrx.explainers.targets import EMPTY
from cxrx.metrics.geometry import Float
from cxrx.metrics.perturbation import normalise
from cxrx.models.model import Model
from cxrx.specs import Score


@dataclass(frozen=True)
class Faithfulness:
    """Scores and curves of a batch.

    Attributes
    ----------
    scores
        Score to ``(B, T)``; NaN where the target is empty.
    curves
        Curve to ``(x (S,), f (B, T, S))``: the logit explained at each share x of changed pixels. Curves:
        ``deletion`` (pixels removed), ``insertion`` (pixels shown), ``road_morf``, ``road_lerf``, ``aopc_morf``,
        ``aopc_lerf``.
    full
        ``(B, T)``, f of the picture itself.
    baselines
        Curve to ``(B, T)``: f of the baseline that belongs to it.
    """

    scores: dict[str, Float]
    curves: Curves
    full: Float
    baselines: dict[str, Float] = field(default_factory=dict)

    def update(self, other: Faithfulness) -> None:
        """Add the scores and curves of other families on the same maps."""
        self.scores.update(other.scores)
        self.curves.update(other.curves)
        self.baselines.update(other.baselines)

    def normalised(self, curve: str) -> tuple[Float, Float]:
        """Return x ``(S,)`` and (f - f(baseline)) / (f(x) - f(baseline)) ``(B, T, S)``, unclipped.

        NaN where f(x) - f(baseline) is below 0.1: the picture then holds no evidence that could be shared out.
        """
        x, f = self.curves[curve]
        return x, normalise(f, self.full[..., None], self.baselines[curve][..., None])


def score_faithfulness(
    model: Model,
    x: Any,
    maps: ArrayLike,
    targets: ArrayLike,
    metrics: Sequence[str | Family] = DEFAULT,
    *,
    seeds: ArrayLike,
    score: Score = "log-odds",
) -> Faithfulness:
    """Score maps against the behaviour of `model` on changed pictures.

    Parameters
    ----------
    model
        A wrapped classifier.
    x
        ``(B, C, H, W)`` float32 tensor of prepared pictures.
    maps
        ``(B, T, h, w)`` values in the published form, on any grid that covers the input; resized to ``(H, W)``
        bilinearly with ``align_corners=False``. Columns of several methods may stand side by side along T: equal maps
        of a picture then share their passes, and sensitivity-n and infidelity cost the same for any T.
    targets
        ``(B, T)`` int64, indices of logits; -1 is empty.
    metrics
        Families, or names of built-in ones or of their scores; a score brings its whole family.
    seeds
        ``(B,)`` int64, one a picture: ties, noise and subsets depend on this and nothing else.
    score
        What f is, see :func:`cxrx.explain`: best what the maps explain.

    Returns
    -------
    Faithfulness
        NaN where the target is empty or the map holds a NaN or an infinity.

    Raises
    ------
    UsageError
        A shape does not fit, a target is no output of the model, or a metric is unknown.

    Notes
    -----
    A picture's numbers depend neither on the pictures beside it nor on the other columns: all passes have the same
    number of rows. A constant map names no order, and is scored in a random one.
    """
    families = find_families(metrics)
    pictures, values, wanted, drawn = _check(model, x, maps, targets, seeds)
    # raw logits tell the log-odds as well
    seen_as = model.explaining("logit") if model.score or score == "logit" else model
    batch = _Batch(seen_as, score, pictures, values, wanted, drawn, families)
    with guard(model.module):
        logits = batch.run()
    return batch.read(logits)


def find_families(metrics: Sequence[str | Family]) -> list[Family]:
    """Return the families that give `metrics`, each once, in the order of the tables.

    Raises
    ------
    UsageError
        A name is neither a family nor a score.
    """
    found: list[Family] = []
    for metric in metrics:
        family = metric if isinstance(metric, Family) else None
        family = family or next((known for known in FAMILIES if metric == known.name or metric in known.measures), None)
        if family is None:
            names = ", ".join(known.name for known in FAMILIES)
            raise UsageError(f"there is no faithfulness metric {metric!r}", f"known: {names}")
        if family not in found:
            found.append(family)
    places = [known.name for known in FAMILIES]
    return sorted(found, key=lambda family: places.index(family.name) if family.name in places else len(places))


def _check(
    model: Model, x: Any, maps: ArrayLike, targets: ArrayLike, seeds: ArrayLike
) -> tuple[torch.Tensor, NDArray[np.generic], NDArray[np.int64], list[int]]:
    pictures = torch.as_tensor(x).detach().to(model.device, torch.float32)
    values, wanted, drawn = (
        np.asarray(part.detach().cpu() if isinstance(part, torch.Tensor) else part) for part in (maps, targets, seeds)
    )
    B = len(pictures)
    if (
        pictures.ndim != 4
        or wanted.ndim != 2
        or values.ndim != 4
        or values.shape[:2] != wanted.shape
        or 0 in values.shape
    ):
        raise UsageError(
            "faithfulness takes pictures (B, C, H, W), maps (B, T, h, w) and targets (B, T), not "
            f"{tuple(pictures.shape)}, {values.shape} and {wanted.shape}"
        )
    if len(wanted) != B or drawn.shape != (B,):
        raise UsageError(f"there are {B} pictures, targets of {len(wanted)} and seeds {drawn.shape}")
    if not bool(pictures.isfinite().all()):
        raise UsageError("the pictures hold values that are not finite")
    if wanted.min(initial=EMPTY) < EMPTY or wanted.max(initial=EMPTY) >= len(model.labels):
        raise UsageError(f"targets are indices of {len(model.labels)} findings, or -1 for none")
    return pictures, values, wanted.astype(np.int64), [int(seed) for seed in drawn]


class _Batch:
    """Pictures with maps; changes them while the model runs, and reads its answers afterwards."""

    def __init__(
        self,
        model: Model,
        score: Score,
        x: torch.Tensor,
        maps: NDArray[np.generic],
        targets: NDArray[np.int64],
        seeds: list[int],
        families: list[Family],
    ) -> None:
        self.model, self.score, self.x, self.maps, self.targets, self.seeds = model, score, x, maps, targets, seeds
        self.families = families
        self.kinds = list(dict.fromkeys(family.baseline for family in families if family.baseline))
        self._explained: list[list[tuple[int, Explained]]] = []  # of each picture: (column, what is explained)
        self._readers: list[list[tuple[int, Family, Read]]] = []  # of each picture: (rows, family, reader)

    def run(self) -> torch.Tensor:
        """Return the logits ``(N, K)`` of all changed pictures, on the CPU."""
        rows = sweep_rows(self.model.device)
        stream = self._pictures()
        batches = iter(lambda: list(itertools.islice(stream, rows)), [])
        found = list(sweep(self.model, map(torch.stack, batches), rows, "fp32"))
        return torch.cat(found).cpu() if found else torch.empty(0, len(self.model.labels))

    def _pictures(self) -> Iterator[torch.Tensor]:
        for b in range(len(self.x)):
            different, explained = _different(self.maps[b], self.targets[b])
            self._explained.append(explained)
            self._readers.append([])
            if not explained:
                continue
            case = Case(self.model, self.x[b], different, self.seeds[b])
            yield case.picture
            yield from (case.baseline(kind) for kind in self.kinds)
            for family in self.families:
                pictures, reader = family.perturb(case)
                count = 0
                for picture in pictures:
                    yield picture
                    count += 1
                self._readers[b].append((count, family, reader))

    def read(self, logits: torch.Tensor) -> Faithfulness:
        """Return what the `logits` of all pictures say."""

        def empty(*more: int) -> Float:
            return np.full((*self.targets.shape, *more), np.nan)

        found = Faithfulness({name: empty() for family in self.families for name in family.measures}, {}, empty())
        ends = {kind: empty() for kind in self.kinds}
        start = 0
        for b, explained in enumerate(self._explained):
            if not explained:
                continue
            own = logits[start : start + 1 + len(self.kinds)]
            start += len(own)
            references = References(self.model, self.score, own[0], dict(zip(self.kinds, own[1:], strict=True)))
            for t, of in explained:
                found.full[b, t], *at_baselines = references.scored(own)[:, of.target]
                for end, value in zip(ends.values(), at_baselines, strict=True):
                    end[b, t] = value
            for count, family, reader in self._readers[b]:
                for t, of in explained:
                    scores, curves = reader(logits[start : start + count], references, of)
                    for name, value in scores.items():
                        found.scores[name][b, t] = value
                    for name, (x, f) in curves.items():
                        if family.baseline:  # where a curve ends
                            found.curves.setdefault(name, (x, empty(len(x))))[1][b, t] = f
                            found.baselines[name] = ends[family.baseline]
                start += count
        return found


def _different(maps: NDArray[np.generic], targets: NDArray[np.int64]) -> tuple[list[Any], list[tuple[int, Explained]]]:
    """Return the different finite maps ``(h, w)`` of one picture, and (column, map and logit) of every finding asked.

    Controls that never look at the model have one map for all findings, and need their passes only once.
    """
    different: list[NDArray[np.generic]] = []
    known: dict[bytes, int] = {}
    explained = []
    for t, target in enumerate(targets.tolist()):
        if target == EMPTY or not np.isfinite(maps[t]).all():
            continue
        index = known.setdefault(maps[t].tobytes(), len(different))
        if index == len(different):
            different.append(maps[t])
        explained.append((t, Explained(index, target)))
    return different, explained
