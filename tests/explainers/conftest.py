from __future__ import annotations

import pytest
import torch
from torch import nn

from cxrx.models.load import wrap_model


def make_small_cnn(seed: int = 0, size: int | tuple[int, int] = 32, channels: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 12, 3, 2, 1),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 3),
    ).eval()


@pytest.fixture
def cnn():
    """Return a wrapped small network of three findings for 32 x 32 grey pictures."""
    return wrap_model(make_small_cnn(), ["Effusion", "Mass", "Nodule"], 32)


@pytest.fixture
def pictures():
    return torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))
