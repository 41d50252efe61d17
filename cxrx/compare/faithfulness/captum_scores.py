"""Infidelity (Yeh et al. 2019), computed by captum from passes that all maps of a picture share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from cxrx.compare.faithfulness.case import Answer, Case, Pair, Question, References
from cxrx.compare.faithfulness.conventions import FloatArray
from cxrx.explainers.seeds import generator


def ask_infidelity(case: Case) -> Question:
    """Subtract noise from the picture: the same grey noise in all channels."""
    drawn = generator(case.derive("infidelity"))
    noise = torch.randn(case.settings.infidelity_samples, *case.size, generator=drawn)  # (N, H, W)
    flat = noise.flatten(1).double().numpy()
    # (maps, N), each product alone: a product's last bit depends on its shape
    sums = np.array([flat @ relevance.ravel() for relevance in case.relevance])
    return Question(_pictures(case.picture, noise, case.settings.infidelity_noise), partial(_read, sums))


def _pictures(picture: torch.Tensor, noise: torch.Tensor, share: float) -> Iterator[torch.Tensor]:
    low, high = picture.amin(dim=(1, 2), keepdim=True), picture.amax(dim=(1, 2), keepdim=True)
    scale = share * (high - low)  # (C, 1, 1): the channels of a grey picture differ in their scale
    for one in noise:
        yield picture - scale * one.to(picture.device)


def _read(sums: FloatArray, logits: torch.Tensor, references: References, pair: Pair) -> Answer:
    perturbed, full = logits[:, pair.target].double(), references.full[pair.target].double()
    value = infidelity(torch.from_numpy(sums[pair.map]), perturbed, full)
    change = float((full - perturbed).square().mean())
    return Answer({"infidelity": value, "infidelity_share": value / change if change > 0 else float("nan")})


def infidelity(sums: torch.Tensor, perturbed: torch.Tensor, full: torch.Tensor) -> float:
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
