"""A new model: three convolutions, untrained."""

from collections.abc import Sequence
from typing import Any

from cxrx import InputSpec, ModelSpec, hookimpl


def build_small(labels: Sequence[str]) -> Any:
    """Return an untrained network of three convolutions, the same at every call."""
    import torch  # heavy imports stand inside, so that listing plugins stays fast
    from torch import nn

    with torch.random.fork_rng(devices=[]):  # leave the caller's random numbers alone
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(labels)))


@hookimpl
def register_models(register: Any) -> None:
    """Register the model: its name, its findings, what it expects to see."""
    grey = InputSpec(size=(64, 64), channels=1, mean=(0.5,), std=(0.25,))
    register(ModelSpec("small", build_small, ("Effusion", "Nodule"), grey, summary="three convolutions, untrained"))
