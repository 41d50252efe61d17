"""Explain the same pictures again and again: what all tests of this package need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxrx.explainers.run import run_explainer
from cxrx.explainers.targets import EMPTY
from cxrx.metrics.similarity import Pairs
from cxrx.models.inference import auto_batch_size, predict_logits

if TYPE_CHECKING:
    from cxrx.models.model import Model
    from cxrx.specs import Explainer, ExplainerSpec


@dataclass(frozen=True)
class Request:
    """A method, a model, and the pictures it is tried on.

    Attributes
    ----------
    explainer
        Built with its options.
    x
        ``(B, C, H, W)`` prepared pictures, on the model's device.
    targets
        ``(B, T)`` int64, -1 where empty.
    seeds
        ``(B,)``, as derived from (seed, method, picture): the same as for the maps that are tested.
    image_ids
        ``B``; noise is drawn by them.
    relu
        Whether the published form of the method shows positive values only.
    size
        Pictures at once.
    """

    model: Model
    explainer: Explainer
    x: torch.Tensor
    targets: torch.Tensor
    seeds: torch.Tensor
    image_ids: Sequence[str]
    relu: bool
    size: int

    @classmethod
    def make(
        cls,
        model: Model,
        spec: ExplainerSpec,
        options: Any,
        x: torch.Tensor,
        targets: torch.Tensor,
        seeds: torch.Tensor,
        image_ids: Sequence[str],
        batch_size: int | None = None,
    ) -> Request:
        """Build the explainer of `spec` and take the batch size that suits the device."""
        size = min(auto_batch_size(model.device) if batch_size is None else batch_size, len(x))
        # A clone leaves inference mode: gradients cannot be recorded on tensors that were made in it.
        with torch.inference_mode(mode=False):
            x = x.detach().clone().to(model.device, torch.float32)
        return cls(model, spec.build(options), x, targets, seeds, tuple(image_ids), spec.relu, size)

    def asked(self) -> NDArray[np.bool_]:
        """Return ``(B, T)``, whether there is something to explain."""
        return np.asarray((self.targets != EMPTY).numpy())

    def pairs(self, patients: Sequence[str], findings: Sequence[str]) -> Pairs:
        """Return whose maps :meth:`maps` holds; `patients` ``B``, `findings` a name for every logit."""
        where = np.argwhere(self.asked())
        return Pairs(
            [self.image_ids[b] for b, _ in where],
            [patients[b] for b, _ in where],
            [findings[int(self.targets[b, t])] for b, t in where],
        )

    def maps(self, x: torch.Tensor | None = None, seeds: torch.Tensor | None = None) -> NDArray[np.float32]:
        """Return the maps of all that is asked, ``(n, h, w)``, in their published form; of other pictures or seeds."""
        values = self.explain(self.x if x is None else x, self.targets, self.seeds if seeds is None else seeds)
        return np.asarray(values.numpy()[self.asked()])

    def explain(
        self, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor, size: int | None = None
    ) -> torch.Tensor:
        """Return the maps ``(b, T, h, w)`` of `x`, in their published form, on the CPU."""
        size = self.size if size is None else size
        values = torch.cat(
            [
                piece.values
                for start in range(0, len(x), size)
                for piece in run_explainer(
                    self.model,
                    self.explainer,
                    x[start : start + size],
                    targets[start : start + size],
                    seeds[start : start + size],
                    size,
                )
            ]
        )
        return values.clamp(min=0) if self.relu else values

    def probabilities(self, x: torch.Tensor) -> torch.Tensor:
        """Return the probabilities ``(B, K)`` of `x`, on the CPU."""
        # clones, because a network may begin with an in-place operation
        parts = [x[start : start + self.size].clone() for start in range(0, len(x), self.size)]
        return self.model.probabilities(torch.cat([predict_logits(self.model, part, self.size) for part in parts]))
