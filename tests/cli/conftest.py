"""Small real things that runs need: films on disk and a network with fixed weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

NET = '''
import torch
from torch import nn
from cxrx import InputSpec

INPUT = InputSpec(size=(32, 32), fit="stretch", channels=1, mean=(0.5,), std=(0.25,))


def build(labels):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, len(labels)),
    )
'''


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks gain nothing from threads, and lose much where the machine is busy."""
    torch.set_num_threads(1)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Return a folder of ten small grey PNGs with smooth random content, all different."""
    folder = tmp_path / "films"
    folder.mkdir()
    for index in range(10):
        coarse = np.random.default_rng(index).random((6, 5)) * 200 + 20
        picture = Image.fromarray(coarse.astype(np.uint8)).resize((40, 48), Image.Resampling.BICUBIC)
        picture.save(folder / f"film{index:03d}.png")
    return folder


@pytest.fixture
def net(tmp_path: Path) -> str:
    """Return ``file.py:build`` of a tiny CNN with fixed weights."""
    path = tmp_path / "net.py"
    path.write_text(NET)
    return f"{path}:build"
