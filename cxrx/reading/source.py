"""From an item to its bytes, with caps, and their digest."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from cxrx.reading.item import printable
from cxrx.reading.memory import VARIABLE, check_memory
from cxrx.reading.refusal import fail, skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cxrx.reading.item import Item

COPIES = 3
"""A film's bytes are held this often: as they are, taken apart, and on their way."""


def load(item: Item, memory: int) -> bytes:
    """Return the bytes of a file or archive member.

    Parameters
    ----------
    item
        The file or member.
    memory
        What reading it may take.

    Raises
    ------
    RefusalError
        The file vanished, cannot be read, is no regular file or takes too much memory.
    """
    if item.data is not None:
        return item.data
    check_size(item.size, memory)
    try:
        if item.member and item.offset < 0:
            data = _packed_member(item, memory)
        else:
            data = _read(item.path, item.offset, item.size, memory // COPIES)
    except FileNotFoundError:
        raise skip("vanished", "the file was removed after it was found") from None
    except OSError as error:
        raise skip("unreadable", f"the file cannot be read ({error.strerror or type(error).__name__})") from None
    check_size(len(data), memory)  # what was read is what counts: a size may lie, a file may grow
    return data


def check_size(size: int, memory: int) -> None:
    """Refuse a file or member of `size` bytes that cannot be read in `memory`."""
    check_memory(f"a file of {size >> 20} MiB", COPIES * size, memory)


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


def _read(path: Path, offset: int, size: int, most: int) -> bytes:
    """Read a whole file (`offset` < 0; a byte over `most` tells one that grew) or `size` bytes of a tar archive."""
    # O_NONBLOCK: a FIFO that took the file's place must not hang the worker.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise skip("not-a-file", "this is a device, a pipe or a socket")
        if offset < 0:
            return file.read(most + 1)
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise fail("truncated", "the archive ends inside this member")
    return data


@lru_cache(maxsize=4)
def open_zip(path: Path, _size: int, _mtime_ns: int) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """Open an archive once per process, and name its members; size and time tell that it was replaced."""
    archive = zipfile.ZipFile(path)
    return archive, dict(named(archive.infolist()))


Info = TypeVar("Info", zipfile.ZipInfo, tarfile.TarInfo)


def named(infos: Iterable[Info]) -> Iterator[tuple[str, Info]]:
    """Yield each member with a printable name of its own: a second one of the same name gets an apostrophe."""
    names: set[str] = set()
    for info in infos:
        name = printable(info.filename if isinstance(info, zipfile.ZipInfo) else info.name)
        while name in names:
            name += "'"
        names.add(name)
        yield name, info


BROKEN_ARCHIVE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    # no such member; an encryption or a compression that is not known; headers that make no sense
    *(LookupError, NotImplementedError, RuntimeError, ValueError, OverflowError, struct.error),
)


def _packed_member(item: Item, memory: int) -> bytes:
    try:
        if item.path.name.lower().endswith(".zip"):
            return _zip_member(item, memory // COPIES)
        return _streamed_member(item, memory)
    except BombError:
        raise fail("over-limit", BOMB) from None
    except (*BROKEN_ARCHIVE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the archive's
            raise
        raise fail("corrupt-archive", f"the archive member cannot be unpacked ({type(error).__name__})") from None


def _zip_member(item: Item, most: int) -> bytes:
    state = item.path.stat()
    archive, members = open_zip(item.path, state.st_size, state.st_mtime_ns)
    with archive.open(members[item.member]) as file:
        return file.read(most + 1)


def _streamed_member(item: Item, memory: int) -> bytes:
    """Read a compressed tar up to the member: for single films; many are better read in passing, by the finder."""
    with open_compressed_tar(item.path, memory) as (archive, unpacked):
        for name, info in named(archive):
            if name == item.member and info.isfile():
                return unpacked.take(info)
    raise KeyError


# ---------------------------------------------------------------------------------------------------------------------
# Compressed tars

MAX_EXPANSION = 200
"""A compressed tar may unpack to this many times its size (plus what a film may take) before it counts as a bomb."""
MAX_HEADER = 2**20
"""Bytes that tarfile may ask for at once: for headers, whose size a hostile archive chooses."""


class BombError(OSError):
    """An archive unpacks to far more than films do."""


BOMB = f"the archive unpacks to more than {MAX_EXPANSION} times its size and what {VARIABLE} allows a film"
"""What is said of it."""


class Unpacked:
    """A decompressed stream that counts what comes out of it, and ends where that is too much.

    Parameters
    ----------
    stream
        Of gzip, bz2 or lzma, which unpack no more than is asked for.
    allowance
        How far it may go.
    """

    def __init__(self, stream: IO[bytes], allowance: int) -> None:
        self._stream, self._allowance = stream, allowance

    def tell(self) -> int:
        """Return how many bytes came out."""
        return self._stream.tell()

    def seek(self, position: int) -> int:
        """Go on to `position`; only forwards."""
        self._check(position)
        return self._stream.seek(position)

    def read(self, size: int) -> bytes:
        """Return the next bytes: what tarfile reads are headers."""
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError
        return self._read(size)

    def take(self, info: tarfile.TarInfo) -> bytes:
        """Return the bytes of the member that tarfile has just come to."""
        self.seek(info.offset_data)
        data = self._read(info.size)
        if len(data) < info.size:
            raise EOFError
        return data

    def _read(self, size: int) -> bytes:
        self._check(self.tell() + size)
        return self._stream.read(size)

    def _check(self, position: int) -> None:
        if position > self._allowance:
            raise BombError


@contextmanager
def open_compressed_tar(path: Path, memory: int) -> Iterator[tuple[tarfile.TarFile, Unpacked]]:
    """Open a tar that is packed by gzip, bzip2 or xz, to be read once from its beginning to its end."""
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with path.open("rb") as file:
        magic = file.read(2)
    allowance = path.stat().st_size * MAX_EXPANSION + memory
    with openers.get(magic, open)(path, "rb") as stream:
        unpacked = Unpacked(stream, allowance)
        with tarfile.open(fileobj=cast("IO[bytes]", unpacked), mode="r:") as archive:
            yield archive, unpacked
