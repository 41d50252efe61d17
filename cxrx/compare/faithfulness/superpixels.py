"""Sensitivity-n (Ancona et al. 2018): sums of the map over superpixels against what hiding these does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from cxrx.compare.faithfulness.family import PROBABILITY, Family, measured
from cxrx.specs import Measure

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from cxrx.compare.faithfulness.case import Asked, Case, Explained, References, Scored
    from cxrx.metrics.geometry import Float

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Sizes n of the subsets as shares of all superpixels."""


def sensitivity_n(segments: int = 50, shape: Literal["slic", "grid"] = "slic", subsets: int = 32) -> Family:
    """Hide random `subsets` of each size of about so many `segments`, superpixels or squares."""
    return Family(
        "sensitivity_n",
        summary="correlation of sums of the map over superpixels with what hiding these does to the logit",
        citation="Ancona et al., Towards Better Understanding of Gradient-based Attribution Methods, ICLR 2018",
        suites=("full",),
        perturb=partial(_perturb, segments, shape, subsets),
        baseline="mean",
        measures={
            "sensitivity_n": measured(
                "Pearson's correlation of Σ map over n superpixels with f(x) - f(x without them), over "
                f"{subsets} random subsets of each size n = 10, 30, 50, 70, 90 %, mean over n",
                "Ancona 2018",
                higher_is_better=True,
            ),
            "sensitivity_n_probability": Measure(f"sensitivity_n {PROBABILITY}"),
        },
    )


def _perturb(segments: int, shape: Literal["slic", "grid"], count: int, case: Case) -> Asked:
    """Ask without random subsets; they depend on no map, so that one sweep serves all of a picture."""
    import numpy as np

    from cxrx.explainers.captum_methods import superpixels
    from cxrx.explainers.option_types import SuperpixelOptions
    from cxrx.metrics.perturbation import subsets

    number = superpixels(case.picture, SuperpixelOptions(segments=segments, shape=shape))  # (H, W)
    labels = number.cpu().numpy()
    hidden = subsets(int(labels.max()) + 1, SHARES, count, case.derive("subsets"))
    # (maps, m): what each map gives to every superpixel
    given = np.array([np.bincount(labels.ravel(), relevance.ravel()) for relevance in case.relevance])
    baseline = case.baseline("mean")
    pictures = (baseline.where(subset[number], case.picture) for subset in case.tensor(hidden).flatten(0, 1))
    return pictures, partial(_read, hidden, given)


def _read(
    hidden: NDArray[np.bool_], given: Float, logits: torch.Tensor, references: References, of: Explained
) -> Scored:
    from cxrx.metrics.perturbation import mean_correlation

    response = references.response(logits, "mean", of)
    sums = hidden @ given[of.map]  # (sizes, count)
    drops = {
        "sensitivity_n": response.full[0] - response.f,
        "sensitivity_n_probability": response.full[1] - response.p,
    }
    return {name: mean_correlation(sums, drop.reshape(sums.shape)) for name, drop in drops.items()}, {}
