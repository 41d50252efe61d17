"""Augmentation of training films: the same for every label, never for validation, and repeatable film by film."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cxrx.reading.prepare import equalise
from cxrx.training.recipes import Recipe

Transform = Callable[[torch.Tensor], torch.Tensor]  # (1, H, W) uint8 to the same


def build_transform(recipe: Recipe, size: tuple[int, int]) -> Transform | None:
    """Return the recipe's augmentation of films of `size`; None: there is none."""
    from torchvision.transforms import InterpolationMode, v2

    bilinear = InterpolationMode.BILINEAR
    steps: list[Transform] = []
    if recipe.clahe:
        steps.append(v2.RandomApply([_equalised], recipe.clahe))
    if recipe.crop < 1:
        steps.append(v2.RandomResizedCrop(size, scale=(recipe.crop, 1.0), interpolation=bilinear, antialias=True))
    if recipe.rotate or recipe.shift or recipe.zoom or recipe.shear:
        shift, scale, shear = (recipe.shift, recipe.shift), (1 - recipe.zoom, 1 + recipe.zoom), recipe.shear or None
        steps.append(v2.RandomAffine(recipe.rotate, shift, scale, shear, interpolation=bilinear))
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip(recipe.flip))
    if recipe.randaugment:
        # magnitudes of the literature count to 10
        magnitude = round(recipe.randaugment)
        steps.append(v2.RandAugment(2, magnitude, num_magnitude_bins=11, interpolation=bilinear))
    if recipe.brightness or recipe.contrast:
        steps.append(v2.ColorJitter(brightness=recipe.brightness, contrast=recipe.contrast))
    return v2.Compose(steps) if steps else None


def _equalised(film: torch.Tensor) -> torch.Tensor:
    """Equalise a film as the input of a model does that was trained with it."""
    changed = equalise((film[0].float() / 255).numpy(), (4.0, 7, 7))
    return torch.from_numpy(changed * 255).round().to(torch.uint8)[None]


def augment(films: torch.Tensor, seeds: Sequence[int], transform: Transform) -> torch.Tensor:
    """Return ``(B, H, W)`` uint8 films, each changed by what only its own seed decides.

    Neither the batch nor the worker matters, and torch's own random numbers are left as they were.
    """
    changed = []
    with torch.random.fork_rng(devices=[]):
        for film, seed in zip(films, seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            changed.append(transform(film[None])[0])
    return torch.stack(changed)
