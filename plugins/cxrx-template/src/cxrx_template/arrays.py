"""A new reader: NumPy archives (``.npz``), whose every two-dimensional array is a film."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxrx import Film, ReaderSpec, Unreadable, hookimpl


def is_npz(path: Path, head: bytes) -> bool:
    """Return whether the name and the first 512 bytes are those of a NumPy archive."""
    return path.suffix.lower() == ".npz" and head.startswith(b"PK")


def open_npz(path: Path) -> Iterator[Film | Unreadable]:
    """Yield the films of one file; what cannot be read is said without the file's name, which may name a patient."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in sorted(archive.namelist()):
                yield _film(archive.read(member), member)
    except (zipfile.BadZipFile, EOFError) as error:
        yield Unreadable("failed", "truncated", f"the archive is damaged or cut short ({type(error).__name__})")


def _film(data: bytes, member: str) -> Film | Unreadable:
    """Return one array as a film; the digest of its own bytes is its identity, whatever file it lies in."""
    import numpy as np

    sha256 = hashlib.sha256(data).hexdigest()
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)  # a pickle could run code
    except (ValueError, EOFError) as error:
        return Unreadable("failed", "corrupt", f"the array cannot be read ({type(error).__name__})", sha256, member)
    if array.ndim != 2 or array.dtype not in (np.uint8, np.uint16):
        return Unreadable("skipped", "no-picture", "this is no (rows, columns) array of grey values", sha256, member)
    pixels = array.astype(np.float32) / np.iinfo(array.dtype).max
    return Film(pixels, sha256, member, decoder=f"numpy {np.__version__}")


@hookimpl
def register_readers(register: Any) -> None:
    """Register the reader: its name, how it knows its files, and what is in them."""
    register(ReaderSpec("arrays", is_npz, open_npz, summary="NumPy archives, every array of grey values a film"))
