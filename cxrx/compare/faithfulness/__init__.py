"""Do maps tell what the model looks at? Pixels are changed in the order of the map, and the model is run again.

Light to import: what needs torch is imported by :func:`score_faithfulness` when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxrx.compare.faithfulness.conventions import (
    FAMILIES,
    HIGHER_IS_BETTER,
    IN_LOGITS,
    METRICS,
    SUITES,
    Faithfulness,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from cxrx.models.model import Model

__all__ = [
    "FAMILIES",
    "HIGHER_IS_BETTER",
    "IN_LOGITS",
    "METRICS",
    "SUITES",
    "Faithfulness",
    "Settings",
    "score_faithfulness",
]


def score_faithfulness(
    model: Model,
    x: Any,
    maps: ArrayLike,
    targets: ArrayLike,
    metrics: Sequence[str] = SUITES["fast"],
    *,
    seeds: ArrayLike,
    settings: Settings | None = None,
) -> Faithfulness:
    """Score maps against the behaviour of `model` on changed pictures.

    Parameters
    ----------
    model
        A wrapped classifier.
    x
        ``(B, C, H, W)`` float32 tensor of prepared pictures.
    maps
        ``(B, T, h, w)`` values in the published form, on any grid that covers the input; resized to ``(H, W)``
        bilinearly with ``align_corners=False``. Columns of several methods may stand side by side along T: equal maps
        of a picture then share their passes, and sensitivity-n and infidelity cost the same for any T.
    targets
        ``(B, T)`` int64, indices of logits; -1 is empty.
    metrics
        Families of :data:`FAMILIES` or scores of :data:`METRICS`; a score brings its whole family.
    seeds
        ``(B,)`` int64, one a picture: ties, noise and subsets depend on this and nothing else.
    settings
        Steps, baselines, sizes; None: the defaults, which the report prints.

    Returns
    -------
    Faithfulness
        NaN where the target is empty or the map holds a NaN or an infinity.

    Raises
    ------
    UsageError
        A shape does not fit, a target is no output of the model, or a metric is unknown.

    Notes
    -----
    A picture's numbers depend neither on the pictures beside it nor on the other columns: all passes have the same
    number of rows. A constant map names no order, and is scored in a random one.
    """
    from cxrx.compare.faithfulness.score import score

    return score(model, x, maps, targets, metrics, seeds, settings or Settings())
