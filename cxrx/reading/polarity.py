"""Telling photographic negatives from films whose header, or file format, says nothing about it.

In a frontal film air is dark: the mediastinum is brighter than the lungs. Among the 60 NIH PNGs at hand the two
negatives lie at -39 and -66 grey levels of 255, the others at 27 and above.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from cxrx.specs import Film, FloatArray

THRESHOLD = -20 / 255

# (top, bottom, left, right) as shares of the film; the heart lies left of the patient's midline, on the right here
_MEDIASTINUM = (0.40, 0.80, 0.46, 0.58)
_LUNGS = ((0.20, 0.50, 0.25, 0.38), (0.20, 0.50, 0.62, 0.75))
_SAMPLES = 128  # per side: means need no more


def contrast(pixels: FloatArray) -> float:
    """Return mean mediastinum minus mean lungs of a frontal film ``(rows, columns)`` in [0, 1]."""
    lungs = sum(_mean(pixels, box) for box in _LUNGS) / len(_LUNGS)
    return _mean(pixels, _MEDIASTINUM) - lungs


def _mean(pixels: FloatArray, box: tuple[float, float, float, float]) -> float:
    rows, columns = pixels.shape
    top, bottom, left, right = box
    part = pixels[
        int(top * rows) : max(int(bottom * rows), int(top * rows) + 1) : max(1, rows // _SAMPLES),
        int(left * columns) : max(int(right * columns), int(left * columns) + 1) : max(1, columns // _SAMPLES),
    ]
    return float(part.mean(dtype=np.float64))


INVERTED = "polarity: looks like a negative, inverted"
SUSPECTED = "polarity: looks like a negative, left as it is"


def looks_negative(film: Film) -> bool:
    """Whether a film looks, or before it was put right looked, like a negative; side views cannot be told."""
    if INVERTED in film.flags:
        return True
    return film.view not in {"LATERAL", "OBLIQUE"} and contrast(film.pixels) < THRESHOLD


def check_polarity(film: Film, mode: Literal["header", "auto", "report"]) -> Film:
    """Return the film as it is (``"header"``), flagged (``"report"``) or flagged and inverted (``"auto"``)."""
    if mode == "header" or not looks_negative(film):
        return film
    if mode == "report":
        return replace(film, flags=(*film.flags, SUSPECTED))
    return replace(film, pixels=1 - film.pixels, flags=(*film.flags, INVERTED))
