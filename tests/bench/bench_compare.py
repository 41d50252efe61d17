"""How long ``compare --metrics fast`` takes on 1,000 films, 14 findings and 5 methods of native CAM maps.

    python tests/bench/bench_compare.py [--films 1000]

A made-up results file: all 14 findings of every film mapped on 7 x 7 cells, one to two boxes a film. Prints seconds,
the largest memory of the process, and how many scores were computed.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from cxrx.compare.corpus import open_corpus
from cxrx.compare.run import compare
from cxrx.export.tables import write_tables
from cxrx.models.architectures import NIH_LABELS
from cxrx.reading.record import ImageRecord, Link, Status
from cxrx.report.html import write_report
from cxrx.results.contents import Contents
from cxrx.results.pack import pack
from cxrx.results.parts import PartStore
from cxrx.results.records import Block, keyed
from cxrx.results.truth import TruthTable

SIDE, INPUT, CELLS = 1024, 224, 7
MODEL = "densenet121@00000000"
METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam")
FILMS_A_PART = 16


def make_results(path: Path, films: int) -> None:
    """Write a results file whose maps see a third of their boxes."""
    rng = np.random.default_rng(0)
    store, truth, K = PartStore(path), TruthTable(), len(NIH_LABELS)
    step = SIDE / INPUT
    affine = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])
    settings = {"input": {"size": [INPUT, INPUT]}}
    for first in range(0, films, FILMS_A_PART):
        ids = [hashlib.sha256(f"film {i}".encode()).hexdigest() for i in range(first, min(first + FILMS_A_PART, films))]
        n, short = len(ids), tuple(digest[:16] for digest in ids)
        records = [
            ImageRecord(
                digest, "PA", SIDE, SIDE, "made up", Status.OK, "", False,
                Link("film", digest[:16], f"{digest[:16]}.png", patient=f"p{(first + i) // 2}"),
            )
            for i, digest in enumerate(ids)
        ]  # fmt: skip
        logit = rng.standard_normal((n, K)).astype(np.float32)
        values = np.maximum(rng.standard_normal((len(METHODS), n, K, CELLS, CELLS)), 0).astype(np.float32)
        for i, image_id in enumerate(short):
            truth.labels[image_id] = dict.fromkeys(NIH_LABELS, 0)
            for k in rng.choice(K, rng.integers(1, 3), replace=False).tolist():
                cell, size = rng.integers(0, CELLS, 2), rng.integers(100, 400, 2)
                corner = np.minimum(cell * SIDE // CELLS, SIDE - size)
                truth.labels[image_id][NIH_LABELS[k]] = 1
                truth.boxes.append((image_id, NIH_LABELS[k], *map(float, (*corner[::-1], *size[::-1]))))
                if rng.random() < 1 / 3:
                    values[:, i, k, cell[0], cell[1]] += 4
        arrays = {"logit": logit, "probability": 1 / (1 + np.exp(-logit)), "affine": np.tile(affine, (n, 1, 1))}
        blocks = [Block(MODEL, "", NIH_LABELS, short, {"settings": settings}, np.ones(n, bool), arrays)]
        for m, method in enumerate(METHODS):
            attrs = {"settings": settings | {"method": method}, "space": "native", "relu": 1, "signed": 1}
            arrays = {"values": values[m], "score": logit}
            blocks.append(Block(MODEL, method, NIH_LABELS, short, attrs, np.ones((n, K), bool), arrays))
        store.write(Contents(records, [], keyed(*blocks)), 0)
    pack(store, path, truth=truth, run={})


def main() -> None:
    """Make the file, compare it, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=1000)
    films = parser.parse_args().films
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.h5"
        make_results(path, films)
        begun, cpu = time.perf_counter(), time.process_time()
        with open_corpus([path]) as corpus:
            comparison = compare(corpus, metrics="fast")
            seconds, worked = time.perf_counter() - begun, time.process_time() - cpu
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"compare --metrics fast, {films} films, {len(METHODS)} methods: {seconds:.1f} s ({worked:.1f} s "
                  f"CPU), {memory:.2f} GiB at most, {len(comparison.per_pair)} maps scored, "
                  f"{len(comparison.paired_tests)} paired comparisons")  # fmt: skip
            begun = time.perf_counter()
            write_tables(comparison, Path(folder))
            report = write_report(comparison, corpus, Path(folder) / "report.html")
            print(f"tables and report: {time.perf_counter() - begun:.1f} s, {report.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
