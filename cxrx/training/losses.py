"""Losses over labels that are partly unknown, and what balances rare against common ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from cxrx.training.data import Task


def masked_bce(
    logits: torch.Tensor, labels: torch.Tensor, pos_weight: torch.Tensor | None = None, smoothing: float = 0.0
) -> torch.Tensor:
    """Return the mean binary cross-entropy over known labels.

    ``sum_ik m_ik l_ik / sum_ik m_ik`` with ``l = -w_k t log s(z) - (1 - t) log(1 - s(z))``, where ``m`` is 1 if the
    label ``y`` is 0 or 1, and ``t = y (1 - e) + e / 2``.

    Parameters
    ----------
    logits, labels
        ``(B, K)``; a label below 0 is unknown.
    pos_weight
        ``(K,)`` w.
    smoothing
        e.
    """
    known = (labels >= 0).float()  # (B, K)
    targets = labels.clamp(min=0).float() * (1 - smoothing) + smoothing / 2
    each = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight, reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def loss_of(
    task: Task, logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Return the loss of a batch.

    Parameters
    ----------
    task
        Multi-class: each row of `labels` has one 1.
    logits, labels
        ``(B, K)``; a label below 0 is unknown.
    weight
        ``(K,)``, see :func:`class_weights`; None: all the same.
    smoothing
        Of labels.
    """
    if task != "multi-class":
        return masked_bce(logits, labels, weight, smoothing)
    classes = (labels == 1).long().argmax(dim=1)  # (B,)
    return functional.cross_entropy(logits, classes, weight=weight, label_smoothing=smoothing)


def class_weights(task: Task, labels: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the weight of each finding's positives (absent / present), or of each class (mean count / count)."""
    positive = (labels == 1).sum(axis=0)
    other = positive.mean() if task == "multi-class" else (labels == 0).sum(axis=0)
    return np.asarray(other / positive, np.float32)


def sampling_weights(task: Task, labels: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return how often each film is to be drawn: the mean over its known labels of 1 / (share of films labelled so).

    For one finding, and for classes, each side is then drawn equally often.
    """
    if task == "multi-class":
        shares = (labels == 1).mean(axis=0)
        return np.asarray((1 / shares)[(labels == 1).argmax(axis=1)])
    known = labels >= 0
    prevalence = (labels == 1).sum(axis=0) / known.sum(axis=0)
    share = np.where(labels == 1, prevalence, 1 - prevalence)
    weights: NDArray[np.float64] = np.where(known, 1 / share, 0).sum(axis=1) / known.sum(axis=1)
    return weights
