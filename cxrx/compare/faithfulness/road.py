"""ROAD (Rong et al. 2022): removed pixels are imputed from their neighbours, so that their outline shows nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cxrx.compare.faithfulness.family import Family, three_forms

if TYPE_CHECKING:
    import torch

    from cxrx.compare.faithfulness.case import Asked, Case, Explained, References, Scored
    from cxrx.metrics.geometry import Float

SHARES = tuple(tenth / 10 for tenth in range(1, 10))
NOISE = 0.01
"""Standard deviation of the noise on imputed pixels, in standard deviations of the picture (the authors' code)."""
_ALIKE = 1e-4


def _perturb(case: Case) -> Asked:
    return _pictures(case), _read


def _pictures(case: Case) -> Iterator[torch.Tensor]:
    """Yield, map by map, nine pictures with the most relevant pixels imputed and nine with the least relevant."""
    import numpy as np

    from cxrx.metrics.imputation import impute

    planes, scale, shift = _standardise(case.picture)
    noise = np.random.default_rng(case.derive("road")).standard_normal(case.size) * NOISE
    for places in case.ranks:
        for order in (places, places.size - 1 - places):
            for share in SHARES:
                mask = order < round(share * places.size)
                filled = impute(planes, mask)
                filled[:, mask] += noise[mask]
                changed = case.tensor(filled * scale + shift).to(case.picture)  # (C, H, W)
                yield changed.where(case.tensor(mask), case.picture)


def _standardise(picture: torch.Tensor) -> tuple[Float, Float, Float]:
    """Return planes with mean 0 and standard deviation 1, and scale and shift ``(C, 1, 1)`` that bring them back.

    Of a grey picture one plane is enough, ``(1, H, W)``: its channels differ in scale and shift only, and imputation
    is linear with weights that sum to 1. Else ``(C, H, W)``.
    """
    import numpy as np

    values = picture.double().cpu().numpy()
    shift, scale = values.mean(axis=(1, 2), keepdims=True), values.std(axis=(1, 2), keepdims=True)
    planes = (values - shift) / np.where(scale > 0, scale, 1)
    grey = bool((np.abs(planes - planes[:1]) < _ALIKE).all())
    return planes[:1] if grey else planes, scale, shift


def _read(logits: torch.Tensor, references: References, of: Explained) -> Scored:
    import numpy as np

    own = logits.view(-1, 2, len(SHARES), logits.shape[1])[of.map]
    x = np.array([0.0, *SHARES])
    scores: dict[str, float] = {}
    curves = {}
    for name, part in zip(("road_morf", "road_lerf"), own, strict=True):
        response = references.response(part, "mean", of)
        scores |= response.scores(name, lambda f: float(f.mean()))
        curves[name] = (x, np.array([response.full[0], *response.f]))
    for version in ("", "_probability", "_normalised"):
        scores[f"road{version}"] = (scores[f"road_lerf{version}"] - scores[f"road_morf{version}"]) / 2
    return scores, curves


ROAD = Family(
    "road",
    summary="logit with the least and with the most relevant pixels imputed from their neighbours (ROAD)",
    citation="Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022",
    suites=("full",),
    perturb=_perturb,
    baseline="mean",
    measures=three_forms(
        "road",
        "(LeRF - MoRF) / 2 of the mean f at 10, 20, ... 90 % of the pixels imputed from their neighbours (direct 1/6, "
        f"diagonal 1/12, one linear system a mask, noise of {NOISE} standard deviations of the picture)",
        "Rong 2022",
        higher_is_better=True,
    )
    | three_forms("road_morf", "mean f at 10 ... 90 % imputed, most relevant first", higher_is_better=False)
    | three_forms("road_lerf", "mean f at 10 ... 90 % imputed, least relevant first", higher_is_better=True),
)
