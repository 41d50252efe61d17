"""Members of zip and tar archives, read to memory and never extracted."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

from cxrx.reading.item import HEAD_BYTES, Rejected, printable, rejected, safe_relative
from cxrx.reading.source import BROKEN_ARCHIVE, MAX_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrx.reading.item import Item

MAX_EXPANSION = 200
"""A compressed tar may unpack to this many times its size (plus `MAX_FILE_BYTES`) before it counts as a bomb."""

_BROKEN = (*BROKEN_ARCHIVE, OSError)


def members(archive: Item) -> Iterator[tuple[Item | Rejected, bytes]]:
    """Yield each member of `archive` that is a file, with its first bytes.

    Zip and plain tar give their members sorted; a compressed tar in the order it has, each with its data.
    """
    name = archive.path.name.lower()
    kind = _zip if name.endswith(".zip") else _tar if name.endswith(".tar") else _compressed_tar
    try:
        yield from kind(archive)
    except _BROKEN as error:
        message = f"the archive is damaged or cut short ({type(error).__name__})"
        yield rejected(archive, "corrupt-archive", message, "failed"), b""


def _member(archive: Item, name: str, size: int, data: bytes | None = None, offset: int = -1) -> Item:
    relative = f"{archive.relative}/{safe_relative(name)}"
    return replace(archive, relative=relative, size=size, member=printable(name), data=data, offset=offset)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/") if part not in {".", ".."})


def _too_large(item: Item) -> tuple[Rejected, bytes]:
    return rejected(item, "over-limit", f"the member is larger than {MAX_FILE_BYTES >> 20} MiB", "failed"), b""


def _zip(archive: Item) -> Iterator[tuple[Item | Rejected, bytes]]:
    with zipfile.ZipFile(archive.path) as file:
        for info in sorted(file.infolist(), key=lambda info: safe_relative(info.filename)):
            if info.is_dir() or _hidden(info.filename):
                continue
            item = _member(archive, info.filename, info.file_size)
            if info.flag_bits & 1:
                yield rejected(item, "encrypted", "the archive member is encrypted", "failed"), b""
            elif info.file_size > MAX_FILE_BYTES:
                yield _too_large(item)
            else:
                try:
                    with file.open(info) as stream:
                        head = stream.read(HEAD_BYTES)
                except _BROKEN as error:
                    message = f"the archive member cannot be unpacked ({type(error).__name__})"
                    yield rejected(item, "corrupt-archive", message, "failed"), b""
                else:
                    yield item, head


def _tar(archive: Item) -> Iterator[tuple[Item | Rejected, bytes]]:
    with tarfile.open(archive.path, "r:") as file, archive.path.open("rb") as raw:
        infos = [info for info in file if info.isfile() and not info.issparse() and not _hidden(info.name)]
        for info in sorted(infos, key=lambda info: safe_relative(info.name)):
            item = _member(archive, info.name, info.size, offset=info.offset_data)
            if info.size > MAX_FILE_BYTES:
                yield _too_large(item)
            else:
                raw.seek(info.offset_data)
                yield item, raw.read(min(HEAD_BYTES, info.size))


def _compressed_tar(archive: Item) -> Iterator[tuple[Item | Rejected, bytes]]:
    allowance = archive.size * MAX_EXPANSION + MAX_FILE_BYTES
    with tarfile.open(archive.path, "r|*") as file:
        for info in file:
            allowance -= info.size
            if allowance < 0:
                yield rejected(archive, "over-limit", "the archive unpacks to far more than a film set", "failed"), b""
                return
            if not info.isfile() or _hidden(info.name):
                continue
            item = _member(archive, info.name, info.size)
            if info.size > MAX_FILE_BYTES:
                yield _too_large(item)
                continue
            stream = file.extractfile(info)
            data = b"" if stream is None else stream.read()
            yield replace(item, data=data), data[:HEAD_BYTES]
