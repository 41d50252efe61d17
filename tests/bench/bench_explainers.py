"""How fast films are explained, against the peers and against what the networks allow. Only the ratios count.

DenseNet-121 and ViT-S at 224 px with 14 findings, fp32, everything warm, in one process and with the same threads and
allocator for all::

    python tests/bench/bench_explainers.py [--batch 8] [--repeats 3] [gradcam] [smoothgrad] [extremal]

f is one forward pass of the batch, b a backward pass to the input.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional

import cxrx
from cxrx.explainers.extremal import Active, Problem, Row, area_penalty, optimise
from cxrx.explainers.extremal_mask import MaskGenerator
from cxrx.explainers.guard import guard
from cxrx.explainers.options import parse_options
from cxrx.explainers.specs import ExtremalOptions
from cxrx.models.architectures import NIH_LABELS
from cxrx.models.inference import tune_allocator
from cxrx.models.model import Model
from cxrx.reading.find import Item, find
from cxrx.reading.options import ReadOptions
from cxrx.reading.prepare import prepare_item
from cxrx.registry import load as load_registry
from cxrx.specs import InputSpec

REAL = Path(__file__).resolve().parents[3] / "shared" / "realdata" / "nih_cxr14" / "images"
NETWORKS = {"DenseNet-121": "densenet121", "ViT-S/16": "vit_small_patch16_224"}
CHUNK = 8
"""Noisy copies at once for the peer: its best batch on a CPU."""


def make_model(name: str) -> Model:
    """Return a network with random weights whose head is large enough for gradients to be seen."""
    torch.manual_seed(0)
    module = timm.create_model(NETWORKS[name], num_classes=len(NIH_LABELS))
    nn.init.normal_(module.get_classifier().weight, std=0.05)
    return cxrx.wrap_model(module, NIH_LABELS, 224, in_chans=3, name=name)


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


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the median wall time of `function`, after one call that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run(model: Model, x: torch.Tensor, method: str, targets: torch.Tensor, **options: Any) -> Any:
    """Explain one batch, without the forward pass that `cxrx.explain` makes for the scores."""
    spec = load_registry().explainers.find(method)
    with guard(model.module):
        return spec.build(parse_options(spec, options))(model, x, targets, torch.arange(len(x)))


def forward_backward(model: Model, x: torch.Tensor, repeats: int) -> tuple[float, float]:
    """Return the seconds of a forward pass and of a backward pass to the input, parameters frozen."""

    def both() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model.forward(leaf).sum(), leaf)

    with guard(model.module):
        f = seconds(lambda: model.logits(x), repeats)
        return f, seconds(both, repeats) - f


def bench_gradcam(model: Model, x: torch.Tensor, repeats: int) -> None:
    """Time Grad-CAM for 14 findings against one forward, and against the peer asked for each of them."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer, size = model.cam_layer(), (x.shape[2], x.shape[3])
    peer = pytorch_grad_cam.GradCAM(model.module, [layer.module], lambda output: layer.to_grid(output, size))

    def every() -> None:
        for k in range(len(model.labels)):
            peer(x.clone().requires_grad_(), [ClassifierOutputTarget(k)] * len(x))

    f, _ = forward_backward(model, x, repeats)
    theirs = seconds(every, 1)
    peer.activations_and_grads.release()
    ours = seconds(lambda: run(model, x, "gradcam", torch.arange(14).expand(len(x), 14)), repeats)
    print(f"{model.name}: gradcam, 14 findings: {ours / len(x):.3f} s a film, {ours / f:.2f} forwards, ", end="")
    print(f"{theirs / ours:.0f} times pytorch-grad-cam")


def bench_smoothgrad(model: Model, x: torch.Tensor, repeats: int, n: int = 16) -> None:
    """Time SmoothGrad for one and three findings against captum, and against the bound of shared forwards."""
    from captum.attr import NoiseTunnel, Saliency

    f, b = forward_backward(model, x, repeats)
    tunnel = NoiseTunnel(Saliency(model.module))

    def captum(findings: int) -> None:
        with guard(model.module):
            for k in range(findings):
                for picture in x:
                    one = picture[None].clone()
                    tunnel.attribute(one, nt_samples=n, nt_samples_batch_size=CHUNK, stdevs=0.15, target=k, abs=False)

    for findings in (1, 3):
        targets = torch.arange(findings).expand(len(x), findings)
        ours = seconds(lambda t=targets: run(model, x, "smoothgrad", t, n=n), repeats)
        theirs = seconds(lambda k=findings: captum(k), 1)
        bound = findings * (f + b) / (f + findings * b)
        print(f"{model.name}: smoothgrad n={n}, {findings} findings: {ours / len(x):.3f} s a film, ", end="")
        print(f"{theirs / ours:.2f} times captum (bound {bound:.2f}), {ours / (n * (f + findings * b)):.2f} of n(f+kb)")


def published_mask(parameters: torch.Tensor, weight: torch.Tensor, generator: MaskGenerator) -> torch.Tensor:
    """Make masks the way the paper describes it: all 81 neighbours of every pixel, each weighed, in one tensor."""
    height, width = generator.canvas
    h, w = generator.grid
    near = functional.unfold(parameters[:, None], 9, padding=7).view(-1, 81, h + 6, w + 6)
    near = functional.interpolate(near, scale_factor=generator.step, mode="nearest")[:, :, :height, :width]
    v = near * weight
    return (v * functional.softmax(20 * v, dim=1)).sum(dim=1).clamp(0, 1)


def published_weight(generator: MaskGenerator) -> torch.Tensor:
    """Return the weights ``(81, *canvas)`` of `published_mask`."""
    table = generator.weights().float().view(generator.step, generator.step, 81).permute(2, 0, 1)
    h, w = generator.grid
    return table.repeat(1, h + 6, w + 6)[:, : generator.canvas[0], : generator.canvas[1]]


def bench_extremal(model: Model, x: torch.Tensor, repeats: int) -> None:
    """Time a step of the rows, its mask generator, and the same with the published generator, one row at a time."""
    areas = (0.05, 0.1, 0.2)
    options = ExtremalOptions(areas=areas, stop=False)
    rows = [Row(b, 0, 0, i, area) for b in range(len(x)) for i, area in enumerate(areas)][: 2 * len(x)]
    with guard(model.module):
        problem = Problem(model, x, options)
        active = Active(problem, x, len(rows))
        active.fill(deque(rows))
        step = seconds(active.step, 2 * repeats) / len(rows)
        parameters = active.parameters.detach()
        generator, weight = problem.generator, published_weight(problem.generator)

        def masks(make: Callable[[torch.Tensor], torch.Tensor], count: int) -> None:
            p = parameters[:count].clone().requires_grad_()
            torch.autograd.grad(make(p).sum(), p)

        ours = seconds(lambda: masks(lambda p: generator(p, problem.kernels), len(rows)), repeats) / len(rows)
        theirs = seconds(lambda: masks(lambda p: published_mask(p, weight, generator), 1), repeats)

        def one_row() -> None:
            p = parameters[:1].clone().requires_grad_()
            canvas = published_mask(p, weight, generator)
            reward = problem.reward(generator.visible(canvas), rows[:1], torch.zeros(1, dtype=torch.bool))
            penalty = area_penalty(canvas.flatten(1), torch.tensor([6000]), 6001)
            torch.autograd.grad((300 * penalty - reward).sum(), p)

        alone = seconds(one_row, repeats)
    f, b = forward_backward(model, x, repeats)
    network = (f + b) / len(x)
    print(
        f"{model.name}: extremal: {step * 1e3:.0f} ms a step and row; the masks are {ours / network:.2f} of f+b ",
        end="",
    )
    print(f"(published generator {theirs / network:.2f}); {alone / step:.2f} times rows one by one with the latter")


def bench_early_stop(model: Model, x: torch.Tensor) -> None:
    """Compare the masks of early stop with those of the full path: model evaluations, reward, area."""
    rows = [Row(b, 0, 0, i, area) for b in range(len(x)) for i, area in enumerate((0.05, 0.1, 0.2))]
    results = {}
    for stop in (False, True):
        start = time.perf_counter()
        with guard(model.module):
            found = dict(optimise(model, x, rows, ExtremalOptions(stop=stop)))
        results[stop] = (
            time.perf_counter() - start,
            sum(found[row].steps for row in rows),
            sum(float(found[row].reward) for row in rows),
            sum(float(found[row].mask.mean()) / row.area for row in rows) / len(rows),
        )
    (full_time, full_steps, full_reward, full_area), (time_, steps, reward, area) = results[False], results[True]
    print(
        f"{model.name}: extremal, early stop: {steps / full_steps:.2f} of the evaluations, {time_ / full_time:.2f} ",
        end="",
    )
    print(
        f"of the time, reward {reward / full_reward:.3f}, area {area:.3f} (full path {full_area:.3f}) of the one asked"
    )


def main() -> None:
    """Print one line for each method and network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="gradcam, smoothgrad, extremal, stop; default: the first three")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    what = arguments.what or ["gradcam", "smoothgrad", "extremal"]
    tune_allocator()
    pixels = films(arguments.batch)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {arguments.batch}")
    for name in NETWORKS:
        model = make_model(name)
        x = model.prepare(pixels)
        if "gradcam" in what:
            bench_gradcam(model, x, arguments.repeats)
        if "smoothgrad" in what:
            bench_smoothgrad(model, x, arguments.repeats)
        if "extremal" in what:
            bench_extremal(model, x, arguments.repeats)
        if "stop" in what:
            bench_early_stop(model, x[:2])


if __name__ == "__main__":
    main()
