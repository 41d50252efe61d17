"""What every method costs: seconds a map and peak memory, as the table of the README.

One real film at 224 px and 14 findings, fp32, each method in a process of its own::

    python tests/bench/bench_cost.py [--network NAME] [--method NAME ...] > cost.md

A map is one finding of one film, with the options the method has by default; "all 14" is the time for the 14 maps of
a film. Methods that take every finding by itself are timed for one and multiplied, which a × marks. Memory is what
the first map adds to a process that has loaded the network and not run it yet.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

from cxrx.registry import load as load_registry

FINDINGS = 14
ONE_BY_ONE = frozenset({"extremal"})
"""Methods whose findings share nothing worth measuring, and that take long."""
LONG = 5.0  # seconds


def measure(network: str, method: str) -> dict[str, float]:
    """Return seconds for one and for 14 findings, and MB added at the peak, of `method` in this process."""
    import torch
    from common import films, first_findings, make_model, peak_memory, run, seconds

    from cxrx.models.inference import tune_allocator

    tune_allocator()
    model = make_model(network, "cuda" if torch.cuda.is_available() else "cpu")
    x = model.prepare(films(1))
    targets = first_findings(1, x)
    start = time.perf_counter()
    memory = peak_memory(lambda: run(model, x, method, targets))
    one = time.perf_counter() - start
    if one < LONG:  # the first pass also sets things up, which shows in a short time
        one = seconds(lambda: run(model, x, method, targets), warm=False)
    if method in ONE_BY_ONE:
        return {"one": one, "all": FINDINGS * one, "memory": memory}
    every = seconds(lambda: run(model, x, method, first_findings(FINDINGS, x)), 1, warm=False)
    return {"one": one, "all": every, "memory": memory}


def table(networks: list[str], methods: list[str]) -> None:
    """Print the table, a row for each method, in which every cell comes from a process of its own."""
    from common import describe_machine, make_model

    print(f"{describe_machine()}\n")
    print("| method | " + " | ".join(f"{network}: s a map | all 14, s | MB" for network in networks) + " |")
    print("|---" * (1 + 3 * len(networks)) + "|")
    offered = {network: make_model(network).offers() for network in networks}
    for method in methods:
        needs = load_registry().explainers.find(method).needs
        cells = [method]
        for network in networks:
            if not needs <= offered[network]:
                cells += ["–"] * 3
                continue
            command = [sys.executable, __file__, "--measure", network, method]
            cost = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            cells += [
                f"{cost['one']:.2f}",
                f"{cost['all']:.2f}" + "×" * (method in ONE_BY_ONE),
                f"{cost['memory']:.0f}",
            ]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the table, or as a child process the figures of one method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", default=None)
    parser.add_argument("--method", action="append", default=None)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    built_in = [spec.name for name, spec in load_registry().explainers.items() if name.startswith("cxrx/")]
    table(arguments.network or ["DenseNet-121", "ViT-S/16"], arguments.method or built_in)


if __name__ == "__main__":
    main()
