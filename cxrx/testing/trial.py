"""One call of an explainer, which the checks vary."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from cxrx.specs import ExplainerSpec, Maps
from cxrx.testing.outcome import Breach

if TYPE_CHECKING:
    import torch

    from cxrx.models.model import Model

FILMS, FINDINGS = 3, 2


class Trial:
    """One explainer, with options, on one model: the inputs, and the maps it returned for them."""

    def __init__(self, spec: ExplainerSpec, model: Model, options: Any) -> None:
        import torch

        self.spec, self.model = spec, model
        self.explainer = spec.build(options)
        pixels = torch.rand(FILMS, *model.input.size, generator=torch.Generator().manual_seed(0))
        self.x = model.prepare(pixels)  # (B, C, H, W)
        labels = len(model.labels)
        columns = min(FINDINGS, labels)
        self.targets = torch.tensor([[(b + t) % labels for t in range(columns)] for b in range(FILMS)])  # (B, T)
        self.seeds = torch.tensor([11, 22, 33])  # (B,)

    def run(
        self,
        *,
        model: Model | None = None,
        x: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        seeds: torch.Tensor | None = None,
    ) -> Maps:
        """Explain under the guard, with some of the inputs replaced.

        Parameters
        ----------
        model, x, targets, seeds
            In place of the trial's own, where they are given.
        """
        from cxrx.explainers.guard import guard

        model = self.model if model is None else model
        x = self.x if x is None else x
        targets = self.targets if targets is None else targets
        with guard(model.module):
            maps: Any = self.explainer(model, x, targets, self.seeds if seeds is None else seeds)
        if not isinstance(maps, Maps):
            raise Breach(f"the explainer returned {type(maps).__name__}, not cxrx.Maps")
        return maps

    @cached_property
    def maps(self) -> Maps:
        """What the explainer returns for the inputs as they are."""
        return self.run()

    @property
    def values(self) -> torch.Tensor:
        """Values ``(B, T, h, w)`` of `maps`."""
        values: torch.Tensor = self.maps.values
        return values
