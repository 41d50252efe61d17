"""Pre-training without labels: what ``cxrx pretrain`` calls."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import cxrx
from cxrx.datasets import open_dataset
from cxrx.errors import CxrxError, UsageError
from cxrx.files import atomic
from cxrx.files.lock import RunLock
from cxrx.models.inference import autocast
from cxrx.models.model import Model
from cxrx.options import parse_options
from cxrx.reading.gate import VIEW_GROUP
from cxrx.reading.item import Item
from cxrx.training.data import draw_or_take
from cxrx.training.films import Decoded, Unread, decode, films_below
from cxrx.training.loader import Loader, TrainingFilms
from cxrx.training.loop import CHECK_EVERY
from cxrx.training.mae import MaskedAutoencoder, Masking, patchify, random_masking, unpatchify
from cxrx.training.network import make_network
from cxrx.training.recipes import Recipe, SplitRule, note_on_warmup
from cxrx.training.schedule import Schedule, make_optimiser, parameter_groups, set_rate
from cxrx.training.seeds import epoch_order, in_batches, seed_of
from cxrx.training.state import LAST, SETTINGS, Progress, check_place, claim, load_state, save_state, write_json
from cxrx.training.stop import Stop
from cxrx.training.train import augmenting, cores, model_name, versions
from cxrx.training.weights import FAILURES, METRICS, save_figure, tensor_bytes, write_failures, write_table

ENCODER, PICTURE, REPORT = "encoder.safetensors", "reconstruction.png", "report.json"
OUTPUTS = (LAST, ENCODER, METRICS, PICTURE, REPORT, FAILURES)
JUDGED = frozenset({"valid", "test"})  # splits that only a training looks at
SHOWN = 4  # films in the picture
_COLUMNS = ("epoch", "loss", "lr", "seconds", "waited", "films_per_second")
_CACHE, _LOCK = "films", ".lock"


@dataclass(frozen=True)
class PretrainOptions:
    """All values of a pre-training; those of He et al. 2022, table 8, but for the mask ratio.

    Attributes
    ----------
    mask_ratio
        Share of the patches that are hidden; 0.75 for photographs.
    lr
        For batches of lr_batch films; scaled in proportion to others.
    lr_batch
        See lr.
    weight_decay
        Of all parameters but biases and norms.
    warmup
        Epochs over which lr rises.
    epochs
        Exactly so many.
    batch
        Films a step.
    crop
        Least share of the area that a random crop keeps; 1: no crops.
    flip
        Probability of mirroring. 0: a mirrored chest is another finding.
    width, depth, heads
        Of the decoder, which is thrown away.
    dtype
        fp32, bf16, or auto: bf16 on a GPU.
    seed
        Of weights, order, crops, masks and what --films keeps.
    split_seed
        Of drawn splits: the same as in the training that follows, whose test films must not be seen here.
    """

    mask_ratio: float = 0.9
    lr: float = 1.5e-4
    lr_batch: int = 256
    weight_decay: float = 0.05
    warmup: float = 40.0
    epochs: int = 800
    batch: int = 64
    crop: float = 0.5
    flip: float = 0.0
    width: int = 512
    depth: int = 8
    heads: int = 16
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio lies between 0 and 1, not at {self.mask_ratio}")
        if self.lr <= 0 or self.epochs < 1 or self.batch < 1 or self.lr_batch < 1 or self.warmup < 0:
            raise ValueError("lr, epochs, batch and lr_batch are positive, and warmup is not negative")
        if self.width % self.heads or self.width % 4 or self.depth < 1:
            raise ValueError("width must be divisible by heads and by 4, and depth at least 1")
        if not 0 < self.crop <= 1 or not 0 <= self.flip <= 1:
            raise ValueError("crop and flip are shares")

    def as_recipe(self) -> Recipe:
        """Return the augmentation as a recipe of training has it."""
        return Recipe(
            epochs=self.epochs, batch=self.batch, crop=self.crop, flip=self.flip, dtype=self.dtype, seed=self.seed,
            rotate=0.0, shift=0.0, zoom=0.0, brightness=0.0, contrast=0.0,
        )  # fmt: skip


def make_options(given: Mapping[str, Any]) -> PretrainOptions:
    """Return options with the values of `given` (text or numbers).

    Raises
    ------
    UsageError
        An option that does not exist or a value out of range.
    """
    return parse_options(PretrainOptions, given, "pretrain")


@dataclass(frozen=True)
class Request:
    """What the user asks for; see :class:`cxrx.training.train.Request`."""

    data: Path
    model: str
    out: Path
    options: PretrainOptions
    films: int | None = None
    input_size: int | None = None
    in_chans: Literal[1, 3] | None = None
    device: str = "auto"
    workers: int | None = None
    cache: Path | None = None
    resume: bool = True
    split: SplitRule = "auto"


@dataclass
class Outcome:
    """What came of it: epochs, the last loss, and the films that could not be read."""

    out: Path
    epochs: int
    loss: float
    unread: tuple[Unread, ...] = ()


def pretrain(
    request: Request,
    *,
    say: Callable[[str], Any] = lambda _line: None,
    tick: Callable[[int], Any] | None = None,
) -> Outcome:
    """Pre-train an encoder and write ``encoder.safetensors``, which ``cxrx train --init`` loads.

    Raises
    ------
    CxrxError
        With a sentence that says what is wrong; whole epochs are kept.
    """
    options = request.options
    check_place(request.out, request.data)
    paths = films_to_learn_from(request)
    model = make_network(
        *(request.model, ("none",), "binary", options.as_recipe()),
        input_size=request.input_size,
        in_chans=request.in_chans,
        device=request.device,
    )
    torch.manual_seed(seed_of(options.seed, "decoder"))
    network = MaskedAutoencoder(model.module, model.input.size, options.width, options.depth, options.heads)
    network.to(model.device)
    digest = hashlib.sha256("\n".join(paths).encode("utf-8", "surrogateescape")).hexdigest()
    settings = {"model": model.name, "input": asdict(model.input), "options": asdict(options), "films": digest}
    with RunLock(request.out / _LOCK), Stop() as stop:
        claim(request.out, settings, resume=request.resume, outputs=OUTPUTS, made_by=versions(model))
        if (request.out / REPORT).is_file():
            say(f"{request.out.name} is finished; nothing to do (--no-resume starts anew)")
            report = json.loads((request.out / REPORT).read_text(encoding="utf-8"))
            return Outcome(request.out, report["epochs"], report["loss"])
        decoded = _decoded(request, paths, model, stop.watching(tick))
        patches = f"{options.mask_ratio:.0%} of {network.grid[0]}x{network.grid[1]} patches hidden"
        for note in note_on_warmup(options.warmup, options.epochs):
            say(f"note: {note}")
        say(f"{len(decoded.readable)} films, {model.name}, {patches}")
        run = _Pretraining(request, model, network, decoded, say)
        progress = run.fit(stop)
        outcome = Outcome(request.out, progress.epoch, progress.history[-1]["loss"], decoded.unread)
        counts = {"films": len(decoded.readable), "unreadable": len(decoded.unread)}
        write_json(request.out / REPORT, {"epochs": outcome.epochs, "loss": outcome.loss, **counts, **settings})
        if request.cache is None:
            shutil.rmtree(request.out / _CACHE, ignore_errors=True)
    return outcome


def films_to_learn_from(request: Request) -> list[str]:
    """Return the films of a folder, without laterals and those of patients who are for validation or test.

    The latter are judged later: an encoder that has seen them, even unlabelled, would be flattered.
    """
    folder, options, count = request.data, request.options, request.films
    paths = [path for path, found in films_below(folder).items() if isinstance(found, Item)]
    try:
        dataset = open_dataset(folder)
    except UsageError:  # nothing is known of these films, which is what pre-training is for
        kept = paths
    else:
        placed = draw_or_take(dataset, request.split, options.split_seed).of
        judged = {patient for patient, split in zip(dataset.patients, placed, strict=True) if split in JUDGED}
        lateral = {path for path, truth in dataset.films() if VIEW_GROUP.get(truth.view, "frontal") != "frontal"}
        whose = dict(zip((path for path, _ in dataset.films()), dataset.patients, strict=True))
        kept = [path for path in paths if whose.get(path) not in judged and path not in lateral]
    if not kept:
        raise UsageError(f"{folder.name} holds no films to learn from")
    if count is None or count >= len(kept):
        return kept
    return sorted(sorted(kept, key=lambda path: seed_of(options.seed, "fewer", path))[:count])


def _decoded(request: Request, paths: Sequence[str], model: Model, tick: Callable[[int], Any]) -> Decoded:
    cache = request.cache or request.out / _CACHE
    workers = cores() if request.workers is None else request.workers
    try:
        decoded = decode(request.data, paths, model.input, cache, workers=workers, tick=tick)
    except CxrxError:
        if not (request.out / LAST).exists():
            (request.out / SETTINGS).unlink(missing_ok=True)
            shutil.rmtree(request.out / _CACHE, ignore_errors=True)
        raise
    write_failures(request.out, decoded.unread)
    return decoded


class _Pretraining:
    """The epochs of a pre-training."""

    def __init__(
        self, request: Request, model: Model, network: MaskedAutoencoder, decoded: Decoded, say: Callable[[str], Any]
    ) -> None:
        self._request, self._options, self._model, self._network = request, request.options, model, network
        self._decoded, self._say, self._device = decoded, say, model.device
        options = self._options
        films = TrainingFilms(decoded.store, decoded.ids, options.as_recipe(), model.input.size)
        self._loader = Loader(films, augmenting(request.workers, model.device.type), model.device)
        groups = parameter_groups(network, options.weight_decay, 1.0)
        self._optimiser = make_optimiser("adamw", groups, 0.0, betas=(0.9, 0.95))

    def fit(self, stop: Stop) -> Progress:
        home, modules = self._request.out, {"autoencoder": self._network}
        progress = load_state(home, modules, self._optimiser)
        while progress.epoch < self._options.epochs:
            progress.history.append(self._epoch(progress.epoch, stop))
            progress.epoch += 1
            self._write_encoder()
            write_table(home / METRICS, _COLUMNS, progress.history)
            save_state(home, progress, modules, self._optimiser)
            row = progress.history[-1]
            told = f"loss {row['loss']:.4f}  {row['films_per_second']:.0f} films/s"
            self._say(f"epoch {progress.epoch}/{self._options.epochs}  {told}")
        self._draw()
        return progress

    def _mixed(self) -> AbstractContextManager[Any]:
        bf16 = self._options.dtype == "bf16" or (self._options.dtype == "auto" and self._device.type == "cuda")
        return autocast(self._device, "bf16" if bf16 else "fp32")

    def _masking(self, count: int, generator: torch.Generator) -> Masking:
        patches = self._network.grid[0] * self._network.grid[1]
        noise = torch.rand(count, patches, generator=generator)  # on the CPU: the same on every device
        return random_masking(noise.to(self._device), self._options.mask_ratio)

    def _input(self, films: torch.Tensor) -> torch.Tensor:
        return self._model.prepare(films.to(self._device, non_blocking=True).float() / 255)

    def _epoch(self, epoch: int, stop: Stop) -> dict[str, Any]:
        options, began = self._options, time.monotonic()
        batches = in_batches(epoch_order(self._decoded.readable, options.seed, epoch, None), options.batch)
        steps = len(batches)
        peak = options.lr * options.batch / options.lr_batch
        schedule = Schedule("cosine", peak, 0.0, round(options.warmup * steps), options.epochs * steps)
        generator = torch.Generator().manual_seed(seed_of(options.seed, "mask", epoch))
        torch.manual_seed(seed_of(options.seed, "epoch", epoch))
        self._network.train()
        total, waited, asked = torch.zeros((), device=self._device), 0.0, time.monotonic()
        for step, (films, _) in enumerate(self._loader.epoch(epoch, batches)):
            waited += time.monotonic() - asked
            set_rate(self._optimiser, schedule.at(epoch * steps + step))
            with self._mixed():
                loss = self._network.loss(self._input(films), self._masking(len(films), generator))
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            total += loss.detach()
            if ((step + 1) % CHECK_EVERY == 0 or step + 1 == steps) and not math.isfinite(float(total)):
                raise CxrxError(
                    f"the loss is no number, in epoch {epoch + 1}; {epoch} finished epochs are kept",
                    f"a lower learning rate helps most often: -O lr={options.lr / 10:g}"
                    + (" (with another -o, or --no-resume)" if epoch else ""),
                )
            stop.check(epoch)
            asked = time.monotonic()
        seconds = time.monotonic() - began
        return {
            "epoch": epoch + 1,
            "loss": float(total) / steps,
            "lr": self._optimiser.param_groups[0]["lr"],
            "seconds": round(seconds, 3),
            "waited": round(waited, 3),
            "films_per_second": round(sum(map(len, batches)) / seconds, 2),
        }

    def _write_encoder(self) -> None:
        """Write the encoder under timm's names, without a head."""
        classifier = head_names(self._model.module)
        tensors = {k: v for k, v in self._model.module.state_dict().items() if not k.startswith(classifier)}
        metadata = {
            "arch": model_name(self._request.model),
            "input": json.dumps(asdict(self._model.input)),
            "options": json.dumps(asdict(self._options)),
            "source": f"cxrx pretrain, cxrx {cxrx.__version__}",
        } | ({"demo": "1"} if self._decoded.synthetic else {})
        atomic.write_file(self._request.out / ENCODER, tensor_bytes(tensors, metadata))

    def _draw(self) -> None:
        """Write a picture of some films: whole, as the encoder saw them, and as the decoder drew the rest."""
        rows: NDArray[np.intp] = self._decoded.readable[:SHOWN]
        films = torch.from_numpy(self._decoded.store.pixels[rows])
        generator = torch.Generator().manual_seed(seed_of(self._options.seed, "picture"))
        masking = self._masking(len(films), generator)
        self._network.eval()
        with torch.inference_mode():
            x = self._input(films)
            drawn = self._network(x, masking).float()
        patches = patchify(x, self._network.side)
        # the decoder draws normalised patches; their own mean and spread make them comparable with the film
        spread = (patches.var(dim=2, keepdim=True) + 1e-6).sqrt()
        drawn = drawn * spread + patches.mean(dim=2, keepdim=True)
        hidden = masking.hidden[:, :, None]
        black = patches.min().expand_as(patches)
        rows_of = (patches, torch.where(hidden == 1, black, patches), torch.where(hidden == 1, drawn, patches))
        pictures = [unpatchify(part, self._network.side, self._network.grid)[:, 0].cpu().numpy() for part in rows_of]
        save_figure(self._request.out / PICTURE, _figure(pictures, self._options.mask_ratio))


def _figure(pictures: Sequence[NDArray[np.float32]], ratio: float) -> Any:
    from matplotlib.figure import Figure

    count = len(pictures[0])
    figure = Figure(figsize=(2.2 * count, 7.0), layout="constrained")
    titles = ("film", f"seen: {1 - ratio:.0%}", "hidden patches drawn (with their own mean and spread)")
    low, high = float(pictures[0].min()), float(pictures[0].max())
    for row, (title, films) in enumerate(zip(titles, pictures, strict=True)):
        for column, film in enumerate(films):
            axes = figure.add_subplot(3, count, row * count + column + 1)
            axes.imshow(film, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_axis_off()
            if column == 0:
                axes.set_title(title, fontsize=9, loc="left")
    return figure


def head_names(network: nn.Module) -> tuple[str, ...]:
    """Return how the names of the head's tensors begin."""
    classifier = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or "head"
    return (f"{classifier}.",)
