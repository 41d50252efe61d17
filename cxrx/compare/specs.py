"""The built-in metrics, as plugins would register theirs."""

from __future__ import annotations

from typing import Any

from cxrx.specs import MetricSpec


def _localisation(map_2d: Any, truth_mask: Any) -> dict[str, Any]:
    from cxrx.compare.localisation import score_localisation

    return dict(score_localisation(map_2d, truth_mask))


def _chexlocalize(map_2d: Any, truth_mask: Any) -> dict[str, Any]:
    from cxrx.compare.localisation import score_localisation

    scores = score_localisation(map_2d, truth_mask, protocol="chexlocalize")
    return {f"chexlocalize_{name}": value for name, value in scores.items()}


def _agreement(a: Any, b: Any) -> dict[str, Any]:
    from cxrx.compare.agreement import score_agreement

    return dict(score_agreement(a, b))


BUILTIN_METRICS = (
    MetricSpec(
        "localisation",
        "localisation",
        _localisation,
        summary="hit, IoU, relevance mass, rank accuracy and top-k IoU against boxes or masks",
    ),
    MetricSpec(
        "chexlocalize", "localisation", _chexlocalize, summary="IoU and hit exactly as CheXlocalize computes them"
    ),
    MetricSpec(
        "agreement", "agreement", _agreement, summary="Spearman's correlation and top-10 % IoU between two methods"
    ),
)
