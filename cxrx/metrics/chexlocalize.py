"""The protocol of CheXlocalize (Saporta et al. 2022), to the letter, so that numbers can stand beside theirs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrx.metrics.geometry import Mask
from cxrx.metrics.otsu import levels, otsu

Single = NDArray[np.float32]

METRICS = {
    "iou": (
        "the raw map is resized to the picture (bilinear, align_corners=False, float32), scaled by its minimum and "
        "maximum, truncated to 8 bits and cut at Otsu's threshold; holes are filled, single pixels dropped; "
        "intersection over union with the truth, NaN where either is empty"
    ),
    "hit": "the first maximum of the resized map in row-major order lies in the truth; NaN where that is empty",
}


def score(values: ArrayLike, truth: Mask, *, true_pos_only: bool = True) -> dict[str, float]:
    """Score a raw map ``(h, w)`` against a truth ``(H, W)`` in the pixels of the picture.

    Parameters
    ----------
    true_pos_only
        The IoU is NaN if either mask is empty (True), or only if both are (False).

    Returns
    -------
    scores
        The keys of :data:`METRICS`. In a map that is constant, or holds a NaN or an infinity, nothing is above the
        threshold; its maximum is the first pixel, or the first NaN once it is resized, by the letter. (Rounding in the
        resize makes some constants vary in the last digit; they count as constant all the same.)

    Notes
    -----
    The published code cuts with OpenCV's Otsu: variances in double precision, the first maximum. That of scikit-image
    has the counts in single precision; the two part ways only where variances are equal to seven digits. It then draws
    the contours (OpenCV's, of regions that touch side by side or at corners) as filled polygons, but for those of one
    point: holes close, and a region of a single pixel is gone.
    """
    from scipy.ndimage import label

    raw = np.asarray(values)
    resized = interpolate(raw if raw.max() != raw.min() else np.zeros((1, 1)), truth.shape)
    predicted = np.zeros_like(truth)
    if np.isfinite(resized).all() and resized.max() > resized.min():
        level = levels(resized)
        below = level <= otsu(np.bincount(level.ravel(), minlength=256))
        outside, _ = label(np.pad(below, 1, constant_values=True))  # 4-connected; the first is what the frame touches
        filled = outside[1:-1, 1:-1] != outside[0, 0]
        regions, _ = label(filled, structure=np.ones((3, 3)))
        predicted = filled & (np.bincount(regions.ravel()) > 1)[regions]
    there, found = int(truth.sum()), int(predicted.sum())
    common = int((truth & predicted).sum())
    nothing = not (found and there) if true_pos_only else not (found or there)
    first = int(np.argmax(resized))  # a NaN counts as the maximum
    return {
        "iou": float("nan") if nothing else common / (found + there - common),
        "hit": float(truth.ravel()[first]) if there else float("nan"),
    }


def interpolate(values: ArrayLike, shape: tuple[int, int]) -> Single:
    """Resize ``(h, w)`` to `shape` as ``torch.nn.functional.interpolate(mode="bilinear")`` does in single precision.

    Bit for bit what PyTorch's compiled loops give on a CPU, for pictures whose sides are more than 128 together: along
    x, then y, each product added to the other without being rounded first (fused multiply-add). Whether a pixel reaches
    its level of 8 bits can hang on the last bit.
    """
    grid = np.asarray(values).astype(np.float32)
    rows, columns = (_taps(old, new) for old, new in zip(grid.shape, shape, strict=True))
    with np.errstate(invalid="ignore", over="ignore"):  # infinities make NaN, as they do there
        across = _between(grid[:, columns[0]], grid[:, columns[1]], columns[2])  # (h, W)
        return _between(across[rows[0]], across[rows[1]], rows[2][:, None])  # (H, W)


def _taps(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Single]:
    """Return the two cells that every pixel lies between, and how far it is on the way to the second."""
    scale = np.float64(np.float32(old) / np.float32(new))
    place = np.maximum((scale * (np.arange(new) + 0.5) - 0.5).astype(np.float32), np.float32(0))
    low = np.minimum(place.astype(np.intp), old - 1)
    return low, np.minimum(low + 1, old - 1), np.clip(place - low.astype(np.float32), 0, 1).astype(np.float32)


def _between(a: Single, b: Single, way: Single) -> Single:
    rounded = b * way
    near = (np.float32(1) - way).astype(np.float64)
    return (a * near + rounded).astype(np.float32)  # the product of two singles is exact in double precision


class PublishedInterval(NamedTuple):
    """What :func:`chexlocalize_interval` returns; `dropped` replicates held no number."""

    value: float
    low: float
    high: float
    dropped: int


def chexlocalize_interval(values: ArrayLike, seed: int = 0, resamples: int = 1000) -> PublishedInterval:
    """Return the mean and the 95 % interval by the published convention.

    Parameters
    ----------
    values
        ``(n,)``: a number for every image of the test set, in the order of the images' names; NaN where an image has
        none. Images without a number are drawn like the others.
    seed, resamples
        Of ``numpy.random.RandomState``; each resample draws n images with replacement.

    Returns
    -------
    interval
        `value`: the mean, NaN skipped (not the mean of the replicates); `low` and `high`: the 25th and the 975th of
        1000 sorted means, NaN skipped. Replicates that hold no number are dropped before sorting, and counted: in the
        published code they sort last and can become the upper bound. The places then move with their number. NaN where
        no value is a number.

    Notes
    -----
    Images are resampled, not patients, as published; see :class:`cxrx.metrics.bootstrap.PatientBootstrap`.
    """
    numbers = np.asarray(values, dtype=np.float64)
    known, filled = np.isfinite(numbers), np.nan_to_num(numbers)
    if not known.any():
        return PublishedInterval(float("nan"), float("nan"), float("nan"), resamples)
    state = np.random.RandomState(seed)  # the published generator
    means = np.full(resamples, np.nan)
    for i in range(resamples):
        drawn = state.choice(len(numbers), size=len(numbers), replace=True)
        count = int(known[drawn].sum())
        means[i] = filled[drawn][known[drawn]].sum() / count if count else np.nan
    kept = np.sort(means[np.isfinite(means)])
    low, high = (kept[max(int(share * len(kept)) - 1, 0)] for share in (0.025, 0.975))
    value = float(filled[known].mean())
    return PublishedInterval(value, float(low), float(high), resamples - len(kept))
