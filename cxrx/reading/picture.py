"""PNG and JPEG files to greys."""

from __future__ import annotations

from importlib import metadata
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from cxrx.reading.colour import grey_of
from cxrx.reading.intact import PNG_SIGNATURE, check_png, jpeg_warnings, png_header
from cxrx.reading.memory import check_memory
from cxrx.reading.refusal import fail, skip
from cxrx.specs import Film

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from PIL.Image import Image

    from cxrx.reading.intact import PngHeader
    from cxrx.reading.options import ReadOptions

    Greys = tuple[NDArray[np.float32], tuple[str, ...]]

EXIF_ORIENTATION = 0x0112
UPRIGHT: dict[int, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1],
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a.T[::-1],
}
"""What puts a picture upright, by its EXIF orientation (EXIF 2.3, 4.6.4)."""
SIXTEEN_BIT_COLOUR = frozenset({2, 4, 6})  # of PNG: RGB, grey and RGB with alpha
SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})


def read_picture(data: bytes, options: ReadOptions) -> Film:
    """Decode a PNG or JPEG file, turned as an EXIF orientation says.

    Raises
    ------
    RefusalError
        Not a picture, larger than allowed (known before anything is allocated), damaged, cut short or constant.
    """
    if not data.startswith((PNG_SIGNATURE, b"\xff\xd8")):
        raise skip("not-a-picture", "this is neither PNG nor JPEG")
    png = png_header(data) if data.startswith(PNG_SIGNATURE) else None
    if png is not None:
        deep = png.colour if png.depth == 16 else None
        _check_memory(png.rows, png.columns, len(data), options, 18 if deep is None else 28 if deep else 12)
    odd = () if png is None else check_png(data, png)
    pixels, flags, decoder, turn = _decoded(data, png, options)
    odd = jpeg_warnings(data) if png is None else odd
    if pixels.min() == pixels.max():
        raise fail("constant", "the picture is constant")
    if turn in UPRIGHT:
        pixels = np.ascontiguousarray(UPRIGHT[turn](pixels))
        flags = (*flags, "orientation: turned as its EXIF data say")
    return Film(pixels, "", decoder=decoder, flags=(*odd, *flags))


def _check_memory(rows: int, columns: int, size: int, options: ReadOptions, a_pixel: int = 18) -> None:
    """Refuse a picture that takes too much; `a_pixel` bytes each were measured, and rounded up."""
    need = 2 * size + rows * columns * a_pixel
    check_memory(f"a picture of {rows}×{columns} pixels", need, options.memory)


def _decoded(
    data: bytes, png: PngHeader | None, options: ReadOptions
) -> tuple[NDArray[np.float32], tuple[str, ...], str, int]:
    """Return greys, flags, the decoder and the EXIF orientation."""
    import PIL
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as image:
            if png is None:
                _check_memory(image.height, image.width, len(data), options)
            turn = image.getexif().get(EXIF_ORIENTATION, 1)
            if png is not None and png.depth == 16 and png.colour in SIXTEEN_BIT_COLOUR:
                return *_sixteen_bit_colour(data), f"opencv {metadata.version('opencv-python-headless')}", turn
            image.load()
            return *_greys(image), f"pillow {PIL.__version__}", turn
    except UnidentifiedImageError:
        raise fail("corrupt", "the header of the picture is damaged") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        if "truncated" in str(error):
            raise fail("truncated", "the picture is cut short") from None
        raise fail("corrupt", f"the picture cannot be decoded ({type(error).__name__})") from None


def _greys(image: Image) -> Greys:
    """Turn any mode of Pillow into greys; ``convert`` alone would clip 16-bit pictures at 255."""
    if image.mode == "L":
        return np.asarray(image) * np.float32(1 / 255), ()
    if image.mode in SIXTEEN_BIT:
        return _sixteen_bit(np.asarray(image))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        return _composed(np.asarray(image.convert("RGBA")))
    return grey_of(np.asarray(image.convert("RGB")), 8)


def _sixteen_bit(pixels: NDArray[np.integer]) -> Greys:
    bits, flags = _bits_used(pixels)
    grey = pixels.astype(np.float32)
    grey /= np.float32((1 << bits) - 1)
    return grey, flags


def _bits_used(pixels: NDArray[np.integer]) -> tuple[int, tuple[str, ...]]:
    """Return 16, unless the values need far fewer bits: then the file is 10, 12 or 14 bits wide, and flagged."""
    largest = int(pixels.max())
    bits = next((b for b in (10, 12, 14) if largest < 1 << b), 16)
    return bits, () if bits == 16 else (f"bits: 16 stored, {bits} used",)


def _sixteen_bit_colour(data: bytes) -> Greys:
    """Decode what Pillow would cut to the upper eight bits of each sample."""
    import cv2

    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if bgr is None or bgr.dtype != np.uint16 or bgr.ndim != 3:
        raise fail("corrupt", "the picture cannot be decoded as colour of 16 bits")
    words = bgr.view(np.uint16)
    bits, flags = _bits_used(words[..., :3])
    grey, more = _composed(words[..., [2, 1, 0, *range(3, bgr.shape[2])]], bits)
    return grey, (*flags, *more)


def _composed(rgba: NDArray[np.integer], bits: int = 8) -> Greys:
    """Lay colour over black, as transparent as its alpha (of all bits of its words) says."""
    grey, flags = grey_of(rgba[..., :3], bits)
    opaque = np.iinfo(rgba.dtype).max
    if rgba.shape[2] == 3 or rgba[..., 3].min() == opaque:
        return grey, flags
    grey *= rgba[..., 3] * np.float32(1 / opaque)
    return grey, (*flags, "transparency: laid over black")
