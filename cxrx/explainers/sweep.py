"""Forward-only methods: the picture with parts of it hidden, one sweep of forward passes for all findings.

Every pass has the same number of rows (the last one is filled up), so a picture's numbers depend neither on the
pictures beside it nor on the findings asked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from cxrx.explainers.baselines import make_baseline
from cxrx.explainers.gradient import rows_at_once
from cxrx.explainers.seeds import generator
from cxrx.explainers.steps import told, told_pictures
from cxrx.explainers.targets import EMPTY
from cxrx.models.inference import autocast, pad_batch
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from cxrx.explainers.option_types import Dtype, OcclusionOptions, RiseOptions
    from cxrx.models.model import Model

FORWARD_ROWS = 4
"""How many times as many rows a GPU takes in a pass that keeps nothing for a backward pass."""


def sweep(model: Model, seen: Iterable[torch.Tensor], rows: int, dtype: Dtype) -> Iterator[torch.Tensor]:
    """Yield the logits ``(n, K)`` of each part of `seen`.

    Parameters
    ----------
    model
        In eval mode.
    seen
        ``(n, C, H, W)`` each, n at most `rows`.
    rows
        Of every pass; what is missing is filled up.
    dtype
        Of the passes.
    """
    for pictures in seen:
        padded = pad_batch(pictures.contiguous(memory_format=model.memory_format), rows)
        with torch.no_grad(), autocast(model.device, dtype):  # not around the yield: the caller's own work is float32
            logits = model.forward(padded)[: len(pictures)]
        yield logits


def sweep_rows(device: torch.device) -> int:
    """Return how many pictures a pass of a sweep has."""
    return rows_at_once(device) * (1 if device.type == "cpu" else FORWARD_ROWS)


# ---------------------------------------------------------------------------------------------------------------------
# Occlusion

Window = tuple[slice, slice]


def build_occlusion(options: OcclusionOptions) -> Explainer:
    """Return occlusion: at each pixel the mean, over the windows that cover it, of z(picture) - z(window hidden)."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        size = (x.shape[2], x.shape[3])
        windows = sliding_windows(size, _scaled(options.window, size), _scaled(options.stride, size))
        baseline = make_baseline(model, x, options.baseline)
        values = x.new_zeros(*targets.shape, *size)  # (B, T, H, W)
        covered = x.new_zeros(size)
        for rows, columns in windows:
            covered[rows, columns] += 1
        for b in told_pictures(targets):
            present = (targets[b] != EMPTY).nonzero()[:, 0]
            drops = _drops(model, x[b], baseline[b], windows, options.dtype)[:, targets[b, present]]  # (n, t)
            total = x.new_zeros(len(present), *size)
            for drop, (rows, columns) in zip(drops, windows, strict=True):
                total[:, rows, columns] += drop[:, None, None]
            values[b, present] = total / covered
        return Maps(values)

    return explain


def sliding_windows(size: tuple[int, int], window: int, stride: int) -> list[Window]:
    """Return windows that cover a picture of `size` ``(H, W)`` row by row; the last ones are cut at its edge."""
    starts = [[i * stride for i in range(1 + max(0, math.ceil((length - window) / stride)))] for length in size]
    return [(slice(r, r + window), slice(c, c + window)) for r, c in itertools.product(*starts)]


def _scaled(pixels: int, size: tuple[int, int]) -> int:
    """Return a length given for 224 px for a picture of `size`."""
    return max(1, round(pixels * min(size) / 224))


def _drops(
    model: Model, picture: torch.Tensor, baseline: torch.Tensor, windows: list[Window], dtype: Dtype
) -> torch.Tensor:
    """Return by how much each window lowers the logits of `picture` ``(C, H, W)``, ``(n, K)``."""
    count = sweep_rows(picture.device)

    def hidden() -> Iterator[torch.Tensor]:
        chosen: list[Window | None] = [None, *windows]  # first the whole picture, in a pass of the same shape
        for start in told(range(0, len(chosen), count), -(-len(chosen) // count)):
            part = chosen[start : start + count]
            seen = picture.repeat(len(part), 1, 1, 1)
            for i, window in enumerate(part):
                if window is not None:
                    seen[i, :, window[0], window[1]] = baseline[:, window[0], window[1]]
            yield seen

    logits = torch.cat(list(sweep(model, hidden(), count, dtype)))
    return logits[:1] - logits[1:]


# ---------------------------------------------------------------------------------------------------------------------
# RISE


def build_rise(options: RiseOptions) -> Explainer:
    """Return RISE (Petsiuk et al. 2018, equation 6): Σ s(mask)·mask / (n·keep), s the score of what a mask leaves.

    With ``score="logit"`` s is the logit minus its mean over the masks. The sum then estimates E[z | pixel kept] - E[z]
    in place of E[z | pixel kept]: the same ranking of pixels, without the noise that a mean far from zero, multiplied
    by an uneven number of masks, would bring.
    """

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:
        baseline = make_baseline(model, x, options.baseline)
        values = x.new_zeros(*targets.shape, *x.shape[2:])
        for b in told_pictures(targets):
            present = (targets[b] != EMPTY).nonzero()[:, 0]
            values[b, present] = _rise(model, x[b], baseline[b], targets[b, present], int(seeds[b]), options)
        return Maps(values)

    return explain


def _rise(
    model: Model, picture: torch.Tensor, baseline: torch.Tensor, wanted: torch.Tensor, seed: int, options: RiseOptions
) -> torch.Tensor:
    """Return the maps ``(t, H, W)`` of the findings `wanted` ``(t,)`` in one picture ``(C, H, W)``."""
    chunks = random_masks((picture.shape[1], picture.shape[2]), seed, sweep_rows(picture.device), options)
    chunks, again = itertools.tee(mask.to(picture.device) for mask in chunks)
    seen = (baseline + mask[:, None] * (picture - baseline) for mask in again)
    weighed = picture.new_zeros(len(wanted), *picture.shape[1:])  # sum of s·mask
    plain = torch.zeros_like(weighed[0])  # sum of masks
    total, first = picture.new_zeros(len(wanted)), None
    rows = sweep_rows(picture.device)
    passes = zip(sweep(model, seen, rows, options.dtype), chunks, strict=True)
    for logits, mask in told(passes, -(-options.masks // rows)):
        if options.score == "probability":
            score = model.probabilities(logits)[:, wanted]  # (n, t)
        else:
            score = logits[:, wanted]
            first = score[0] if first is None else first
            score = score - first  # keeps the sums small, and those of a constant model exactly zero
        flat = mask.flatten(1).T  # (H·W, n)
        # one by one, and gathered before: on some processors a product's last bit depends on shape and strides
        for t in range(len(wanted)):
            weighed[t] += torch.mv(flat, score[:, t].contiguous()).view(mask.shape[1:])
        plain += mask.sum(dim=0)
        total += score.sum(dim=0)
    if options.score == "logit":
        weighed -= (total / options.masks)[:, None, None] * plain
    return weighed / (options.masks * options.keep)


def random_masks(size: tuple[int, int], seed: int, rows: int, options: RiseOptions) -> Iterator[torch.Tensor]:
    """Yield smooth random masks ``(n, H, W)`` in [0, 1], at most `rows` at once, ``options.masks`` in all.

    Petsiuk et al. 2018, section 3.2: a coarse grid of cells that stay or go is enlarged bilinearly to one cell more
    than the picture on each side, and the picture's size is cut out of that at a random place.

    Parameters
    ----------
    size, seed
        ``(H, W)``, and what the masks are drawn with.
    rows, options
        n at most, and how many masks of which cells.
    """
    drawn = generator(seed)
    cells = [max(1, round(options.cells * side / min(size))) for side in size]
    cell = [math.ceil(side / count) for side, count in zip(size, cells, strict=True)]
    large = [(count + 1) * side for count, side in zip(cells, cell, strict=True)]
    # All are drawn at once, so that they do not depend on `rows`.
    grids = (torch.rand(options.masks, 1, *cells, generator=drawn) < options.keep).float()
    shifts = torch.stack([torch.randint(0, side, (options.masks,), generator=drawn) for side in cell], dim=1)
    for grid, shift in zip(grids.split(rows), shifts.split(rows), strict=True):  # type: ignore[no-untyped-call]
        masks = functional.interpolate(grid, large, mode="bilinear", align_corners=False)[:, 0].clamp(0, 1)
        cut = zip(masks, shift.tolist(), strict=True)
        yield torch.stack([mask[r : r + size[0], c : c + size[1]] for mask, (r, c) in cut])
