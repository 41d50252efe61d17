"""How a network is trained: every value by name, and the published recipes as presets.

What a publication leaves open is filled in with the defaults below. Two things are never taken over. Augmentation by
class (the ViT pneumonia classifier turns films of pneumonia further than others) lets the network read the label off
the augmentation. Flips are off even where a recipe had them, because a mirrored chest is another finding: the heart on
the right is situs inversus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from cxrx.options import parse_options
from cxrx.specs import InputSpec

NO_FLIPS = "films are not mirrored: a heart on the right is situs inversus, another finding (-O flip=0.5 turns it on)"

Preset = Literal["default", "chexnet", "rsna", "vit-pneumonia", "attention-maps", "medical-mae"]
SplitRule = Literal["auto", "patient"]

_NOT_AUGMENTED = {"rotate": 0.0, "shift": 0.0, "zoom": 0.0, "brightness": 0.0, "contrast": 0.0}


@dataclass(frozen=True)
class Recipe:
    """All values of a training.

    Attributes
    ----------
    preset
        Whose values are taken where none is given.
    task
        multi-label: findings side by side, a sigmoid each; binary: the same for one; multi-class: classes that exclude
        each other, one softmax; auto: as the data are.
    optimiser
        adamw, adam (weight decay as an L2 penalty) or sgd (with momentum).
    lr
        Highest learning rate.
    lr_batch
        Batch size that lr is meant for; with another one it is scaled in proportion. None: lr as it is.
    min_lr
        Where the cosine ends.
    weight_decay
        Of all parameters but biases, norms and position embeddings.
    momentum
        Of sgd.
    schedule
        cosine, plateau (lr times plateau_factor once validation has not improved for plateau_patience epochs) or
        constant.
    plateau_patience, plateau_factor
        See schedule.
    warmup
        Epochs over which lr rises linearly from 0.
    layer_decay
        lr of a layer is lr times this to the power of its distance from the head; 1: the same everywhere.
    epochs
        At most so many.
    batch
        Films a step.
    clip
        Longest gradient (2-norm over all parameters); 0: none.
    frozen
        The stem and so many of the first blocks keep their weights; 0: all learn.
    patience
        Stop after so many epochs without a better validation; 0: never early.
    drop_path
        Rate of stochastic depth of the last block, rising linearly from the first.
    smoothing
        Label smoothing.
    balance
        none; sampler: films of rare labels are drawn more often; pos-weight: positives weigh absent / present.
    uncertain
        What a label -1 counts as: ignore (masked, as unknown labels are), positive or negative.
    rotate, shear
        Degrees, to either side.
    shift, zoom
        Share of the side, to either side.
    crop
        Least share of the area that a random crop keeps; 1: no crops.
    clahe
        Probability that the film is equalised (contrast-limited, clip 4, 7 x 7 tiles, as the ViT pneumonia classifier
        does it to every film; for that, -m vit_pneumonia has it in its input).
    brightness, contrast
        Factor is drawn from 1 - value to 1 + value.
    flip
        Probability of mirroring left and right. 0: a mirrored chest is another finding.
    randaugment
        Magnitude, of 10, of two random operations a film; 0: none.
    dtype
        fp32, bf16 (automatic mixed precision), or auto: bf16 on a GPU.
    threshold
        Chosen on validation films: f1 (highest F1), youden (sensitivity + specificity) or half (0.5).
    seed
        Of initial weights, order, augmentation and what --films keeps.
    split_seed
        Of drawn splits; those of two trainings can be compared only with the same one.
    """

    preset: Preset = "default"
    task: Literal["auto", "multi-label", "binary", "multi-class"] = "auto"
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 3e-4
    lr_batch: int | None = None
    min_lr: float = 0.0
    weight_decay: float = 0.05
    momentum: float = 0.9
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    plateau_patience: int = 3
    plateau_factor: float = 0.1
    warmup: float = 1.0
    layer_decay: float = 1.0
    epochs: int = 20
    batch: int = 32
    clip: float = 1.0
    frozen: int = 0
    patience: int = 0
    drop_path: float = 0.0
    smoothing: float = 0.0
    balance: Literal["none", "sampler", "pos-weight"] = "none"
    uncertain: Literal["ignore", "positive", "negative"] = "ignore"
    rotate: float = 7.0
    shear: float = 0.0
    shift: float = 0.05
    zoom: float = 0.1
    crop: float = 1.0
    clahe: float = 0.0
    brightness: float = 0.1
    contrast: float = 0.1
    flip: float = 0.0
    randaugment: float = 0.0
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    threshold: Literal["f1", "youden", "half"] = "f1"
    seed: int = 0
    split_seed: int = 0

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "chexnet": {
            "optimiser": "adam", "lr": 1e-4, "weight_decay": 1e-5, "schedule": "plateau", "plateau_patience": 5,
            "warmup": 0.0, "epochs": 100, "batch": 16, "clip": 0.0, "patience": 15, **_NOT_AUGMENTED, "crop": 0.5,
        },
        "rsna": {
            "optimiser": "adam", "lr": 2e-5, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0, "epochs": 10,
            "batch": 16, "clip": 0.0, **_NOT_AUGMENTED, "crop": 0.5,
        },
        "vit-pneumonia": {
            "optimiser": "adamw", "lr": 5e-5, "epochs": 20, "batch": 32, "clip": 1.0, "frozen": 6, "patience": 5,
            "rotate": 15.0, "shift": 0.2, "zoom": 0.2, "brightness": 0.2, "contrast": 0.0,
        },
        "attention-maps": {
            "optimiser": "sgd", "lr": 0.01, "weight_decay": 1e-4, "warmup": 0.0, "epochs": 50, "batch": 32,
            "clip": 0.0, **_NOT_AUGMENTED,
        },
        "medical-mae": {
            "optimiser": "adamw", "lr": 2.5e-4, "lr_batch": 256, "min_lr": 1e-5, "weight_decay": 0.05, "batch": 256,
            "layer_decay": 0.55, "drop_path": 0.2, "warmup": 5.0, "epochs": 75, "clip": 0.0, "randaugment": 6.0,
            **_NOT_AUGMENTED, "crop": 0.5,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        checks = {
            "lr": self.lr > 0, "epochs": self.epochs >= 1, "batch": self.batch >= 1, "warmup": self.warmup >= 0,
            "layer_decay": 0 < self.layer_decay <= 1, "weight_decay": self.weight_decay >= 0, "clip": self.clip >= 0,
            "frozen": self.frozen >= 0, "patience": self.patience >= 0, "drop_path": 0 <= self.drop_path < 1,
            "smoothing": 0 <= self.smoothing < 1, "rotate": 0 <= self.rotate <= 180, "shear": 0 <= self.shear < 90,
            "shift": 0 <= self.shift <= 1, "zoom": 0 <= self.zoom < 1, "crop": 0 < self.crop <= 1,
            "clahe": 0 <= self.clahe <= 1,
            "brightness": 0 <= self.brightness <= 1, "contrast": 0 <= self.contrast <= 1, "flip": 0 <= self.flip <= 1,
            "randaugment": 0 <= self.randaugment <= 10, "plateau_factor": 0 < self.plateau_factor < 1,
            "plateau_patience": self.plateau_patience >= 0, "momentum": 0 <= self.momentum < 1,
            "min_lr": 0 <= self.min_lr <= self.lr, "lr_batch": self.lr_batch is None or self.lr_batch >= 1,
        }  # fmt: skip
        wrong = next((name for name, sound in checks.items() if not sound), None)
        if wrong is not None:
            raise ValueError(f"{wrong} cannot be {getattr(self, wrong)}")

    @property
    def peak_lr(self) -> float:
        """The highest learning rate, scaled to the batch."""
        return self.lr if self.lr_batch is None else self.lr * self.batch / self.lr_batch


def make_recipe(preset: str, given: Mapping[str, Any]) -> Recipe:
    """Return the recipe `preset` with the values of `given` in place of its own.

    Raises
    ------
    UsageError
        An option or a preset that does not exist, or a value that is out of range.
    """
    return parse_options(Recipe, {"preset": preset, **given}, "recipe")


def notes_on(recipe: Recipe, seen: InputSpec) -> list[str]:
    """Return what the user should know of a recipe on an input."""
    notes = [NO_FLIPS] if recipe.flip == 0 else []
    notes += note_on_warmup(recipe.warmup, recipe.epochs)
    if recipe.preset == "vit-pneumonia" and seen.clahe is None:
        notes.append("this recipe was published with CLAHE, which -m vit_pneumonia has in its input")
    return notes


def note_on_warmup(warmup: float, epochs: int) -> list[str]:
    """Return a sentence where a training ends before its learning rate has risen."""
    if warmup < epochs or warmup == 1:
        return []
    return [f"the learning rate rises over {warmup:g} epochs, and there are {epochs}: -O warmup={epochs / 10:g} or so"]


def differences(recipe: Recipe) -> dict[str, Any]:
    """Return the values that are not those of the preset."""
    base = asdict(Recipe(preset=recipe.preset, **Recipe.PRESETS[recipe.preset]))
    own = asdict(recipe)
    return {f.name: own[f.name] for f in fields(recipe) if own[f.name] != base[f.name]}
