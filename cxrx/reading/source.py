"""From an item to its bytes, with caps, and their digest."""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

from cxrx.reading.refusal import fail, skip

if TYPE_CHECKING:
    from pathlib import Path

    from cxrx.reading.item import Item

MAX_FILE_BYTES = 2**30
"""No film is larger: 100 megapixels at 16 bits are 200 MB."""


def load(item: Item) -> bytes:
    """Return the bytes of a file or archive member.

    Raises
    ------
    RefusalError
        The file vanished, cannot be read, is no regular file or exceeds `MAX_FILE_BYTES`.
    """
    if item.data is not None:
        return item.data
    if item.size > MAX_FILE_BYTES:
        raise fail("over-limit", f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        if item.member and item.offset < 0:
            return _packed_member(item)
        return _read(item.path, item.offset, item.size)
    except FileNotFoundError:
        raise skip("vanished", "the file was removed after it was found") from None
    except OSError as error:
        raise skip("unreadable", f"the file cannot be read ({error.strerror or type(error).__name__})") from None


def digest(data: bytes) -> str:
    """Return the SHA-256 hex digest that a film's identity is derived from."""
    return hashlib.sha256(data).hexdigest()


def file_digest(item: Item) -> str:
    """Return the sha256 of a plain file; empty for members of archives, pipes, devices and what cannot be read."""
    if item.member or not item.path.is_file():
        return ""
    try:
        with item.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _read(path: Path, offset: int, size: int) -> bytes:
    """Read a whole file (`offset` < 0) or `size` bytes at `offset` of a tar archive."""
    # O_NONBLOCK: a FIFO that took the file's place must not hang the worker.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise skip("not-a-file", "this is a device, a pipe or a socket")
        if offset < 0:
            data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                raise fail("over-limit", f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
            return data
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise fail("truncated", "the archive ends inside this member")
    return data


@lru_cache(maxsize=4)
def _open_zip(path: Path, _size: int, _mtime_ns: int) -> zipfile.ZipFile:
    """Open an archive once per process; size and time are there to notice that it was replaced."""
    return zipfile.ZipFile(path)


BROKEN_ARCHIVE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    *(KeyError, NotImplementedError, RuntimeError),  # no such member; a compression or encryption that is not known
)


def _packed_member(item: Item) -> bytes:
    try:
        data = _zip_member(item) if item.path.name.lower().endswith(".zip") else _streamed_member(item)
    except BROKEN_ARCHIVE as error:
        raise fail("corrupt-archive", f"the archive member cannot be unpacked ({type(error).__name__})") from None
    if len(data) > MAX_FILE_BYTES:
        raise fail("over-limit", f"the archive member is larger than {MAX_FILE_BYTES >> 20} MiB")
    return data


def _zip_member(item: Item) -> bytes:
    state = item.path.stat()
    # The size in the directory may lie; what is read is what counts.
    with _open_zip(item.path, state.st_size, state.st_mtime_ns).open(item.member) as file:
        return file.read(MAX_FILE_BYTES + 1)


def _streamed_member(item: Item) -> bytes:
    """Read a compressed tar up to the member: for single films; many are better read in passing, by the finder."""
    with tarfile.open(item.path, "r|*") as archive:
        for info in archive:
            if info.name == item.member and info.isfile():
                stream = archive.extractfile(info)
                return b"" if stream is None else stream.read(MAX_FILE_BYTES + 1)
    raise KeyError
