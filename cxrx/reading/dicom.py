"""A DICOM file in memory to a film."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cxrx.reading import gate
from cxrx.reading.colour import grey_of, grey_of_ybr, strips
from cxrx.reading.decode import MONOCHROME, decode, keeps_ybr, pixel_format
from cxrx.reading.header import parse, text
from cxrx.reading.refusal import fail
from cxrx.reading.voi import entries, shift_of, to_grey, words_of
from cxrx.specs import Film

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pydicom import Dataset

    from cxrx.reading.decode import PixelFormat
    from cxrx.reading.options import ReadOptions

    Integers = NDArray[np.integer]
    Greys = tuple[NDArray[np.float32], tuple[str, ...]]

PHANTOM_MODEL = "cxrx phantom"
"""ManufacturerModelName of the synthetic films that ``cxrx phantom`` writes."""


def read_dicom(data: bytes, options: ReadOptions) -> Film:
    """Decode one film, which does not know its digest yet.

    Raises
    ------
    RefusalError
        Not a chest film that was asked for, or one that cannot be decoded.
    """
    dataset = parse(data, options.memory, force=options.force_dicom)
    gate.check_object(dataset, options)
    flags = gate.check_body_part(dataset, options)
    view = gate.view_of(dataset)
    gate.check_view(view, options)
    packed: Any = dataset.get_item("PixelData")
    form = pixel_format(dataset, options, len(data) + len(getattr(packed, "value", None) or b""))
    to_luma = grey_of_ybr if keeps_ybr(form) else grey_of
    stored, form, decoder, odd = decode(dataset, form, options)
    if form.photometric in MONOCHROME:
        pixels, more = to_grey(stored, dataset, form, options.voi_index)
    else:
        pixels, more = _colour(stored, dataset, form, to_luma)
    return Film(
        pixels=pixels,
        sha256="",
        view=view,
        uid=text(dataset, "SOPInstanceUID"),
        patient=text(dataset, "PatientID"),
        decoder=decoder,
        flags=(*flags, *odd, *more),
        synthetic=text(dataset, "ManufacturerModelName") == PHANTOM_MODEL,
    )


def _colour(stored: Integers, dataset: Dataset, form: PixelFormat, to_luma: Callable[[Integers, int], Greys]) -> Greys:
    stored, odd = _stored_bits(stored, form)
    bits = form.stored
    if form.photometric == "PALETTE COLOR":
        stored, bits = _painted(stored, dataset)
    pixels, flags = to_luma(stored, bits)
    if pixels.min() == pixels.max():
        raise fail("constant", "the picture is constant")
    return pixels, (*odd, *flags)


def _painted(index: Integers, dataset: Dataset) -> tuple[Integers, int]:
    """Return ``(rows, columns, 3)`` colours of palette indices (PS3.3 C.7.6.3.1.5), and their bits.

    pydicom's own way wraps an index above 255 where entries have 8 bits, and keeps 8 bits in words of 16 dark.
    """
    descriptor = words_of(dataset, "RedPaletteColorLookupTableDescriptor")
    if len(descriptor) < 3:
        raise fail("bad-header", "the palette is missing or incomplete")
    count, bits = int(descriptor[0]) or 65536, int(descriptor[2])
    first = int(descriptor[1]) - (65536 if index.dtype.kind == "i" and descriptor[1] >= 32768 else 0)
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        from pydicom.pixels.processing import apply_color_lut

        if bits == 8 and count > 256:
            raise fail("unsupported", "a segmented palette of more than 256 colours of 8 bits is not supported")
        return apply_color_lut(np.clip(index, first, first + count - 1), dataset)[..., :3], bits
    tables = [entries(dataset, f"{colour}PaletteColorLookupTableData", count) for colour in ("Red", "Green", "Blue")]
    if bits not in {8, 16} or min(map(len, tables)) < count:
        raise fail("bad-header", "the palette is missing or incomplete")
    table = np.stack(tables, -1)
    rgb = np.empty((*index.shape, 3), table.dtype)
    for rows in strips(*index.shape):
        rgb[rows] = table[np.clip(index[rows].astype(np.int64) - first, 0, count - 1)]
    return rgb, bits if int(table.max()) < 1 << bits else 16


def _stored_bits(stored: Integers, form: PixelFormat) -> tuple[Integers, tuple[str, ...]]:
    """Cut the BitsStored bits out of the words of a colour picture; return flags."""
    if form.photometric == "PALETTE COLOR" and form.signed:  # an index that its table counts from below zero
        return stored, ()
    words = stored.view(f"u{stored.dtype.itemsize}")
    shift, mask = shift_of(form), (1 << form.stored) - 1
    if shift:
        return (words >> shift) & mask, ("bits: the high bit is not the last bit stored",)
    if int(words.max()) > mask:
        return words & mask, ("bits: values above BitsStored, which were masked",)
    return words, ()
