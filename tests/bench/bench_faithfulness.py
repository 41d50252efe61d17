"""Deletion and insertion against Quantus, step for step, and what the other faithfulness metrics cost.

    pip install quantus    # optional, in an environment of its own
    python tests/bench/bench_faithfulness.py [--network DenseNet-121] [--films 8] [--steps 48] [--repeats 3]

Both score one finding of each film in the same number of steps on the same network, the films in one batch. Quantus
wants steps that divide the pixels: 48 do at 224 px, 50 do not. Its PixelFlipping has no insertion: starting from the
blurred picture it would make the same passes, so that deletion + insertion is two of its runs. Rounds of both take
turns, and the fastest of each counts, since other work on the machine only ever adds; CPU seconds tell how much it
added. Without Quantus its rows are left out, and a sentence says so.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import NETWORKS, describe_machine, films, make_model
from numpy.typing import NDArray

from cxrx.compare.faithfulness import FAMILIES, deletion, insertion
from cxrx.compare.faithfulness.family import Family
from cxrx.compare.faithfulness.road import SHARES
from cxrx.compare.faithfulness.score import score_faithfulness
from cxrx.metrics.imputation import impute
from cxrx.models.inference import tune_allocator
from cxrx.models.model import Model


def clock(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """Return the fewest seconds of each function, by the wall's clock and of the CPU; they take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter(), time.process_time()
            function()
            times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return {name: (min(wall for wall, _ in found), min(cpu for _, cpu in found)) for name, found in times.items()}


def pixel_flipping(
    model: Model, x: NDArray[np.float32], maps: NDArray[np.float32], y: NDArray[np.int64], steps: int
) -> Any:
    """Run Quantus' deletion with the mean as baseline."""
    import quantus

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        metric = quantus.PixelFlipping(
            features_in_step=x[0].size // steps,
            perturb_baseline="mean",
            normalise=False,
            return_auc_per_sample=False,  # its trapezoid rule needs a NumPy before 2.4
            disable_warnings=True,
        )
        return metric(
            model=model.module, x_batch=x, y_batch=y, a_batch=maps, device=str(model.device), channel_first=True,
            softmax=False, batch_size=len(x),
        )  # fmt: skip


def half_flipped(
    model: Model, x: NDArray[np.float32], maps: NDArray[np.float32], y: NDArray[np.int64], steps: int
) -> float:
    """Return in how many pixels Quantus changed some channels of the grey picture but not all, at worst over steps."""
    worst = 0.0

    def look(_: Any, inputs: tuple[torch.Tensor]) -> None:
        nonlocal worst
        changed = (inputs[0].cpu().numpy() != x).sum(axis=1)  # (B, H, W) channels
        worst = max(worst, float(((changed > 0) & (changed < x.shape[1])).mean()))

    handle = model.module.register_forward_pre_hook(look)
    try:
        pixel_flipping(model, x, maps, y, steps)
    finally:
        handle.remove()
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="DenseNet-121")
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--steps", type=int, default=48, help="divides the pixels of all channels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps = options.steps
    tune_allocator()
    model = make_model(options.network, "cuda" if torch.cuda.is_available() else "cpu")
    x = model.prepare(films(options.films))
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((len(x), 1, 7, 7))
    maps = np.maximum(coarse - np.quantile(coarse, 0.32), 0).astype(np.float32)  # a third of zeros, as Grad-CAM has
    targets, seeds = np.zeros((len(x), 1), dtype=np.int64), np.arange(len(x))
    print(f"{describe_machine()}; {options.network}, {len(x)} films of 224 px, one finding each, {steps} steps\n")

    def ours(*families: Family) -> None:
        score_faithfulness(model, x, maps, targets, families, seeds=seeds)

    grey = np.ascontiguousarray(x.cpu().numpy())
    fine = torch.nn.functional.interpolate(torch.from_numpy(maps), x.shape[2:], mode="bilinear").numpy()
    functions: dict[str, Callable[[], Any]] = {"cxrx": lambda: ours(deletion(steps), insertion(steps))}
    try:
        import quantus

        functions["Quantus"] = lambda: [pixel_flipping(model, grey, fine, targets[:, 0], steps) for _ in range(2)]
        other = f"Quantus {quantus.__version__}"
    except ImportError as error:
        other = ""
        print(f"Quantus is not there ({error}): no comparison\n")
    found = clock(functions, options.repeats)
    print("| deletion + insertion | seconds | CPU seconds | CPU ms a film and step |\n|---|---:|---:|---:|")
    for name, (wall, cpu) in found.items():
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {1e3 * cpu / (2 * steps * len(x)):.2f} |")
    if other:
        wall, cpu = (a / b for a, b in zip(found["Quantus"], found["cxrx"], strict=True))
        print(f"\n{other} / cxrx: {wall:.2f} by the clock, {cpu:.2f} of the CPU")
        share = half_flipped(model, grey, fine, targets[:, 0], steps)
        print(f"pixels of which {other} changed one or two of three grey channels, at worst: {share:.1%}; cxrx: none")
    costs = clock({family.name: lambda family=family: ours(family) for family in FAMILIES[2:]}, 1)  # type: ignore[misc]
    print("\n| family | seconds a film and finding | CPU seconds |\n|---|---:|---:|")
    for name, (wall, cpu) in costs.items():
        print(f"| {name} | {wall / len(x):.2f} | {cpu / len(x):.2f} |")
    order = np.argsort(np.argsort(-fine[0, 0].ravel())).reshape(fine.shape[2:])
    plane = grey[0, :1].astype(np.float64)
    spent = clock({f"{share:.0%}": lambda s=share: impute(plane, order < s * order.size) for share in SHARES}, 2)  # type: ignore[misc]
    cpu = [used for _, used in spent.values()]
    print(f"\nROAD: imputing one film at 10 ... 90 % takes {sum(cpu):.2f} CPU seconds, the slowest {max(cpu):.2f}")


if __name__ == "__main__":
    main()
