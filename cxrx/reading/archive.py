"""Members of zip and tar archives, read to memory and never extracted."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from cxrx.reading.item import HEAD_BYTES, Rejected, rejected, safe_relative
from cxrx.reading.memory import over_limit
from cxrx.reading.source import BOMB, BROKEN_ARCHIVE, COPIES, BombError, named, open_compressed_tar, open_zip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrx.reading.item import Item
    from cxrx.reading.source import Unpacked

_BROKEN = (*BROKEN_ARCHIVE, OSError)


def members(archive: Item, memory: int) -> Iterator[tuple[Item | Rejected, bytes]]:
    """Yield each member of `archive` that is a file, with its first bytes; reading one may take `memory` bytes.

    Zip and plain tar give their members sorted; a compressed tar in the order it has, each with its data.
    """
    name = archive.path.name.lower()
    kind = _zip if name.endswith(".zip") else _tar if name.endswith(".tar") else _compressed_tar
    try:
        yield from kind(archive, memory)
    except _BROKEN as error:
        message = f"the archive is damaged or cut short ({type(error).__name__})"
        yield rejected(archive, "corrupt-archive", message, "failed"), b""


def _member(archive: Item, name: str, size: int, data: bytes | None = None, offset: int = -1) -> Item:
    relative = f"{archive.relative}/{safe_relative(name)}"
    return replace(archive, relative=relative, size=size, member=name, data=data, offset=offset)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/") if part not in {".", ".."})


def _checked(item: Item, memory: int) -> Rejected | None:
    """Return the refusal of a member that is too large to be read."""
    need = COPIES * item.size
    if need <= memory:
        return None
    return rejected(item, "over-limit", over_limit(f"a member of {item.size >> 20} MiB", need, memory), "failed")


def _zip(archive: Item, memory: int) -> Iterator[tuple[Item | Rejected, bytes]]:
    file, members = open_zip(archive.path, archive.size, archive.mtime_ns)
    for name, info in sorted(members.items(), key=lambda member: safe_relative(member[0])):
        if info.is_dir() or _hidden(name):
            continue
        item = _member(archive, name, info.file_size)
        if info.flag_bits & 1:
            yield rejected(item, "encrypted", "the archive member is encrypted", "failed"), b""
        elif info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            # zipfile unpacks other methods without a bound: 4 KB of bzip2 become gigabytes
            message = "the archive member is neither stored nor deflated; pack it again as a plain zip"
            yield rejected(item, "unsupported", message, "failed"), b""
        elif refusal := _checked(item, memory):
            yield refusal, b""
        else:
            try:
                with file.open(info) as stream:
                    head = stream.read(HEAD_BYTES)
            except _BROKEN as error:
                message = f"the archive member cannot be unpacked ({type(error).__name__})"
                yield rejected(item, "corrupt-archive", message, "failed"), b""
            else:
                yield item, head


def _tar(archive: Item, memory: int) -> Iterator[tuple[Item | Rejected, bytes]]:
    with tarfile.open(archive.path, "r:") as file, archive.path.open("rb") as raw:
        infos = [(name, info) for name, info in named(file) if info.isfile() and not _hidden(name)]
        for name, info in sorted(infos, key=lambda member: safe_relative(member[0])):
            item = _member(archive, name, info.size, offset=info.offset_data)
            if info.issparse():
                yield _sparse(item), b""
            elif refusal := _checked(item, memory):
                yield refusal, b""
            else:
                raw.seek(info.offset_data)
                yield item, raw.read(min(HEAD_BYTES, info.size))
        yield from _beyond_end(archive, raw, file.offset)


def _beyond_end(archive: Item, stream: IO[bytes] | Unpacked, end: int) -> Iterator[tuple[Rejected, bytes]]:
    """Refuse what lies after the last member that tarfile found: zeros end an archive, and so does damage."""
    stream.seek(end)
    chunk = stream.read(2**20)
    message = "" if chunk else "the archive is cut short: the mark of its end is missing"
    while chunk and not message:
        if chunk.count(0) < len(chunk):
            message = f"the archive is damaged at byte {end}: what it holds after that cannot be told"
        chunk = stream.read(2**20)
    if message:
        yield rejected(archive, "corrupt-archive", message, "failed"), b""


def _sparse(item: Item) -> Rejected:
    return rejected(item, "unsupported", "the archive member is a sparse file; pack it again without holes", "failed")


def _compressed_tar(archive: Item, memory: int) -> Iterator[tuple[Item | Rejected, bytes]]:
    try:
        with open_compressed_tar(archive.path, memory) as (file, unpacked):
            for name, info in named(file):
                if not info.isfile() or _hidden(name):
                    continue
                item = _member(archive, name, info.size)
                if info.issparse():
                    yield _sparse(item), b""
                elif refusal := _checked(item, memory):
                    yield refusal, b""
                else:
                    data = unpacked.take(info)
                    yield replace(item, data=data), data[:HEAD_BYTES]
            yield from _beyond_end(archive, unpacked, file.offset)
    except BombError:
        yield rejected(archive, "over-limit", BOMB, "failed"), b""
