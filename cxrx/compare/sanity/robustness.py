"""Maps of other seeds, and of pictures with a little noise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cxrx.compare.sanity.experiment import Experiment
from cxrx.explainers.seeds import derive_seed, generator
from cxrx.explainers.targets import EMPTY
from cxrx.metrics.agreement import CommonMaps
from cxrx.metrics.similarity import compare_maps, prepare

Float = NDArray[np.float64]

SIGMA = 0.02
"""Standard deviation of the noise, as a share of the picture's range."""
MOVED = 0.05
"""A prediction that moves by more has not been left alone by the noise."""
RADIUS, SAMPLES = 0.02, 10


def reseeded(experiment: Experiment, originals: CommonMaps, draw: int) -> dict[str, Float]:
    """Return how alike the maps of other seeds are to the `originals`, metric to ``(n,)``."""
    seeds = torch.tensor([derive_seed(seed, "reseeded", draw) for seed in experiment.seeds.tolist()])
    return compare_maps(originals, prepare(experiment.maps(seeds=seeds)))


def noisy(experiment: Experiment, originals: CommonMaps, draw: int) -> dict[str, Float]:
    """Return how alike the maps of noisy pictures are to the `originals`, metric to ``(n,)``.

    Gaussian noise of 0.02 of the picture's range, the same in all channels, drawn by picture; the method's own seeds
    stay. NaN where the probability of the finding moves by more than 0.05: the map may then move with it.
    """
    x = experiment.x + _by_picture(experiment, "noise", draw) * SIGMA * _ranges(experiment.x)
    maps = compare_maps(originals, prepare(experiment.maps(x=x)))
    change = (experiment.probabilities(x) - experiment.probabilities(experiment.x)).abs()
    moved = change.gather(1, experiment.targets.clamp(min=0)).numpy()[experiment.asked()] > MOVED
    return {metric: np.where(moved, np.nan, values) for metric, values in maps.items()}


def max_sensitivity(experiment: Experiment) -> Float:
    """Return the max-sensitivity ``(n,)`` (Yeh et al., NeurIPS 2019), estimated with ten samples of noise.

    The noise is uniform within 0.02 of the picture's range, each channel's the same, and drawn by picture: it is the
    same for all findings and methods. As captum does, the change is divided by the norm of the map; NaN where that
    is 0.
    """
    asked = experiment.asked()
    found = [_sensitivity_of_picture(experiment, int(b)) for b in np.flatnonzero(asked.any(axis=1))]
    return np.concatenate(found) if found else np.zeros(0)


def _sensitivity_of_picture(experiment: Experiment, b: int) -> Float:
    """Return the max-sensitivity ``(t,)`` of what is asked of picture `b`."""
    from captum.metrics import sensitivity_max

    targets = experiment.targets[b][experiment.targets[b] != EMPTY]  # (t,)
    # captum scores one explanation a row, so each finding is a row; the noisy copies of a row follow each other
    rows = experiment.x[b : b + 1].expand(len(targets), -1, -1, -1)
    noise = generator(derive_seed(0, "sensitivity", experiment.image_ids[b]))
    uniform = 2 * torch.rand(SAMPLES, 1, *rows.shape[2:], generator=noise) - 1
    copies = rows[:1] + uniform.to(rows.device) * RADIUS * _ranges(rows[:1])
    size = -(-SAMPLES // -(-SAMPLES // experiment.size))  # equal batches

    def explain(pictures: torch.Tensor) -> torch.Tensor:
        n = len(pictures)
        maps = experiment.explain(pictures, targets.expand(n, -1), experiment.seeds[b : b + 1].expand(n), size)
        return maps.transpose(0, 1).flatten(0, 1)  # (t n, h, w)

    original, changed = explain(rows[:1]), explain(copies)
    scores = sensitivity_max(
        lambda pictures: (original,) if isinstance(pictures, tuple) else changed,
        rows,
        lambda _pictures: copies.repeat(len(targets), 1, 1, 1),
        n_perturb_samples=SAMPLES,
    )
    blank = (original.flatten(1) == 0).all(dim=1)
    return torch.where(blank, torch.nan, scores).double().numpy()


def _by_picture(experiment: Experiment, purpose: str, draw: int) -> torch.Tensor:
    """Return Gaussian noise ``(B, 1, H, W)`` that depends on purpose, picture and draw only."""
    shape = experiment.x.shape[2:]
    drawn = [
        torch.randn(1, *shape, generator=generator(derive_seed(draw, purpose, name))) for name in experiment.image_ids
    ]
    return torch.stack(drawn).to(experiment.x.device)


def _ranges(x: torch.Tensor) -> torch.Tensor:
    return x.amax(dim=(1, 2, 3), keepdim=True) - x.amin(dim=(1, 2, 3), keepdim=True)
