"""What is measured, and how: every formula in one sentence, for the report. Without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cxrx.explainers.option_types import Baseline

FloatArray = NDArray[np.float64]

MINIMAL_SPAN = 0.1
"""Normalised scores need f(x) - f(baseline) of at least this many logits (odds of 1.1): below, noise is divided."""

FLAG_SHARE = 0.5
"""A baseline that keeps more than this share of the probability is flagged: it has not removed the finding."""


@dataclass(frozen=True)
class Settings:
    """Conventions that change numbers.

    Attributes
    ----------
    steps
        Steps of deletion and insertion from 0 to 100 % of the pixels; point 0 comes on top.
    deletion_baseline, insertion_baseline
        What replaces pixels, and what insertion starts from: ``mean`` (of each picture), ``blur`` (Gaussian of 20 px at
        224 px), ``black``, ``white``. AOPC, degradation and sensitivity-n use the one of deletion.
    road_noise
        Standard deviation of the noise on imputed pixels, in standard deviations of the picture.
    tile
        Side of the tiles of AOPC and degradation, px at 224 px.
    tile_steps
        In how many steps all tiles are changed; fewer where there are fewer tiles.
    segments, shape
        About how many superpixels sensitivity-n has: ``slic`` or ``grid``.
    subset_shares, subsets
        Sizes n of sensitivity-n as shares of all superpixels, and random subsets of each size.
    infidelity_noise, infidelity_samples
        Standard deviation of the noise as a share of the picture's range, and how many perturbations are drawn.
    """

    steps: int = 50
    deletion_baseline: Baseline = "mean"
    insertion_baseline: Baseline = "blur"
    road_noise: float = 0.01
    tile: int = 16
    tile_steps: int = 49
    segments: int = 50
    shape: Literal["slic", "grid"] = "slic"
    subset_shares: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    subsets: int = 32
    infidelity_noise: float = 0.1
    infidelity_samples: int = 64

    def __post_init__(self) -> None:
        for name in ("deletion_baseline", "insertion_baseline"):
            if getattr(self, name) not in get_args(Baseline):
                raise ValueError(f"{name} must be one of {', '.join(get_args(Baseline))}, not {getattr(self, name)!r}")
        for name, least in (("steps", 2), ("tile", 1), ("tile_steps", 1), ("segments", 3), ("subsets", 3)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}")
        if self.road_noise < 0 or self.infidelity_noise <= 0 or self.infidelity_samples < 2:
            raise ValueError("noise must not be negative (of infidelity: positive), its samples at least 2")
        if not self.subset_shares or not all(0 < share < 1 for share in self.subset_shares):
            raise ValueError("subset_shares must lie between 0 and 1")


@dataclass(frozen=True)
class Faithfulness:
    """Scores and curves of a batch.

    Attributes
    ----------
    scores
        Metric of :data:`METRICS` to ``(B, T)``; NaN where the target is empty.
    curves
        Curve to ``(x (S,), f (B, T, S))``: the logit explained at each share x of changed pixels. Curves:
        ``deletion`` (pixels removed), ``insertion`` (pixels shown), ``road_morf``, ``road_lerf``, ``aopc_morf``,
        ``aopc_lerf``.
    full
        ``(B, T)``, f of the picture itself.
    baselines
        Curve to ``(B, T)``: f of the baseline that belongs to it.
    """

    scores: dict[str, FloatArray]
    curves: dict[str, tuple[FloatArray, FloatArray]]
    full: FloatArray
    baselines: dict[str, FloatArray] = field(default_factory=dict)

    def normalised(self, curve: str) -> tuple[FloatArray, FloatArray]:
        """Return x ``(S,)`` and (f - f(baseline)) / (f(x) - f(baseline)) ``(B, T, S)``, unclipped.

        NaN where f(x) - f(baseline) is below 0.1: the picture then holds no evidence that could be shared out.
        """
        x, f = self.curves[curve]
        return x, normalise(f, self.full[..., None], self.baselines[curve][..., None])


def normalise(f: FloatArray, full: FloatArray, baseline: FloatArray) -> FloatArray:
    """Return (f - baseline) / (full - baseline); NaN where the span is below :data:`MINIMAL_SPAN`."""
    span = full - baseline
    return (f - baseline) / np.where(span >= MINIMAL_SPAN, span, np.nan)


_PROBABILITY = "of the probability in the place of the logit"
_NORMALISED = "of (f - f(baseline)) / (f(x) - f(baseline)); NaN where the denominator is below 0.1"


def _three(name: str, sentence: str) -> dict[str, str]:
    return {
        name: sentence,
        f"{name}_probability": f"{name} {_PROBABILITY}",
        f"{name}_normalised": f"{name} {_NORMALISED}",
    }


#: Family (what is asked for) to the scores it gives, each with its convention under the default settings.
FAMILIES: dict[str, dict[str, str]] = {
    "deletion": _three(
        "deletion",
        "area under f (the logit explained) against the share of pixels replaced by the picture's mean, most relevant "
        "first, 0-100 % in 50 steps, trapezoid, ties in seeded random order; lower is better (Petsiuk 2018)",
    )
    | {
        "baseline_share": "p(baseline) / p(x) for the baseline of deletion; of probabilities, as logits have no zero",
        "flagged": "1 where baseline_share is above 0.5: the baseline keeps the finding, so deletion says little",
    },
    "insertion": _three(
        "insertion",
        "area under f against the share of pixels shown on a wide blur of the picture (Gaussian of 20 px at 224 px), "
        "most relevant first, 0-100 % in 50 steps, trapezoid, ties in seeded random order; higher is better "
        "(Petsiuk 2018)",
    )
    | {
        "insertion_baseline_share": "p(baseline) / p(x) for the baseline of insertion",
        "insertion_flagged": "1 where insertion_baseline_share is above 0.5",
    },
    "road": _three(
        "road",
        "(LeRF - MoRF) / 2 of the mean f at 10, 20, ... 90 % of the pixels imputed from their neighbours (direct 1/6, "
        "diagonal 1/12, one linear system a mask, noise of 0.01 standard deviations of the picture); higher is better "
        "(Rong 2022)",
    )
    | _three("road_morf", "mean f at 10 ... 90 % imputed, most relevant first; lower is better")
    | _three("road_lerf", "mean f at 10 ... 90 % imputed, least relevant first; higher is better"),
    "aopc": _three(
        "aopc",
        "mean over k = 0 ... L of f(x) - f(x with the k most relevant 16-px tiles, scaled by S/224, replaced by the "
        "baseline of deletion), all tiles in 49 steps; higher is better (Samek 2017)",
    )
    | _three(
        "degradation",
        "area between the curves of the least and of the most relevant tile first, ∫ (LeRF - MoRF) over the share "
        "replaced, trapezoid; higher is better (Schulz 2020)",
    ),
    "sensitivity_n": {
        "sensitivity_n": "Pearson's correlation of Σ map over n superpixels with f(x) - f(x without them), over 32 "
        "random subsets of each size n = 10, 30, 50, 70, 90 %, mean over n; higher is better (Ancona 2018)",
        "sensitivity_n_probability": f"sensitivity_n {_PROBABILITY}",
    },
    "infidelity": {
        "infidelity": "mean over 64 perturbations I of (β Σ I·map - (f(x) - f(x - I)))² with the best β, I Gaussian "
        "noise of 0.1 of the picture's range, the same in all channels; lower is better (Yeh 2019)",
        "infidelity_share": "infidelity divided by the mean of (f(x) - f(x - I))²: 1 is a map that says nothing",
    },
}

#: Score to its convention, in the order of the tables.
METRICS: dict[str, str] = {name: text for scores in FAMILIES.values() for name, text in scores.items()}

SUITES: dict[str, tuple[str, ...]] = {"fast": ("deletion", "insertion", "road"), "full": tuple(FAMILIES)}

#: Scores in logits, whose scale is each network's own: to be compared within one network only.
IN_LOGITS = frozenset({"deletion", "insertion", "road", "road_morf", "road_lerf", "aopc", "degradation", "infidelity"})

#: Whether more is better, for those scores that judge a map; shares of baselines judge the baseline.
HIGHER_IS_BETTER: dict[str, bool] = {
    name: not name.startswith(("deletion", "road_morf", "infidelity"))
    for name in METRICS
    if not name.endswith(("baseline_share", "flagged"))
}
