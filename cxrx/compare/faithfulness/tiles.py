"""AOPC (Samek et al. 2017) and degradation (Schulz et al. 2020): tiles are replaced in the order of the map."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from cxrx.compare.faithfulness.family import Family, three_forms

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from cxrx.compare.faithfulness.case import Asked, Case, Explained, References, Scored
    from cxrx.metrics.geometry import Float


def aopc(side: int = 16, steps: int = 49) -> Family:
    """Replace tiles by the picture's mean.

    `side` is theirs in px at 224 px; all are changed in `steps` steps, fewer where there are fewer tiles.
    """
    return Family(
        "aopc",
        summary="AOPC and degradation area: tiles are replaced in the order of the map",
        citation="Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned, IEEE TNNLS "
        "2017; Schulz et al., Restricting the Flow: Information Bottlenecks for Attribution, ICLR 2020",
        suites=("full",),
        perturb=partial(_perturb, side, steps),
        baseline="mean",
        measures=three_forms(
            "aopc",
            f"mean over k = 0 ... L of f(x) - f(x with the k most relevant {side}-px tiles, scaled by S/224, replaced "
            f"by the baseline of deletion), all tiles in {steps} steps",
            "Samek 2017",
            higher_is_better=True,
        )
        | three_forms(
            "degradation",
            "area between the curves of the least and of the most relevant tile first, ∫ (LeRF - MoRF) over the share "
            "replaced, trapezoid",
            "Schulz 2020",
            higher_is_better=True,
        ),
    )


def _perturb(side: int, steps: int, case: Case) -> Asked:
    """Ask with the most relevant tiles changed first, and with the least relevant first."""
    from cxrx.metrics.perturbation import counts, tiles

    number = tiles(case.size, side)
    n = int(number[-1, -1]) + 1
    taken = counts(n, min(steps, n))
    return _pictures(case, number, taken[1:-1].tolist()), partial(_read, taken / n)


def _pictures(case: Case, number: NDArray[np.int64], taken: list[int]) -> Iterator[torch.Tensor]:
    import numpy as np

    from cxrx.metrics.perturbation import rank

    pixels = np.bincount(number.ravel())
    for relevance in case.relevance:
        places = rank(np.bincount(number.ravel(), relevance.ravel()) / pixels, case.derive("tiles"))
        for order in (places, places.size - 1 - places):
            yield from case.replaced(order[number], taken, case.baseline("mean"), case.picture)


def _read(x: Float, logits: torch.Tensor, references: References, of: Explained) -> Scored:
    from cxrx.metrics.perturbation import area

    own = logits.view(-1, 2, len(x) - 2, logits.shape[1])[of.map]
    morf, lerf = (references.response_between(part, "mean", of) for part in own)
    scores = morf.scores("aopc", lambda f: float((f[0] - f).mean()))
    last, first = (response.scores("degradation", partial(area, x)) for response in (lerf, morf))
    scores |= {name: last[name] - first[name] for name in last}
    return scores, {"aopc_morf": (x, morf.f), "aopc_lerf": (x, lerf.f)}
