"""A DICOM file in memory to a film."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cxrx.reading import gate
from cxrx.reading.colour import grey_of
from cxrx.reading.decode import COLOUR, decode, pixel_format
from cxrx.reading.header import parse, text
from cxrx.reading.refusal import fail
from cxrx.reading.voi import to_grey
from cxrx.specs import Film

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    from cxrx.reading.decode import PixelFormat
    from cxrx.reading.options import ReadOptions

PHANTOM_MODEL = "cxrx phantom"
"""ManufacturerModelName of the synthetic films that ``cxrx phantom`` writes."""


def read_dicom(data: bytes, options: ReadOptions) -> Film:
    """Decode one film, which does not know its digest yet.

    Raises
    ------
    RefusalError
        Not a chest film that was asked for, or one that cannot be decoded.
    """
    # four bytes a pixel and a generous header: no film of the allowed size inflates to more
    dataset = parse(data, 4 * options.max_pixels + 2**26, force=options.force_dicom)
    gate.check_object(dataset, options)
    flags = gate.check_body_part(dataset, options)
    view = gate.view_of(dataset)
    gate.check_view(view, options)
    form = pixel_format(dataset, options)
    stored, decoder, odd = decode(dataset, form, options)
    pixels, more = _greys(stored, dataset, form, options)
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


def _greys(
    stored: NDArray[np.integer], dataset: Dataset, form: PixelFormat, options: ReadOptions
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    if form.photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        stored = apply_color_lut(stored, dataset)
    elif form.photometric not in COLOUR:
        return to_grey(stored, dataset, form, options.voi_index)
    pixels, flags = grey_of(stored)
    if pixels.min() == pixels.max():
        raise fail("constant", "the picture is constant")
    return pixels, flags
