"""Which differences are real? Methods, and models, compared on the same films and findings.

The unit is the patient. Test and interval are of the same quantity, the mean difference (over findings, the mean of the
findings' means), and of the same distribution: p is below 0.05 where the interval leaves 0 out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.metrics.bootstrap import ROUNDING, Float, Intervals, PatientBootstrap, group_means, numbered
from cxrx.metrics.summaries import common_pairs, on_pairs

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
    "effect": "matched-pairs rank-biserial correlation of patients' mean differences (finding all: of all findings "
    "together): (sum of positive ranks - sum of negative ranks) / sum of ranks",
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
    """Compare every two methods of a model on the pairs that all have, and every two models under one method.

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
    whole, within = (on_pairs(scores, metrics, mask) for mask in common_pairs(scores, metrics))
    for metric in metrics:
        shown = scores.assign(over=whole[metric], single=within[metric])
        for model, group in shown.groupby("model", sort=False):
            for a, b, row in _pairs(group, "method", controls, bootstrap):
                named = {"model_a": model, "model_b": model, "method_a": a, "method_b": b}
                rows.append({"kind": "methods", "metric": metric} | named | row)
        shown = scores.assign(over=scores[metric], single=scores[metric])
        for method, group in shown.groupby("method", sort=False):
            if method not in controls and metric not in own_scale:
                for a, b, row in _pairs(group, "model", frozenset(), bootstrap):
                    named = {"model_a": a, "model_b": b, "method_a": method, "method_b": method}
                    rows.append({"kind": "models", "metric": metric} | named | row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    family = [table["kind"], table["metric"], table["finding"] == "all"]
    table["p_holm"] = table.groupby(family, sort=False)["p"].transform(lambda p: holm(p.to_numpy(float)))
    table["decided"] = table["p_holm"].astype(float) < LEVEL
    return table


def _pairs(
    scores: pd.DataFrame, by: str, controls: AbstractSet[str], bootstrap: PatientBootstrap
) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Compare every two values of the column `by`: over the findings in the column `over`, in each in `single`."""
    names = list(dict.fromkeys(scores[by]))
    pairs = [(a, b) for a, b in combinations(names, 2) if a not in controls or b not in controls]
    indexed = scores.set_index(["finding", "image_id", "patient", by])
    over, single = (indexed[column].unstack(by) for column in ("over", "single"))
    if not pairs or over.empty:
        return
    findings, patients = (over.index.get_level_values(name).tolist() for name in ("finding", "patient"))
    tables = [_differences(wide, pairs, findings, patients, bootstrap) for wide in (over, single)]
    patient, group = (numbered(keys)[1] for keys in (patients, findings))
    for g, finding in enumerate(tables[0].found.groups):
        rows = np.ones(len(group), bool) if g == 0 else group == g - 1
        table = tables[min(g, 1)]
        for p, (a, b) in enumerate(pairs):
            own = patient_means(table.values[rows, p], patient[rows])
            if own.size:
                yield a, b, {"finding": finding, "patients": own.size, "effect": rank_biserial(own)} | table.row((g, p))


@dataclass(frozen=True)
class _Differences:
    """Differences ``(n, P)`` of pairs of methods or models, their means, and the means of both sides ``(1 + G, P)``."""

    values: Float
    found: Intervals
    sides: tuple[Float, Float]

    def row(self, at: tuple[int, int]) -> dict[str, object]:
        """Return the numbers of a group and a pair."""
        found = self.found
        return {
            "n": int(found.n[at]), "value_a": self.sides[0][at], "value_b": self.sides[1][at],
            "difference": found.value[at], "low": found.low[at], "high": found.high[at], "test": "t over patients",
            "p": found.p[at],
        }  # fmt: skip


def _differences(
    wide: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    findings: Sequence[str],
    patients: Sequence[str],
    bootstrap: PatientBootstrap,
) -> _Differences:
    one, two = (wide[[pair[side] for pair in pairs]].to_numpy(float) for side in (0, 1))
    values = np.where(np.isfinite(one) & np.isfinite(two), one - two, np.nan)
    values[np.abs(values) <= ROUNDING] = 0
    group = numbered(findings)[1]
    a, b = (group_means(np.where(np.isfinite(values), side, np.nan), group)[0] for side in (one, two))
    return _Differences(values, bootstrap.table(values, patients, findings, "difference"), (a, b))


def patient_means(values: Float, patient: NDArray[np.intp]) -> Float:
    """Return the mean of each patient's finite values, of those who have one, in the order of their numbers."""
    known = np.isfinite(values)
    counts = np.bincount(patient[known])
    means: Float = np.bincount(patient[known], values[known])[counts > 0] / counts[counts > 0]
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
