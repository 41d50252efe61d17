"""Where do explanations fail? The same numbers by size of the finding, by confidence, and by outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrx.compare.statistics import Float, PatientBootstrap

COLUMNS = ("model", "method", "by", "stratum", "metric", "value", "low", "high", "n")
KINDS = ("size", "confidence", "outcome")
METRICS = ("hit", "iou", "mass", "spread")
SIZE_CUTS = (0.025, 0.078)  # of the picture's area: tertiles of the 984 boxes of ChestX-ray14
CONVENTIONS = {
    "size": "share of the picture that the truth covers: small up to 0.025, large from 0.078 (tertiles of the 984 "
    "boxes of ChestX-ray14)",
    "confidence": "tertiles of the probability over the pairs of a model",
    "outcome": "TP, FN and FP at the model's threshold; an FP has no truth, so only its spread is known",
    "value": "mean over pairs, interval by bootstrap over patients",
    "correlation": "Spearman's correlation of probability and IoU over all pairs of a method",
}


def strata(
    per_pair: pd.DataFrame, spread: pd.DataFrame, kinds: Sequence[str], bootstrap: PatientBootstrap
) -> pd.DataFrame:
    """Average scores within strata.

    Parameters
    ----------
    per_pair
        Localisation scores: image_id, patient, model, method, finding, probability, area, outcome, hit, iou, mass.
    spread
        How scattered maps are, also of pairs without a truth: image_id, patient, model, method, finding, probability,
        outcome, spread.
    kinds
        Some of :data:`KINDS`.
    """
    keys = ["image_id", "model", "method", "finding"]
    shown = [name for name in METRICS if name in per_pair.columns]
    joined = spread.merge(per_pair[[*keys, "area", *shown]], on=keys, how="outer")
    located = per_pair[["patient", *keys, "probability", "outcome"]]
    # controls that are drawn for the pairs with a truth have no spread, but they do have a place
    joined = joined.merge(located, on=keys, how="left", suffixes=("", "_located"))
    for name in ("patient", "probability", "outcome"):
        joined[name] = joined[name].where(joined[name].notna(), joined[f"{name}_located"])
    rows: list[tuple[object, ...]] = []
    for (model, method), group in joined.groupby(["model", "method"], sort=False):
        for kind in kinds:
            for stratum, part in _cut(group, kind):
                for metric in ("spread", *shown):
                    values = part[metric].to_numpy(float)
                    n = int(np.isfinite(values).sum())
                    if n:
                        value, low, high = bootstrap.mean(values, list(part["patient"]))
                        rows.append((model, method, kind, stratum, metric, value, low, high, n))
        if "confidence" in kinds and "iou" in shown:
            rows += _correlation(group, bootstrap, (model, method))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _cut(group: pd.DataFrame, kind: str) -> list[tuple[str, pd.DataFrame]]:
    if kind == "outcome":
        return [(name, group[group["outcome"] == name]) for name in ("TP", "FN", "FP")]
    column = "area" if kind == "size" else "probability"
    values = group[column].to_numpy(float)
    known = values[np.isfinite(values)]
    if known.size < 3:
        return []
    cuts = SIZE_CUTS if kind == "size" else tuple(np.quantile(known, [1 / 3, 2 / 3]))
    names = ("small", "medium", "large") if kind == "size" else ("low", "medium", "high")
    level = np.digitize(values, cuts)
    return [(name, group[np.isfinite(values) & (level == i)]) for i, name in enumerate(names)]


def _correlation(
    group: pd.DataFrame, bootstrap: PatientBootstrap, named: tuple[object, object]
) -> list[tuple[object, ...]]:
    """Return Spearman's correlation of probability and IoU."""
    both = group[["patient", "probability", "iou"]].dropna()
    if len(both) < 3 or both["iou"].nunique() < 2 or both["probability"].nunique() < 2:
        return []
    x, y = both["probability"].to_numpy(float), both["iou"].to_numpy(float)
    weights = bootstrap.weights(list(both["patient"]))
    low = high = np.nan
    if weights is not None:
        replicates = weighted_correlation(_ranks(x), _ranks(y), weights)
        finite = replicates[np.isfinite(replicates)]
        low, high = np.quantile(finite, [0.025, 0.975]) if finite.size > 1 else (np.nan, np.nan)
    value = float(weighted_correlation(_ranks(x), _ranks(y), np.ones((1, len(x))))[0])
    return [(*named, "confidence", "all", "spearman(probability, iou)", value, float(low), float(high), len(both))]


def _ranks(values: Float) -> Float:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def weighted_correlation(x: Float, y: Float, weights: Float) -> Float:
    """Return Pearson's correlation of x and y ``(n,)`` under each row of `weights` ``(R, n)``.

    With ranks it is Spearman's; in a replicate the ranks of the whole sample are kept, which saves ranking again and
    shifts the interval by less than its third digit.
    """
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    covariance = weights @ (x * y) / total - mean_x * mean_y
    spread_x, spread_y = weights @ x**2 / total - mean_x**2, weights @ y**2 / total - mean_y**2
    product = np.sqrt(np.maximum(spread_x, 0) * np.maximum(spread_y, 0))
    result: Float = np.divide(covariance, product, out=np.full(len(weights), np.nan), where=product > 1e-12)
    return result
