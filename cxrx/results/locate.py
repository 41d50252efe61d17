"""Find films again: where the link table says, or by content in a folder."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from cxrx.errors import UsageError
from cxrx.results.private import PrivateRow

_BLOCK = 1 << 20
_UNREADABLE = (OSError, zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError)


def locate(
    sha256: Mapping[str, str], rows: Sequence[PrivateRow], images_dir: Path | None
) -> dict[str, tuple[Path, str]]:
    """Return image_id to (file, member) for the films that can be found.

    Parameters
    ----------
    sha256
        image_id to the digest of the film's bytes.
    rows
        Films of the link table; a file that has another size now, or other bytes, is not taken.
    images_dir
        Folder whose files (and members of zip and tar archives) are hashed to find what is still missing.
    """
    found: dict[str, tuple[Path, str]] = {}
    for row in rows:
        if row.image_id in sha256 and row.image_id not in found and _is_still(row, sha256[row.image_id]):
            found[row.image_id] = (Path(row.path), row.member)
    if images_dir is not None and len(found) < len(sha256):
        if not images_dir.is_dir():
            raise UsageError(f"{images_dir.name} is not a folder.")
        missing = {digest: image_id for image_id, digest in sha256.items() if image_id not in found}
        for digest, path, member in _digests(images_dir):
            if digest in missing:
                found[missing.pop(digest)] = (path, member)
            if not missing:
                break
    return found


def _is_still(row: PrivateRow, digest: str) -> bool:
    try:
        stat = Path(row.path).stat()
        if row.member:  # the size is the member's; of the archive, the time is known
            members = _member_digests(Path(row.path))
            return stat.st_mtime_ns == row.mtime_ns or (digest, row.member) in ((d, m) for d, _, m in members)
        if (stat.st_size, stat.st_mtime_ns) == (row.size, row.mtime_ns):
            return True
        if stat.st_size != row.size:
            return False
        with Path(row.path).open("rb") as file:
            return _digest(file) == digest
    except _UNREADABLE:
        return False


def _digests(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield (sha256, file, member) of everything in `folder`, in the order of the paths."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                yield _digest(file), path, ""
            yield from _member_digests(path)
        except _UNREADABLE:
            continue  # unreadable here means: not the film that is looked for


def _member_digests(path: Path) -> Iterator[tuple[str, Path, str]]:
    if zipfile.is_zipfile(path):
        yield from _zip_digests(path)
    elif tarfile.is_tarfile(path):
        yield from _tar_digests(path)


def _zip_digests(path: Path) -> Iterator[tuple[str, Path, str]]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith("/"):
                with archive.open(name) as file:
                    yield _digest(file), path, name


def _tar_digests(path: Path) -> Iterator[tuple[str, Path, str]]:
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                with file:
                    yield _digest(file), path, member.name


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
