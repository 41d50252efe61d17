"""From an item to the model's input grid, with the way back to source pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cxrx.reading.polarity import looks_negative
from cxrx.reading.readers import read_films
from cxrx.reading.record import ImageRecord, record_of
from cxrx.specs import Unreadable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxrx.reading.item import Item
    from cxrx.reading.options import ReadOptions
    from cxrx.specs import Film, FloatArray, InputSpec


@dataclass(frozen=True, slots=True)
class Prepared:
    """What crosses the process border: a film on the model's input grid.

    Attributes
    ----------
    record
        What is known of the film; it goes to results.h5 as it is.
    pixels
        ``(height, width)`` float32 in [0, 1], of ``InputSpec.size``; ``(10, height, width)`` where it asks for ten
        crops.
    affine
        ``(2, 3)`` float64, (x, y) of the input grid -> (x, y) of source pixels; pixel centres are at integers. Of ten
        crops, that of the upright one in the centre.
    negative
        Whether the film looks like a photographic negative (before ``polarity="auto"`` put it right).
    """

    record: ImageRecord
    pixels: FloatArray
    affine: NDArray[np.float64]
    negative: bool

    @property
    def image_id(self) -> str:
        """The film's identity."""
        return self.record.image_id


# ---------------------------------------------------------------------------------------------------------------------
# Geometry


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the input grid lies on the source.

    Output pixel (x, y) covers ``[x0 + x * sx, x0 + (x + 1) * sx]`` horizontally and likewise vertically, in source
    coordinates whose pixel i covers ``[i, i + 1]``. Output pixels outside `left`..`right` and `top`..`bottom` are
    black.
    """

    x0: float
    y0: float
    sx: float
    sy: float
    left: int
    top: int
    right: int
    bottom: int

    def affine(self) -> NDArray[np.float64]:
        """Return the ``(2, 3)`` map from input-grid to source coordinates, pixel centres at integers."""
        return np.array(
            [[self.sx, 0, self.x0 + (self.sx - 1) / 2], [0, self.sy, self.y0 + (self.sy - 1) / 2]], np.float64
        )


def place(rows: int, columns: int, spec: InputSpec) -> Placement:
    """Work out where the input grid of `spec` lies on a ``(rows, columns)`` source."""
    height, width = spec.size
    if spec.fit == "stretch":
        return Placement(0, 0, columns / width, rows / height, 0, 0, width, height)
    if spec.fit == "pad":
        scale = max(rows / height, columns / width)
        new = max(1, round(rows / scale)), max(1, round(columns / scale))
    elif spec.resize is None:
        scale = min(rows / height, columns / width)
        x0, y0 = (columns - scale * width) / 2, (rows - scale * height) / 2
        return Placement(x0, y0, scale, scale, 0, 0, width, height)
    else:
        new = _resized(rows, columns, spec.resize)
    return _centred(rows, columns, new, spec)


def _resized(rows: int, columns: int, short_side: int) -> tuple[int, int]:
    """Return the size after a resize as torchvision's: the short side exactly, the long side cut to an integer."""
    short = min(rows, columns)
    return int(short_side * rows / short), int(short_side * columns / short)


def _centred(rows: int, columns: int, new: tuple[int, int], spec: InputSpec) -> Placement:
    """Place the centre of a source resized to `new` on the grid, cropped or padded side by side."""
    (height, width), (new_rows, new_columns) = spec.size, new
    top, left = round((new_rows - height) / 2), round((new_columns - width) / 2)  # negative: padding
    sx, sy = columns / new_columns, rows / new_rows
    right, bottom = min(width, new_columns - left), min(height, new_rows - top)
    return Placement(left * sx, top * sy, sx, sy, max(0, -left), max(0, -top), right, bottom)


def resample(pixels: FloatArray, placement: Placement, spec: InputSpec) -> FloatArray:
    """Resize ``(rows, columns)`` float32 onto the input grid, antialiased, clipped to [0, 1]."""
    from PIL import Image

    p = placement
    method = Image.Resampling.BICUBIC if spec.interpolation == "bicubic" else Image.Resampling.BILINEAR
    rows, columns = pixels.shape
    box = (  # clamped, because rounding must not reach beyond the picture
        max(p.x0 + p.left * p.sx, 0.0),
        max(p.y0 + p.top * p.sy, 0.0),
        min(p.x0 + p.right * p.sx, columns),
        min(p.y0 + p.bottom * p.sy, rows),
    )
    size = (p.right - p.left, p.bottom - p.top)
    part: FloatArray = np.asarray(Image.fromarray(pixels).resize(size, method, box=box))
    if size == (spec.size[1], spec.size[0]):
        return part.clip(0, 1)
    canvas = np.zeros(spec.size, np.float32)
    canvas[p.top : p.bottom, p.left : p.right] = np.clip(part, 0, 1)
    return canvas


def equalise(pixels: FloatArray, clahe: tuple[float, int, int]) -> FloatArray:
    """Return ``(h, w)`` pixels after CLAHE, on 8-bit grey as OpenCV and whoever trained with it have it."""
    import cv2

    clip, rows, columns = clahe
    grey = np.round(pixels.clip(0, 1) * 255).astype(np.uint8)
    equalised = cv2.createCLAHE(clipLimit=clip, tileGridSize=(columns, rows)).apply(grey)
    return np.asarray(equalised, np.float32) / np.float32(255)


def ten_crops(pixels: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Return ``(10, height, width)``: four corners and the centre of ``(h, w)`` pixels, and of their mirror image."""
    height, width = size
    bottom, right = pixels.shape[0] - height, pixels.shape[1] - width
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    both = (pixels, pixels[:, ::-1])
    return np.stack([picture[y : y + height, x : x + width] for picture in both for y, x in corners])


def on_grid(pixels: FloatArray, placement: Placement, spec: InputSpec) -> FloatArray:
    """Bring ``(rows, columns)`` float32 onto the input grid: resample, equalise, crop."""
    if spec.clahe is None and spec.crops == 1:
        return resample(pixels, placement, spec)
    if spec.fit != "crop" or spec.resize is None:  # the grid shows all there is, or black beside it
        p, grid = placement, resample(pixels, placement, spec)
        film = np.s_[p.top : p.bottom, p.left : p.right]
        if spec.clahe is not None:
            grid[film] = equalise(grid[film], spec.clahe)
        return grid
    # what lies beyond the crop counts: as histogram of the outer tiles, as other crops
    rows, columns = pixels.shape
    everything = replace(spec, size=_resized(rows, columns, spec.resize), fit="stretch", resize=None)
    grid = resample(pixels, place(rows, columns, everything), everything)
    if spec.clahe is not None:
        grid = equalise(grid, spec.clahe)
    return ten_crops(grid, spec.size) if spec.crops > 1 else _centre(grid, placement, spec.size)


def _centre(grid: FloatArray, p: Placement, size: tuple[int, int]) -> FloatArray:
    """Cut the centre of `size` out of the resized film, black where it is smaller."""
    canvas = np.zeros(size, np.float32)
    height, width = p.bottom - p.top, p.right - p.left
    top, left = (max(0, round((got - wanted) / 2)) for got, wanted in zip(grid.shape, size, strict=True))
    canvas[p.top : p.bottom, p.left : p.right] = grid[top : top + height, left : left + width]
    return canvas


def prepare(item: Item, film: Film, spec: InputSpec) -> Prepared:
    """Bring a film of `item` onto the input grid of a model."""
    rows, columns = film.pixels.shape
    placement = place(rows, columns, spec)
    return Prepared(
        record_of(item, film), on_grid(film.pixels, placement, spec), placement.affine(), looks_negative(film)
    )


def prepare_item(item: Item, spec: InputSpec, options: ReadOptions) -> list[Prepared | Unreadable]:
    """Read, decode and resize one item: what a decode worker does."""
    return [film if isinstance(film, Unreadable) else prepare(item, film, spec) for film in read_films(item, options)]
