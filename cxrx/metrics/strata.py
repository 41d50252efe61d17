"""Where do explanations fail? The same numbers by size of the finding, by confidence, and by outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrx.metrics.bootstrap import MIN_PATIENTS, PatientBootstrap, quantile_of_t
from cxrx.metrics.summaries import common_pairs, kind_of, on_pairs

COLUMNS = ("model", "method", "by", "stratum", "metric", "value", "low", "high", "n")
KINDS = ("size", "confidence", "outcome")
METRICS = ("hit", "iou", "mass", "dispersion")
SIZE_CUTS = (0.025, 0.078)  # of the picture's area: tertiles of the 984 boxes of ChestX-ray14
CONVENTIONS = {
    "size": "share of the picture that the truth covers: small below 0.025, large from 0.078 (tertiles of the 984 "
    "boxes of ChestX-ray14)",
    "confidence": "tertiles of the probability over the explained pairs of a model, the same cuts for every method",
    "outcome": "TP, FN and FP at the model's threshold, by the label, or else by the box or mask; an FP has no truth, "
    "so only its dispersion is known",
    "value": "mean over pairs",
    "correlation": "Spearman's correlation of probability and IoU over all pairs of a method; interval of Bonett and "
    "Wright (2000) with the number of patients",
}


def strata(
    per_pair: pd.DataFrame, dispersion: pd.DataFrame, kinds: Sequence[str], bootstrap: PatientBootstrap
) -> pd.DataFrame:
    """Average scores within strata, on the pairs that all methods have.

    Parameters
    ----------
    per_pair
        Localisation scores: image_id, patient, model, method, finding, probability, area, outcome, hit, iou, mass.
    dispersion
        How scattered maps are, also of pairs without a truth: image_id, patient, model, method, finding, probability,
        outcome, dispersion.
    kinds
        Some of :data:`KINDS`.
    """
    per_pair, dispersion = _shared(per_pair), _shared(dispersion)
    keys = ["image_id", "model", "method", "finding"]
    shown = [name for name in METRICS if name in per_pair.columns]
    joined = dispersion.merge(per_pair[[*keys, "area", *shown]], on=keys, how="outer")
    located = per_pair[["patient", *keys, "probability", "outcome"]]
    # controls that are drawn for the pairs with a truth have no dispersion, but they do have a place
    joined = joined.merge(located, on=keys, how="left", suffixes=("", "_located"))
    for name in ("patient", "probability", "outcome"):
        # where no label is known, a box still tells a found one from a missed one
        known = joined[name].notna() & (joined[name] != "")
        joined[name] = joined[name].where(known, joined[f"{name}_located"])
    confident: dict[object, tuple[float, ...]] = {
        model: _tertiles(group) for model, group in joined.groupby("model", sort=False)
    }
    rows: list[tuple[object, ...]] = []
    for (model, method), group in joined.groupby(["model", "method"], sort=False):
        for kind in kinds:
            for stratum, part in _cut(group, kind, confident[model]):
                for metric in ("dispersion", *shown):
                    values = part[metric].to_numpy(float)
                    n = int(np.isfinite(values).sum())
                    if n:
                        value, low, high = bootstrap.mean(values, list(part["patient"]), kind_of(metric))
                        rows.append((model, method, kind, stratum, metric, value, low, high, n))
        if "confidence" in kinds and "iou" in shown:
            rows += _correlation(group, bootstrap, (model, method))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _shared(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the numbers of pairs that a method lacks."""
    names = [name for name in METRICS if name in table.columns]
    return on_pairs(table, names, common_pairs(table, names)[0])


def _tertiles(group: pd.DataFrame) -> tuple[float, ...]:
    """Return the cuts between the thirds of a model's pairs by probability, the same for every method."""
    pairs = group.drop_duplicates(["image_id", "finding"])["probability"].to_numpy(float)
    known = pairs[np.isfinite(pairs)]
    return tuple(np.quantile(known, [1 / 3, 2 / 3]).tolist()) if known.size >= 3 else ()


def _cut(group: pd.DataFrame, kind: str, confident: tuple[float, ...]) -> list[tuple[str, pd.DataFrame]]:
    if kind == "outcome":
        return [(name, group[group["outcome"] == name]) for name in ("TP", "FN", "FP")]
    cuts = SIZE_CUTS if kind == "size" else confident
    if not cuts:
        return []
    names = ("small", "medium", "large") if kind == "size" else ("low", "medium", "high")
    values = group["area" if kind == "size" else "probability"].to_numpy(float)
    level = np.digitize(values, cuts)
    return [(name, group[np.isfinite(values) & (level == i)]) for i, name in enumerate(names)]


def _correlation(
    group: pd.DataFrame, bootstrap: PatientBootstrap, named: tuple[object, object]
) -> list[tuple[object, ...]]:
    """Return Spearman's correlation of probability and IoU."""
    both = group[["patient", "probability", "iou"]].dropna()
    if len(both) < 3 or both["iou"].nunique() < 2 or both["probability"].nunique() < 2:
        return []
    value = float(both["probability"].corr(both["iou"], method="spearman"))
    low, high = np.nan, np.nan
    n = both["patient"].nunique()
    if bootstrap.draws and n >= MIN_PATIENTS:
        half = float(quantile_of_t(np.array(n - 2.0))) * np.sqrt((1 + value**2 / 2) / (n - 3))
        middle = np.arctanh(np.clip(value, -1 + 1e-9, 1 - 1e-9))
        low, high = np.tanh(middle - half), np.tanh(middle + half)
    return [(*named, "confidence", "all", "spearman(probability, iou)", value, low, high, len(both))]
