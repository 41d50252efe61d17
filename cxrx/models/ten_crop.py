"""Predictions averaged over ten crops of a film, as CheXNet's authors report them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch.nn import functional as F

from cxrx.errors import UsageError
from cxrx.models.model import Model

CROPS = 10


class TenCropModel(Model):
    """A classifier whose outputs are averaged over ten crops of each film.

    Its input is ``(B, 10, C, H, W)``. The mean is taken over probabilities, as in the published recipe, and the logit
    is the one of that mean, so that a stored logit and its probability belong together.
    """

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn ``(B, 10, H, W)`` grey crops in [0, 1] into the network's input ``(B, 10, C, H, W)``."""
        x = super().prepare(pixels.flatten(0, 1))
        return x.reshape(-1, CROPS, *x.shape[1:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(B, K)`` of the mean probability over the ten crops of ``x (B, 10, C, H, W)``.

        For a sigmoid: logit p = log mean s(z) - log mean s(-z); for a softmax: log mean softmax(z). In logarithms,
        which a certain network does not overflow.
        """
        z = super().forward(x.flatten(0, 1).contiguous(memory_format=self.memory_format))
        z = z.reshape(-1, CROPS, z.shape[1])  # (B, 10, K)
        if self.activation == "softmax" and len(self.labels) > 1:
            return _log_mean(F.log_softmax(z, dim=2))
        return _log_mean(F.logsigmoid(z)) - _log_mean(F.logsigmoid(-z))

    def offers(self) -> frozenset[str]:
        """Return nothing: a mean over ten pictures has no one picture to explain."""
        return frozenset()


def _log_mean(logs: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the mean over dimension 1 of what `logs` are the logarithms of."""
    return logs.logsumexp(dim=1) - math.log(logs.shape[1])


def ten_crop(model: Model) -> TenCropModel:
    """Return `model` with its outputs averaged over ten crops; its name says so, for the results file.

    Raises
    ------
    UsageError
        Its input is not cut out of a larger film.
    """
    spec = model.input
    if spec.fit != "crop" or spec.resize is None or spec.resize <= max(spec.size):
        raise UsageError(
            f"{model.name} sees the whole film at {spec.size[0]}x{spec.size[1]}: there is nothing to crop ten times",
            "--ten-crop is for models whose input is cut out of a larger one, as CheXNet's 224 of 256",
        )
    return TenCropModel(
        model.module,
        model.labels,
        replace(spec, crops=10),
        name=f"{model.name}{SUFFIX}",
        output=model.output,
        activation=model.activation,
        device=model.device,
        demo=model.demo,
        notes=model.notes,
        source=model.source,
        dtype=model.dtype,
    )


SUFFIX = "-ten-crop"
"""Behind the model's name, so that its usual predictions fit into the same results file."""


def check_explainable(model: Model) -> None:
    """Raise UsageError for a model whose predictions are means over crops."""
    if model.input.crops > 1:
        raise cannot_explain(model.slug)


def cannot_explain(slug: str) -> UsageError:
    """Return the error of explaining the predictions `slug`, which are means over ten crops."""
    return UsageError(
        f"the predictions of {slug} are means over ten crops, and a mean of ten pictures has no one map",
        "predict again without --ten-crop, or name another model with -m",
    )
