"""What the tests share: folders of their own, one thread, and networks made on the spot."""

import os

os.environ["CXRX_PLUGINS"] = "xrv"  # what else is installed, or left out elsewhere, must not decide a test

import pytest
import torch
import torchvision
from torch import nn


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("CXRX_HOME", str(tmp_path / "home"))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pickled():
    """Return a function that saves anything at a path, and returns the path."""

    def save(content, path, **options):
        path.parent.mkdir(exist_ok=True)
        torch.save(content, path, **options)
        return path

    return save


@pytest.fixture
def jrzech():
    """Return a function that makes a reproduce-chexnet network with random weights."""

    def make(outputs=14):
        torch.manual_seed(0)
        made = torchvision.models.densenet121(weights=None)
        made.classifier = nn.Sequential(nn.Linear(1024, outputs), nn.Sigmoid())
        return made.eval()

    return make
