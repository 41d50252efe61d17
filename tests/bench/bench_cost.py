"""What every method costs: seconds a map and peak memory, as the table of the README.

One real film at 224 px and 14 findings, fp32, each method in a process of its own::

    python tests/bench/bench_cost.py [--network NAME] [--method NAME ...] > cost.md

A map is one finding of one film, with the options the method has by default; "all 14" is the time for the 14 maps of
a film. Methods that take findings one by one are timed for one and multiplied, which a × marks; those of which one
sweep serves all findings are timed for all. Memory is what the first map adds to a process that has loaded the network
and not run it yet.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from multiprocessing.connection import Connection

import torch
from common import NETWORKS, describe_machine, films, first_findings, make_module, peak_memory, run, seconds
from torch import nn

import cxrx
from cxrx.explainers.extremal import ROWS_ON_CPU
from cxrx.models.architectures import NIH_LABELS
from cxrx.models.inference import tune_allocator
from cxrx.models.model import Model
from cxrx.registry import load as load_registry

FINDINGS = 14
ONE_BY_ONE = frozenset({"extremal", "gradientshap", "deeplift"})
"""Methods that take a film's findings one by one."""
ONE_SWEEP = frozenset({"rise", "occlusion", "lime", "kernelshap", "scorecam", "ablationcam"})
"""Methods that find the maps of all findings in one sweep of forward passes."""
LONG = 5.0  # seconds


def wrap(name: str, module: nn.Module, device: str) -> Model:
    """Return `module` as cxrx runs it."""
    return cxrx.wrap_model(module, NIH_LABELS, 224, in_chans=3, name=name, device=device)


def measure(name: str, module: nn.Module, pixels: torch.Tensor, method: str, threads: int, out: Connection) -> None:
    """Send seconds for one finding, seconds for 14, and MB added at the peak, of `method` in this process."""
    torch.set_num_threads(threads)
    model = wrap(name, module, "cuda" if torch.cuda.is_available() else "cpu")
    x = model.prepare(pixels)
    targets = first_findings(FINDINGS if method in ONE_SWEEP else 1, x)
    start = time.perf_counter()
    memory = peak_memory(lambda: run(model, x, method, targets))
    one = time.perf_counter() - start
    if one < LONG:  # the first pass also sets things up, which shows in a short time
        one = seconds(lambda: run(model, x, method, targets), warm=False)
    # On a CPU extremal perturbations optimise a fixed number of masks side by side, idle ones among them.
    times = math.ceil(FINDINGS / ROWS_ON_CPU) if method == "extremal" else FINDINGS
    every = times * one if method in ONE_BY_ONE else one
    if method not in ONE_BY_ONE | ONE_SWEEP:
        every = seconds(lambda: run(model, x, method, first_findings(FINDINGS, x)), 1, warm=False)
    out.send((one, every, memory))


def cost(name: str, module: nn.Module, pixels: torch.Tensor, method: str, threads: int) -> list[str]:
    """Return the cells of one method and network, measured in a fork that shares nothing but the loaded network."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(
        target=measure, args=(name, module, pixels, method, threads, sender)
    )
    child.start()
    sender.close()
    try:
        one, every, memory = receiver.recv()
    except EOFError:
        raise SystemExit(f"{method} on {name} failed") from None
    finally:
        child.join()
    return [f"{one:.2f}", f"{every:.2f}" + "×" * (method in ONE_BY_ONE), f"{memory:.0f}"]


def main() -> None:
    """Print the table, a row for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=NETWORKS)
    parser.add_argument("--method", action="append")
    arguments = parser.parse_args()
    networks = arguments.network or list(NETWORKS)
    methods = arguments.method or [s.name for n, s in load_registry().explainers.items() if n.startswith("cxrx/")]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    print(f"{describe_machine()}\n")
    tune_allocator()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # no pool of threads may exist when the process forks
    pixels = films(1)
    modules = {name: make_module(name) for name in networks}
    offered = {name: wrap(name, module, "cpu").offers() for name, module in modules.items()}
    print("| | " + " | ".join(f"{name}: s a map | all 14, s | MB" for name in networks) + " |")
    print("|---" + "|---:" * (3 * len(networks)) + "|")
    for method in methods:
        needs = load_registry().explainers.find(method).needs
        cells = [
            cell
            for name, module in modules.items()
            for cell in (cost(name, module, pixels, method, threads) if needs <= offered[name] else ["–"] * 3)
        ]
        print(f"| `{method}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking for a GPU must not start it before the forks
    main()
