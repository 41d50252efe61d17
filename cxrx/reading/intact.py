"""Whether a PNG or JPEG stream is whole: Pillow checks hardly a checksum, and keeps libjpeg's warnings to itself."""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxrx.reading.refusal import fail

if TYPE_CHECKING:
    from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel of a PNG, by its colour type."""
_STEP = 2**16  # of packed bytes, so that what is left of a step costs no copy of the whole
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass of an interlaced PNG, and the steps between its columns and rows."""


@dataclass(frozen=True, slots=True)
class PngHeader:
    """What the IHDR chunk says."""

    columns: int
    rows: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def unpacked(self) -> int:
        """How many bytes the pixels are before compression: each row begins with the number of its filter."""
        bits = self.depth * SAMPLES[self.colour]
        total = 0
        for left, top, right, down in _ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(self.columns - left) // right), -(-(self.rows - top) // down)
            total += rows * (1 + -(-columns * bits // 8)) if min(rows, columns) > 0 else 0
        return total


def png_header(data: bytes) -> PngHeader:
    """Return the header of a PNG file, whose checksum is right."""
    name, body = next(_chunks(data))
    if name != b"IHDR" or len(body) != 13:
        raise fail("corrupt", "the PNG file does not begin with its header")
    columns, rows, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
    if colour not in SAMPLES or not columns or not rows:
        raise fail("corrupt", "the header of the PNG file makes no sense")
    return PngHeader(columns, rows, depth, colour, interlace == 1)


def check_png(data: bytes, header: PngHeader) -> tuple[str, ...]:
    """Check every chunk of a PNG file, its end, and that its pixels are all there; return flags.

    Raises
    ------
    RefusalError
        A chunk is damaged or cut short, pixels are missing, or the end is.
    """
    unpacker, expected, found = zlib.decompressobj(), header.unpacked, 0
    for name, body in _chunks(data):
        if name == b"IDAT" and found <= expected:
            try:
                found += sum(_unpacked(unpacker, body, expected - found))
            except zlib.error:
                raise fail("corrupt", "the pixels of the PNG file cannot be unpacked") from None
    if found < expected or not (unpacker.eof or found > expected):
        raise fail("truncated", f"the pixels of the PNG file are cut short: {found} of {expected} bytes, and no end")
    return ("PNG: more pixels than its header says",) if found > expected else ()


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield name and body of each chunk up to IEND, whose checksums are right."""
    view, start, name = memoryview(data), len(PNG_SIGNATURE), b""
    while name != b"IEND":
        size, name = int.from_bytes(view[start : start + 4], "big"), bytes(view[start + 4 : start + 8])
        end = start + 12 + size
        if name and not name.isalpha():
            raise fail("corrupt", f"the PNG file holds junk or zeros from byte {start} on, where a chunk should begin")
        if end > len(view):
            raise fail("truncated", "the PNG file is cut short: its end is missing")
        body = view[start + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(view[end - 4 : end], "big"):
            raise fail("corrupt", f"the checksum of chunk {name.decode()} at byte {start} of the PNG file is wrong")
        yield name, body
        start = end


def _unpacked(unpacker: zlib._Decompress, body: memoryview, limit: int) -> Iterator[int]:
    """Yield how many bytes come out of a chunk, bit by bit, until they are more than `limit`."""
    for at in range(0, len(body), _STEP):
        packed: bytes | memoryview = body[at : at + _STEP]
        while len(packed) and not unpacker.eof:
            size = len(unpacker.decompress(packed, 16 * _STEP))
            packed, limit = unpacker.unconsumed_tail, limit - size
            yield size
            if limit < 0:
                return
        if unpacker.eof:
            return


# ---------------------------------------------------------------------------------------------------------------------
# JPEG


_LIBJPEG = re.compile(
    rb"(?:Corrupt JPEG data: |Premature end of JPEG|Inconsistent progression sequence|Invalid SOS parameters"
    rb"|Unknown Adobe color transform|Warning: unknown JFIF revision|Application transferred too many)[^\r\n]*\n?"
)
"""A line with one of libjpeg's warnings: what else comes out of the process meanwhile is of other threads."""


def jpeg_warnings(stream: bytes) -> tuple[str, ...]:
    """Return what libjpeg has to say against a stream that it decodes all the same (missing or damaged parts).

    OpenCV lets libjpeg print its first warning; the picture, an eighth of its size here, is thrown away.
    """
    import cv2
    import numpy as np

    stderr = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    try:
        picture = cv2.imdecode(
            np.frombuffer(stream, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION
        )
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(writing)
        with open(reading, "rb") as printed:  # noqa: PTH123 - a descriptor
            said = printed.read()
    if others := _LIBJPEG.sub(b"", said):
        os.write(2, others)
    if picture is None:
        return ("JPEG: a second decoder cannot read it",)
    return tuple(
        f"JPEG: the decoder warned: {line.decode(errors='replace').strip()[:80]}" for line in _LIBJPEG.findall(said)[:1]
    )
