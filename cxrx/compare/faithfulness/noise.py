"""Infidelity (Yeh et al. 2019), computed by captum from passes that all maps of a picture share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from cxrx.compare.faithfulness.family import Family, measured
from cxrx.specs import Measure

if TYPE_CHECKING:
    import torch

    from cxrx.compare.faithfulness.case import Asked, Case, Explained, References, Scored
    from cxrx.metrics.geometry import Float

NOISE = 0.1
"""Standard deviation of the perturbation, as a share of the picture's range."""


def infidelity(samples: int = 64) -> Family:
    """Subtract noise from the picture, `samples` times: the same grey noise in all channels."""
    return Family(
        "infidelity",
        summary="squared error of the map, scaled as fits best, in foretelling what noise does to the logit",
        citation="Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019",
        suites=("full",),
        perturb=partial(_perturb, samples),
        measures={
            "infidelity": measured(
                f"mean over {samples} perturbations I of (β Σ I·map - (f(x) - f(x - I)))² with the best β, I Gaussian "
                f"noise of {NOISE} of the picture's range, the same in all channels",
                "Yeh 2019",
                higher_is_better=False,
                unit="squared logits",
            ),
            "infidelity_share": Measure(
                "infidelity divided by the mean of (f(x) - f(x - I))²: 1 is a map that says nothing", False
            ),
        },
    )


def _perturb(samples: int, case: Case) -> Asked:
    import numpy as np
    import torch

    from cxrx.explainers.seeds import generator

    noise = torch.randn(samples, *case.size, generator=generator(case.derive("infidelity")))  # (N, H, W)
    flat = noise.flatten(1).double().numpy()
    # (maps, N), each product alone: a product's last bit depends on its shape
    sums = np.array([flat @ relevance.ravel() for relevance in case.relevance])
    return _pictures(case.picture, noise), partial(_read, sums)


def _pictures(picture: torch.Tensor, noise: torch.Tensor) -> Iterator[torch.Tensor]:
    low, high = picture.amin(dim=(1, 2), keepdim=True), picture.amax(dim=(1, 2), keepdim=True)
    scale = NOISE * (high - low)  # (C, 1, 1): the channels of a grey picture differ in their scale
    for one in noise:
        yield picture - scale * one.to(picture.device)


def _read(sums: Float, logits: torch.Tensor, references: References, of: Explained) -> Scored:
    import torch

    perturbed, full = (references.scored(part)[:, of.target].double() for part in (logits, references.full[None]))
    value = best_scaled(torch.from_numpy(sums[of.map]), perturbed, full[0])
    change = float((full - perturbed).square().mean())
    return {"infidelity": value, "infidelity_share": value / change if change > 0 else float("nan")}, {}


def best_scaled(sums: torch.Tensor, perturbed: torch.Tensor, full: torch.Tensor) -> float:
    """Return captum's infidelity of a map that is scaled as fits best.

    captum is shown one number in the place of the picture: it has the attribution 1 and is perturbed by Σ I·map. The
    products are the same, and the pictures need not be kept until the model has run.

    Parameters
    ----------
    sums
        ``(N,)``, Σ I·map of each perturbation I, up to a common factor.
    perturbed, full
        Logits ``(N,)`` of the pictures x - I, and ``()`` of the picture x.
    """
    import torch
    from captum.metrics import infidelity as captum_infidelity

    def perturb(number: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return sums[:, None], number - sums[:, None]

    def answer(seen: torch.Tensor) -> torch.Tensor:
        return full[None] if len(seen) == 1 else perturbed

    number = torch.zeros(1, 1, dtype=sums.dtype)
    found = captum_infidelity(
        answer, perturb, number, torch.ones_like(number), n_perturb_samples=len(sums), normalize=True
    )
    return max(0.0, float(found))  # expanded squares may round to just below 0
