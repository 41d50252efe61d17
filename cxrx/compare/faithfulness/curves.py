"""Deletion and insertion (Petsiuk et al. 2018): pixels go or come in the order of the map."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cxrx.compare.faithfulness.family import Family, three_forms
from cxrx.specs import Measure

if TYPE_CHECKING:
    import torch

    from cxrx.compare.faithfulness.case import Asked, Case, Explained, References, Scored
    from cxrx.explainers.option_types import Baseline
    from cxrx.metrics.geometry import Float

FLAG_SHARE = 0.5
"""A baseline that keeps more than this share of the probability is flagged: it has not removed the finding."""
_CITATION = "Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018"


def deletion(steps: int = 50, baseline: Baseline = "mean") -> Family:
    """Replace the most relevant pixels by the baseline, in `steps` steps from 0 to 100 %; point 0 comes on top."""
    return Family(
        "deletion",
        summary="area under the logit while the most relevant pixels are replaced by the picture's mean (RISE)",
        citation=_CITATION,
        suites=("auto", "full"),
        perturb=partial(_perturb, "deletion", steps, baseline),
        baseline=baseline,
        measures=three_forms(
            "deletion",
            f"area under f (the logit explained) against the share of pixels replaced by the picture's {baseline}, "
            f"most relevant first, 0-100 % in {steps} steps, trapezoid, ties in seeded random order",
            "Petsiuk 2018",
            higher_is_better=False,
        )
        | {
            "baseline_share": Measure(
                "p(baseline) / p(x) for the baseline of deletion; of probabilities, as logits have no zero", None
            ),
            "flagged": Measure(
                f"1 where baseline_share is above {FLAG_SHARE}: the baseline keeps the finding, so deletion says "
                "little",
                None,
            ),
        },
    )


def insertion(steps: int = 50) -> Family:
    """Show the most relevant pixels on a wide blur of the picture, in `steps` steps from 0 to 100 %."""
    return Family(
        "insertion",
        summary="area under the logit while the most relevant pixels are shown on a blurred picture (RISE)",
        citation=_CITATION,
        suites=("auto", "full"),
        perturb=partial(_perturb, "insertion", steps, "blur"),
        baseline="blur",
        measures=three_forms(
            "insertion",
            "area under f against the share of pixels shown on a wide blur of the picture (Gaussian of 20 px at 224 "
            f"px), most relevant first, 0-100 % in {steps} steps, trapezoid, ties in seeded random order",
            "Petsiuk 2018",
            higher_is_better=True,
        )
        | {
            "insertion_baseline_share": Measure("p(baseline) / p(x) for the baseline of insertion", None),
            "insertion_flagged": Measure(f"1 where insertion_baseline_share is above {FLAG_SHARE}", None),
        },
    )


def _perturb(name: str, steps: int, kind: Baseline, case: Case) -> Asked:
    """Ask, map by map, with the n first pixels changed."""
    from cxrx.metrics.perturbation import counts

    taken = counts(case.size[0] * case.size[1], steps)
    ends = case.baseline(kind), case.picture
    first, then = ends if name == "deletion" else ends[::-1]
    inner = taken[1:-1].tolist()
    pictures = (picture for order in case.ranks for picture in case.replaced(order, inner, first, then))
    return pictures, partial(_read, name, kind, taken / taken[-1])


def _read(name: str, kind: Baseline, x: Float, logits: torch.Tensor, references: References, of: Explained) -> Scored:
    from cxrx.metrics.perturbation import area

    inner = len(x) - 2
    own = logits[of.map * inner : (of.map + 1) * inner]
    response = references.response_between(own, kind, of, shown=name == "insertion")
    share = response.baseline_share()
    prefix = "" if name == "deletion" else "insertion_"
    scores = response.scores(name, partial(area, x)) | {
        f"{prefix}baseline_share": share,
        f"{prefix}flagged": float(share > FLAG_SHARE) if share == share else share,  # noqa: PLR0124 - NaN stays NaN
    }
    return scores, {name: (x, response.f)}
