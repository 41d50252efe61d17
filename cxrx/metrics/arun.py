"""The protocol of Arun et al. (2021): how well the pixels of a map are ranked against the truth."""

from __future__ import annotations

import numpy as np

from cxrx.metrics.geometry import Float, Mask

METRICS = {
    "auprc": (
        "area under the precision-recall curve of the picture's pixels, by trapezoids; a constant map gets "
        "(1 + share)/2, nearly all of it an artefact of the trapezoid"
    ),
    "average_precision": "the same area in steps (average precision): chance is the truth's share of the picture",
    "auroc": "area under the ROC curve of the pixels; flattering where the truth is small",
}


def score(values: Float, truth: Mask) -> dict[str, float]:
    """Score a map that is already on the pixels of the truth.

    Parameters
    ----------
    values, truth
        ``(H, W)``.

    Returns
    -------
    scores
        The keys of :data:`METRICS`: scikit-learn's ``auc`` over ``precision_recall_curve``,
        ``average_precision_score`` and ``roc_auc_score``, from one sorting instead of three. All are 0 where the map
        holds a NaN or an infinity, and NaN where the truth is empty; ``auroc`` is NaN where it is the whole picture.
    """
    if not truth.any():
        return dict.fromkeys(METRICS, np.nan)
    if not np.isfinite(values).all():
        return dict.fromkeys(METRICS, 0.0)
    every, inside = np.sort(values, axis=None), np.sort(values[truth])
    scores, first = np.unique(inside, return_index=True)  # the distinct scores of the truth, rising
    found = len(inside) - first  # pixels of the truth at or above each
    found_above = np.append(found[1:], 0)
    taken = every.size - np.searchsorted(every, scores, "left")
    taken_above = every.size - np.searchsorted(every, scores, "right")
    here = (found - found_above) / len(inside)  # step in recall
    precision = found / taken
    before = np.divide(found_above, taken_above, out=np.ones(len(scores)), where=taken_above > 0)  # at the last recall
    others = every.size - len(inside)
    below, tied = others - (taken - found), (taken - taken_above) - (found - found_above)
    return {
        "auprc": float(here @ (precision + before) / 2),
        "average_precision": float(here @ precision),
        "auroc": float(here @ (below + tied / 2) / others) if others else float("nan"),
    }
