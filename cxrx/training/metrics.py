"""The numbers of validation and test films, and the thresholds that are chosen on validation films."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxrx.metrics import classification
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.thresholds import choose
from cxrx.training.data import Task

Labels = NDArray[np.int8]
Scores = NDArray[np.float32]

N_BOOT = 1000
COLUMNS = classification.COLUMNS[1:]
"""What is kept of a finding: all but the name of the model."""

RULES = {"f1": "f1-max", "youden": "youden", "half": "0.5"}
"""What :data:`cxrx.metrics.thresholds.RULES` call a recipe's rule."""

_DECIDED = ("f1", "f1_macro", "f1_weighted", "accuracy", "sensitivity", "specificity")
_COUNTS = ("tn", "fp", "fn", "tp")


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
    *,
    patients: Sequence[str],
    thresholds: Mapping[str, float],
    bootstrap: PatientBootstrap,
) -> Evaluation:
    """Score films as ``cxrx compare`` does.

    A finding counts as found from its threshold on; in a multi-class task the class of the highest probability does. F1
    is that of the positive class; macro and weighted average it with that of the negative class, weighted by how many
    films each has. In the row ``"all"`` all of them are means over the findings that have a value.

    Parameters
    ----------
    task
        What the findings are to each other.
    labels, probabilities
        ``(N, K)``; a label below 0 is unknown.
    findings, patients
        K names and N patient keys.
    thresholds
        Finding to the probability from which it counts as found.
    bootstrap
        Resamples of the patients, for the intervals.
    """
    scored = classification.classify(
        labels, probabilities, findings, patients=patients, bootstrap=bootstrap, thresholds=thresholds
    )
    rows = [{name: row[name] for name in COLUMNS} for row in scored]
    if task != "multi-class":
        return Evaluation(rows)
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    true, predicted, classes = labels.argmax(axis=1), probabilities.argmax(axis=1), range(len(findings))
    one_hot, no_intervals = np.eye(len(findings)), PatientBootstrap((), 0, 0)
    decided = classification.classify(
        one_hot[true].astype(int), one_hot[predicted], findings, patients=patients, bootstrap=no_intervals
    )
    for row, of_class in zip(rows[:-1], decided, strict=False):
        row.update({name: of_class[name] for name in (*_DECIDED, *_COUNTS)})
    overall = rows[-1]
    overall |= {name: _mean([row[name] for row in rows[:-1]]) for name in _DECIDED}
    overall |= {name: sum(row[name] for row in rows[:-1]) for name in _COUNTS}
    overall["accuracy"] = float(accuracy_score(true, predicted))  # of films; the mean over classes flatters
    for average in ("weighted", "macro"):
        f1 = f1_score(true, predicted, labels=classes, average=average, zero_division=0.0)
        overall[f"f1_{average}"] = float(f1)
    return Evaluation(rows, confusion_matrix(true, predicted, labels=classes).tolist())


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def choose_thresholds(rule: Literal["f1", "youden", "half"], labels: Labels, probabilities: Scores) -> list[float]:
    """Return the probability from which each finding counts as found, by `rule`, on films ``(N, K)``.

    0.5 where the films whose label is known (1 or 0) are of one class only.
    """
    chosen = []
    for label, probability in zip(labels.T, probabilities.T, strict=True):
        y, p = label[label >= 0].astype(int), probability[label >= 0].astype(np.float64)
        one_class = not len(y) or y.min() == y.max()
        chosen.append(0.5 if one_class else choose(y, p, RULES[rule]))
    return chosen
