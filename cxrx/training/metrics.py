"""What validation and test films say of a network, and the thresholds that are chosen on validation films.

The numbers come from a scorer that the caller hands in: the one of ``cxrx compare``, which stands above
this room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxrx.training.data import Task

Labels = NDArray[np.int8]
Scores = NDArray[np.float32]

Scorer = Callable[[Labels, Scores, Sequence[str], Sequence[str], Mapping[str, float]], list[dict[str, Any]]]
"""``scorer(labels, probabilities, findings, patients, thresholds)``: a row per finding and one for ``"all"``."""

COLUMNS = (
    "finding", "n", "positives", "auroc", "auroc_low", "auroc_high", "auprc", "auprc_low", "auprc_high", "f1",
    "f1_macro", "f1_weighted", "accuracy", "sensitivity", "specificity", "brier", "ece", "threshold",
    "tn", "fp", "fn", "tp", "note",
)  # fmt: skip
"""What the scorer must tell of a finding; it may tell more, which is not kept."""

_DECIDED = ("f1", "f1_macro", "f1_weighted", "accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one split.

    Attributes
    ----------
    rows
        One per finding and one for ``"all"``, keyed by :data:`COLUMNS`.
    confusion
        ``(K, K)`` counts, true class by predicted class, of a multi-class task; else None.
    """

    rows: list[dict[str, Any]]
    confusion: list[list[int]] | None = None

    @property
    def overall(self) -> dict[str, Any]:
        """The row of all findings together."""
        return self.rows[-1]


def evaluate(
    task: Task,
    labels: Labels,
    probabilities: Scores,
    findings: Sequence[str],
    patients: Sequence[str],
    thresholds: Mapping[str, float],
    scorer: Scorer,
) -> Evaluation:
    """Score ``(N, K)`` probabilities.

    A finding counts as found from its threshold on; in a multi-class task the class of the highest probability does. F1
    is that of the positive class; macro and weighted average it with that of the negative class, weighted by how many
    films each has. In the row ``"all"`` all of them are means over the findings that have a value.
    """
    rows = [
        {name: row[name] for name in COLUMNS} for row in scorer(labels, probabilities, findings, patients, thresholds)
    ]
    if task != "multi-class":
        return Evaluation(rows)
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    true, said, classes = labels.argmax(axis=1), probabilities.argmax(axis=1), range(len(findings))
    for k, row in enumerate(rows[:-1]):
        row.update(_decisions(true == k, said == k))
    rows[-1] |= {name: _mean([row[name] for row in rows[:-1]]) for name in _DECIDED}
    rows[-1] |= {name: sum(row[name] for row in rows[:-1]) for name in ("tn", "fp", "fn", "tp")}
    rows[-1]["accuracy"] = float(accuracy_score(true, said))  # of films; the mean over classes flatters
    rows[-1]["f1_weighted"] = float(f1_score(true, said, labels=classes, average="weighted", zero_division=0.0))
    rows[-1]["f1_macro"] = float(f1_score(true, said, labels=classes, average="macro", zero_division=0.0))
    return Evaluation(rows, confusion_matrix(true, said, labels=classes).tolist())


def _decisions(y: NDArray[np.bool_], said: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what is told of one class against the others; NaN where the films are of one side only."""
    from sklearn.metrics import confusion_matrix, f1_score

    tn, fp, fn, tp = (int(count) for count in confusion_matrix(y, said, labels=[False, True]).ravel())
    row: dict[str, Any] = {"tn": tn, "fp": fp, "fn": fn, "tp": tp, "accuracy": (tn + tp) / len(y)}
    row["sensitivity"], row["specificity"] = _share(tp, fn), _share(tn, fp)
    if not tp + fn or not tn + fp:
        return row | dict.fromkeys(("f1", "f1_macro", "f1_weighted"), math.nan)
    averages = {"f1": "binary", "f1_macro": "macro", "f1_weighted": "weighted"}
    return row | {name: float(f1_score(y, said, average=how, zero_division=0.0)) for name, how in averages.items()}


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else math.nan


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def choose_thresholds(
    rule: Literal["f1", "youden", "half"], labels: Labels, probabilities: Scores, findings: Sequence[str]
) -> dict[str, float]:
    """Return for each finding the probability from which it counts as found, by `rule`, on these films.

    It lies halfway between the lowest score that is taken and the highest that is not. 0.5 where a finding has films of
    one class only.
    """
    chosen = {}
    for k, finding in enumerate(findings):
        known = labels[:, k] >= 0
        y, p = labels[known, k].astype(int), probabilities[known, k].astype(np.float64)
        one_class = not len(y) or y.min() == y.max()
        chosen[finding] = 0.5 if rule == "half" or one_class else _best_cut(rule, y, p)
    return chosen


def _best_cut(rule: Literal["f1", "youden", "half"], y: NDArray[np.int_], p: NDArray[np.float64]) -> float:
    order = np.argsort(-p, kind="stable")
    y, p = y[order], p[order]
    last = np.flatnonzero(np.append(p[1:] != p[:-1], True))  # a cut may not part equal scores
    tp, taken = np.cumsum(y)[last], last + 1  # of the cut behind each distinct score
    f1 = 2 * tp / (taken + y.sum())  # 2 TP / (2 TP + FP + FN)
    youden = tp / y.sum() - (taken - tp) / (len(y) - y.sum())
    best = last[int(np.argmax(f1 if rule == "f1" else youden))]
    return float(p[best] if best + 1 == len(p) else (p[best] + p[best + 1]) / 2)
