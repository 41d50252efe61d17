"""Turn what the user asks to have explained into indices of logits, and a name of what is explained of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, cast, get_args

import numpy as np
import torch

from cxrx.errors import UsageError
from cxrx.specs import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

Targets: TypeAlias = (
    "str | int | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | NDArray[np.int64] | torch.Tensor"
)

EMPTY = -1
"""Stands in a row of targets that has fewer findings than the others."""


def resolve_targets(targets: Targets, labels: Sequence[str], logits: torch.Tensor) -> torch.Tensor:
    """Return the indices ``(B, T)`` int64 of the logits to explain; -1 is empty.

    Parameters
    ----------
    targets
        ``"all"``; ``"top"`` (the highest logit of each picture); one finding or a list of findings, the same for every
        picture; one index; indices ``(B,)``, one for each picture; or ``(B, T)``, where -1 means none.
    labels
        The model's findings.
    logits
        ``(B, K)``.

    Raises
    ------
    UsageError
        An unknown finding (with the nearest names), an index out of range, or a shape that does not fit.
    """
    count = logits.shape[0]
    if isinstance(targets, str) and targets not in labels:
        if targets == "all":
            return torch.arange(len(labels)).expand(count, -1).contiguous()
        if targets == "top":
            return logits.argmax(dim=1, keepdim=True).cpu()
    if isinstance(targets, str):
        targets = [targets]
    if isinstance(targets, Sequence) and targets and all(isinstance(target, str) for target in targets):
        indices = [find_label(str(target), labels) for target in targets]
        return torch.tensor(indices).expand(count, -1).contiguous()
    return _check_indices(targets, count, labels)


def check_score(score: str) -> Score:
    """Return `score`; UsageError unless it is one of those that can be explained."""
    if score in get_args(Score):
        return cast("Score", score)
    raise UsageError(f"the score that is explained is {' or '.join(get_args(Score))}, not {score!r}")


def find_label(name: str, labels: Sequence[str]) -> int:
    """Return the position of the finding `name`, in any case of letters; UsageError with the nearest otherwise."""
    if name in labels:
        return labels.index(name)
    folded = [label.casefold() for label in labels]
    if folded.count(name.casefold()) == 1:
        return folded.index(name.casefold())
    near = difflib.get_close_matches(name.casefold(), folded, n=3)
    if near:
        hint = f"did you mean {' or '.join(labels[folded.index(match)] for match in near)}?"
    else:
        hint = f"the model knows: {', '.join(labels)}"
    raise UsageError(f"the model has no finding named {name!r}", hint)


def _check_indices(targets: object, count: int, labels: Sequence[str]) -> torch.Tensor:
    asked = "targets must be 'all', 'top', findings, or indices of shape (B,) or (B, T)"
    try:
        given = targets.cpu().numpy() if isinstance(targets, torch.Tensor) else np.asarray(targets)
    except ValueError as error:
        raise UsageError(f"{asked}; rows of unequal length are filled up with -1") from error
    if given.dtype.kind not in "iu":
        raise UsageError(f"{asked}, not {given.dtype.name} values")
    shape = given.shape
    if given.ndim == 0:
        given = np.full((count, 1), given)
    if given.ndim == 1:
        given = given[:, None]
    if given.ndim != 2 or given.shape[0] != count or given.shape[1] == 0:
        raise UsageError(f"{asked} with B = {count}; the given shape is {shape}")
    wrong = given[(given < EMPTY) | (given >= len(labels))]
    if wrong.size:
        raise UsageError(f"there is no logit {int(wrong[0])}: the model has {len(labels)}, 0 to {len(labels) - 1}")
    return torch.from_numpy(given.astype(np.int64))
