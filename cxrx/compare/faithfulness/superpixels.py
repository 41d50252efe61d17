"""Sensitivity-n (Ancona et al. 2018): sums of the map over superpixels against what hiding these does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from cxrx.compare.faithfulness.case import Answer, Case, Pair, Question, References, Response
from cxrx.compare.faithfulness.conventions import FloatArray
from cxrx.explainers.captum_methods import superpixels
from cxrx.explainers.option_types import Baseline, SuperpixelOptions
from cxrx.models.model import Model


def ask_sensitivity_n(case: Case) -> Question:
    """Hide random subsets of superpixels; they depend on no map, so that one sweep serves all of a picture."""
    options = SuperpixelOptions(segments=case.settings.segments, shape=case.settings.shape)
    number = superpixels(case.picture, options)  # (H, W)
    labels = number.cpu().numpy()
    hidden = subsets(int(labels.max()) + 1, case.settings.subset_shares, case.settings.subsets, case.derive("subsets"))
    kind = case.settings.deletion_baseline
    # (maps, m): what each map gives to every superpixel
    given = np.array([np.bincount(labels.ravel(), relevance.ravel()) for relevance in case.relevance])
    pictures = _pictures(case.picture, case.baseline(kind), number, hidden)
    return Question(pictures, partial(_read, case.model, kind, hidden, given))


def subsets(m: int, shares: tuple[float, ...], count: int, seed: int) -> NDArray[np.bool_]:
    """Return which of `m` superpixels are hidden, ``(sizes, count, m)``: random subsets of n = share · m of them."""
    drawn = np.random.default_rng(seed)
    sizes = [min(max(1, round(share * m)), m - 1) for share in shares]
    places = drawn.permuted(np.tile(np.arange(m), (len(sizes), count, 1)), axis=2)
    chosen: NDArray[np.bool_] = places < np.array(sizes)[:, None, None]
    return chosen


def _pictures(
    picture: torch.Tensor, baseline: torch.Tensor, number: torch.Tensor, hidden: NDArray[np.bool_]
) -> Iterator[torch.Tensor]:
    for subset in torch.from_numpy(hidden).to(picture.device).flatten(0, 1):
        yield torch.where(subset[number], baseline, picture)


def _read(
    model: Model,
    kind: Baseline,
    hidden: NDArray[np.bool_],
    given: FloatArray,
    logits: torch.Tensor,
    references: References,
    pair: Pair,
) -> Answer:
    response = Response.of(model, logits, references, kind, pair.target)
    sums = hidden @ given[pair.map]  # (sizes, count)
    drops = {
        "sensitivity_n": response.full[0] - response.f,
        "sensitivity_n_probability": response.full[1] - response.p,
    }
    return Answer({name: mean_correlation(sums, drop.reshape(sums.shape)) for name, drop in drops.items()})


def mean_correlation(a: FloatArray, b: FloatArray) -> float:
    """Return Pearson's correlation of the rows of `a` and `b` ``(sizes, count)``, averaged over the rows.

    A row in which either is constant (to rounding) has none and is left out; NaN where no row is left.
    """
    centred = [part - part.mean(axis=1, keepdims=True) for part in (a, b)]
    lengths = [np.linalg.norm(part, axis=1) for part in centred]
    vary = [length > 1e-9 * np.linalg.norm(part, axis=1) for length, part in zip(lengths, (a, b), strict=True)]
    fit = vary[0] & vary[1]
    if not fit.any():
        return float("nan")
    return float(((centred[0] * centred[1]).sum(axis=1)[fit] / (lengths[0] * lengths[1])[fit]).mean())
