"""From stored values to greys in [0, 1]: modality, VOI, polarity and padding, in float64 (PS3.3 C.7.5, C.11).

Every step is pointwise, so for pixels of up to 16 bits it is worked out once for each possible value and looked up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrx.reading.colour import strips
from cxrx.reading.decode import NATIVE, RLE
from cxrx.reading.header import numbers, sequence, text
from cxrx.reading.refusal import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pydicom import Dataset

    from cxrx.reading.decode import PixelFormat

    Floats = NDArray[np.float64]

MAX_SLOPE = 1e30
PERCENTILES = (0.5, 99.5)
UNTOUCHED_WORDS = NATIVE | {RLE}
"""Transfer syntaxes whose decoders hand over allocated words as they were stored."""


# ---------------------------------------------------------------------------------------------------------------------
# Formulas


@dataclass(frozen=True)
class Window:
    """A window of PS3.3 C.11.2.1.2; `function` is ``"LINEAR"``, ``"LINEAR_EXACT"`` or ``"SIGMOID"``."""

    centre: float
    width: float
    function: str = "LINEAR"

    def is_valid(self) -> bool:
        """Whether the standard allows these numbers."""
        smallest = 1.0 if self.function == "LINEAR" else np.finfo(np.float64).tiny
        return math.isfinite(self.centre) and math.isfinite(self.width) and self.width >= smallest


def window_to_grey(values: Floats, window: Window) -> Floats:
    """Map modality values to [0, 1] by PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (EXACT)."""
    c, w = window.centre, window.width
    if window.function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - c) / w, -700, 700))))
    if window.function == "LINEAR_EXACT":
        return np.clip((values - c) / w + 0.5, 0, 1)
    if w == 1:  # a step; the ramp's formula divides by w - 1
        return (values > c - 0.5).astype(np.float64)
    return np.clip((values - (c - 0.5)) / (w - 1) + 0.5, 0, 1)


@dataclass(frozen=True)
class Lut:
    """A look-up table of PS3.3 C.11.1.1 or C.11.2.1.1: `data[0]` belongs to the input value `first`."""

    first: int
    data: Floats

    def __call__(self, values: Floats) -> Floats:
        """Look up `values`; those outside the table get its first or last entry."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.data) - 1)
        found: Floats = np.take(self.data, index.astype(np.intp))
        return found


def read_lut(item: Dataset, lowest: float) -> Lut:
    """Read LUTDescriptor and LUTData from their bytes.

    The raw bytes, because their value representation is ambiguous in the file: words or packed bytes, signed or not.

    Parameters
    ----------
    item
        Of ModalityLUTSequence or VOILUTSequence.
    lowest
        Smallest value that can reach the table; a negative one makes the first mapped value a signed number.

    Raises
    ------
    ValueError
        The table is missing, too short or constant.
    """
    descriptor = words_of(item, "LUTDescriptor")
    if len(descriptor) < 3:
        raise ValueError("the descriptor is incomplete")
    count, first = int(descriptor[0]) or 65536, int(descriptor[1])
    if lowest < 0 and first >= 32768:
        first -= 65536
    data = entries(item, "LUTData", count).astype(np.float64)
    if len(data) < count or data.min() == data.max():
        raise ValueError("the table is too short or constant")
    return Lut(first, data)


def entries(item: Dataset, keyword: str, count: int) -> NDArray[np.integer[Any]]:
    """Return the first `count` entries of a table, which may be fewer."""
    data = words_of(item, keyword)
    # packed: two 8-bit entries a word, the first in the low byte
    return data[:count] if len(data) >= count else data.astype("<u2").view(np.uint8)[:count]


def words_of(item: Dataset, keyword: str) -> NDArray[np.uint16]:
    """Return the value of a US, SS or OW element as unsigned 16-bit words."""
    element: Any = item.get_item(keyword)
    value = b"" if element is None else element.value
    if isinstance(value, bytes):
        order = "<u2" if getattr(element, "is_little_endian", True) else ">u2"
        return np.frombuffer(value[: len(value) // 2 * 2], order).astype(np.uint16)
    return (np.atleast_1d(np.asarray(value, np.int64)) & 0xFFFF).astype(np.uint16)


def modality(values: Floats, dataset: Dataset) -> Floats:
    """Apply the modality LUT or rescale slope and intercept (PS3.3 C.11.1)."""
    items = sequence(dataset, "ModalityLUTSequence")
    if items:
        try:
            return read_lut(items[0], float(values.min()))(values)
        except ValueError:
            raise fail("bad-rescale", "the modality LUT cannot be read") from None
    slope = _rescale(dataset, "RescaleSlope", 1.0)
    intercept = _rescale(dataset, "RescaleIntercept", 0.0)
    if slope == 0 or not (abs(slope) < MAX_SLOPE and abs(intercept) < MAX_SLOPE):
        raise fail("bad-rescale", "the rescale slope or intercept is empty, zero or beyond any use")
    return values if (slope, intercept) == (1, 0) else slope * values + intercept


def _rescale(dataset: Dataset, keyword: str, default: float) -> float:
    given = numbers(dataset, keyword)
    return default if given is None else given[0] if len(given) == 1 else math.nan


# ---------------------------------------------------------------------------------------------------------------------
# The header's choice


def display(
    dataset: Dataset, form: PixelFormat, values: Floats, index: int
) -> tuple[Callable[[Floats], Floats] | None, list[str]]:
    """Choose how modality values become greys: VOI LUT, else window, else (8 bits) the whole range.

    Parameters
    ----------
    dataset, form
        The header, and its image description.
    values
        ``(n,)``, the modality values that a pixel can take.
    index
        Which of several tables or windows is used, from 0.

    Returns
    -------
    function
        Modality values to greys in [0, 1]; None where the header gives nothing usable.
    flags
        What was wrong with the header.
    """
    flags = []
    tables = sequence(dataset, "VOILUTSequence")
    if tables:
        if index >= len(tables):
            flags.append(f"VOI: there is no table {index}, the first was used")
        try:
            lut = read_lut(tables[index if index < len(tables) else 0], float(values.min()))
            # The table's own maximum: some CRs declare 16 bits and store fewer.
            return (lambda v: lut(v) / lut.data.max()), flags
        except ValueError:
            flags.append("VOI: the look-up table cannot be read")
    window, window_flags = _window(dataset, index)
    flags += window_flags
    if window is not None:
        return (lambda v: window_to_grey(v, window)), flags
    if form.stored <= 8 and not flags:
        low, high = float(values.min()), float(values.max())
        return (lambda v: (v - low) / (high - low)), flags
    return None, flags


def _window(dataset: Dataset, index: int) -> tuple[Window | None, list[str]]:
    centres, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    if centres is None and widths is None:
        return None, []
    function = text(dataset, "VOILUTFunction").upper() or "LINEAR"
    if function not in {"LINEAR", "LINEAR_EXACT", "SIGMOID"}:
        return None, ["VOI: the window function is not known"]
    if not centres or not widths or len(centres) != len(widths):
        return None, ["VOI: window centre and width are empty or do not match"]
    flags = [f"VOI: there is no window {index}, the first was used"] if index >= len(centres) else []
    chosen = index if index < len(centres) else 0
    window = Window(centres[chosen], widths[chosen], function)
    return (window, flags) if window.is_valid() else (None, ["VOI: the window is not a number or too narrow"])


def is_inverted(dataset: Dataset, form: PixelFormat) -> tuple[bool, list[str]]:
    """Whether low values are white. MONOCHROME1 and PresentationLUTShape INVERSE say the same thing, once."""
    inverse = text(dataset, "PresentationLUTShape").upper() == "INVERSE"
    monochrome1 = form.photometric == "MONOCHROME1"
    if inverse and not monochrome1:
        return True, ["polarity of the header: MONOCHROME2 with an INVERSE presentation, inverted"]
    return monochrome1, []


def padding_range(dataset: Dataset, form: PixelFormat) -> tuple[int, int] | None:
    """Return lowest and highest padding value as stored, or None (PS3.3 C.7.5.1.1.2)."""
    words = [int(w) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit") for w in words_of(dataset, k)[:1]]
    if "PixelPaddingValue" not in dataset or not words:
        return None
    bits = min(form.allocated, 16)
    values = [_signed(word, bits) if form.signed else word & (1 << bits) - 1 for word in words]
    return min(values), max(values)


def _signed(word: int, bits: int) -> int:
    word &= (1 << bits) - 1
    return word - (1 << bits) if word >> bits - 1 else word


# ---------------------------------------------------------------------------------------------------------------------
# All of it


@dataclass
class _Levels:
    """The values a pixel can take (`raw`, as stored) and where each pixel is among them."""

    raw: NDArray[np.integer[Any]]  # (n,)
    index: NDArray[np.integer[Any]]  # (rows, columns)

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """How many pixels have each value; worked out only where a rule asks for it."""
        return np.bincount(self.index.ravel(), minlength=len(self.raw))


def _levels(pixels: NDArray[np.integer[Any]]) -> _Levels:
    size = pixels.dtype.itemsize
    if size > 2:
        raw, index = np.unique(pixels, return_inverse=True)
        return _Levels(raw, index.reshape(pixels.shape))
    words = np.arange(1 << 8 * size, dtype=f"u{size}")
    return _Levels(words.view(pixels.dtype), pixels.view(words.dtype))


def to_grey(
    pixels: NDArray[np.integer[Any]], dataset: Dataset, form: PixelFormat, voi_index: int
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return ``(rows, columns)`` float32 greys in [0, 1] (0 is black) of single-sample pixels, and flags.

    Parameters
    ----------
    pixels
        ``(rows, columns)``, as stored.
    dataset, form
        The header, and its image description.
    voi_index
        Which of several look-up tables or windows is used, from 0.

    Raises
    ------
    RefusalError
        A constant picture, or a rescale that makes no sense.
    """
    low, high = int(pixels.min()), int(pixels.max())
    levels = _levels(pixels)
    padding = padding_range(dataset, form)
    padded = np.zeros(levels.raw.shape, bool) if padding is None else _within(levels.raw, padding)
    if low == high or (padding is not None and np.count_nonzero(levels.counts[~padded]) < 2):
        raise fail("constant", "the picture is constant")
    values = modality(stored_values(levels.raw, form), dataset)
    choice, flags = display(dataset, form, values, voi_index)
    inverted, odd = is_inverted(dataset, form)
    flags = _unused_bits(low, high, form) + flags + odd

    def look_up(greys: Floats) -> NDArray[np.float32]:
        table = np.where(padded, 0, 1 - greys if inverted else greys).astype(np.float32)
        picture = np.empty(pixels.shape, np.float32)
        for rows in strips(*pixels.shape):  # the look-up wants indices of eight bytes
            np.take(table, levels.index[rows], out=picture[rows])
        return picture

    picture = look_up(choice(values)) if choice else None
    if picture is not None and picture.min() == picture.max():
        flags.append("VOI: the header's choice leaves nothing of the picture")
        picture = None
    if picture is None:
        flags.append(f"VOI: percentiles {PERCENTILES[0]} to {PERCENTILES[1]} of the picture were used")
        picture = look_up(percentile_greys(values, np.where(padded, 0, levels.counts)))
    return picture, tuple(flags)


def _within(raw: NDArray[np.integer[Any]], bounds: tuple[int, int]) -> NDArray[np.bool_]:
    return (raw >= bounds[0]) & (raw <= bounds[1])


def shift_of(form: PixelFormat) -> int:
    """How far stored values stand above bit 0; decoders of compressed data have already moved them down."""
    return form.high + 1 - form.stored if form.syntax in UNTOUCHED_WORDS else 0


def stored_values(raw: NDArray[np.integer[Any]], form: PixelFormat) -> Floats:
    """Cut the BitsStored bits out of allocated words; what is beside them (old overlays) is no picture."""
    values = (raw.astype(np.int64) >> shift_of(form)) & ((1 << form.stored) - 1)
    if form.signed:
        values -= (values >> (form.stored - 1)) << form.stored
    return values.astype(np.float64)


def _unused_bits(low: int, high: int, form: PixelFormat) -> list[str]:
    if shift_of(form):
        return ["bits: the high bit is not the last bit stored"]
    limit = 1 << (form.stored - form.signed)
    beyond = high >= limit or low < (-limit if form.signed else 0)
    return ["bits: values above BitsStored, which were masked"] if beyond else []


def percentile_greys(values: Floats, counts: NDArray[np.integer[Any]]) -> Floats:
    """Stretch between the `PERCENTILES` of a picture given as values and how often each occurs."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(counts[order]) / counts.sum()
    found = values[order]
    low, high = (float(found[np.searchsorted(share, p / 100)]) for p in PERCENTILES)
    if low == high:  # nearly all pixels are alike: stretch between the extremes
        there = values[counts > 0]
        low, high = float(there.min()), float(there.max())
    if low == high:
        raise fail("constant", "the picture is constant after the modality transformation")
    return np.clip((values - low) / (high - low), 0, 1)
