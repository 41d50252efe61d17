"""From encoded pixel data to stored values: one named decoder per transfer syntax, caps before allocation.

pydicom's default tries one decoder after another, and for a codestream cut short the last of them returns garbage
without a word; so exactly one decoder is asked, and its error is the film's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any

from cxrx.reading.header import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, integer, text
from cxrx.reading.intact import jpeg_warnings
from cxrx.reading.memory import check_memory
from cxrx.reading.refusal import RefusalError, fail, skip

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

    from cxrx.reading.options import ReadOptions

    Stored = NDArray[np.integer[Any]]

MAX_FRAMES = 10_000

_TS = "1.2.840.10008.1.2."
NATIVE = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED})
JPEG = frozenset({_TS + "4.50", _TS + "4.51"})
JPEG_LOSSLESS = frozenset({_TS + "4.57", _TS + "4.70"})
JPEG_LS = frozenset({_TS + "4.80", _TS + "4.81"})
JPEG_2000 = frozenset({_TS + "4.90", _TS + "4.91"})
HTJ2K = frozenset({_TS + "4.201", _TS + "4.202", _TS + "4.203"})
JPEG_XL = frozenset({_TS + "4.110", _TS + "4.111", _TS + "4.112"})
RLE = _TS + "5"
DECODABLE = NATIVE | JPEG | JPEG_LOSSLESS | JPEG_LS | JPEG_2000 | HTJ2K | {RLE}

END_OF_IMAGE = b"\xff\xd9"

MONOCHROME = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT"})


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The image description of the header, checked (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    high: int
    signed: bool
    frames: int
    syntax: str


def pixel_format(dataset: Dataset, options: ReadOptions, size: int) -> PixelFormat:
    """Read and check the image description before anything is allocated for the pixels.

    Raises
    ------
    RefusalError
        Missing, impossible or oversized values.
    """
    if "Rows" not in dataset and "PixelData" not in dataset:
        raise skip("not-dicom", "the file ends inside its header, before any picture")
    frames = integer(dataset, "NumberOfFrames", 1)
    stored = integer(dataset, "BitsStored", integer(dataset, "BitsAllocated"))
    form = PixelFormat(
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        samples=integer(dataset, "SamplesPerPixel", 1),
        photometric=text(dataset, "PhotometricInterpretation").upper(),
        allocated=integer(dataset, "BitsAllocated"),
        stored=stored,
        high=integer(dataset, "HighBit", stored - 1),
        signed=integer(dataset, "PixelRepresentation", 0) == 1,
        frames=max(frames, 1),
        syntax=text(dataset.file_meta, "TransferSyntaxUID"),
    )
    _check_format(form, options)
    check_memory(f"a picture of {form.rows}×{form.columns} pixels", memory_of(form, size), options.memory)
    return form


def memory_of(form: PixelFormat, size: int) -> int:
    """Return the bytes that reading a film takes beside the `size` that are held already: measured, and rounded up."""
    word = form.allocated // 8
    wavelets = form.syntax in JPEG_2000 | HTJ2K
    if word > 2:
        a_pixel = 44 * form.samples
    elif form.samples == 3:
        to_rgb = form.photometric not in {"RGB", "YBR_ICT", "YBR_RCT"} and not keeps_ybr(form)
        a_pixel = 3 * word + 10 + 10 * wavelets + 18 * to_rgb
    else:
        a_pixel = 14 if form.photometric == "PALETTE COLOR" else 12 if wavelets else 10
    return size + form.rows * form.columns * a_pixel


def _check_format(form: PixelFormat, options: ReadOptions) -> None:
    if form.rows < 1 or form.columns < 1:
        raise fail("bad-header", f"the header says {form.rows} rows and {form.columns} columns")
    if form.frames > MAX_FRAMES:
        raise fail("over-limit", f"the header says {form.frames} frames; the limit is {MAX_FRAMES}")
    if form.photometric not in MONOCHROME | COLOUR | {"PALETTE COLOR"}:
        raise fail("bad-header", "the photometric interpretation is missing or unknown")
    if form.samples != (3 if form.photometric in COLOUR else 1):
        raise fail("bad-header", f"{form.samples} samples per pixel do not fit {form.photometric}")
    if form.allocated not in {8, 16, 32}:
        raise fail("bad-header", f"{form.allocated} bits allocated are not supported (8, 16 and 32 are)")
    if not 1 <= form.stored <= form.allocated or not form.stored - 1 <= form.high < form.allocated:
        raise fail("bad-header", f"{form.stored} bits stored with high bit {form.high} do not fit {form.allocated}")
    if form.frames > 1 and options.frame is None:
        raise skip("multi-frame", f"the file holds {form.frames} frames; one has to be asked for with --frame")
    if (options.frame or 0) >= form.frames:
        raise fail("no-frame", f"frame {options.frame} was asked for, the file holds {form.frames}")


def decode(
    dataset: Dataset, form: PixelFormat, options: ReadOptions
) -> tuple[Stored, PixelFormat, str, tuple[str, ...]]:
    """Decode one frame to stored values, with no transformation but YBR of 8 bits to RGB.

    Returns
    -------
    pixels
        ``(rows, columns)`` or ``(rows, columns, 3)`` integers.
    form
        The image description, with the bits that the codestream has where it and the header disagree.
    decoder
        Name and version of what decoded them.
    flags
        What was odd.
    """
    if form.syntax not in DECODABLE or (form.syntax in JPEG_LOSSLESS and not find_spec("gdcm")):
        raise fail("unsupported", _unsupported(form.syntax))
    pixel_data = _pixel_data(dataset, form)
    frame = options.frame or 0
    flags: tuple[str, ...] = ()
    if form.syntax in NATIVE:
        flags = _check_length(form, len(pixel_data))
        plugin, package, stream, coded = "", "pydicom", b"", None
    else:
        stream = _frame(pixel_data, form, frame)
        coded = _check_codestream(form, stream)
        plugin, package = _plugin(form, stream, coded)
    try:
        if plugin == "pillow" and form.syntax in JPEG and form.samples == 1:
            pixels = _pillow_grey(stream)
        else:
            pixels = _pydicom(dataset, frame, plugin, raw=keeps_ybr(form))
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, RefusalError):
        raise
    except BaseException as error:  # noqa: BLE001 - pylibjpeg-rle panics with a BaseException on corrupt data
        raise fail("corrupt", f"{package} cannot decode the pixel data ({type(error).__name__})") from None
    if pixels.shape[:2] != (form.rows, form.columns):
        raise fail("corrupt", "the decoded picture has another size than the header says")
    if coded is not None:
        form, flags = _reconciled(pixels, form, coded)
    if form.syntax in JPEG:
        flags = (*jpeg_warnings(stream), *flags)
    return pixels, form, f"{package} {_version(package)}", flags


def keeps_ybr(form: PixelFormat) -> bool:
    """Whether the pixels of `form` are left in YBR: pydicom's way to RGB holds for 8 bits only."""
    return form.photometric.startswith("YBR_FULL") and (form.stored, form.high) != (8, 7)


def _reconciled(pixels: Stored, form: PixelFormat, coded: Coded) -> tuple[PixelFormat, tuple[str, ...]]:
    """Settle what the codestream and the header say differently of the samples.

    The bits of a sample are the codestream's, where the values need them; what they mean (signed or not) is the
    header's word, as pydicom has it.
    """
    flags: list[str] = []
    if coded.signed is not None and coded.signed != form.signed:
        words = [("unsigned", "signed")[signed] for signed in (coded.signed, form.signed)]
        flags.append(f"bits: {words[0]} in the codestream, {words[1]} in the header, which was followed")
    low, high = int(pixels.min()), int(pixels.max())
    fits = high < 1 << form.stored and low >= -(1 << form.stored - 1)
    if coded.precision < form.stored or not fits:
        flags.append(f"bits: {coded.precision} in the codestream, {form.stored} in the header")
        form = replace(form, stored=coded.precision, high=coded.precision - 1)
    return form, tuple(flags)


@cache
def _version(package: str) -> str:
    return metadata.version(package)


def _pixel_data(dataset: Dataset, form: PixelFormat) -> bytes:
    element: Any = dataset.get_item("PixelData")
    if element is None and ("FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset):
        raise fail("unsupported", "floating point pixel data are not supported")
    if element is None and form.syntax not in NATIVE:
        # pydicom drops encapsulated pixel data without their end mark
        raise fail("truncated", "the file ends before or inside its pixel data")
    if element is None or not element.value:
        raise fail("no-pixels", "the file holds no pixel data")
    return bytes(element.value) if not isinstance(element.value, bytes) else element.value


def _check_length(form: PixelFormat, length: int) -> tuple[str, ...]:
    """Compare the length of uncompressed pixel data with the header."""
    samples = form.rows * form.columns * form.samples
    if form.photometric == "YBR_FULL_422":
        samples = samples // 3 * 2
    expected = samples * form.allocated // 8 * form.frames
    if length < expected:
        raise fail("truncated", f"{length} of {expected} bytes of pixel data are there")
    return ("pixel data: longer than the header says",) if length > expected + expected % 2 else ()


def _pydicom(dataset: Dataset, frame: int, plugin: str, *, raw: bool) -> Stored:
    from pydicom.pixels.utils import pixel_array

    # Unused bits stay as they are: voi.py reports and masks them.
    options: dict[str, Any] = {"correct_unused_bits": False, "allow_excess_frames": False}
    return pixel_array(dataset, index=frame, decoding_plugin=plugin, raw=raw, **options)


def _pillow_grey(stream: bytes) -> Stored:
    """Decode JPEG directly: pydicom's general path only adds cost here."""
    import numpy as np
    from PIL import Image

    with Image.open(BytesIO(stream), formats=("JPEG",)) as image:
        return np.asarray(image if image.mode == "L" else image.convert("L"))


def _frame(pixel_data: bytes, form: PixelFormat, frame: int) -> bytes:
    """Return the codestream of one frame."""
    from pydicom.encaps import get_frame

    try:
        return get_frame(pixel_data, frame, number_of_frames=form.frames)
    except Exception as error:  # noqa: BLE001 - pydicom raises nearly anything on junk
        raise fail("corrupt", f"the encapsulated pixel data cannot be taken apart ({type(error).__name__})") from None


def _plugin(form: PixelFormat, stream: bytes, coded: Coded | None) -> tuple[str, str]:
    """Return pydicom's name for the decoder of this transfer syntax, and the package that it is."""
    if coded is None:
        return "pylibjpeg", "pylibjpeg-rle"
    precision = coded.precision
    if form.syntax in JPEG and precision == 8:
        return "pillow", "pillow"
    if form.syntax in JPEG_LS:
        # CharLS runs past the end of a stream without its end mark, for seconds.
        if END_OF_IMAGE not in stream[-16:]:
            raise fail("truncated", "the compressed pixel data are cut short")
        return "pyjpegls", "pyjpegls"
    # Pillow lifts signed values by half their range, which pydicom takes back only where the header says signed.
    lifted = coded.signed and not form.signed
    if form.syntax in JPEG_2000 and precision <= 16 and (form.samples == 1 or precision <= 8) and not lifted:
        return "pillow", "pillow"
    if form.syntax in JPEG_2000 | HTJ2K:
        return "pylibjpeg", "pylibjpeg-openjpeg"
    if form.syntax in JPEG_LOSSLESS:
        return "gdcm", "python-gdcm"
    raise fail("unsupported", _unsupported(form.syntax))


def _unsupported(syntax: str) -> str:
    from pydicom.uid import UID

    name = "JPEG XL" if syntax in JPEG_XL else UID(syntax).name
    named = f"transfer syntax {syntax} ({name})"
    if not syntax.startswith("1.2.840.10008."):
        named = f"the private transfer syntax {syntax}"
    if syntax in JPEG_LOSSLESS:
        return f"{named} needs the package python-gdcm: pip install 'cxrx[jpeg-lossless]'"
    if syntax in JPEG:
        return f"{named} with 12 bits has no decoder here; convert the file (dcmdjpeg of DCMTK reads it)"
    return f"{named} has no decoder here; convert the file to another one"


# ---------------------------------------------------------------------------------------------------------------------
# Codestreams know their own size, and decoders allocate by it, not by the header.


@dataclass(frozen=True, slots=True)
class Coded:
    """What a codestream says of its picture; ``signed`` is None where the format does not tell."""

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool | None = None


def _check_codestream(form: PixelFormat, stream: bytes) -> Coded | None:
    """Compare the codestream's own size with the header's; return what it says, None for RLE, which says nothing."""
    if form.syntax == RLE:
        return None
    coded = j2k_size(stream) if form.syntax in JPEG_2000 | HTJ2K else jpeg_size(stream)
    if coded is None:
        raise fail("corrupt", "the compressed pixel data have no readable beginning")
    if (coded.rows, coded.columns, coded.samples) != (form.rows, form.columns, form.samples):
        found = f"{coded.rows}×{coded.columns}×{coded.samples}"
        wanted = f"{form.rows}×{form.columns}×{form.samples}"
        code = "over-limit" if coded.rows * coded.columns > 4 * form.rows * form.columns else "corrupt"
        raise fail(code, f"the compressed picture is {found}, the header says {wanted}")
    return coded


def jpeg_size(stream: bytes) -> Coded | None:
    """Return what a JPEG or JPEG-LS stream says of its picture (ISO 10918-1 B.2.2)."""
    position = 2
    while stream[:2] == b"\xff\xd8" and position + 9 < len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:  # fill bytes before a marker
            position += 1
            continue
        # SOF0 to SOF15 without DHT, JPG and DAC; 0xF7 is SOF55 of JPEG-LS
        if (0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}) or marker == 0xF7:
            sof = stream[position + 4 : position + 10]
            return Coded(int.from_bytes(sof[1:3], "big"), int.from_bytes(sof[3:5], "big"), sof[5], sof[0])
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    return None


def j2k_size(stream: bytes) -> Coded | None:
    """Return what a JPEG 2000 stream, raw or in a JP2 box, says of its picture (ISO 15444-1 A.5.1)."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    siz = stream[start + 8 : start + 43] if start >= 0 else b""
    if len(siz) < 35:
        return None
    width, height, left, top = (int.from_bytes(siz[i : i + 4], "big") for i in range(0, 16, 4))
    samples, depth = int.from_bytes(siz[32:34], "big"), siz[34]
    return Coded(height - top, width - left, samples, (depth & 0x7F) + 1, bool(depth >> 7))
