"""Which differences are real? Methods, and models, compared on the same films and findings.

The unit is the patient. Test and interval are of the same quantity, the mean difference (over findings, the mean of the
findings' means), and of the same distribution: p is below 0.05 where the interval leaves 0 out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations

import numpy as np
import pandas as pd

from cxrx.metrics.bootstrap import ROUNDING, Float, Intervals, PatientBootstrap

COLUMNS = (
    "kind", "metric", "finding", "model_a", "method_a", "model_b", "method_b", "n", "patients", "value_a", "value_b",
    "difference", "low", "high", "test", "p", "p_holm", "effect", "decided",
)  # fmt: skip
LEVEL = 0.05
CONVENTIONS = {
    "difference": "mean of a - b over the pairs that both have (finding all: mean over findings)",
    "test": "Student's t of that mean over patients, with the variance and the degrees of freedom of its interval: p "
    "is below 0.05 where the interval leaves 0 out",
    "p_holm": "Holm's correction within a metric: over all comparisons of the means over findings, and over all "
    "comparisons of single findings",
    "effect": "matched-pairs rank-biserial correlation: (sum of positive ranks - sum of negative ranks) / sum of ranks",
    "models": "two models are compared under one method on the films both explain; scores in logits are left out, "
    "since every network has a scale of its own",
    "decided": f"p_holm is below {LEVEL}",
}


def paired_tests(
    scores: pd.DataFrame,
    metrics: Sequence[str],
    controls: AbstractSet[str],
    bootstrap: PatientBootstrap,
    *,
    own_scale: AbstractSet[str] = frozenset(),
) -> pd.DataFrame:
    """Compare every two methods of a model, and every two models under one method.

    Parameters
    ----------
    scores
        One row per film, model, method and finding: columns image_id, patient, model, method, finding, `metrics`.
    metrics
        Columns of `scores` to compare.
    controls
        Methods that never look at the model: they are not compared with each other, nor between models.
    own_scale
        Metrics on a scale of each model's own, such as logits: they are not compared between models.

    Returns
    -------
    tests
        The columns :data:`COLUMNS`; empty where nothing can be paired.
    """
    rows: list[dict[str, object]] = []
    if len(scores):
        for metric in metrics:
            for model, group in scores.groupby("model", sort=False):
                named = {"model_a": model, "model_b": model}
                for a, b, row in _pairs(group, "method", metric, controls, bootstrap):
                    rows.append({"kind": "methods", "method_a": a, "method_b": b} | named | row)
            for method, group in scores.groupby("method", sort=False):
                if method not in controls and metric not in own_scale:
                    named = {"method_a": method, "method_b": method}
                    for a, b, row in _pairs(group, "model", metric, frozenset(), bootstrap):
                        rows.append({"kind": "models", "model_a": a, "model_b": b} | named | row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    family = [table["kind"], table["metric"], table["finding"] == "all"]
    table["p_holm"] = table.groupby(family, sort=False)["p"].transform(lambda p: holm(p.to_numpy(float)))
    table["decided"] = table["p_holm"].astype(float) < LEVEL
    return table


def _pairs(
    scores: pd.DataFrame, by: str, metric: str, controls: AbstractSet[str], bootstrap: PatientBootstrap
) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Compare every two values of the column `by`."""
    wide = scores.set_index(["finding", "image_id", "patient", by])[metric].unstack(by).dropna(how="all")
    names = [name for name in dict.fromkeys(scores[by]) if name in wide.columns]
    pairs = [(a, b) for a, b in combinations(names, 2) if a not in controls or b not in controls]
    if not pairs or wide.empty:
        return
    index = wide.index.to_frame(index=False)
    findings, patients = list(index["finding"]), list(index["patient"])
    one, two = (wide[[pair[side] for pair in pairs]].to_numpy(float) for side in (0, 1))  # (n, P)
    both = np.isfinite(one) & np.isfinite(two)
    differences = np.where(both, one - two, np.nan)
    differences[np.abs(differences) <= ROUNDING] = 0
    found = bootstrap.table(differences, patients, findings, difference=True)
    means = [bootstrap.table(np.where(both, side, np.nan), patients, findings) for side in (one, two)]
    for g, finding in enumerate(found.groups):
        rows = np.ones(len(findings), bool) if g == 0 else np.array([name == finding for name in findings])
        for p, (a, b) in enumerate(pairs):
            own = patient_means(differences[rows, p], [q for q, keep in zip(patients, rows, strict=True) if keep])
            if own.size:
                yield a, b, _row(metric, finding, own, found, means, (g, p))


def _row(
    metric: str, finding: str, own: Float, found: Intervals, means: Sequence[Intervals], at: tuple[int, int]
) -> dict[str, object]:
    return {
        "metric": metric, "finding": finding, "n": int(found.n[at]), "patients": own.size,
        "value_a": means[0].value[at], "value_b": means[1].value[at],
        "difference": found.value[at], "low": found.low[at], "high": found.high[at],
        "test": "t over patients", "p": found.p[at], "effect": rank_biserial(own),
    }  # fmt: skip


def patient_means(values: Float, patients: Sequence[str]) -> Float:
    """Return the mean of each patient's finite values, in the order of the patients' names."""
    known = np.isfinite(values)
    if not known.any():
        return np.empty(0)
    _, index = np.unique(np.asarray(patients, dtype=object)[known].astype(str), return_inverse=True)
    sums, counts = np.bincount(index, values[known]), np.bincount(index)
    means: Float = sums / counts
    return means


def rank_biserial(differences: Float) -> float:
    """Return the matched-pairs rank-biserial correlation (Kerby 2014), 1 where all differences are positive.

    Differences of 0 are left out; with no other ones it is 0.
    """
    from scipy.stats import rankdata

    nonzero = differences[np.abs(differences) > ROUNDING]
    if nonzero.size == 0:
        return 0.0
    ranks = rankdata(np.abs(nonzero))
    return float((ranks[nonzero > 0].sum() - ranks[nonzero < 0].sum()) / ranks.sum())


def holm(p: Float) -> Float:
    """Return Holm's step-down adjusted p values (Holm 1979); NaN stay NaN and do not count."""
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * (order.size - np.arange(order.size))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if order.size else steps
    return adjusted
