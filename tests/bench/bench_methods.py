"""Which of three methods to trust on which of two networks: the question of the XAI chest X-ray study.

    python tests/bench/bench_methods.py OUT [--films 40]

Grad-CAM, SmoothGrad and extremal perturbations on the demo DenseNet and the demo ViT, on synthetic films that neither
saw in training, with the true boxes: hit, IoU, deletion, insertion and ROAD with intervals over patients, differences
adjusted by Holm's method, one report. Writes OUT/report.html and its tables, prints the verdict and the seconds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cxrx
from cxrx.cli.compare import show
from cxrx.compare.corpus import open_corpus
from cxrx.compare.run import compare
from cxrx.export.tables import write_tables
from cxrx.phantom import write_folder
from cxrx.report.html import write_report

METHODS = ("gradcam", "smoothgrad", "extremal")
MODELS = ("demo-densenet", "demo-vit")
METRICS = "classification,localisation,agreement,deletion,insertion,road"
SEED = 4711  # of films that the demo models never saw


def main() -> None:
    """Make films, explain them with every method on every model, compare, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--films", type=int, default=40)
    options = parser.parse_args()
    begun = time.perf_counter()
    write_folder(options.out / "films", options.films, SEED)
    results = options.out / "results.h5"
    for name in MODELS:
        report = cxrx.run(cxrx.load_model(name), options.out / "films", METHODS, results, targets="truth")
        print(f"{report.model}: {report.seconds:.0f} s for {', '.join(METHODS)}")
    start = time.perf_counter()
    with open_corpus([results]) as corpus:
        comparison = compare(corpus, metrics=METRICS, max_pairs=2 * options.films)
        print(f"compare: {time.perf_counter() - start:.0f} s")
        write_tables(comparison, options.out)
        write_report(comparison, corpus, options.out / "report.html")
    show(comparison)
    tests = comparison.paired_tests
    tests = tests[(tests["finding"] == "all") & tests["metric"].isin(["hit", "iou", "deletion", "insertion", "road"])]
    real = tests[tests["method_a"].isin(METHODS) & tests["method_b"].isin(METHODS)]
    names = ["metric", "model_a", "method_a", "model_b", "method_b", "n"]
    print(real[[*names, "difference", "low", "high", "p_holm", "decided"]].round(3).to_string(index=False))
    print(f"all: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
