"""Make the demo weights: ``python tests/bench/train_demo.py --model densenet --out cxrx/models/weights``.

Films are generated on the spot, brought onto the input grid by the very steps of inference, and learned from scratch.
The DenseNet learns from the films' labels alone. The transformer, which would need many more films for that, also
learns which of its patches hold which finding; its class token, which alone gives the output, learns from labels.
The card beside the weights says what was done and what came of it, on films whose seed training never saw.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from cxrx.models.demo import DEMO_DENSENET, DEMO_VIT
from cxrx.phantom import FINDINGS, make_film
from cxrx.reading.prepare import place, resample
from cxrx.specs import ModelSpec

Pixels = NDArray[np.uint8]  # (N, H, W), 0 to 255
Labels = NDArray[np.int8]  # (N, K), 0 or 1
Cells = NDArray[np.int8]  # (N, K, 8, 8), 1 where a finding's mask reaches into that sixteenth of the input

TRAIN_SEED, TEST_SEED = 100, 200
GRID = 8  # patches along each side of the transformer's input
TRAIN_SIZE, TEST_SIZE = (256, 224), (512, 448)  # films are tested at the size that `cxrx phantom` writes


@dataclass(frozen=True)
class Recipe:
    """How one demo model is trained; `patch_loss` is the weight of the loss on patch tokens beside that on labels."""

    spec: ModelSpec
    films: int
    epochs: int
    learning_rate: float
    weight_decay: float
    patch_loss: float = 0.0
    batch: int = 16
    seed: int = 0


RECIPES = {
    "densenet": Recipe(DEMO_DENSENET, films=10_000, epochs=10, learning_rate=3e-3, weight_decay=0.02),
    "vit": Recipe(DEMO_VIT, films=10_000, epochs=12, learning_rate=8e-4, weight_decay=0.05, patch_loss=2.0),
}


# ---------------------------------------------------------------------------------------------------------------------
# Data


@dataclass(frozen=True, eq=False)
class Films:
    """Films on the input grid with their truth."""

    pixels: Pixels
    labels: Labels
    cells: Cells

    def first(self, count: int) -> Films:
        """Return the first `count` films."""
        return Films(self.pixels[:count], self.labels[:count], self.cells[:count])


def phantoms(seed: int, count: int, size: tuple[int, int], *, workers: int = 1) -> Films:
    """Generate `count` films of `seed` and bring them onto the demo models' input grid."""
    make = partial(_example, seed, size)
    if workers == 1:
        examples = [make(index) for index in range(count)]
    else:
        with multiprocessing.get_context("forkserver").Pool(workers) as pool:
            examples = pool.map(make, range(count), chunksize=max(1, min(64, count // workers)))
    pixels, labels, cells = (np.stack(part) for part in zip(*examples, strict=True))
    return Films(pixels, labels, cells)


def _example(seed: int, size: tuple[int, int], index: int) -> tuple[Pixels, Labels, Cells]:
    film = make_film(seed, index, size=size)
    spec = DEMO_DENSENET.input
    placement = place(*size, spec)
    pixels = np.round(resample(film.pixels, placement, spec) * 255).astype(np.uint8)
    cells = np.zeros((len(FINDINGS), GRID, GRID), np.int8)
    for finding, mask in film.masks.items():
        shown = resample(mask.astype(np.float32), placement, spec)
        blocks = shown.reshape(GRID, spec.size[0] // GRID, GRID, spec.size[1] // GRID)
        cells[FINDINGS.index(finding)] = blocks.max((1, 3)) > 0.5
    return pixels, np.array(list(film.labels.values()), np.int8), cells


def as_input(pixels: Pixels, spec: ModelSpec) -> torch.Tensor:
    """Return ``(B, 1, H, W)`` normalised as the spec says."""
    x = torch.from_numpy(pixels).float()[:, None] / 255
    return (x - spec.input.mean[0]) / spec.input.std[0]


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift the batch by up to five pixels, and vary contrast and brightness film by film."""
    dy, dx = (int(k) for k in torch.randint(-5, 6, (2,), generator=generator))
    x = functional.pad(x, (5, 5, 5, 5), value=float(x.min()))
    x = x[:, :, 5 + dy : x.shape[2] - 5 + dy, 5 + dx : x.shape[3] - 5 + dx]
    contrast, brightness = torch.randn(2, len(x), 1, 1, 1, generator=generator) * 0.15
    varied: torch.Tensor = x * (1 + contrast) + brightness
    return varied


# ---------------------------------------------------------------------------------------------------------------------
# Training and evaluation


def train(recipe: Recipe, films: Films, after_epoch: Callable[[nn.Module], None] | None = None) -> nn.Module:
    """Train the recipe's network from scratch; the log goes to stderr, the network to `after_epoch` now and then."""
    torch.manual_seed(recipe.seed)
    network: Any = recipe.spec.build(FINDINGS).to(memory_format=torch.channels_last)
    patch_head = nn.Linear(network.num_features, len(FINDINGS)) if recipe.patch_loss else None
    parameters = [*network.parameters(), *(patch_head.parameters() if patch_head else ())]
    steps = max(1, len(films.pixels) // recipe.batch)
    optimiser = torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.epochs * steps + 1, pct_start=0.15
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    began = time.monotonic()
    for epoch in range(recipe.epochs):
        network.train()
        total = 0.0
        order = torch.randperm(len(films.pixels), generator=generator).numpy()
        for step in range(steps):
            rows = order[step * recipe.batch : (step + 1) * recipe.batch]
            batch = Films(films.pixels[rows], films.labels[rows], films.cells[rows])
            loss = loss_of(network, patch_head, recipe, batch, generator)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        seconds = time.monotonic() - began
        print(f"{recipe.spec.name} epoch {epoch + 1}: loss {total / steps:.4f}, {seconds:.0f} s", file=sys.stderr)
        if after_epoch is not None:
            after_epoch(network)
    trained: nn.Module = network.eval().to(memory_format=torch.contiguous_format)
    return trained


def loss_of(
    network: Any, patch_head: nn.Module | None, recipe: Recipe, films: Films, generator: torch.Generator
) -> torch.Tensor:
    """Return the loss on the labels of a batch and, with a `patch_head`, on what its patches hold."""
    x = augment(as_input(films.pixels, recipe.spec), generator).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(films.labels).float()
    with torch.autocast("cpu", torch.bfloat16):
        features = network.forward_features(x)
        logits = network.forward_head(features).float()
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        if patch_head is None:
            return loss
        patches = patch_head(features[:, network.num_prefix_tokens :]).float()  # (B, 64, K)
    cells = torch.from_numpy(films.cells).float().flatten(2).transpose(1, 2)  # (B, 64, K)
    return loss + recipe.patch_loss * functional.binary_cross_entropy_with_logits(patches, cells)


def predict(network: nn.Module, spec: ModelSpec, pixels: Pixels) -> NDArray[np.float32]:
    """Return logits ``(N, K)`` in float32."""
    with torch.inference_mode():
        batches = [network(as_input(pixels[k : k + 64], spec)) for k in range(0, len(pixels), 64)]
    return torch.cat(batches).numpy()


def auroc(labels: Labels, scores: NDArray[np.float32]) -> dict[str, float]:
    """Return the area under the ROC curve of each finding."""
    return {name: float(roc_auc_score(labels[:, k], scores[:, k])) for k, name in enumerate(FINDINGS)}


def thumbnails(pixels: Pixels) -> NDArray[np.float32]:
    """Return 16 x 16 block means, ``(N, 256)`` in [0, 1]."""
    n, height, width = pixels.shape
    blocks = pixels.reshape(n, 16, height // 16, 16, width // 16).astype(np.float32) / 255
    return np.asarray(blocks.mean((2, 4)).reshape(n, 256), np.float32)


def thumbnail_baseline(train_set: Films, test_set: Films) -> dict[str, float]:
    """Return the AUROC of a logistic regression on thumbnails: what shows without looking closely."""
    scores = []
    for k in range(len(FINDINGS)):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        classifier.fit(thumbnails(train_set.pixels), train_set.labels[:, k])
        scores.append(classifier.decision_function(thumbnails(test_set.pixels)))
    return auroc(test_set.labels, np.stack(scores, axis=1).astype(np.float32))


# ---------------------------------------------------------------------------------------------------------------------
# Files


def write_weights(network: nn.Module, spec: ModelSpec, path: Path) -> None:
    """Store the weights in float16 (loaders cast to float32), with labels and input beside them."""
    from safetensors.torch import save

    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in network.state_dict().items()
    }
    metadata = {
        "labels": json.dumps(list(FINDINGS)),
        "input": json.dumps(asdict(spec.input)),
        "arch": spec.name,
        "demo": "1",
        "source": "python tests/bench/train_demo.py, synthetic films (cxrx.phantom) only",
    }
    path.write_bytes(save(tensors, metadata))


def load_weights(spec: ModelSpec, path: Path) -> nn.Module:
    """Build the network and load `path` into it, in float32."""
    from safetensors.torch import load_file

    network: nn.Module = spec.build(FINDINGS)
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    return network.eval()


def write_card(path: Path, recipe: Recipe, test: Labels, found: dict[str, float], baseline: dict[str, float]) -> None:
    """Write the model card."""
    parameters = sum(p.numel() for p in recipe.spec.build(FINDINGS).parameters())
    rows = [
        f"| {name} | {int(test[:, k].sum())} | {found[name]:.3f} | {baseline[name]:.3f} |"
        for k, name in enumerate(FINDINGS)
    ]
    taught = "labels of whole films"
    if recipe.patch_loss:
        taught += f"; the patch tokens also from the masks (weight {recipe.patch_loss:g}), by a head that is not kept"
    macro, base = float(np.mean(list(found.values()))), float(np.mean(list(baseline.values())))
    text = f"""# {recipe.spec.name}

**Trained on synthetic films only. It has never seen a patient, knows nothing of real films, and is not a medical
device.** It exists so that every command of cxrx runs before you bring a model of your own.

| | |
|---|---|
| architecture | {recipe.spec.summary}; {parameters:,} parameters |
| input | {recipe.spec.input.size[0]} x {recipe.spec.input.size[1]} pixels, one channel, padded to a square |
| findings | {", ".join(FINDINGS)} |
| films for training | {recipe.films:,} phantoms, seed {TRAIN_SEED}, drawn at {TRAIN_SIZE[0]} x {TRAIN_SIZE[1]} pixels |
| films for testing | {len(test):,} phantoms, seed {TEST_SEED}, drawn at {TEST_SIZE[0]} x {TEST_SIZE[1]} pixels |
| training | AdamW, {recipe.epochs} epochs of batches of {recipe.batch}, one-cycle learning rate up to \
{recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}, bfloat16, seed {recipe.seed} |
| learned from | {taught} |
| storage | safetensors, float16; loaders cast to float32, and the figures below were measured after that |
| licence | Apache-2.0 |

Area under the ROC curve on the test films, none of which was seen in training, beside a logistic regression on
16 x 16 thumbnails of the same films (the findings cannot be told from brightness alone):

| finding | positive of {len(test):,} | AUROC | thumbnails |
|---|---|---|---|
{chr(10).join(rows)}
| **macro** | | **{macro:.3f}** | **{base:.3f}** |

Made by `python tests/bench/train_demo.py --model {recipe.spec.name.removeprefix("demo-")}`.
"""
    path.write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Train, test, write weights and card; return the AUROC of each model trained."""
    parser = argparse.ArgumentParser(prog="python tests/bench/train_demo.py", description=__doc__)
    parser.add_argument("--model", choices=[*RECIPES, "both"], default="both")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and model cards")
    parser.add_argument("--films", type=int, help="films to train on")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--test-films", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw films")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    names = list(RECIPES) if options.model == "both" else [options.model]
    recipes = [
        replace(r, films=options.films or r.films, epochs=options.epochs or r.epochs)
        for r in (RECIPES[name] for name in names)
    ]
    most = max(recipe.films for recipe in recipes)
    films = phantoms(TRAIN_SEED, most, TRAIN_SIZE, workers=options.workers)
    test = phantoms(TEST_SEED, options.test_films, TEST_SIZE, workers=options.workers)
    baseline = thumbnail_baseline(films, test)
    results: dict[str, dict[str, float]] = {}
    for recipe in recipes:
        weights = options.out / f"{recipe.spec.name}.safetensors"
        save = partial(write_weights, spec=recipe.spec, path=weights)  # an interrupted run leaves its last epoch
        train(recipe, films.first(recipe.films), after_epoch=save)
        found = auroc(test.labels, predict(load_weights(recipe.spec, weights), recipe.spec, test.pixels))
        write_card(weights.with_suffix(".md"), recipe, test.labels, found, baseline)
        results[recipe.spec.name] = found
        print(json.dumps({"model": recipe.spec.name, "auroc": found, "thumbnails": baseline}))
    return results


if __name__ == "__main__":
    main()
