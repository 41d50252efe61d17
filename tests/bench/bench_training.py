"""What `cxrx train` and `cxrx pretrain` make of phantoms: four kinds of networks, a masked autoencoder, rare findings.

Every training is the command itself, on tiny variants of the networks that are registered here::

    OMP_WAIT_POLICY=passive python tests/bench/bench_training.py [networks] [mae] [rare] [loader]

(Passive, because threads that spin at a barrier are slow beside other jobs.) Films come from the generator of `cxrx
phantom`, drawn at 256 x 224 pixels and read at 64 x 64. The test films are the
fifth of the patients that the split by patient puts aside; their numbers are computed here once more, from the weights
that the command left, and must be those that it reported.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from cxrx.cli.main import app
from cxrx.metrics.bootstrap import PatientBootstrap, interval, macro
from cxrx.metrics.classification import classify, weighted_auroc
from cxrx.models.load import load_model
from cxrx.phantom import FINDINGS, write_folder
from cxrx.registry import load as load_registry
from cxrx.specs import InputSpec, ModelSpec
from cxrx.training import classifier, loop
from cxrx.training.data import Labelled, read_labels
from cxrx.training.films import Decoded, decode
from cxrx.training.loader import Batch, Loader
from cxrx.training.recipes import make_recipe
from cxrx.training.weights import METRICS, REPORT

Float = NDArray[np.float64]

FILMS, SEED, DRAWN = 1600, 31, (256, 224)
SIDE, PATCH = 64, 8
INPUT = InputSpec(size=(SIDE, SIDE), fit="pad", channels=1, mean=(0.5,), std=(0.25,))
EPOCHS = 10
PRETRAIN = ("epochs=60", "warmup=5", "batch=64", "lr_batch=64", "lr=1e-3", "width=64", "depth=2", "heads=4")
FEW, SEEDS, FEW_EPOCHS = 100, 5, 20
RARE, RARE_EPOCHS = "Consolidation", 8
N_BOOT = 2000


# ---------------------------------------------------------------------------------------------------------------------
# Tiny networks, registered as a plugin would


def build_densenet(labels: Sequence[str]) -> Any:
    """Build a DenseNet-BC of three blocks, growth 16."""
    from timm.models.densenet import DenseNet

    return DenseNet(growth_rate=16, block_config=(3, 6, 6), num_classes=len(labels), in_chans=1)


def build_vit(labels: Sequence[str]) -> Any:
    """Build a plain ViT of six blocks over 8 x 8 patches."""
    from timm.models.vision_transformer import VisionTransformer

    sizes: dict[str, Any] = {"embed_dim": 96, "depth": 6, "num_heads": 3}
    return VisionTransformer(img_size=SIDE, patch_size=PATCH, in_chans=1, num_classes=len(labels), **sizes)


def build_mixer(labels: Sequence[str]) -> Any:
    """Build an MLP-Mixer of six blocks over the same patches."""
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(len(labels), SIDE, 1, PATCH, num_blocks=6, embed_dim=96)


def build_vgg(labels: Sequence[str]) -> Any:
    """Build a VGG of six convolutions with batch norm."""
    from timm.models.vgg import VGG

    plan = [16, "M", 32, "M", 64, 64, "M", 128, 128]
    return VGG(plan, len(labels), 1, mlp_ratio=1 / 64, norm_layer=torch.nn.BatchNorm2d)


NETWORKS = {"DenseNet": build_densenet, "ViT": build_vit, "Mixer": build_mixer, "VGG": build_vgg}


def register() -> None:
    """Put the networks in the registry, where the hook `register_models` puts those of plugins."""
    for name, build in NETWORKS.items():
        load_registry().models.add("bench", ModelSpec(f"tiny-{name.lower()}", build, FINDINGS, INPUT))


# ---------------------------------------------------------------------------------------------------------------------
# The command, and what it left


@dataclass(frozen=True)
class Bench:
    """Folder for runs, the films, and their decoded pixels."""

    home: Path
    data: Path
    films: Labelled
    decoded: Decoded

    def test(self) -> tuple[NDArray[np.intp], NDArray[np.int8], list[str]]:
        """Return rows, labels and patients of the test films."""
        rows = self.films.rows("test")
        return rows, self.films.labels[rows], [self.films.patients[i] for i in rows.tolist()]


def open_bench(data: Path, home: Path, labels: Sequence[str] | None = None) -> Bench:
    """Read labels and pixels as the command does."""
    films = read_labels(data, make_recipe("default", {}), labels)
    return Bench(home, data, films, decode(data, films.paths, INPUT, home / "cache", workers=2))


def command(*words: object) -> None:
    """Run ``cxrx`` with these words, in this process, where the tiny networks are registered."""
    with redirect_stdout(sys.stderr):  # stdout is for the tables
        try:
            app([str(word) for word in words])
        except SystemExit as left:
            if left.code:
                raise


def train(bench: Bench, name: str, run: str, options: Mapping[str, object], *words: object) -> Path:
    """Run ``cxrx train`` and return the folder of the run."""
    out = bench.home / run
    values = [word for key, value in options.items() for word in ("-O", f"{key}={value}")]
    rest = ("--cache", bench.home / "cache", "--device", "cpu", "--workers", 2, *words)
    command("train", bench.data, "-m", f"tiny-{name.lower()}", "-o", out, *values, *rest)
    return out


def history(run: Path) -> list[dict[str, str]]:
    """Return the row of every epoch."""
    with (run / METRICS).open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["finding"] == "all"]


def median_of(run: Path, column: str) -> float:
    """Return the median over the epochs but the first, which warms up."""
    return statistics.median(float(row[column]) for row in history(run)[1:])


def probabilities(bench: Bench, run: Path) -> NDArray[np.float64]:
    """Return ``(n, K)`` of the test films, from the weights that the run left."""
    model = load_model(str(run), device="cpu")
    rows, labels, patients = bench.test()
    found = model.probabilities(classifier.predict(model, bench.decoded.store, rows)).double().numpy()
    told = json.loads((run / REPORT).read_text())["test"]["rows"][-1]["auroc"]
    again = classify(labels, found, model.labels, patients=patients, bootstrap=PatientBootstrap(patients, 0, 0))
    assert abs(again[-1]["auroc"] - told) < 1e-6, "the command reported another AUROC"
    return found


def thresholds(run: Path) -> dict[str, float]:
    """Return those that were chosen on validation films."""
    chosen: dict[str, float] = json.loads((run / REPORT).read_text())["thresholds"]
    return chosen


# ---------------------------------------------------------------------------------------------------------------------
# Numbers with intervals; all resamples draw the same patients


def resamples(patients: Sequence[str]) -> Float:
    """Return how often each film is in each resample, ``(R, n)``; the first row is the films themselves."""
    weights = PatientBootstrap(patients, N_BOOT, 0).weights(patients)
    assert weights is not None
    return np.vstack([np.ones(len(patients)), weights])


def aurocs(labels: NDArray[np.int8], found: Float, weights: Float) -> Float:
    """Return the macro AUROC of every resample."""
    each = [weighted_auroc(labels[:, k].astype(int), found[:, k], weights) for k in range(labels.shape[1])]
    return macro(np.stack(each, axis=1))


def decisions(labels: NDArray[np.int8], said: NDArray[np.bool_], weights: Float) -> dict[str, Float]:
    """Return F1 (positive, macro and weighted over the two classes) and accuracy, means over findings, ``(R,)``."""
    y = labels == 1
    tp, fp, fn, tn = (weights @ part.astype(float) for part in (y & said, ~y & said, y & ~said, ~y & ~said))  # (R, K)
    f1, of_absent = 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fp + fn)
    positives, total = tp + fn, tp + fp + fn + tn
    weighted = (f1 * positives + of_absent * (total - positives)) / total
    parts = {"f1": f1, "f1_macro": (f1 + of_absent) / 2, "f1_weighted": weighted, "accuracy": (tp + tn) / total}
    return {name: macro(part) for name, part in parts.items()}


def told(replicates: Float, digits: int = 3) -> str:
    """Return the number and its interval in words."""
    low, high = interval(replicates[1:])
    return f"{replicates[0]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


# ---------------------------------------------------------------------------------------------------------------------
# The four benchmarks


def bench_networks(bench: Bench) -> None:
    """Train four kinds of networks with the same command."""
    _, labels, patients = bench.test()
    weights = resamples(patients)
    sizes = [len(bench.films.rows(split)) for split in ("train", "valid", "test")]
    print(f"\n{sizes} films for training, validation, test; {EPOCHS} epochs of the default recipe, lr 1e-3\n")
    print("| network | parameters | macro AUROC | F1 | accuracy | seconds an epoch | films/s, training |")
    print("|---|---|---|---|---|---|---|")
    for name in NETWORKS:
        run = train(bench, name, name, {"epochs": EPOCHS, "lr": 1e-3})
        found, cuts = probabilities(bench, run), thresholds(run)
        decided = decisions(labels, found >= np.array([cuts[f] for f in bench.films.findings]), weights)
        count = sum(p.numel() for p in load_model(str(run), device="cpu").module.parameters())
        numbers = [told(aurocs(labels, found, weights)), told(decided["f1"]), told(decided["accuracy"])]
        speed = [f"{median_of(run, 'seconds'):.1f}", f"{median_of(run, 'films_per_second'):.0f}"]
        print(f"| {name} | {count:,} | {' | '.join([*numbers, *speed])} |", flush=True)


def bench_mae(bench: Bench) -> None:
    """Train a ViT on few labelled films, from random weights and from a masked autoencoder's."""
    encoder = bench.home / "mae"
    values = [word for value in PRETRAIN for word in ("-O", value)]
    machine = ("--cache", bench.home / "cache", "--device", "cpu", "--workers", 2)
    began = time.monotonic()
    command("pretrain", bench.data, "-m", "tiny-vit", "-o", encoder, *values, *machine)
    spent = time.monotonic() - began
    _, labels, patients = bench.test()
    weights = resamples(patients)
    options = {"epochs": FEW_EPOCHS, "batch": 20, "lr": 5e-4, "warmup": 3}
    replicates: dict[str, list[Float]] = {"random": [], "mae": []}
    for seed in range(SEEDS):
        for arm, init in (("random", "random"), ("mae", encoder)):
            rest = ("--films", FEW, "--seed", seed, "--init", init)
            run = train(bench, "ViT", f"few-{arm}-{seed}", options, *rest)
            replicates[arm].append(aurocs(labels, probabilities(bench, run), weights))
    print(f"\npre-training: {PRETRAIN[0]}, {spent:.0f} s; {FEW} labelled films, {FEW_EPOCHS} epochs\n")
    print("| seed | random | MAE | difference |\n|---|---|---|---|")
    pairs = list(zip(replicates["random"], replicates["mae"], strict=True))
    for seed, (random, mae) in enumerate(pairs):
        print(f"| {seed} | {told(random)} | {told(mae)} | {told(mae - random)} |")
    means = [np.mean(replicates[arm], axis=0) for arm in ("random", "mae")]
    print(f"| mean | {told(means[0])} | {told(means[1])} | {told(means[1] - means[0])} |")
    differences = [mae[0] - random[0] for random, mae in pairs]
    print(f"\nstandard deviation of the difference over seeds: {statistics.stdev(differences):.3f}", flush=True)


def bench_rare(bench: Bench) -> None:
    """Train for one finding that a quarter of the films have, with and without a balance."""
    print(f"\n{RARE}, one film in four; DenseNet, {RARE_EPOCHS} epochs, lr 1e-3\n")
    print("| balance | AUROC | F1 positive | F1 macro | F1 weighted | accuracy | threshold | TN / FP / FN / TP |")
    print("|---|---|---|---|---|---|---|---|")
    data = one_in_four(bench, bench.home / "rare")
    rare = open_bench(data, bench.home, [RARE])
    _, labels, patients = rare.test()
    weights = resamples(patients)
    for balance in ("none", "pos-weight"):
        options = {"epochs": RARE_EPOCHS, "lr": 1e-3, "balance": balance}
        run = train(rare, "DenseNet", f"rare-{balance}", options, "--labels", RARE)
        found, cut = probabilities(rare, run), thresholds(run)[RARE]
        decided = decisions(labels, found >= cut, weights)
        y, said = labels[:, 0] == 1, found[:, 0] >= cut
        counts = " / ".join(str(int(part.sum())) for part in (~y & ~said, ~y & said, y & ~said, y & said))
        numbers = [told(aurocs(labels, found, weights)), *(told(part) for part in decided.values())]
        print(f"| {balance} | {' | '.join(numbers)} | {cut:.3f} | {counts} |", flush=True)


def one_in_four(bench: Bench, folder: Path) -> Path:
    """Make a folder of the films that have the rare finding and of three times as many others."""
    k = bench.films.findings.index(RARE)
    has = np.flatnonzero(bench.films.labels[:, k] == 1)
    others = np.random.default_rng(0).permutation(np.flatnonzero(bench.films.labels[:, k] == 0))
    few = min(len(has), len(others) // 3)
    chosen = np.sort(np.concatenate([has[:few], others[: 3 * few]]))
    (folder / "films").mkdir(parents=True)
    with (folder / "truth.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "patient", RARE])
        for i in chosen.tolist():
            path = bench.films.paths[i]
            os.link(bench.data / path, folder / path)
            table.writerow([path, bench.films.patients[i], bench.films.labels[i, k]])
    return folder


class InMemory:
    """Stands in for the loader of films: batches of the same size, all of them the same tensor."""

    def __init__(self, *films: Any) -> None:
        self._loader = Loader(*films)
        self._films: torch.Tensor | None = None

    def epoch(self, epoch: int, batches: Sequence[NDArray[np.intp]]) -> Iterator[Batch]:
        """Yield the first films of the first epoch again and again."""
        if self._films is None:
            self._films = next(iter(self._loader.epoch(epoch, batches)))[0]
        for rows in batches:
            yield self._films[: len(rows)], torch.from_numpy(rows)


def bench_loader(bench: Bench) -> None:
    """Compare epochs of the real loop with epochs of the same loop that is fed from memory."""
    print("\n| network, input | films | seconds an epoch | from memory | difference | waited for films |")
    print("|---|---|---|---|---|---|")
    for title, model, data, films, epochs, turns in (
        ("tiny VGG, 64 px", "tiny-vgg", bench.data, 320, 5, 3),
        ("tiny DenseNet, 64 px", "tiny-densenet", bench.data, 320, 5, 3),
        ("DenseNet-121, 224 px", "densenet121", few_films(bench, bench.home / "few"), 32, 3, 2),
    ):
        seconds: dict[str, list[float]] = {"loop": [], "memory": []}
        waited = []
        for turn in range(turns):  # by turns, because other jobs come and go
            for kind, loader in (("loop", Loader), ("memory", InMemory)):
                out = bench.home / f"loader-{model}-{kind}-{turn}"
                words = ("-O", f"epochs={epochs}", "-O", "batch=16", "--films", films, "--device", "cpu")
                with patch.object(loop, "Loader", loader):
                    command("train", data, "-m", model, "-o", out, *words, "--cache", bench.home / "cache")
                rows = history(out)[1:]
                seconds[kind] += [float(row["seconds"]) for row in rows]
                waited += [float(row["waited"]) for row in rows] if kind == "loop" else []
        whole, memory = (min(part) for part in seconds.values())  # the quietest epoch
        shares = f"{whole / memory - 1:+.1%} | {min(waited):.2f} s, {min(waited) / whole:.1%}"
        print(f"| {title} | {films} | {whole:.2f} s | {memory:.2f} s | {shares} |", flush=True)


def few_films(bench: Bench, folder: Path) -> Path:
    """Make a folder of eighty films: a large network takes its time to validate, too."""
    (folder / "films").mkdir(parents=True)
    with (folder / "truth.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "patient", *FINDINGS])
        films = zip(bench.films.paths, bench.films.patients, bench.films.labels.tolist(), strict=True)
        for path, patient, labels in islice(films, 80):
            os.link(bench.data / path, folder / path)
            table.writerow([path, patient, *labels])
    return folder


def main(wanted: Sequence[str]) -> None:
    """Make the films and run what is wanted, by default all."""
    parts = {"networks": bench_networks, "mae": bench_mae, "rare": bench_rare, "loader": bench_loader}
    unknown = set(wanted) - parts.keys()
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    torch.set_num_threads(2)
    register()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as top:
        data, home = Path(top) / "phantoms", Path(top) / "runs"
        write_folder(data, FILMS, SEED, size=DRAWN, masks=False)
        bench = open_bench(data, home)
        print(f"{FILMS} films drawn and decoded in {time.monotonic() - began:.0f} s", flush=True)
        for name in wanted or parts:
            start = time.monotonic()
            parts[name](bench)
            print(f"\n{name}: {time.monotonic() - start:.0f} s", flush=True)
    print(f"all: {(time.monotonic() - began) / 60:.1f} minutes, torch {torch.__version__}, 2 threads")


if __name__ == "__main__":
    main(sys.argv[1:])
