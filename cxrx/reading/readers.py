"""The file formats, those of this package and those of plugins by the same spec, and the films of a file."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from cxrx.reading.item import HEAD_BYTES, Item
from cxrx.reading.options import ReadOptions
from cxrx.reading.refusal import RefusalError, fail
from cxrx.reading.source import digest, load
from cxrx.registry import load as load_registry
from cxrx.specs import Film, ReaderSpec, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

DICOM = "cxrx/dicom"
IMAGE = "cxrx/image"


def _is_dicom(_path: Path, head: bytes) -> bool:
    return head[128:132] == b"DICM"


def _is_image(path: Path, head: bytes) -> bool:
    return head.startswith((PNG_MAGIC, JPEG_MAGIC)) and path.suffix.lower() not in DICOM_SUFFIXES


def _open(path: Path) -> Iterator[Film | Unreadable]:
    """Read one file with the default options."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    state = path.stat()
    name = next((name for name, spec in BUILTIN.items() if spec.sniff(path, head)), DICOM)
    yield from read_films(Item(path, path.name, state.st_size, state.st_mtime_ns, name), ReadOptions())


def _decode_dicom(data: bytes, options: ReadOptions) -> Film:
    from cxrx.reading.dicom import read_dicom

    return read_dicom(data, options)


def _decode_image(data: bytes, options: ReadOptions) -> Film:
    from cxrx.reading.picture import read_picture

    return read_picture(data, options)


BUILTIN = {
    DICOM: ReaderSpec(
        "dicom",
        _is_dicom,
        _open,
        "DICOM radiographs: CR, DX and secondary captures, most transfer syntaxes",
        _decode_dicom,
    ),
    IMAGE: ReaderSpec("image", _is_image, _open, "PNG (8 and 16 bits) and JPEG", _decode_image),
}
"""By full name; registered like those of plugins, and before them."""


def readers() -> Mapping[str, ReaderSpec]:
    """Return all file formats by full name, the built-in ones first."""
    return load_registry().readers


def reader(name: str) -> ReaderSpec:
    """Return the format with this full name; for a built-in one no plugin is loaded, as decode processes need none."""
    return BUILTIN[name] if name in BUILTIN else load_registry().readers[name]


def is_builtin(name: str) -> bool:
    """Whether this package brings the format; what it yields needs no checks."""
    return name in BUILTIN


def holds_several(item: Item) -> bool:
    """Whether an item may hold several films, which only reading it can tell apart."""
    return reader(item.reader).decode is None


# ---------------------------------------------------------------------------------------------------------------------
# The films of an item

_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_films(item: Item, options: ReadOptions) -> Iterator[Film | Unreadable]:
    """Yield what `item` holds, at full size, decoded in this process.

    Every film (and every :class:`~cxrx.specs.Unreadable` whose bytes could be read) has a digest, its identity, and
    is told apart from others of the same file by its ``member``. Whatever goes wrong becomes an Unreadable; nothing is
    raised.
    """
    sha256 = ""
    try:
        data = load(item, options.memory)
        sha256 = digest(data)
        spec = reader(item.reader)
        if spec.decode is not None:
            yield _decoded(spec, data, item, options, sha256)
        else:
            yield from _opened(spec, item, options, sha256)
    except RefusalError as refusal:
        yield refusal.unreadable(sha256, item.member)


def _decoded(spec: ReaderSpec, data: bytes, item: Item, options: ReadOptions, sha256: str) -> Film | Unreadable:
    """Return the one film of these bytes."""
    assert spec.decode is not None  # noqa: S101 - the caller has looked
    from cxrx.reading.header import library_settings

    try:
        with library_settings():
            found = spec.decode(data, options)
        found = replace(found, sha256=sha256, member=item.member)
        return found if isinstance(found, Unreadable) else _upright(_checked(found, item), options)
    except RefusalError:
        raise
    except MemoryError:
        raise fail("memory", "there is not enough memory to decode this film") from None
    except Exception as error:  # noqa: BLE001 - one file's junk must not end the run
        if is_builtin(item.reader):
            raise fail("corrupt", f"the film cannot be read ({type(error).__name__})") from None
        raise fail("reader", f"reader {item.reader} failed ({type(error).__name__})") from None


def _opened(spec: ReaderSpec, item: Item, options: ReadOptions, sha256: str) -> Iterator[Film | Unreadable]:
    """Yield the films of a file, each under a name and an identity of its own; what breaks off is one more of them."""
    names: set[str] = set()
    try:
        for found in spec.open(item.path):
            named = _named(found, names, sha256)
            yield named if isinstance(named, Unreadable) else _upright(_checked(named, item), options)
        return
    except RefusalError as refusal:
        broken = refusal.unreadable()
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        broken = Unreadable("failed", "reader", f"reader {item.reader} failed ({type(error).__name__})")
    yield _named(broken, names, sha256)


def _named(found: Film | Unreadable, names: set[str], sha256: str) -> Film | Unreadable:
    """Give a film a name of its own in its file (the first may do without) and a digest, where its reader gave none."""
    member = found.member or (str(len(names)) if names else "")
    while member in names:
        member += "'"
    names.add(member)
    own = found.sha256 or (digest(f"{sha256}/{member}".encode()) if member else sha256)
    if not _DIGEST.fullmatch(own):
        raise fail("reader", "the reader gave a sha256 that is no 64 hex digits")
    return replace(found, member=member, sha256=own)


def _checked(film: Film, item: Item) -> Film:
    """Return a film as specified, whoever decoded it."""
    if is_builtin(item.reader):
        return film
    import numpy as np

    pixels = np.asarray(film.pixels, np.float32)
    if pixels.ndim != 2 or pixels.size == 0 or not np.isfinite(pixels).all():
        raise fail("reader", "the reader gave pixels that are no finite (rows, columns) array")
    if pixels.min() < 0 or pixels.max() > 1:
        raise fail("reader", "the reader gave pixels outside [0, 1]")
    return replace(film, pixels=pixels)


def _upright(film: Film, options: ReadOptions) -> Film:
    from cxrx.reading.polarity import check_polarity

    return check_polarity(film, options.polarity)


def film_digests(item: Item, memory: int) -> list[tuple[str, str]]:
    """Return digest and member of every film that `item` holds; only a file of several is decoded for it.

    Reading a film may take `memory` bytes.
    """
    try:
        if not holds_several(item):
            return [(digest(load(item, memory)), item.member)]
    except RefusalError:
        return []
    wide = ReadOptions(views=("all",), force_dicom=True, non_chest=True, for_processing=True, memory=memory)
    return [(film.sha256, film.member) for film in read_films(item, wide)]
