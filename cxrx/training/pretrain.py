"""Pre-training without labels: what ``cxrx pretrain`` calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import cxrx
from cxrx.datasets import open_dataset
from cxrx.errors import UsageError
from cxrx.files import atomic
from cxrx.files.figures import plain_style
from cxrx.models.checkpoints import tensor_bytes
from cxrx.models.model import Model
from cxrx.options import parse_options
from cxrx.reading.gate import VIEW_GROUP
from cxrx.reading.item import Item
from cxrx.training.data import draw_or_take
from cxrx.training.films import Decoded, Unread, films_below
from cxrx.training.loop import Training
from cxrx.training.mae import MaskedAutoencoder, Masking, patchify, random_masking, unpatchify
from cxrx.training.network import make_network
from cxrx.training.recipes import Recipe, note_on_warmup
from cxrx.training.run import RunConfig, decoded_films, in_folder, model_name, report_of
from cxrx.training.seeds import seed_of
from cxrx.training.state import LAST, Progress, check_place, write_json
from cxrx.training.weights import FAILURES, METRICS, REPORT, save_figure, write_table

ENCODER, PICTURE = "encoder.safetensors", "reconstruction.png"
SHOWN = 4  # films in the picture
_COLUMNS = ("epoch", "loss", "lr", "seconds", "waited", "films_per_second")


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
        self.as_recipe()  # refuses what no training could have
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio lies between 0 and 1, not at {self.mask_ratio}")
        if self.heads < 1 or not 4 <= self.width <= 8192 or self.width % self.heads or self.width % 4:
            raise ValueError("width must be divisible by heads and by 4, and at most 8192")
        if not 1 <= self.depth <= 100:
            raise ValueError(f"depth lies between 1 and 100, not at {self.depth}")

    def as_recipe(self) -> Recipe:
        """Return what a training has of it, too."""
        shared = ("lr", "lr_batch", "weight_decay", "warmup", "epochs", "batch", "crop", "flip", "dtype", "seed")
        given: dict[str, Any] = {name: getattr(self, name) for name in shared}
        return Recipe(**given, clip=0.0, rotate=0.0, shift=0.0, zoom=0.0, brightness=0.0, contrast=0.0)


def make_options(given: Mapping[str, Any]) -> PretrainOptions:
    """Return options with the values of `given` (text or numbers).

    Raises
    ------
    UsageError
        An option that does not exist or a value out of range.
    """
    return parse_options(PretrainOptions, given, "pretrain")


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(RunConfig):
    """What ``cxrx pretrain`` needs."""

    options: PretrainOptions

    outputs = (LAST, ENCODER, METRICS, PICTURE, REPORT, FAILURES)


@dataclass
class PretrainingResult:
    """What came of it: epochs, the last loss, and the films that could not be read."""

    out: Path
    epochs: int
    loss: float
    unread: tuple[Unread, ...] = ()


def pretrain(
    config: PretrainingConfig,
    *,
    log: Callable[[str], Any] = lambda _line: None,
    tick: Callable[[int], Any] = lambda _count: None,
) -> PretrainingResult:
    """Pre-train an encoder and write ``encoder.safetensors``, which ``cxrx train --init`` loads.

    Parameters
    ----------
    log, tick
        See :func:`cxrx.training.train.train`.

    Raises
    ------
    CxrxError
        With a sentence that says what is wrong; whole epochs are kept.
    """
    options = config.options
    check_place(config.out, config.data)
    paths = films_to_learn_from(config)
    model = make_network(config, ("none",), "binary", options.as_recipe())
    torch.manual_seed(seed_of(options.seed, "decoder"))
    network = MaskedAutoencoder(model.module, model.input.size, options.width, options.depth, options.heads)
    network.to(model.device)
    digest = hashlib.sha256("\n".join(paths).encode("utf-8", "surrogateescape")).hexdigest()
    settings = {"model": model.name, "input": asdict(model.input), "options": asdict(options), "films": digest}
    with in_folder(config, settings, model) as stop:
        if (report := report_of(config, log)) is not None:
            unread = tuple(Unread(**entry) for entry in report["unread"])
            return PretrainingResult(config.out, report["epochs"], report["loss"], unread)
        with decoded_films(config, paths, model, stop.watching(tick)) as decoded:
            pass
        patches = f"{options.mask_ratio:.0%} of {network.grid[0]}x{network.grid[1]} patches hidden"
        for note in note_on_warmup(options.warmup, options.epochs):
            log(f"note: {note}")
        log(f"{len(decoded.readable)} films, {model.name}, {patches}")
        training = Pretraining(config, model, decoded, network, log)
        progress = training.fit(stop)
        training.draw()
        result = PretrainingResult(config.out, progress.epoch, progress.history[-1]["loss"], decoded.unread)
        counts = {"films": len(decoded.readable), "unread": [asdict(one) for one in decoded.unread]}
        write_json(config.out / REPORT, {"epochs": result.epochs, "loss": result.loss, **counts, **settings})
        return result


def films_to_learn_from(config: PretrainingConfig) -> list[str]:
    """Return the films of a folder, without laterals and those of patients who are for validation or test.

    The latter are judged later: an encoder that has seen them, even unlabelled, would be flattered.
    """
    folder, options, count = config.data, config.options, config.films
    paths = [path for path, found in films_below(folder).items() if isinstance(found, Item)]
    try:
        dataset = open_dataset(folder)
    except UsageError:  # nothing is known of these films, which is what pre-training is for
        kept = paths
    else:
        placed = draw_or_take(dataset, config.split, options.split_seed).of
        judged = {
            patient for patient, split in zip(dataset.patients, placed, strict=True) if split in {"valid", "test"}
        }
        lateral = {path for path, truth in dataset.films() if VIEW_GROUP.get(truth.view, "frontal") != "frontal"}
        whose = dict(zip((path for path, _ in dataset.films()), dataset.patients, strict=True))
        kept = [path for path in paths if whose.get(path) not in judged and path not in lateral]
    if not kept:
        raise UsageError(f"{folder.name} holds no films to learn from")
    if count is None or count >= len(kept):
        return kept
    return sorted(sorted(kept, key=lambda path: seed_of(options.seed, "fewer", path))[:count])


class Pretraining(Training):
    """Learns to draw the hidden patches of films.

    Parameters
    ----------
    config, model, decoded, log
        See :class:`cxrx.training.loop.Training`.
    network
        The autoencoder around the model's own network.
    """

    betas: ClassVar[tuple[float, float]] = (0.9, 0.95)
    remedies: ClassVar[tuple[str, ...]] = ("dtype=fp32",)
    key = "autoencoder"

    def __init__(
        self,
        config: PretrainingConfig,
        model: Model,
        decoded: Decoded,
        network: MaskedAutoencoder,
        log: Callable[[str], Any],
    ) -> None:
        recipe, rows = config.options.as_recipe(), decoded.readable
        super().__init__(config, recipe, model, decoded, rows=rows, drawn=None, network=network, log=log)
        self._config, self._options, self._autoencoder = config, config.options, network
        self._generator = torch.Generator()

    def start_epoch(self, epoch: int) -> None:
        """Draw the masks of an epoch from its own numbers."""
        self._generator.manual_seed(seed_of(self._options.seed, "mask", epoch))

    def loss(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the loss over the hidden patches."""
        with self.mixed():
            return self._autoencoder.loss(x, self._masking(len(rows), self._generator))

    def finish_epoch(self, progress: Progress, row: dict[str, Any]) -> str:
        """Write the encoder: the last one is the best."""
        progress.history.append(row)
        self._write_encoder()
        write_table(self.folder / METRICS, _COLUMNS, progress.history)
        return ""

    def _masking(self, count: int, generator: torch.Generator) -> Masking:
        patches = self._autoencoder.grid[0] * self._autoencoder.grid[1]
        noise = torch.rand(count, patches, generator=generator)  # on the CPU: the same on every device
        return random_masking(noise.to(self.device), self._options.mask_ratio)

    def _write_encoder(self) -> None:
        """Write the encoder under timm's names, without a head."""
        classifier = (getattr(self.model.module, "pretrained_cfg", None) or {}).get("classifier") or "head"
        tensors = {k: v for k, v in self.model.module.state_dict().items() if not k.startswith(f"{classifier}.")}
        metadata = {
            "arch": model_name(self._config.model),
            "input": json.dumps(asdict(self.model.input)),
            "options": json.dumps(asdict(self._options)),
            "source": f"cxrx pretrain, cxrx {cxrx.__version__}",
        } | ({"demo": "1"} if self.decoded.synthetic else {})
        atomic.write_file(self.folder / ENCODER, tensor_bytes(tensors, metadata))

    def draw(self) -> None:
        """Write a picture of some films: whole, as the encoder saw them, and as the decoder drew the rest."""
        rows: NDArray[np.intp] = self.decoded.readable[:SHOWN]
        films = torch.from_numpy(self.decoded.store.pixels[rows])
        generator = torch.Generator().manual_seed(seed_of(self._options.seed, "picture"))
        masking = self._masking(len(films), generator)
        grid, side = self._autoencoder.grid, self._autoencoder.side
        self._autoencoder.eval()
        with torch.inference_mode():
            x = self.prepare(films)
            drawn = self._autoencoder(x, masking).float()
        patches = patchify(x, side)
        # the decoder draws normalised patches; their own mean and deviation make them comparable with the film
        deviation = (patches.var(dim=2, keepdim=True) + 1e-6).sqrt()
        drawn = drawn * deviation + patches.mean(dim=2, keepdim=True)
        hidden = masking.hidden[:, :, None]
        black = patches.min().expand_as(patches)
        rows_of = (patches, torch.where(hidden == 1, black, patches), torch.where(hidden == 1, drawn, patches))
        pictures = [unpatchify(part, side, grid)[:, 0].cpu().numpy() for part in rows_of]
        save_figure(self.folder / PICTURE, _figure(pictures, self._options.mask_ratio))


@plain_style()
def _figure(pictures: Sequence[NDArray[np.float32]], ratio: float) -> Any:
    from matplotlib.figure import Figure

    count = len(pictures[0])
    figure = Figure(figsize=(2.2 * count, 7.0), layout="constrained")
    titles = ("film", f"seen: {1 - ratio:.0%}", "hidden patches drawn (with their own mean and deviation)")
    low, high = float(pictures[0].min()), float(pictures[0].max())
    for row, (title, films) in enumerate(zip(titles, pictures, strict=True)):
        for column, film in enumerate(films):
            axes = figure.add_subplot(3, count, row * count + column + 1)
            axes.imshow(film, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_axis_off()
            if column == 0:
                axes.set_title(title, fontsize=9, loc="left")
    return figure
