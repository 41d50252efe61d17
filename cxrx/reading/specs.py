"""The built-in file formats, as the registry lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrx.reading.find import JPEG_MAGIC, PNG_MAGIC
from cxrx.specs import ReaderSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cxrx.specs import Film, Unreadable


def _is_dicom(_path: Path, head: bytes) -> bool:
    return head[128:132] == b"DICM"


def _is_image(_path: Path, head: bytes) -> bool:
    return head.startswith((PNG_MAGIC, JPEG_MAGIC))


def _open(path: Path) -> Iterator[Film | Unreadable]:
    """Read one file with the default options; runs read by item, with their own (``prepare_item``)."""
    from cxrx.reading.find import Item, find
    from cxrx.reading.options import ReadOptions
    from cxrx.reading.prepare import read_films

    for found in find([path]):
        if isinstance(found, Item):
            yield from read_films(found, ReadOptions())
        else:
            yield found.reason


BUILTIN_READERS = (
    ReaderSpec("dicom", _is_dicom, _open, "DICOM radiographs: CR, DX and secondary captures, most transfer syntaxes"),
    ReaderSpec("image", _is_image, _open, "PNG (8 and 16 bits) and JPEG"),
)
