"""How good the classifier is whose explanations are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.compare.statistics import Float, PatientBootstrap, interval, macro

COLUMNS = (
    "model", "finding", "n", "positives", "auroc", "auroc_low", "auroc_high", "f1", "accuracy", "threshold",
    "tn", "fp", "fn", "tp", "note",
)  # fmt: skip

CONVENTIONS = {
    "auroc": "area under the ROC curve; interval by bootstrap over patients",
    "f1": "F1 of the positive class at the threshold",
    "accuracy": "share of right decisions at the threshold",
    "tn, fp, fn, tp": "confusion matrix: positive is a probability at or above the threshold",
    "n": "films whose label is 1 or 0; uncertain and unknown ones do not count",
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
    rows, replicates = [], []
    for k, finding in enumerate(findings):
        known = np.isin(labels[:, k], (0, 1)) & np.isfinite(probabilities[:, k])
        y, p = labels[known, k].astype(int), probabilities[known, k].astype(np.float64)
        row = _finding(y, p, float((thresholds or {}).get(finding, 0.5)))
        weights = bootstrap.weights([patients[i] for i in np.flatnonzero(known).tolist()]) if not row["note"] else None
        if weights is not None:
            replicates.append(weighted_auroc(y, p, weights))
            row["auroc_low"], row["auroc_high"] = interval(replicates[-1])
        rows.append({"finding": finding, **row})
    rows.append({"finding": "all", **_macro(rows, replicates)})
    return rows


def _finding(y: NDArray[np.integer], p: Float, threshold: float) -> dict[str, Any]:
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score

    row: dict[str, Any] = {name: np.nan for name in COLUMNS if name not in ("model", "finding")}
    row |= {"n": len(y), "positives": int(y.sum()), "threshold": threshold, "note": ""}
    if len(y) == 0:
        return row | {"note": "no film has a label"}
    decided = (p >= threshold).astype(int)
    tn, fp, fn, tp = confusion_matrix(y, decided, labels=[0, 1]).ravel()
    row |= {"tn": int(tn), "fp": int(fp), "fn": int(fn), "tp": int(tp), "accuracy": float(accuracy_score(y, decided))}
    if y.min() == y.max():
        return row | {
            "note": f"AUROC and F1 need both classes; all {len(y)} films are {'positive' if y[0] else 'negative'}"
        }
    return row | {"auroc": float(roc_auc_score(y, p)), "f1": float(f1_score(y, decided, zero_division=0.0))}


def _macro(rows: list[dict[str, Any]], replicates: list[Float]) -> dict[str, Any]:
    """Return the means over the findings that have a value, and the sums of the counts."""
    table = pd.DataFrame(rows)
    row: dict[str, Any] = {name: float(table[name].mean()) for name in ("auroc", "f1", "accuracy")}
    row |= {name: int(table[name].sum()) for name in ("n", "positives", "tn", "fp", "fn", "tp")}
    row |= {"auroc_low": np.nan, "auroc_high": np.nan, "threshold": np.nan}
    scored = int(table["auroc"].notna().sum())
    row["note"] = f"mean over {scored} of {len(rows)} findings"
    if replicates and len(replicates) == scored:
        row["auroc_low"], row["auroc_high"] = interval(macro(np.stack(replicates, axis=1)))
    return row


def weighted_auroc(y: NDArray[np.integer], p: Float, weights: Float, chunk: int = 200) -> Float:
    """Return the AUROC of every replicate.

    Parameters
    ----------
    y, p
        ``(n,)`` labels 0 or 1, and scores.
    weights
        ``(R, n)`` how often each film counts.

    Returns
    -------
    auroc
        ``(R,)``: the share of (positive, negative) pairs in the right order, ties one half (Mann-Whitney); NaN where a
        replicate holds one class only. The same number as scikit-learn's with ``sample_weight``, in one pass.
    """
    order = np.argsort(p, kind="stable")
    _, starts = np.unique(p[order], return_index=True)  # ties
    result = np.full(len(weights), np.nan)
    for first in range(0, len(weights), chunk):
        w = weights[first : first + chunk][:, order]
        positive = np.add.reduceat(w * (y[order] == 1), starts, axis=1)  # (r, distinct scores)
        negative = np.add.reduceat(w * (y[order] == 0), starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        right = (positive * (below + negative / 2)).sum(axis=1)
        np.divide(right, pairs, out=result[first : first + chunk], where=pairs > 0)
    return result
