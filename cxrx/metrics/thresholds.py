"""From which probability on does a finding count as found? Four rules, and what each of them gets.

A threshold that is chosen on the films it is judged by flatters itself. Thresholds that came with the model were chosen
on its validation films; the others are cross-fitted here: chosen on four fifths of the patients, judged on the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.metrics.bootstrap import Float, numbered

COLUMNS = ("finding", "rule", "threshold", "chosen", "sensitivity", "specificity", "ppv", "npv", "f1")
RULES = ("0.5", "youden", "f1-max", "sensitivity-0.95")
FOLDS = 5
UNCHOSEN = 0.5
"""What training stores for a finding of which its validation films showed one class only."""

CONVENTIONS = {
    "0.5": "a probability of 0.5, fixed",
    "youden": "the threshold of the highest sensitivity + specificity - 1 (Youden 1950)",
    "f1-max": "the threshold of the highest F1 of the positive class",
    "sensitivity-0.95": "the highest threshold whose sensitivity is at least 0.95",
    "validation": "chosen by the model's training, by this rule, on its validation films, and judged on these",
    "cross-fitted": (
        f"chosen on {FOLDS - 1} of {FOLDS} folds of patients and judged on the last, by turns; the threshold given is "
        "the median of the folds"
    ),
    "position": "halfway between the lowest score that is taken and the highest that is not; of equals the highest",
}

Labels = NDArray[np.integer]


def threshold_table(
    labels: Labels,
    probabilities: NDArray[np.floating],
    findings: Sequence[str],
    *,
    patients: Sequence[str],
    thresholds: Mapping[str, float] | None = None,
    stored_rule: str = "f1-max",
    folds: int = FOLDS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Judge one model at the thresholds of every rule.

    Parameters
    ----------
    labels
        ``(N, K)``: 1 present, 0 absent; anything else is left out.
    probabilities
        ``(N, K)``; NaN is left out.
    findings, patients
        K names and N patient keys.
    thresholds
        Finding to the threshold that training chose on validation films; of :data:`UNCHOSEN` it did not choose.
    stored_rule
        By which of :data:`RULES` it did so; nothing was chosen by 0.5, and by any other name none of them.
    folds, seed
        How many folds of patients, and what draws them.

    Returns
    -------
    rows
        Four per finding with both classes, and four for ``"all"``, the means over those; the keys of :data:`COLUMNS`.
        `chosen` is ``"fixed"``, ``"validation"`` or ``"cross-fitted"``. NaN where a fold leaves no positive or no
        negative to choose by. No rows if no finding has both classes.
    """
    rows = []
    for k, finding in enumerate(findings):
        known = np.flatnonzero(np.isin(labels[:, k], (0, 1)) & np.isfinite(probabilities[:, k]))
        y, p = labels[known, k].astype(int), probabilities[known, k].astype(np.float64)
        if not len(y) or y.min() == y.max():
            continue
        fold = patient_folds([patients[i] for i in known.tolist()], y, folds, seed)
        for rule in RULES:
            stored = (thresholds or {}).get(finding) if rule == stored_rule else None
            stored = None if stored == UNCHOSEN else stored
            rows.append({"finding": finding, "rule": rule} | _judged(y, p, rule, stored, fold))
    return rows + _means(rows)


def _judged(y: Labels, p: Float, rule: str, stored: float | None, fold: NDArray[np.intp]) -> dict[str, Any]:
    if rule == "0.5":
        return {"threshold": 0.5, "chosen": "fixed", **rates(y, p >= 0.5)}
    if stored is not None:
        return {"threshold": float(stored), "chosen": "validation", **rates(y, p >= stored)}
    chosen = _cross_fitted(y, p, fold, rule)
    said = p >= chosen[fold]
    found = rates(y, said) if np.isfinite(chosen).all() else dict.fromkeys(COLUMNS[4:], np.nan)
    return {"threshold": float(np.median(chosen)), "chosen": "cross-fitted", **found}


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per rule: the means over the findings that have a value."""
    if not rows:
        return []
    means = []
    for rule, group in pd.DataFrame(rows).groupby("rule", sort=False):
        ways = group["chosen"].unique()
        chosen = str(ways[0]) if len(ways) == 1 else "validation or cross-fitted"
        mean = {name: float(group[name].mean()) for name in COLUMNS[4:]}
        means.append({"finding": "all", "rule": str(rule), "threshold": np.nan, "chosen": chosen, **mean})
    return means


def rates(y: Labels, said: NDArray[np.bool_]) -> dict[str, float]:
    """Return sensitivity, specificity, predictive values and F1 of yes-or-no decisions; NaN for a share of nothing."""
    tp, fp = int((said & (y == 1)).sum()), int((said & (y == 0)).sum())
    fn, tn = int((y == 1).sum()) - tp, int((y == 0).sum()) - fp
    return {
        "sensitivity": _share(tp, tp + fn),
        "specificity": _share(tn, tn + fp),
        "ppv": _share(tp, tp + fp),
        "npv": _share(tn, tn + fn),
        "f1": _share(2 * tp, 2 * tp + fp + fn),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


# ---------------------------------------------------------------------------------------------------------------------
# Choosing


def patient_folds(patients: Sequence[str], y: Labels, folds: int = FOLDS, seed: int = 0) -> NDArray[np.intp]:
    """Deal the patients to folds.

    Parameters
    ----------
    patients, y
        ``(n,)`` patient keys and labels 0 or 1.

    Returns
    -------
    fold
        ``(n,)``, 0 to ``folds - 1`` (fewer where there are fewer patients). Patients with a positive film are dealt
        first, then the others, each in an order drawn by `seed` that the order of films does not change.
    """
    names, index = numbered(patients)
    positive = np.bincount(index, y, minlength=len(names)) > 0
    shuffled = np.random.default_rng(seed).permutation(len(names))
    dealt = shuffled[np.argsort(~positive[shuffled], kind="stable")]
    of_patient = np.empty(len(names), dtype=np.intp)
    of_patient[dealt] = np.arange(len(names)) % min(folds, len(names))
    return of_patient[index]


def _cross_fitted(y: Labels, p: Float, fold: NDArray[np.intp], rule: str) -> Float:
    """Return for every fold the threshold that `rule` chooses on the others; NaN where they hold one class only."""
    chosen = np.full(int(fold.max()) + 1, np.nan)
    for i in range(len(chosen)):
        others = fold != i
        if others.any() and y[others].min() < y[others].max():
            chosen[i] = choose(y[others], p[others], rule)
    return chosen


def choose(y: Labels, p: Float, rule: str) -> float:
    """Return the threshold that `rule` chooses on these films, which must hold both classes.

    Raises
    ------
    KeyError
        If there is no such rule.
    """
    if rule == "0.5":
        return 0.5
    order = np.argsort(-p, kind="stable")
    y, p = y[order], p[order]
    last = np.flatnonzero(np.append(p[1:] != p[:-1], True))  # a cut may not part equal scores
    tp, taken = np.cumsum(y)[last], last + 1  # of the cut below each distinct score
    cut = last[_BEST[rule](tp, taken, int(y.sum()), len(y))]
    if cut + 1 == len(p):
        return float(p[cut])
    middle = (p[cut] + p[cut + 1]) / 2
    return float(middle if middle > p[cut + 1] else p[cut])  # neighbouring numbers have no middle


def _youden(tp: Labels, taken: Labels, positives: int, n: int) -> int:
    return int(np.argmax(tp * (n - positives) - (taken - tp) * positives))  # whole numbers, so that ties are ties


def _f1(tp: Labels, taken: Labels, positives: int, n: int) -> int:  # noqa: ARG001 - one form for all rules
    return int(np.argmax(2 * tp / (taken + positives)))  # 2 TP / (2 TP + FP + FN)


def _sensitive(tp: Labels, taken: Labels, positives: int, n: int) -> int:  # noqa: ARG001
    return int(np.argmax(100 * tp >= 95 * positives))


_BEST: dict[str, Callable[[Labels, Labels, int, int], int]] = {
    "youden": _youden,
    "f1-max": _f1,
    "sensitivity-0.95": _sensitive,
}
