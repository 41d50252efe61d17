"""The built-in metrics, as plugins would register theirs."""

from __future__ import annotations

from typing import Any

from cxrx.specs import MetricSpec


def _localisation(map_2d: Any, truth_mask: Any) -> dict[str, Any]:
    from cxrx.metrics.localisation import score_localisation

    return dict(score_localisation(map_2d, truth_mask))


def _chexlocalize(map_2d: Any, truth_mask: Any) -> dict[str, Any]:
    from cxrx.metrics.localisation import score_localisation

    scores = score_localisation(map_2d, truth_mask, protocol="chexlocalize")
    return {f"chexlocalize_{name}": value for name, value in scores.items()}


def _agreement(a: Any, b: Any) -> dict[str, Any]:
    from cxrx.metrics.agreement import score_agreement

    return dict(score_agreement(a, b))


class _Faithfulness:
    """One family of faithfulness scores as a metric; its randomness comes from the pictures' own values."""

    def __init__(self, family: str) -> None:
        self.family = family

    def __call__(self, model: Any, x: Any, maps: Any, targets: Any) -> dict[str, Any]:
        from cxrx.compare.faithfulness import score_faithfulness
        from cxrx.explainers.seeds import derive_seed, tensor_id

        seeds = [derive_seed(0, tensor_id(picture)) for picture in x]
        return dict(score_faithfulness(model, x, maps, targets, (self.family,), seeds=seeds).scores)


_FAITHFULNESS = {
    "deletion": "area under the logit while the most relevant pixels are replaced by the picture's mean (RISE)",
    "insertion": "area under the logit while the most relevant pixels are shown on a blurred picture (RISE)",
    "road": "logit with the least and with the most relevant pixels imputed from their neighbours (ROAD)",
    "aopc": "AOPC and degradation area: tiles are replaced in the order of the map",
    "sensitivity_n": "correlation of sums of the map over superpixels with what hiding these does to the logit",
    "infidelity": "squared error of the map, scaled as fits best, in foretelling what noise does to the logit",
}

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
    *(
        MetricSpec(family, "faithfulness", _Faithfulness(family), summary=summary)
        for family, summary in _FAITHFULNESS.items()
    ),
)
