"""How fast films are predicted, against the loop users write today and against what the cores allow.

DenseNet-121 at 224 px on 64 PNG films, fp32, everything warm and in one process::

    python tests/bench/bench_throughput.py [FOLDER]

FOLDER holds 1024x1024 PNGs (default: the real films beside the checkout, else made-up ones). Printed are films a
second of three ways and their ratios; core-seconds are CPU time, so the bound is ``cores / (forward + decode)``.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

import cxrx
from cxrx.engine.api import run
from cxrx.models.architectures import NIH_LABELS
from cxrx.models.inference import predict_logits, tune_allocator
from cxrx.reading.find import find
from cxrx.reading.item import Item
from cxrx.reading.options import ReadOptions
from cxrx.reading.prepare import prepare_item

FILMS = 64
REPEATS = 5
REAL = Path(__file__).resolve().parents[3] / "shared" / "realdata" / "nih_cxr14" / "images"


def gather(source: Path, folder: Path) -> None:
    """Put 64 different PNGs into `folder`: the films of `source`, then mirrored ones."""
    paths = sorted(source.glob("*.png")) if source.is_dir() else []
    for index in range(FILMS):
        out = folder / f"{index:03d}.png"
        if index < len(paths):
            out.write_bytes(paths[index].read_bytes())
        elif paths:
            Image.open(paths[index % len(paths)]).convert("L").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(out)
        else:
            noise = np.random.default_rng(index).normal(128, 30, (64, 64)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).resize((1024, 1024), Image.Resampling.BICUBIC).save(out)


def one_at_a_time(module: torch.nn.Module, paths: Sequence[Path]) -> None:
    """Read, resize, forward: the loop of the published notebooks."""
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    for path in paths:
        picture = Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        x = (torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255 - mean) / std
        with torch.no_grad():
            module(x[None])


def seconds(work: Callable[[], object]) -> float:
    """Return the median wall time of `work`, after one unmeasured time."""
    work()
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the least CPU time of `work` over all threads of this process."""
    work()
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def main(source: Path) -> None:
    """Measure and print."""
    logging.disable(logging.WARNING)
    tune_allocator()
    cores = len(os.sched_getaffinity(0))
    torch.manual_seed(0)
    module = timm.create_model("densenet121", num_classes=14).eval()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "films"
        folder.mkdir()
        gather(source, folder)
        paths = sorted(folder.iterdir())
        loop = seconds(lambda: one_at_a_time(module, paths)) / FILMS

        def stream(dtype: str) -> Callable[[], object]:
            def work() -> None:
                out = Path(scratch) / "r.h5"
                out.unlink(missing_ok=True)
                run(model, folder, out=out, dtype=dtype)

            return work

        model = cxrx.wrap_model(module, NIH_LABELS, in_chans=3, name="densenet121")
        streamed = seconds(stream("fp32")) / FILMS
        half = seconds(stream("bf16")) / FILMS
        items = [item for item in find([folder]) if isinstance(item, Item)]
        decode = cpu_seconds(lambda: [prepare_item(item, model.input, ReadOptions()) for item in items]) / FILMS
        x = model.prepare(torch.rand(8, 224, 224))
        forward = cpu_seconds(lambda: predict_logits(model, x, 8)) / 8
        forward_wall = seconds(lambda: predict_logits(model, x, 8)) / 8
    bound = cores / (forward + decode)
    print(f"{cores} cores, torch {torch.__version__}, {torch.get_num_threads()} threads, {FILMS} films, batch 8")
    print(f"decode            {decode * 1e3:6.1f} core-ms a film")
    print(f"forward           {forward * 1e3:6.1f} core-ms a film ({forward_wall * 1e3:.1f} ms wall)")
    print(f"one at a time     {1 / loop:6.1f} films/s")
    print(f"cxrx fp32         {1 / streamed:6.1f} films/s   {loop / streamed:.2f}x the loop")
    print(f"what cores allow  {bound:6.1f} films/s   cxrx reaches {1 / streamed / bound:.2f} of it")
    print(f"cxrx bf16         {1 / half:6.1f} films/s   {loop / half:.2f}x the loop")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else REAL)
