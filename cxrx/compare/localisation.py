"""Does a map point at the finding? One map against one mask of the truth.

Every convention is written beside its number: a fixed threshold in the place of Otsu's alone moves the mean IoU by
0.20 (Arun 2021, Saporta 2022 differ in little else).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrx.compare.geometry import resize, resize_plain
from cxrx.errors import UsageError

Mask = NDArray[np.bool_]
Protocol = Literal["native", "chexlocalize"]
PROTOCOLS = ("native", "chexlocalize")
TOP_PERCENT = (1, 5, 10, 20)

#: Metric to what it is, in the order of the tables.
METRICS = {
    "hit": "the maximum lies in the truth (pointing game, tolerance 0)",
    "hit_15px": "the maximum lies within 15 px of the truth on a picture of 500 px, scaled to the picture",
    "iou": "intersection over union of the truth with the map cut at Otsu's threshold",
    "mass": "share of the positive relevance that lies in the truth",
    "mass_ratio": "mass divided by the truth's share of the picture: 1 is chance",
    "rank": "share of the truth's size in strongest pixels that lies in the truth (relevance rank accuracy)",
} | {
    f"iou_top_{k}": f"intersection over union of the truth with the strongest {k} % of the picture" for k in TOP_PERCENT
}


def score_localisation(
    map_2d: ArrayLike, truth_mask: ArrayLike, protocol: Protocol = "native", *, true_pos_only: bool = True
) -> dict[str, float]:
    """Score one map against one mask.

    Parameters
    ----------
    map_2d
        ``(h, w)`` values that cover the whole picture, on any grid; pass the published form (for CAMs with a ReLU:
        after it). A map on a model's cropped input goes through :func:`cxrx.compare.geometry.to_source` first.
    truth_mask
        ``(H, W)``, the truth in the pixels of the picture; nonzero is the finding.
    protocol
        ``"native"``. The map is resized to the mask (bilinear, ``align_corners=False``, antialiased where it
        shrinks); nothing is clipped but where said.

        * ``hit``: 1 if the maximum lies in the truth. Several equal maxima: the one nearest to their centroid.
        * ``hit_15px``: 1 if some pixel of the truth is less than ``15 / 500 * max(H, W)`` pixels from that maximum
          (Zhang et al. 2018: 15 px on PASCAL VOC, whose longer side is 500).
        * ``iou``: the map is scaled to [0, 1] by its minimum and maximum, ``q = floor(255 m)``, Otsu's threshold t
          over 256 bins, the pixels ``q > t`` against the truth.
        * ``mass``: sum of max(A, 0) in the truth over its sum in the picture; 0 if nothing is positive.
          ``mass_ratio`` divides by the truth's share of the picture.
        * ``rank``: of the |G| strongest pixels, the share in the truth (Arras et al. 2022). Of equal values at the
          cut, each counts by the share of them that fits: the expectation over random order.
        * ``iou_top_1`` ...: intersection over union with the strongest k percent of the pixels, ties likewise.

        A map that is constant or holds a NaN or an infinity names no place: hit, hit_15px and iou are 0 (and all
        others too where it holds such a value). An empty truth gives NaN throughout.

        ``"chexlocalize"`` (Saporta et al. 2022, and their published code): the raw map is resized to the mask,
        bilinear, ``align_corners=False``, not antialiased, float32; signed values stay; ``iou``: min-max after the
        resize, ``q = uint8(255 m)`` by truncation, Otsu over 256 bins, ``q > t``, holes filled; ``hit``: the first
        maximum in row-major order, tolerance 0, NaN where the truth is empty.
    true_pos_only
        Only for ``chexlocalize``: the IoU is NaN if either mask is empty (True), or only if both are (False).

    Returns
    -------
    scores
        ``native``: the keys of :data:`METRICS`; ``chexlocalize``: ``iou`` and ``hit``.

    Raises
    ------
    UsageError
        If either array is not two-dimensional or empty, or the protocol is unknown.
    """
    values, truth = np.asarray(map_2d), np.asarray(truth_mask).astype(bool)
    if values.ndim != 2 or truth.ndim != 2 or 0 in (*values.shape, *truth.shape):
        raise UsageError(f"a map (h, w) and a mask (H, W) are needed, not {values.shape} and {truth.shape}")
    if protocol == "chexlocalize":
        return _chexlocalize(values, truth, true_pos_only)
    if protocol != "native":
        raise UsageError(f"there is no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
    return score_resized(resize(values, truth.shape), truth)


def score_resized(values: NDArray[np.float64], truth: Mask) -> dict[str, float]:
    """Score a map that is already on the pixels of the truth, protocol ``native``."""
    area = int(truth.sum())
    if area == 0:
        return dict.fromkeys(METRICS, np.nan)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):
        return dict.fromkeys(METRICS, 0.0)
    scores = dict.fromkeys(METRICS, 0.0)
    if high > low:
        point = maximum(values)
        scores["hit"] = float(truth[point])
        scores["hit_15px"] = float(_near(truth, point, 15 / 500 * max(truth.shape)))
        scores["iou"] = _iou(_above_otsu(values), truth)
    positive = np.maximum(values, 0)
    total = float(positive.sum())
    scores["mass"] = float(positive[truth].sum()) / total if total > 0 else 0.0
    scores["mass_ratio"] = scores["mass"] * truth.size / area
    counts = [area, *(max(1, round(truth.size * k / 100)) for k in TOP_PERCENT)]
    inside = _top_inside(values, truth, counts)
    scores["rank"] = inside[0] / area
    for k, count, common in zip(TOP_PERCENT, counts[1:], inside[1:], strict=True):
        scores[f"iou_top_{k}"] = common / (count + area - common)
    return scores


def maximum(values: NDArray[np.float64]) -> tuple[int, int]:
    """Return ``(row, column)`` of the maximum; of several equal ones, the one nearest to their centroid.

    Equal means within 1e-9 of the range, so that rounding in a resize does not choose.
    """
    high = values.max()
    ys, xs = np.nonzero(values >= high - 1e-9 * (high - values.min()))
    nearest = int(np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2))
    return int(ys[nearest]), int(xs[nearest])


def _near(truth: Mask, point: tuple[int, int], tolerance: float) -> bool:
    """Tell whether a pixel of the truth is closer to `point` than `tolerance` (or is it)."""
    reach = int(np.ceil(tolerance))
    top, left = max(point[0] - reach, 0), max(point[1] - reach, 0)
    ys, xs = np.nonzero(truth[top : point[0] + reach + 1, left : point[1] + reach + 1])
    if ys.size == 0:
        return False
    squared = (ys + top - point[0]) ** 2 + (xs + left - point[1]) ** 2
    return bool(squared.min() < max(tolerance, 1e-9) ** 2)


def _above_otsu(values: NDArray[np.floating]) -> Mask:
    """Binarise: min-max, ``q = floor(255 m)``, ``q > t`` with Otsu's t over 256 bins. The map must not be constant."""
    from skimage.filters import threshold_otsu

    low = values.min()
    scaled = (255 * ((values - low) / (values.max() - low))).astype(np.uint8)
    counts = np.bincount(scaled.ravel(), minlength=256)
    above: Mask = scaled > threshold_otsu(hist=(counts, np.arange(256)))  # type: ignore[no-untyped-call]
    return above


def _iou(a: Mask, b: Mask) -> float:
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else float("nan")


def _top_inside(values: NDArray[np.float64], truth: Mask, counts: list[int]) -> list[float]:
    """Return, for every n of `counts`, how many of the n largest values lie in the truth; ties count by their share."""
    flat, inside = values.ravel(), values[truth]
    cuts = np.partition(flat, [flat.size - n for n in counts])
    common = []
    for n in counts:
        cut = cuts[flat.size - n]
        above, at = np.count_nonzero(flat > cut), np.count_nonzero(flat == cut)
        share = (n - above) / at
        common.append(float(np.count_nonzero(inside > cut) + share * np.count_nonzero(inside == cut)))
    return common


def _chexlocalize(values: NDArray[np.generic], truth: Mask, true_pos_only: bool) -> dict[str, float]:
    from scipy.ndimage import binary_fill_holes

    resized = resize_plain(values, truth.shape)
    empty = np.isnan(resized).any() or resized.max() <= resized.min()  # 0/0 in min-max: nothing is above a threshold
    predicted = np.zeros_like(truth) if empty else binary_fill_holes(_above_otsu(resized))
    nothing = (not predicted.any() or not truth.any()) if true_pos_only else not (predicted.any() or truth.any())
    first = np.unravel_index(int(np.argmax(resized)), resized.shape)
    hit = float(truth[first]) if truth.any() else float("nan")
    return {"iou": float("nan") if nothing else _iou(predicted, truth), "hit": hit}
