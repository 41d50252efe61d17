"""Run-length encodings of masks, and polygons: into the runs of :class:`cxrx.specs.Mask` without drawing pixels.

All encodings here go down the columns. They differ in how they write a run:

- relative (SIIM-ACR): ``gap length gap length ...``, a gap counted from the end of the run before it
- COCO: the lengths of all runs, absent ones first, as a list or packed into text
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.uint32]
Ints = NDArray[np.int64]
Shape = tuple[int, int]

_LONGEST = 1 << 32  # beyond any picture, and sums of such runs fit into 64 bits
_OFFSET = 48  # a character stands for six bits, written from "0" on
_MORE, _SIGN, _VALUE = 0x20, 0x10, 0x1F


def from_relative(text: str, shape: Shape) -> Counts:
    """Decode ``gap length gap length ...``.

    Raises
    ------
    ValueError
        If the text is not such a list, or runs beyond the picture.
    """
    gaps, lengths = _pairs(text)
    ends = np.cumsum(gaps + lengths)
    return from_intervals(ends - lengths, ends, shape)


def _pairs(text: str) -> tuple[Ints, Ints]:
    words = [int(word) for word in text.split()]
    if len(words) % 2 or not all(0 <= word < _LONGEST for word in words):
        raise ValueError("a run-length encoding is pairs of numbers that are not negative")
    numbers = np.array(words, dtype=np.int64)
    return numbers[::2], numbers[1::2]


def from_coco(counts: str | bytes | Sequence[int], shape: Shape) -> Counts:
    """Decode COCO's lengths of runs, packed or not.

    Packed, a number takes five bits a character, the lowest first; bit 5 says that more follow and bit 4 of the last
    character is the sign. From the fourth number on the difference to the number two places before is written.

    Raises
    ------
    ValueError
        If the runs do not fill the picture.
    """
    runs = _unpacked(counts) if isinstance(counts, str | bytes) else np.array(counts, dtype=np.int64)
    size = shape[0] * shape[1]
    if runs.ndim != 1 or (runs < 0).any() or (runs > size).any() or int(runs.sum()) != size:
        raise ValueError("the runs of a mask do not fill its picture")
    return runs.astype(np.uint32)


def _unpacked(text: str | bytes) -> Ints:
    data = text.encode("ascii") if isinstance(text, str) else text
    codes = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - _OFFSET
    if len(codes) == 0 or (codes < 0).any() or (codes >= 2 * _MORE).any() or codes[-1] & _MORE:
        raise ValueError("this is no packed run-length encoding")
    last = np.flatnonzero(codes & _MORE == 0)  # of each number
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(first, last - first + 1)  # of a character within its number
    if place.max() > 11:
        raise ValueError("a number of a packed run-length encoding has more than 60 bits")
    numbers = np.add.reduceat((codes & _VALUE) << (5 * place), first)
    numbers -= np.where(codes[last] & _SIGN, 1 << (5 * (place[last] + 1)), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def from_pixels(mask: NDArray[np.bool_]) -> Counts:
    """Encode ``(rows, columns)`` pixels."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return from_intervals(edges[::2], edges[1::2], (int(mask.shape[0]), int(mask.shape[1])))


def from_polygons(polygons: Sequence[Sequence[Sequence[float]]], shape: Shape) -> Counts:
    """Fill polygons, each a list of ``[x, y]``; outlines belong to them, and where they overlap they are joined.

    Drawn with Pillow, as the published masks of CheXlocalize were (Saporta et al. 2022), but only the part of the
    picture that they cover.
    """
    from PIL import Image, ImageDraw

    corners = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons if len(polygon) > 1]
    if not all((np.abs(polygon) < _LONGEST).all() for polygon in corners):
        raise ValueError("a corner of a polygon is not a number, or far from any picture")
    if not corners:
        return from_intervals(np.zeros(0, np.int64), np.zeros(0, np.int64), shape)
    low = np.floor(np.min([polygon.min(axis=0) for polygon in corners], axis=0)).astype(int) - 1
    high = np.ceil(np.max([polygon.max(axis=0) for polygon in corners], axis=0)).astype(int) + 2
    x0, y0 = (int(v) for v in np.clip(low, 0, shape[::-1]))
    x1, y1 = (int(v) for v in np.clip(high, 0, shape[::-1]))
    if x1 <= x0 or y1 <= y0:
        return from_intervals(np.zeros(0, np.int64), np.zeros(0, np.int64), shape)
    canvas = Image.new("1", (x1 - x0, y1 - y0))
    for polygon in corners:
        ImageDraw.Draw(canvas).polygon([(float(x) - x0, float(y) - y0) for x, y in polygon], outline=1, fill=1)
    drawn = np.zeros((x1 - x0, y1 - y0 + 1), dtype=bool)  # transposed, with a gap between one column and the next
    drawn[:, :-1] = np.array(canvas, dtype=bool).T
    flat = np.concatenate([[False], drawn.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    column, row = np.divmod(edges, drawn.shape[1])
    places = (column + x0) * shape[0] + row + y0
    return from_intervals(places[::2], places[1::2], shape)


def from_intervals(starts: Ints, ends: Ints, shape: Shape) -> Counts:
    """Return the runs of the union of intervals ``[start, end)`` of the column-major picture.

    Raises
    ------
    ValueError
        If one reaches beyond the picture.
    """
    size = shape[0] * shape[1]
    if len(starts) and (starts.min() < 0 or ends.max() > size):
        raise ValueError("a mask runs beyond its picture")
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order]) if len(ends) else ends
    full = ends > starts
    starts, ends = starts[full], ends[full]
    apart = np.flatnonzero(starts[1:] > ends[:-1]) + 1  # a run begins here that does not touch the one before
    starts = starts[np.concatenate([[0], apart])] if len(starts) else starts
    ends = ends[np.concatenate([apart - 1, [-1]])] if len(ends) else ends
    bounds = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [size]])
    runs = np.diff(bounds)
    return (runs[:-1] if runs[-1] == 0 and len(runs) > 1 else runs).astype(np.uint32)


def union(several: Sequence[Counts], shape: Shape) -> Counts:
    """Return the runs of the union of masks of one picture."""
    if len(several) == 1:
        return several[0]
    ends = [np.cumsum(counts, dtype=np.int64) for counts in several]
    starts = np.concatenate([places[:-1:2] for places in ends])
    stops = np.concatenate([places[1::2] for places in ends])
    return from_intervals(starts, stops, shape)


def row_major(counts: Counts, shape: Shape) -> Counts:
    """Return the runs of the same mask along its rows, absent first, as results.h5 keeps them."""
    return from_pixels(np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(shape[::-1]))


def area(counts: Counts) -> int:
    """Count the pixels that are present."""
    return int(counts[1::2].sum(dtype=np.int64))
