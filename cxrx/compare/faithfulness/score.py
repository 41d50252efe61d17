"""Everything that is asked about a batch, run in one sweep of forward passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cxrx.compare.faithfulness.captum_scores import ask_infidelity
from cxrx.compare.faithfulness.case import Answer, Case, Pair, Question, References
from cxrx.compare.faithfulness.conventions import FAMILIES, METRICS, Faithfulness, FloatArray, Settings
from cxrx.compare.faithfulness.curves import ask_deletion, ask_insertion
from cxrx.compare.faithfulness.road import ask_road
from cxrx.compare.faithfulness.superpixels import ask_sensitivity_n
from cxrx.compare.faithfulness.tiles import ask_tiles
from cxrx.errors import UsageError
from cxrx.explainers.guard import guard
from cxrx.explainers.sweep import sweep, sweep_rows
from cxrx.explainers.targets import EMPTY
from cxrx.models.model import Model

ASK: dict[str, Callable[[Case], Question]] = {
    "deletion": ask_deletion,
    "insertion": ask_insertion,
    "road": ask_road,
    "aopc": ask_tiles,
    "sensitivity_n": ask_sensitivity_n,
    "infidelity": ask_infidelity,
}


def score(
    model: Model,
    x: Any,
    maps: ArrayLike,
    targets: ArrayLike,
    metrics: Sequence[str],
    seeds: ArrayLike,
    settings: Settings,
) -> Faithfulness:
    """Score maps; see :func:`cxrx.compare.faithfulness.score_faithfulness`."""
    families = find_families(metrics)
    pictures, values, wanted, drawn = _check(model, x, maps, targets, seeds)
    batch = _Batch(model, pictures, values, wanted, drawn, families, settings)
    with guard(model.module):
        logits = batch.run()
    return batch.read(logits)


def find_families(metrics: Sequence[str]) -> list[str]:
    """Return the families that give `metrics`, each once, in the order of the tables.

    Raises
    ------
    UsageError
        A name is neither a family nor a score.
    """
    unknown = [name for name in metrics if name not in FAMILIES and name not in METRICS]
    if unknown:
        raise UsageError(f"there is no faithfulness metric {unknown[0]!r}; there are {', '.join(FAMILIES)}")
    return [family for family, scores in FAMILIES.items() if any(name == family or name in scores for name in metrics)]


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
    """Pictures with maps; asks its questions while the model runs, and reads the answers afterwards."""

    def __init__(
        self,
        model: Model,
        x: torch.Tensor,
        maps: NDArray[np.generic],
        targets: NDArray[np.int64],
        seeds: list[int],
        families: list[str],
        settings: Settings,
    ) -> None:
        self.model, self.x, self.maps, self.targets, self.seeds = model, x, maps, targets, seeds
        self.families, self.settings = families, settings
        self.kinds = list(dict.fromkeys((settings.deletion_baseline, settings.insertion_baseline)))
        self._pairs: list[list[tuple[int, Pair]]] = []  # of each picture: (column, pair)
        self._readers: list[list[tuple[int, Callable[[torch.Tensor, References, Pair], Answer]]]] = []  # (rows, reader)

    def run(self) -> torch.Tensor:
        """Return the logits ``(N, K)`` of all changed pictures, on the CPU."""
        rows = sweep_rows(self.model.device)
        stream = self._pictures()
        batches = iter(lambda: list(itertools.islice(stream, rows)), [])
        found = list(sweep(self.model, map(torch.stack, batches), rows, "fp32"))
        return torch.cat(found).cpu() if found else torch.empty(0, len(self.model.labels))

    def _pictures(self) -> Iterator[torch.Tensor]:
        for b in range(len(self.x)):
            different, pairs = _different(self.maps[b], self.targets[b])
            self._pairs.append(pairs)
            self._readers.append([])
            if not pairs:
                continue
            case = Case(self.model, self.x[b], different, self.seeds[b], self.settings)
            yield case.picture
            yield from (case.baseline(kind) for kind in self.kinds)
            for family in self.families:
                question = ASK[family](case)
                count = 0
                for picture in question.pictures:
                    yield picture
                    count += 1
                self._readers[b].append((count, question.read))

    def read(self, logits: torch.Tensor) -> Faithfulness:
        """Return what the `logits` of all pictures say."""
        shape = self.targets.shape
        scores: dict[str, FloatArray] = {
            name: np.full(shape, np.nan) for family in self.families for name in FAMILIES[family]
        }
        curves: dict[str, tuple[FloatArray, FloatArray]] = {}
        full = np.full(shape, np.nan)
        ends = {kind: np.full(shape, np.nan) for kind in self.kinds}
        start = 0
        for b, pairs in enumerate(self._pairs):
            if not pairs:
                continue
            own = logits[start : start + 1 + len(self.kinds)]
            start += len(own)
            references = References(own[0], dict(zip(self.kinds, own[1:], strict=True)))
            for t, pair in pairs:
                full[b, t] = own[0, pair.target]
                for kind, end in ends.items():
                    end[b, t] = references.baselines[kind][pair.target]
            for count, reader in self._readers[b]:
                for t, pair in pairs:
                    _note(reader(logits[start : start + count], references, pair), scores, curves, (b, t))
                start += count
        kinds = dict.fromkeys(curves, self.settings.deletion_baseline)
        kinds |= {"insertion": self.settings.insertion_baseline} if "insertion" in curves else {}
        return Faithfulness(scores, curves, full, {name: ends[kind] for name, kind in kinds.items()})


def _different(maps: NDArray[np.generic], targets: NDArray[np.int64]) -> tuple[list[Any], list[tuple[int, Pair]]]:
    """Return the different finite maps ``(h, w)`` of one picture, and (column, pair) of every finding asked for.

    Controls that never look at the model have one map for all findings, and need their passes only once.
    """
    different: list[NDArray[np.generic]] = []
    known: dict[bytes, int] = {}
    pairs = []
    for t, target in enumerate(targets.tolist()):
        if target == EMPTY or not np.isfinite(maps[t]).all():
            continue
        index = known.setdefault(maps[t].tobytes(), len(different))
        if index == len(different):
            different.append(maps[t])
        pairs.append((t, Pair(index, target)))
    return different, pairs


def _note(
    answer: Answer,
    scores: dict[str, FloatArray],
    curves: dict[str, tuple[FloatArray, FloatArray]],
    place: tuple[int, int],
) -> None:
    shape = next(iter(scores.values())).shape
    for name, value in answer.scores.items():
        scores[name][place] = value
    for name, (x, f) in answer.curves.items():
        if name not in curves:
            curves[name] = (x, np.full((*shape, len(x)), np.nan))
        curves[name][1][place] = f
