"""What the benchmarks of explainers share: networks, films, clocks and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import cxrx
from cxrx.explainers.guard import guard
from cxrx.models.architectures import NIH_LABELS
from cxrx.models.model import Model
from cxrx.options import parse_options
from cxrx.reading.find import find
from cxrx.reading.item import Item
from cxrx.reading.options import ReadOptions
from cxrx.reading.prepare import prepare_item
from cxrx.registry import load as load_registry
from cxrx.specs import InputSpec

REAL = Path(__file__).resolve().parents[3] / "shared" / "realdata" / "nih_cxr14" / "images"
NETWORKS = {"DenseNet-121": "densenet121", "ViT-S/16": "vit_small_patch16_224"}


def make_module(name: str) -> nn.Module:
    """Return a network with random weights whose head is large enough for gradients to be seen."""
    torch.manual_seed(0)
    module = timm.create_model(NETWORKS[name], num_classes=len(NIH_LABELS)).eval()
    nn.init.normal_(module.get_classifier().weight, std=0.05)
    return module


def make_model(name: str, device: str = "cpu") -> Model:
    """Return the same network as cxrx runs it."""
    return cxrx.wrap_model(make_module(name), NIH_LABELS, 224, in_chans=3, name=name, device=device)


def films(count: int) -> torch.Tensor:
    """Return real films where there are any beside the checkout, else noise, ``(count, 224, 224)`` in [0, 1]."""
    pixels = []
    if REAL.is_dir():
        for item in find([REAL]):
            if isinstance(item, Item) and len(pixels) < count:
                pixels += [
                    film.pixels for film in prepare_item(item, InputSpec(), ReadOptions()) if hasattr(film, "pixels")
                ]
    if len(pixels) < count:
        return torch.rand(count, 224, 224, generator=torch.Generator().manual_seed(0))
    return torch.stack([torch.from_numpy(film) for film in pixels[:count]])


def describe_machine() -> str:
    """Return in words what the figures were measured on."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, {where}"


def seconds(function: Callable[[], Any], repeats: int = 3, *, warm: bool = True) -> float:
    """Return the median wall time of `function`, after one call that does not count unless told otherwise."""
    if warm:
        function()
    times = []
    for _ in range(repeats):
        synchronise()
        start = time.perf_counter()
        function()
        synchronise()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(model: Model, x: torch.Tensor, method: str, targets: torch.Tensor, **options: Any) -> torch.Tensor:
    """Explain one batch, without the forward pass that `cxrx.explain` makes for the scores; return the values."""
    spec = load_registry().explainers.find(method)
    with guard(model.module):
        explainer = spec.build(parse_options(spec.options, options, spec.name))
        values: torch.Tensor = explainer(model, x, targets, torch.arange(len(x))).values
    return values


def first_findings(count: int, x: torch.Tensor) -> torch.Tensor:
    """Return targets ``(B, count)``: the same findings for every picture."""
    return torch.arange(count).expand(len(x), count)


def forward_backward(model: Model, x: torch.Tensor, repeats: int = 3) -> tuple[float, float]:
    """Return the seconds of a forward pass and of a backward pass to the input, parameters frozen."""

    def both() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model.forward(leaf).sum(), leaf)

    with guard(model.module):
        f = seconds(lambda: model.logits(x), repeats)
        return f, seconds(both, repeats) - f


def peak_memory(function: Callable[[], Any]) -> float:
    """Return how many MB of memory `function` adds at its peak: of the GPU, or resident ones (Linux) on a CPU."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before_kb = _status("VmRSS")
    function()
    return (_status("VmHWM") - before_kb) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean Pearson correlation of maps ``(B, T, h, w)`` with others of the same shape."""
    pairs = zip(a.flatten(2).flatten(0, 1), b.flatten(2).flatten(0, 1), strict=True)
    return float(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).mean())
