"""Parsing DICOM headers: tolerant of junk, deaf to pydicom's chatter, with a cap on deflated data."""

from __future__ import annotations

import math
import struct
import zlib
from contextlib import contextmanager
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

from cxrx.reading.memory import VARIABLE
from cxrx.reading.refusal import RefusalError, fail, skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydicom import Dataset

DEFLATED = "1.2.840.10008.1.2.1.99"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

MOST_ELEMENTS = 20_000
_PIXELS = 0x7FE00008  # the first tag of pixel data, of any type of number

CANNOT_CONVERT = (ValueError, TypeError, LookupError, AttributeError, OverflowError, NotImplementedError, OSError)
"""What pydicom raises, on first access, for a value that does not fit its value representation."""


@contextmanager
def library_settings() -> Iterator[None]:
    """Silence pydicom, whose warnings and log lines echo values that may be a patient's; lift Pillow's size limit.

    Pillow's limit gives way to ``ReadOptions.memory``, which is checked before anything is allocated. All of this
    is global: reading belongs into processes, not threads.
    """
    from PIL import Image
    from pydicom import config

    before = config.settings.reading_validation_mode, config.logger.disabled, Image.MAX_IMAGE_PIXELS
    config.settings.reading_validation_mode, config.logger.disabled, Image.MAX_IMAGE_PIXELS = config.IGNORE, True, None
    try:
        with catch_warnings():
            simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode, config.logger.disabled, Image.MAX_IMAGE_PIXELS = before


def parse(data: bytes, memory: int, *, force: bool = False) -> Dataset:
    """Parse a whole DICOM file that is already in memory; ``file_meta.TransferSyntaxUID`` is set afterwards.

    Parameters
    ----------
    memory
        Bytes that all of it may take; of a deflated data set a quarter of it, as it is copied on its way. pydicom
        itself sets no limit (2 MB became 4.2 GB).
    force
        Accept a file without preamble.

    Raises
    ------
    RefusalError
        Not DICOM, a deflate bomb, or damage that keeps the header from being read.
    """
    try:
        return _parse(data, memory, force=force)
    except RefusalError:
        raise
    except RecursionError:
        raise fail("corrupt", "the header nests sequences too deeply") from None
    except zlib.error:
        raise fail("corrupt", "the deflated data set cannot be unpacked") from None
    except Exception as error:  # noqa: BLE001 - pydicom raises nearly anything on junk
        raise fail("corrupt", f"the header cannot be parsed ({type(error).__name__})") from None


def _parse(data: bytes, memory: int, *, force: bool) -> Dataset:
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset, read_partial
    from pydicom.uid import UID

    stream = BytesIO(data)
    marked = data[128:132] == b"DICM"
    if not marked and not force:
        raise skip("not-dicom", "this is not DICOM: no DICM mark at byte 128")
    stream.seek(132 if marked else 0)
    try:
        meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=_until(lambda tag: tag.group != 2)))
    except (*CANNOT_CONVERT, struct.error, EOFError):
        raise skip("not-dicom", "the file meta information is damaged or cut short") from None
    if len(data) - stream.tell() < 8:
        raise skip("not-dicom", "the file ends inside its header")
    if meta.get("TransferSyntaxUID") == DEFLATED:
        inflated = inflate(data[stream.tell() :], memory // 4)
        dataset = read_dataset(BytesIO(inflated), False, True, stop_when=_until(_is_padding))
        dataset.file_meta = meta
        return dataset
    dataset = read_partial(BytesIO(data), _until(_is_padding), force=True)
    if not len(dataset):
        # Of a file that ends inside its encapsulated pixels pydicom drops everything; the header says what it was.
        dataset = read_partial(BytesIO(data), _until(lambda tag: _is_padding(tag) or tag >= _PIXELS), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        guess = IMPLICIT_LITTLE if implicit else EXPLICIT_LITTLE if little else EXPLICIT_BIG
        dataset.file_meta.TransferSyntaxUID = UID(guess)
    return dataset


def _is_padding(tag: Any) -> bool:
    """Tell zeros behind a data set, which pydicom takes for elements of eight bytes each, from its elements."""
    return bool(tag.group == 0)


def _until(last: Callable[[Any], bool]) -> Callable[[Any, str | None, int], bool]:
    """Return what makes pydicom stop at a tag, and refuse more elements than any film has: each takes some time."""
    numbers = count()

    def stop(tag: Any, _vr: str | None, _length: int) -> bool:
        if next(numbers) == MOST_ELEMENTS:
            raise fail("over-limit", f"the header has more than {MOST_ELEMENTS} elements")
        return last(tag)

    return stop


def inflate(data: bytes, most: int) -> bytes:
    """Inflate a raw deflate stream, refusing one that unpacks to more than `most` bytes."""
    unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most + 1)
    if len(unpacked) > most:
        what = f"the deflated data set unpacks to more than {most >> 20} MiB"
        raise fail("over-limit", f"{what}, a quarter of what a film may take, which {VARIABLE} raises")
    return unpacked


# ---------------------------------------------------------------------------------------------------------------------
# Values. Each may be absent, empty, of the wrong kind or not decodable.


def text(dataset: Dataset, keyword: str) -> str:
    """Return a text value (the first, of several), stripped; empty where it is absent or unreadable."""
    return next(iter(texts(dataset, keyword)), "")


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return all values of a text element, stripped; empty where it is absent or unreadable."""
    try:
        value = dataset.get(keyword)
    except CANNOT_CONVERT:
        return []
    return [str(v).strip(" \0") for v in _several(value)]


def _several(value: Any) -> list[Any]:
    """Return the values of an element as a list; empty for an empty element."""
    if value is None or value == "":
        return []
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Return an integer of the image description; `default` where it is absent or empty."""
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            if default is None:
                raise fail("bad-header", f"{keyword} is missing")
            return default
        return int(value)
    except CANNOT_CONVERT:
        raise fail("bad-header", f"{keyword} is not a number") from None


def numbers(dataset: Dataset, keyword: str) -> list[float] | None:
    """Return the values of a numeric element, None where it is absent, ``[nan]`` where it is not numeric."""
    if keyword not in dataset:
        return None
    try:
        return [float(v) for v in _several(dataset.get(keyword))]
    except CANNOT_CONVERT:
        return [math.nan]


def sequence(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; empty where it is absent or is none."""
    try:
        value = dataset.get(keyword)
    except CANNOT_CONVERT:
        return []
    return [item for item in _several(value) if hasattr(item, "get_item")]
