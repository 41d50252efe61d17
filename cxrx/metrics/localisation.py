"""Does a map point at the finding? One map against one mask of the truth.

Every convention is written beside its number: a fixed threshold in the place of Otsu's alone moves the mean IoU by
0.20 (Arun 2021, Saporta 2022 differ in little else).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrx.errors import UsageError
from cxrx.metrics import arun, chexlocalize
from cxrx.metrics.geometry import Float, Mask, resize
from cxrx.metrics.otsu import levels, otsu
from cxrx.metrics.protocols import PROTOCOLS, Protocol

TOP_PERCENT = (1, 5, 10, 20, 40)
CUTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

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

#: What :func:`score_detailed` adds.
DETAILED = (
    {f"sensitivity_top_{k}": f"share of the truth among the strongest {k} % of the picture" for k in TOP_PERCENT}
    | {f"precision_top_{k}": f"share of the strongest {k} % of the picture that is truth" for k in TOP_PERCENT}
    | {
        f"iou_above_{t}": f"intersection over union of the truth with the pixels above {t} of the map scaled to [0, 1]"
        for t in CUTS
    }
    | {
        f"t_iou_{t}": f"the box around the strongest region (cut by Otsu's rule) has an IoU above {t} with the truth"
        for t in OVERLAPS
    }
    | {f"t_iobb_{t}": f"more than {t} of the box around the strongest region is truth" for t in OVERLAPS}
)

#: Protocol to what its metrics are.
PROTOCOL_METRICS = {"native": METRICS, "chexlocalize": chexlocalize.METRICS, "arun": arun.METRICS}

#: All names under which these numbers stand in tables; those of a second protocol with its name before them.
KEYS = frozenset({
    *DETAILED, *(key for metrics in PROTOCOL_METRICS.values() for key in metrics),
    *(f"{protocol}_{key}" for protocol, metrics in PROTOCOL_METRICS.items() for key in metrics),
})  # fmt: skip


def score_localisation(
    map_2d: ArrayLike, truth_mask: ArrayLike, protocol: Protocol = "native", *, true_pos_only: bool = True
) -> dict[str, float]:
    """Score one map against one mask.

    Parameters
    ----------
    map_2d
        ``(h, w)`` values that cover the whole picture, on any grid; pass the published form (for CAMs with a ReLU:
        after it). A map on a model's cropped input goes through :func:`cxrx.metrics.geometry.to_source` first.
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
        resize, ``q = uint8(255 m)`` by truncation, Otsu over 256 bins, ``q > t``, holes filled, regions of a single
        pixel dropped; ``hit``: the first maximum in row-major order, tolerance 0, NaN where the truth is empty.

        ``"arun"`` (Arun et al. 2021): the map is resized as for ``native``; its pixels are ranked against the truth:
        ``auprc`` by trapezoids, ``average_precision`` in steps, ``auroc``.
    true_pos_only
        Only for ``chexlocalize``: the IoU is NaN if either mask is empty (True), or only if both are (False).

    Returns
    -------
    scores
        The keys of :data:`PROTOCOL_METRICS` of the protocol; of ``native`` those of :data:`METRICS`.

    Raises
    ------
    UsageError
        If either array is not two-dimensional or empty, or the protocol is unknown.

    Examples
    --------
    >>> import cxrx, numpy as np
    >>> truth = np.zeros((64, 64), dtype=bool)
    >>> truth[16:32, 16:40] = True
    >>> map_2d = np.zeros((8, 8))
    >>> map_2d[2:4, 2:5] = 1
    >>> scores = cxrx.score_localisation(map_2d, truth)
    >>> scores["hit"], round(scores["mass"], 2)
    (1.0, 0.8)
    """
    values, truth = np.asarray(map_2d), np.asarray(truth_mask).astype(bool)
    if values.ndim != 2 or truth.ndim != 2 or 0 in (*values.shape, *truth.shape):
        raise UsageError(f"a map (h, w) and a mask (H, W) are needed, not {values.shape} and {truth.shape}")
    if protocol not in PROTOCOLS:
        raise UsageError(f"there is no protocol {protocol!r}", f"known: {', '.join(PROTOCOLS)}")
    if protocol == "chexlocalize":
        return chexlocalize.score(values, truth, true_pos_only=true_pos_only)
    resized = resize(values, truth.shape)
    return arun.score(resized, truth) if protocol == "arun" else score_resized(resized, truth)


def score_resized(values: Float, truth: Mask) -> dict[str, float]:
    """Score a map that is already on the pixels of the truth, protocol ``native``."""
    area = int(np.count_nonzero(truth))
    if area == 0:
        return dict.fromkeys(METRICS, np.nan)
    histogram = _Histogram.of(values, truth)
    if histogram is None:
        return dict.fromkeys(METRICS, 0.0)
    scores = dict.fromkeys(METRICS, 0.0)
    if histogram.high > histogram.low:
        point = maximum(values)
        scores["hit"] = float(truth[point])
        scores["hit_15px"] = float(_near(truth, point, 15 / 500 * max(truth.shape)))
        scores["iou"] = _iou(*histogram.above(otsu(histogram.counts)), area)
    total, inside = _positive_sum(values), _positive_sum(histogram.inside)
    scores["mass"] = inside / total if total > 0 else 0.0
    scores["mass_ratio"] = scores["mass"] * truth.size / area
    scores["rank"] = histogram.top_inside(area) / area
    for k, count in _top_counts(truth.size).items():
        scores[f"iou_top_{k}"] = _iou(count, histogram.top_inside(count), area)
    return scores


def score_overlap(values: Float, truth: Mask) -> float:
    """Return ``iou`` of :func:`score_resized` alone."""
    histogram, area = _Histogram.of(values, truth), int(np.count_nonzero(truth))
    if area == 0:
        return float("nan")
    if histogram is None or histogram.high == histogram.low:
        return 0.0
    return _iou(*histogram.above(otsu(histogram.counts)), area)


def score_detailed(values: Float, truth: Mask) -> dict[str, float]:
    """Score a map that is already on the pixels of the truth by the slower metrics of protocol ``native``.

    Parameters
    ----------
    values, truth
        ``(H, W)``.

    Returns
    -------
    scores
        The keys of :data:`DETAILED`.

        * ``sensitivity_top_1`` ..., ``precision_top_1`` ...: of the strongest k percent of the pixels, how much of the
          truth they cover and how much of them is truth; of equal values at the cut each counts by the share of them
          that fits.
        * ``iou_above_0.2`` ...: the map is scaled to [0, 1] by its minimum and maximum and cut at ``m > t``.
        * ``t_iou_0.1`` ..., ``t_iobb_0.1`` ... (Wang et al. 2017): the map is cut as for ``iou``; of the regions that
          touch side by side or at corners the one with the maximum is taken, and the box around it: 1 if its
          intersection with the truth, over the union (IoU) or over the box (IoBB), is above t.

        A map that is constant or holds a NaN or an infinity is treated as in :func:`score_localisation`: the cuts and
        boxes are 0. An empty truth gives NaN throughout.
    """
    area = int(np.count_nonzero(truth))
    if area == 0:
        return dict.fromkeys(DETAILED, np.nan)
    histogram = _Histogram.of(values, truth)
    scores = dict.fromkeys(DETAILED, 0.0)
    if histogram is None:
        return scores
    for k, count in _top_counts(truth.size).items():
        common = histogram.top_inside(count)
        scores[f"sensitivity_top_{k}"], scores[f"precision_top_{k}"] = common / area, common / count
    if histogram.high > histogram.low:
        scores |= _at_cuts(values, histogram, area) | _boxed(values, truth, histogram, area)
    return scores


def _at_cuts(values: Float, histogram: _Histogram, area: int) -> dict[str, float]:
    scaled, inside = ((v - histogram.low) / (histogram.high - histogram.low) for v in (values, histogram.inside))
    return {
        f"iou_above_{t}": _iou(int(np.count_nonzero(scaled > t)), int(np.count_nonzero(inside > t)), area) for t in CUTS
    }


def _boxed(values: Float, truth: Mask, histogram: _Histogram, area: int) -> dict[str, float]:
    from scipy.ndimage import label

    regions, _ = label((histogram.levels > otsu(histogram.counts)).reshape(values.shape), structure=np.ones((3, 3)))
    region = regions == regions[maximum(values)]
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    box = truth[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    common = int(np.count_nonzero(box))
    iou, iobb = _iou(box.size, common, area), common / box.size
    return {f"t_iou_{t}": float(iou > t) for t in OVERLAPS} | {f"t_iobb_{t}": float(iobb > t) for t in OVERLAPS}


# ---------------------------------------------------------------------------------------------------------------------
# Parts


@dataclass(frozen=True, eq=False)
class _Histogram:
    """The histogram of a map over 256 levels, and that of the part of it in the truth.

    The n strongest pixels, and what Otsu's threshold leaves, are whole levels and at most a part of one, so that
    nothing needs the whole map in order.
    """

    values: Float  # (H W,)
    inside: Float  # (|G|,)
    low: float
    high: float
    levels: NDArray[np.uint8]  # (H W,), rising with the values
    inside_levels: NDArray[np.uint8]
    counts: NDArray[np.intp]  # (256,) pixels of each level
    inside_counts: NDArray[np.intp]

    @classmethod
    def of(cls, values: Float, truth: Mask) -> _Histogram | None:
        """Return None where the map holds a NaN or an infinity."""
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(high - low):
            return None
        level = levels(values) if high > low else np.zeros(values.shape, np.uint8)
        inside, flat = level[truth], level.ravel()
        counts = (np.bincount(pixels, minlength=256) for pixels in (flat, inside))
        return cls(values.ravel(), values[truth], low, high, flat, inside, *counts)

    def above(self, level: int) -> tuple[int, int]:
        """Count the pixels above a level: all of them, and those in the truth."""
        return int(self.counts[level + 1 :].sum()), int(self.inside_counts[level + 1 :].sum())

    def top_inside(self, n: int) -> float:
        """Return how many of the n largest values lie in the truth; ties count by their share."""
        level = 255 - int(np.searchsorted(np.cumsum(self.counts[::-1]), n))
        over, common = self.above(level)
        here, inside = self.values[self.levels == level], self.inside[self.inside_levels == level]
        cut = np.partition(here, len(here) - (n - over))[len(here) - (n - over)]
        wanted, tied = n - over - np.count_nonzero(here > cut), np.count_nonzero(here == cut)
        # multiplied before it is divided, so that rounding never gives more than n
        return float(common + np.count_nonzero(inside > cut) + wanted * np.count_nonzero(inside == cut) / tied)


def _top_counts(size: int) -> dict[int, int]:
    return {k: max(1, round(size * k / 100)) for k in TOP_PERCENT}


def _iou(predicted: int, common: float, area: int) -> float:
    return common / (predicted + area - common)


def _positive_sum(values: Float) -> float:
    return float(np.maximum(values, 0).sum())


def maximum(values: Float) -> tuple[int, int]:
    """Return ``(row, column)`` of the maximum; of several equal ones, the one nearest to their centroid.

    Equal means within 1e-9 of the range, so that rounding in a resize does not choose.
    """
    high = values.max()
    ys, xs = np.divmod(np.flatnonzero(values >= high - 1e-9 * (high - values.min())), values.shape[1])
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
