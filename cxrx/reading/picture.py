"""PNG and JPEG files to greys."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from cxrx.reading.colour import grey_of
from cxrx.reading.refusal import fail, skip
from cxrx.specs import Film

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from cxrx.reading.options import ReadOptions

    Greys = tuple[NDArray[np.float32], tuple[str, ...]]

EXIF_ORIENTATION = 0x0112
SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})


def read_picture(data: bytes, options: ReadOptions) -> Film:
    """Decode a PNG or JPEG file, turned as an EXIF orientation says.

    Raises
    ------
    RefusalError
        Not a picture, larger than allowed (known before anything is allocated), damaged, cut short or constant.
    """
    import PIL
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > options.max_pixels:
                size = f"{image.height}×{image.width} pixels"
                raise fail("over-limit", f"the picture has {size}; the limit is {options.max_pixels}")
            image.load()
            turned = image.getexif().get(EXIF_ORIENTATION, 1) not in {0, 1}
            pixels, flags = _greys(ImageOps.exif_transpose(image) if turned else image)
    except UnidentifiedImageError:
        raise skip("not-a-picture", "this is neither PNG nor JPEG, or its header is damaged") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        if "truncated" in str(error):
            raise fail("truncated", "the picture is cut short") from None
        raise fail("corrupt", f"the picture cannot be decoded ({type(error).__name__})") from None
    if pixels.min() == pixels.max():
        raise fail("constant", "the picture is constant")
    if turned:
        flags = (*flags, "orientation: turned as its EXIF data say")
    return Film(pixels, "", decoder=f"pillow {PIL.__version__}", flags=flags)


def _greys(image: Image) -> Greys:
    """Turn any mode of Pillow into greys; ``convert`` alone would clip 16-bit pictures at 255."""
    if image.mode == "L":
        return np.asarray(image) * np.float32(1 / 255), ()
    if image.mode in SIXTEEN_BIT:
        return _sixteen_bit(np.asarray(image))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        return _composed(np.asarray(image.convert("RGBA")))
    return grey_of(np.asarray(image.convert("RGB")))


def _sixteen_bit(pixels: NDArray[np.integer]) -> Greys:
    """Scale by the full range, unless the values need far fewer bits: then the file is 10, 12 or 14 bits wide."""
    largest = int(pixels.max())
    bits = next((b for b in (10, 12, 14) if largest < 1 << b), 16)
    flags = () if bits == 16 else (f"bits: 16 stored, {bits} used",)
    return pixels.astype(np.float32) / np.float32((1 << bits) - 1), flags


def _composed(rgba: NDArray[np.uint8]) -> Greys:
    grey, flags = grey_of(rgba[..., :3])
    alpha = rgba[..., 3]
    if alpha.min() == 255:
        return grey, flags
    return grey * (alpha * np.float32(1 / 255)), (*flags, "transparency: laid over black")
