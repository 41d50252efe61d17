"""Which findings of a film are explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cxrx.explainers.targets import find_label

Rule = str | tuple[str, ...]
"""One of `RULES`, or names of findings."""

RULES = ("auto", "positive", "truth", "top", "all")


def check_targets(targets: str | Sequence[str], labels: Sequence[str]) -> Rule:
    """Return `targets` as a rule or a tuple of findings of `labels`.

    Raises
    ------
    UsageError
        A name is neither a rule nor one of the model's findings.
    """
    if isinstance(targets, str) and targets in RULES:
        return targets
    names = tuple(part.strip() for part in targets.split(",")) if isinstance(targets, str) else tuple(targets)
    return tuple(labels[find_label(name, labels)] for name in names)


def choose_targets(
    rule: Rule,
    labels: Sequence[str],
    probability: NDArray[np.float32],
    truth: Mapping[str, int],
    thresholds: Mapping[str, float] | None = None,
) -> list[int]:
    """Return the indices of the findings to explain on one film, ascending.

    Parameters
    ----------
    rule
        As :func:`check_targets` returned it. ``"auto"`` is the union of predicted positive (at or above the
        threshold), truth-positive and the top one, so that false negatives are explained too.
    labels
        The `K` findings of the model.
    probability
        ``(K,)``.
    truth
        Finding to 1, 0 or -1; what is not there is unknown.
    thresholds
        Finding to the probability from which it counts as found; 0.5 where there is none.
    """
    from_ = thresholds or {}
    positive = {k for k, label in enumerate(labels) if probability[k] >= from_.get(label, 0.5)}
    present = {k for k, label in enumerate(labels) if truth.get(label) == 1}
    top = {int(np.argmax(probability))}
    if isinstance(rule, tuple):
        return sorted(labels.index(name) for name in rule)
    chosen = {
        "auto": positive | present | top,
        "positive": positive,
        "truth": present,
        "top": top,
        "all": set(range(len(labels))),
    }
    return sorted(chosen[rule])
