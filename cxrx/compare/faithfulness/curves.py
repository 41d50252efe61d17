"""Deletion and insertion (Petsiuk et al. 2018): pixels go or come in the order of the map."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from cxrx.compare.faithfulness.case import Answer, Case, Pair, Question, References, Response
from cxrx.compare.faithfulness.conventions import FLAG_SHARE, FloatArray
from cxrx.explainers.option_types import Baseline
from cxrx.metrics.order import Ranks, counts
from cxrx.models.model import Model


def area(x: FloatArray, f: FloatArray) -> float:
    """Return the area under f over x by the trapezoid rule."""
    return float(np.trapezoid(f, x))


def ask_deletion(case: Case) -> Question:
    """Replace the most relevant pixels by the baseline, step by step."""
    kind = case.settings.deletion_baseline
    return _ask(case, kind, "deletion")


def ask_insertion(case: Case) -> Question:
    """Show the most relevant pixels on the baseline, step by step."""
    kind = case.settings.insertion_baseline
    return _ask(case, kind, "insertion")


def _ask(case: Case, kind: Baseline, name: str) -> Question:
    taken = counts(case.size[0] * case.size[1], case.settings.steps)
    picture, baseline = case.picture, case.baseline(kind)
    first, then = (baseline, picture) if name == "deletion" else (picture, baseline)
    pictures = _pictures(case.ranks, taken[1:-1].tolist(), first, then)
    x = taken / taken[-1]
    return Question(pictures, partial(_read, case.model, name, kind, x))


def _pictures(ranks: list[Ranks], taken: list[int], first: torch.Tensor, then: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield, map by map, the pictures with the n first pixels of `first` and the others of `then`."""
    for places in ranks:
        order = torch.from_numpy(places).to(first.device)
        for n in taken:
            yield torch.where(order < n, first, then)


def _read(  # the ends of the curve are the picture and the baseline, which all maps share
    model: Model, name: str, kind: Baseline, x: FloatArray, logits: torch.Tensor, references: References, pair: Pair
) -> Answer:
    inner = len(x) - 2
    own = logits[pair.map * inner : (pair.map + 1) * inner]
    ends = references.full[None], references.baselines[kind][None]
    start, end = ends if name == "deletion" else ends[::-1]
    response = Response.of(model, torch.cat([start, own, end]), references, kind, pair.target)
    share = response.baseline_share()
    prefix = "" if name == "deletion" else "insertion_"
    scores = response.scores(name, partial(area, x)) | {
        f"{prefix}baseline_share": share,
        f"{prefix}flagged": float(share > FLAG_SHARE) if share == share else share,  # noqa: PLR0124 - NaN stays NaN
    }
    return Answer(scores, {name: (x, response.f)})
