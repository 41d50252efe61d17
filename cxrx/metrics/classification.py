"""How good the classifier is whose explanations are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.metrics import ranking
from cxrx.metrics.bootstrap import CONVENTIONS as INTERVALS
from cxrx.metrics.bootstrap import Float, PatientBootstrap, numbered, resampled_interval
from cxrx.metrics.calibration import BINS, brier, expected_calibration_error, reliability
from cxrx.metrics.ranking import weighted_auroc, weighted_ranking

__all__ = ["COLUMNS", "CONVENTIONS", "CURVES", "classifier_curves", "classify", "weighted_auroc"]

COLUMNS = (
    "model", "finding", "n", "positives", "auroc", "auroc_low", "auroc_high", "auprc", "auprc_low", "auprc_high",
    "f1", "f1_macro", "f1_weighted", "accuracy", "sensitivity", "specificity", "brier", "ece", "threshold",
    "tn", "fp", "fn", "tp", "note",
)  # fmt: skip
CURVES = ("finding", "curve", "x", "y", "n")

_RANKED = ("auroc", "auprc")
_COUNTS = ("n", "positives", "tn", "fp", "fn", "tp")
_MEANT = (
    *_RANKED, "f1", "f1_macro", "f1_weighted", "accuracy", "sensitivity", "specificity", "brier", "ece",
)  # fmt: skip

CONVENTIONS = {
    "auroc": "area under the ROC curve",
    "interval": INTERVALS["AUROC, AUPRC"],
    "auprc": "average precision, the precision-recall curve in steps; chance is the share of positives",
    "threshold": "what the model's training stored with its weights, else 0.5",
    "f1": "F1 of the positive class at the threshold",
    "f1_macro": "mean of the F1 of the positive and of the negative class",
    "f1_weighted": "the same, weighted by how many films are of each class",
    "accuracy": "share of right decisions at the threshold",
    "sensitivity, specificity": "share of the positive films found, and of the negative ones not found",
    "tn, fp, fn, tp": "confusion matrix: positive is a probability at or above the threshold",
    "brier": "mean squared distance of the probability from the label; 0 is perfect",
    "ece": f"expected calibration error over {BINS} bins of equal mass; 0 is perfect",
    "n": "films whose label is 1 or 0; uncertain and unknown ones do not count",
    "all": "mean over the findings that have a value, an AUROC of 0 among them; counts are sums",
    "roc": "x: false positive rate, y: sensitivity; for all: mean sensitivity at equal false positive rates",
    "pr": "x: recall, y: precision; for all: mean precision at equal recall",
    "reliability": f"x: mean probability, y: share of positives, n: films, in each of {BINS} bins of equal mass",
}


def classify(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    findings: Sequence[str],
    *,
    patients: Sequence[str],
    bootstrap: PatientBootstrap,
    thresholds: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Score one model.

    Parameters
    ----------
    labels
        ``(N, K)``: 1 present, 0 absent; anything else is left out.
    probabilities
        ``(N, K)``; NaN is left out.
    findings, patients
        K names and N patient keys.
    thresholds
        Finding to the probability from which it counts as found; 0.5 where none is given.

    Returns
    -------
    rows
        One per finding and one for ``"all"``, the mean over the findings that have a value (macro); the keys of
        :data:`COLUMNS` but ``model``. `note` says why a number is missing.
    """
    rows: list[dict[str, Any]] = []
    drawn: list[tuple[Float, Float]] = []
    for k, finding in enumerate(findings):
        known, y, p = _known(labels, probabilities, k)
        row = _finding(y, p, float((thresholds or {}).get(finding, 0.5)))
        names, unit = numbered([patients[i] for i in known.tolist()])
        weights = bootstrap.weights(names) if not row["note"] else None
        if weights is not None:
            drawn.append(weighted_ranking(y, p, weights, unit))
            _bound(row, drawn[-1], len(set(names)), _effective(row))
        rows.append({"finding": finding, **row})
    overall = _macro(rows)
    scored = [row for row in rows if not row["note"]]
    if drawn and len(drawn) == len(scored):
        replicates = (np.ma.masked_invalid(values).mean(axis=0).filled(np.nan) for values in zip(*drawn, strict=True))
        numbers = (len(scored) ** 2 / sum(1 / n for n in each) for each in zip(*map(_effective, scored), strict=True))
        _bound(overall, replicates, len(set(patients)), tuple(numbers))
    rows.append({"finding": "all", **overall})
    return rows


def _bound(row: dict[str, Any], replicates: Iterable[Float], n_patients: int, most: Iterable[float]) -> None:
    """Add the intervals of AUROC and AUPRC to a row."""
    for name, values, number in zip(_RANKED, replicates, most, strict=True):
        row[f"{name}_low"], row[f"{name}_high"] = resampled_interval(row[name], values, n_patients, number)


def _effective(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the most independent films that AUROC and AUPRC can stand for."""
    area, positives = row["auroc"], row["positives"]
    negatives = row["n"] - positives
    # Hanley and McNeil (1982), with the mean number in place of either: symmetric, as Newcombe (2006) has it
    others = (row["n"] / 2 - 1) * ((1 - area) / (2 - area) + area / (1 + area))
    return positives * negatives / (1 + others), positives


def _known(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], k: int
) -> tuple[NDArray[np.intp], NDArray[np.int_], Float]:
    """Return the films that say something of finding `k`, their labels and their probabilities."""
    known = np.flatnonzero(np.isin(labels[:, k], (0, 1)) & np.isfinite(probabilities[:, k]))
    return known, labels[known, k].astype(int), probabilities[known, k].astype(np.float64)


def _finding(y: NDArray[np.integer], p: Float, threshold: float) -> dict[str, Any]:
    from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, roc_auc_score

    row: dict[str, Any] = {name: np.nan for name in COLUMNS if name not in ("model", "finding")}
    row |= {"n": len(y), "positives": int(y.sum()), "threshold": threshold, "note": ""}
    if len(y) == 0:
        return row | {"note": "no film has a label"}
    decided = (p >= threshold).astype(int)
    tn, fp, fn, tp = (int(count) for count in confusion_matrix(y, decided, labels=[0, 1]).ravel())
    row |= {"tn": tn, "fp": fp, "fn": fn, "tp": tp, "accuracy": (tn + tp) / len(y)}
    row |= {"sensitivity": tp / (tp + fn) if tp + fn else np.nan, "specificity": tn / (tn + fp) if tn + fp else np.nan}
    row |= {"brier": brier(y, p), "ece": expected_calibration_error(y, p)}
    if y.min() == y.max():
        return row | {
            "note": f"AUROC and F1 need both classes; all {len(y)} films are {'positive' if y[0] else 'negative'}"
        }
    averages = {"f1": "binary", "f1_macro": "macro", "f1_weighted": "weighted"}
    row |= {name: float(f1_score(y, decided, average=how, zero_division=0.0)) for name, how in averages.items()}
    return row | {"auroc": float(roc_auc_score(y, p)), "auprc": float(average_precision_score(y, p))}


def _macro(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over the findings that have a value, and the sums of the counts."""
    table = pd.DataFrame(rows)
    row: dict[str, Any] = {name: float(table[name].mean()) for name in _MEANT}
    row |= {name: int(table[name].sum()) for name in _COUNTS}
    row |= {f"{name}_{end}": np.nan for name in _RANKED for end in ("low", "high")} | {"threshold": np.nan}
    scored = int(table["auroc"].notna().sum())
    row["note"] = f"mean over {scored} of {len(rows)} findings"
    return row


def classifier_curves(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], findings: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the curves of one model, as far as there are films for them.

    Parameters
    ----------
    labels, probabilities, findings
        As :func:`classify`.

    Returns
    -------
    points
        The keys of :data:`CURVES`. `curve` is ``"roc"`` or ``"pr"`` (findings with both classes, at most 200 points
        each; for ``"all"`` the mean curve) or ``"reliability"`` (15 points). `n` counts the films behind a curve, of a
        point of ``"reliability"`` those in the bin.
    """
    points: list[dict[str, Any]] = []
    drawn: dict[str, list[Float]] = {"roc": [], "pr": []}
    films = 0
    for k, finding in enumerate(findings):
        known, y, p = _known(labels, probabilities, k)
        if not len(y):
            continue
        if y.min() < y.max():
            films += len(known)
            for name, draw in (("roc", ranking.roc), ("pr", ranking.precision_recall)):
                drawn[name].append(draw(y, p))
                points += _points(finding, name, drawn[name][-1], len(known))
        points += _points(finding, "reliability", reliability(y, p))
    for name, curves in drawn.items():
        if curves:
            points += _points("all", name, ranking.mean_curve(curves, stepped=name == "pr"), films)
    return points


def _points(finding: str, curve: str, values: Float, n: int = 0) -> list[dict[str, Any]]:
    return [
        {"finding": finding, "curve": curve, "x": x, "y": y, "n": int(count[0]) if count else n}
        for x, y, *count in values.tolist()
    ]
