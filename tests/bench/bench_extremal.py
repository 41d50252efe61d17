"""How fast extremal perturbations are found, and what stopping early costs. Only the ratios count.

DenseNet-121 and ViT-S at 224 px, three areas, real films where there are any::

    python tests/bench/bench_extremal.py [--films 2] [--network NAME] [step] [stop]

``step``: a step of all rows against rows one by one with the published mask generator, and the share of the masks.
``stop``: the published 800 steps against those with early stop: model evaluations, reward and area.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import torch
from common import NETWORKS, describe_machine, films, forward_backward, make_model, seconds
from torch.nn import functional

from cxrx.explainers.extremal import AREA_WEIGHT, GROWTH, PATH, Active, Problem, Row, optimise
from cxrx.explainers.extremal_mask import MaskGenerator, area_penalty
from cxrx.explainers.guard import guard
from cxrx.explainers.option_types import ExtremalOptions
from cxrx.models.inference import tune_allocator
from cxrx.models.model import Model

AREAS = (0.05, 0.1, 0.2)


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


def started(problem: Problem, x: torch.Tensor, rows: list[Row]) -> Active:
    """Return all rows at their first step."""
    active = Active(problem, x, len(rows))
    active.fill(deque(rows))
    return active


def bench_extremal(model: Model, x: torch.Tensor, repeats: int) -> None:
    """Time a step of the rows, its mask generator, and the same with the published generator, one row at a time."""
    options = ExtremalOptions(areas=AREAS, every=1, stop=False)
    rows = [Row(b, 0, 0, i, area) for b in range(len(x)) for i, area in enumerate(AREAS)][: 2 * len(x)]
    with guard(model.module):
        problem = Problem(model, x, options)
        active = started(problem, x, rows)
        step = seconds(active.step, 2 * repeats) / len(rows)
        reusing = started(Problem(model, x, replace(options, every=4)), x, rows)
        four = seconds(lambda: [reusing.step() for _ in range(4)], repeats) / len(rows)
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
    print(
        f"(published generator {theirs / network:.2f}); rows one by one with the latter take {alone / step:.2f} times ",
        end="",
    )
    print(f"as long, and {4 * alone / four:.2f} times as long as with the model evaluated at every 4th step")


def bench_early_stop(model: Model, x: torch.Tensor, *, yardstick: bool) -> None:
    """Compare masks from fewer model evaluations with those of the published path, evaluated at all of its 800 steps.

    The path is chaotic: as a yardstick the full run is compared with itself after a change of the input by 1e-6.
    """
    top = model.logits(x).argmax(dim=1).tolist()
    rows = [Row(b, 0, top[b], i, area) for b in range(len(x)) for i, area in enumerate(AREAS)]
    full = ExtremalOptions(areas=AREAS, every=1, stop=False)
    weight = AREA_WEIGHT * GROWTH ** (PATH - 1)

    def found(pictures: torch.Tensor, options: ExtremalOptions) -> tuple[float, ...]:
        start = time.perf_counter()
        with guard(model.module):
            masks = dict(optimise(model, pictures, rows, options))
        return (
            time.perf_counter() - start,
            sum(masks[row].evaluations for row in rows) / len(rows),
            sum(float(masks[row].reward) for row in rows) / len(rows),
            sum(float(masks[row].mask.mean()) / row.area for row in rows) / len(rows),
            sum(weight * float(masks[row].penalty) for row in rows) / len(rows),
        )

    noise = 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    runs = {
        "800 steps": (x, full),
        **({"the same, input + 1e-6": (x + noise, full)} if yardstick else {}),
        "every 2nd": (x, replace(full, every=2)),
        "every 4th": (x, replace(full, every=4)),
        "every 4th, early stop (default)": (x, replace(full, every=4, stop=True)),
    }
    for name, (pictures, options) in runs.items():
        duration, evaluations, reward, area, penalty = found(pictures, options)
        print(
            f"{model.name}: extremal, {name}: {evaluations:.0f} evaluations a mask, {duration / len(rows):.1f} s; ",
            end="",
        )
        print(f"reward {reward:.3f}, area {area:.3f} of the one asked, penalty at the last λ {penalty:.2f}", flush=True)


def main() -> None:
    """Print one line for each benchmark and network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=("step", "stop"), help="of step, stop; default: both")
    parser.add_argument("--films", type=int, default=2)
    parser.add_argument("--yardstick", action="store_true", help="run the full path twice, to see how far it differs")
    parser.add_argument("--network", choices=NETWORKS, action="append")
    arguments = parser.parse_args()
    tune_allocator()
    print(describe_machine(), flush=True)
    for name in arguments.network or NETWORKS:
        model = make_model(name)
        x = model.prepare(films(arguments.films))
        if "step" in arguments.what:
            bench_extremal(model, x, 3)
        if "stop" in arguments.what:
            bench_early_stop(model, x, yardstick=arguments.yardstick)


if __name__ == "__main__":
    main()
