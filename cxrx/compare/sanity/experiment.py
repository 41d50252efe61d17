"""Explain the same pictures again and again: what all tests of this package need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxrx.errors import UsageError
from cxrx.explainers.run import run_explainer
from cxrx.explainers.targets import EMPTY
from cxrx.models.inference import auto_batch_size, predict_logits

if TYPE_CHECKING:
    from cxrx.models.model import Model
    from cxrx.specs import Explainer, ExplainerSpec


@dataclass(frozen=True)
class Experiment:
    """A method, a model, and the pictures it is tried on.

    Attributes
    ----------
    spec, explainer
        The method, and what it builds with its options.
    x
        ``(B, C, H, W)`` prepared pictures, on the model's device.
    targets
        ``(B, T)`` int64, -1 where empty.
    seeds
        ``(B,)``, as derived from (seed, method, picture): the same as for the maps that are tested.
    image_ids, patients
        ``B`` each; noise is drawn by image_id.
    findings
        What the logits are called in the tables.
    size
        Pictures at once.
    """

    model: Model
    spec: ExplainerSpec
    explainer: Explainer
    x: torch.Tensor
    targets: torch.Tensor
    seeds: torch.Tensor
    image_ids: Sequence[str]
    patients: Sequence[str]
    findings: Sequence[str]
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
        *,
        image_ids: Sequence[str],
        patients: Sequence[str],
        findings: Sequence[str],
    ) -> Experiment:
        """Build the explainer, and take the batch size that suits the device.

        Parameters
        ----------
        model, spec, options
            The method is built with `options`, as :func:`cxrx.options.parse_options` returns them.
        x, targets, seeds, image_ids, patients, findings
            See the attributes.

        Raises
        ------
        UsageError
            Arguments do not fit together.
        """
        numbers = {len(part) for part in (x, targets, seeds, image_ids, patients)}
        if len(numbers) > 1 or len(findings) != len(model.labels):
            raise UsageError(
                "pictures, targets, seeds, image ids and patients must be equally many, and a finding a logit"
            )
        size = min(auto_batch_size(model.device), len(x))
        # A clone leaves inference mode: gradients cannot be recorded on tensors that were made in it.
        with torch.inference_mode(mode=False):
            x = x.detach().clone().to(model.device, torch.float32)
        return cls(model, spec, spec.build(options), x, targets, seeds, image_ids, patients, findings, size)

    def asked(self) -> NDArray[np.bool_]:
        """Return ``(B, T)``, whether there is something to explain."""
        return np.asarray((self.targets != EMPTY).numpy())

    def pairs(self) -> pd.DataFrame:
        """Return whose maps :meth:`maps` holds: image_id, patient, finding."""
        where = [
            (self.image_ids[b], self.patients[b], self.findings[int(self.targets[b, t])])
            for b, t in np.argwhere(self.asked())
        ]
        return pd.DataFrame(where, columns=["image_id", "patient", "finding"])

    def maps(self, x: torch.Tensor | None = None, seeds: torch.Tensor | None = None) -> NDArray[np.float32]:
        """Return the maps of all that is asked, ``(n, h, w)``, in their published form; of other pictures or seeds."""
        values = self.explain(self.x if x is None else x, self.targets, self.seeds if seeds is None else seeds)
        return np.asarray(values.numpy()[self.asked()])

    def explain(
        self, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor, size: int | None = None
    ) -> torch.Tensor:
        """Return the maps ``(b, T, h, w)`` of `x`, in their published form, on the CPU.

        Parameters
        ----------
        x
            ``(b, C, H, W)``.
        targets
            ``(b, T)``.
        seeds
            ``(b,)``.
        size
            Films a call; None: as the experiment has it.
        """
        size = self.size if size is None else size
        starts = range(0, len(x), size)
        parts = ((part[start : start + size] for part in (x, targets, seeds)) for start in starts)
        pieces = (piece for one, t, s in parts for piece in run_explainer(self.model, self.explainer, one, t, s, size))
        values = torch.cat([piece.values for piece in pieces])
        return values.clamp(min=0) if self.spec.relu else values

    def probabilities(self, x: torch.Tensor) -> torch.Tensor:
        """Return the probabilities ``(B, K)`` of `x`, on the CPU."""
        # clones, because a network may begin with an in-place operation
        parts = [x[start : start + self.size].clone() for start in range(0, len(x), self.size)]
        return self.model.probabilities(torch.cat([predict_logits(self.model, part, self.size) for part in parts]))
