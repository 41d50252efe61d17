"""AOPC (Samek et al. 2017) and degradation (Schulz et al. 2020): tiles are replaced in the order of the map."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from cxrx.compare.faithfulness.case import Answer, Case, Pair, Question, References, Response
from cxrx.compare.faithfulness.conventions import FloatArray
from cxrx.compare.faithfulness.curves import area
from cxrx.explainers.option_types import Baseline
from cxrx.metrics.order import counts, rank
from cxrx.models.model import Model


def ask_tiles(case: Case) -> Question:
    """Replace tiles by the baseline, the most relevant first and the least relevant first."""
    number = tiles(case.size, case.settings.tile)
    n = int(number[-1, -1]) + 1
    steps = min(case.settings.tile_steps, n)
    kind = case.settings.deletion_baseline
    taken = counts(n, steps)
    return Question(_pictures(case, number, taken[1:-1].tolist()), partial(_read, case.model, kind, taken / n))


def tiles(size: tuple[int, int], side: int) -> NDArray[np.int64]:
    """Return the number of each pixel's tile ``(H, W)``; all tiles are as nearly of `side` px at 224 px as fits."""
    wanted = max(1.0, side * min(size) / 224)
    down, across = (max(1, round(length / wanted)) for length in size)
    row, column = np.arange(size[0]) * down // size[0], np.arange(size[1]) * across // size[1]
    return row[:, None] * across + column


def _pictures(case: Case, number: NDArray[np.int64], taken: list[int]) -> Iterator[torch.Tensor]:
    baseline = case.baseline(case.settings.deletion_baseline)
    pixels = np.bincount(number.ravel())
    for relevance in case.relevance:
        places = rank(np.bincount(number.ravel(), relevance.ravel()) / pixels, case.derive("tiles"))
        for order in (places, places.size - 1 - places):
            on_pixels = torch.from_numpy(order[number]).to(case.picture.device)  # (H, W)
            for n in taken:
                yield torch.where(on_pixels < n, baseline, case.picture)


def _read(
    model: Model, kind: Baseline, x: FloatArray, logits: torch.Tensor, references: References, pair: Pair
) -> Answer:
    own = logits.view(-1, 2, len(x) - 2, logits.shape[1])[pair.map]
    ends = references.full[None], references.baselines[kind][None]
    morf, lerf = (
        Response.of(model, torch.cat([ends[0], part, ends[1]]), references, kind, pair.target) for part in own
    )
    scores = morf.scores("aopc", lambda f: float((f[0] - f).mean()))
    last, first = (response.scores("degradation", partial(area, x)) for response in (lerf, morf))
    scores |= {name: last[name] - first[name] for name in last}
    return Answer(scores, {"aopc_morf": (x, morf.f), "aopc_lerf": (x, lerf.f)})
