"""The built-in metrics, as plugins would register theirs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cxrx.compare.faithfulness import FAMILIES
from cxrx.specs import MetricSpec

if TYPE_CHECKING:
    from cxrx.metrics.protocols import Protocol


@dataclass(frozen=True, kw_only=True)
class SectionMetric(MetricSpec):
    """A built-in metric whose section compare computes for all maps at once, not map by map through `compute`.

    Attributes
    ----------
    protocol
        Of localisation, when it is another than compare's own: its numbers stand in columns of their own.
    """

    protocol: Protocol | None = None


def _localisation(map_2d: Any, truth_mask: Any) -> dict[str, Any]:
    from cxrx.metrics.localisation import score_localisation

    return dict(score_localisation(map_2d, truth_mask))


def _published(map_2d: Any, truth_mask: Any, protocol: Protocol) -> dict[str, Any]:
    from cxrx.metrics.localisation import score_localisation

    scores = score_localisation(map_2d, truth_mask, protocol)
    return {f"{protocol}_{name}": value for name, value in scores.items()}


def _agreement(a: Any, b: Any) -> dict[str, Any]:
    from cxrx.metrics.agreement import score_agreement

    return dict(score_agreement(a, b))


BUILTIN_METRICS = (
    SectionMetric(
        "localisation", "localisation", _localisation,
        summary="hit, IoU, relevance mass, rank accuracy and top-k IoU against boxes or masks",
    ),
    SectionMetric(
        "chexlocalize", "localisation", partial(_published, protocol="chexlocalize"),
        summary="IoU and hit exactly as CheXlocalize computes them",
        citation="Saporta et al., Benchmarking saliency methods for chest X-ray interpretation, Nature MI 2022",
        suites=("full",), protocol="chexlocalize",
    ),
    SectionMetric(
        "arun", "localisation", partial(_published, protocol="arun"),
        summary="how well the pixels of a map are ranked against the truth: AUPRC, average precision, AUROC",
        citation="Arun et al., Assessing the Trustworthiness of Saliency Maps, Radiology: AI 2021",
        suites=("full",), protocol="arun",
    ),
    SectionMetric(
        "agreement", "agreement", _agreement,
        summary="Spearman's correlation, top-10 % IoU and SSIM between two methods",
    ),
    *FAMILIES,
)  # fmt: skip
