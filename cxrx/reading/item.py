"""A candidate for a film: a file or a member of an archive, known by its place and its first bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cxrx.specs import Unreadable

if TYPE_CHECKING:
    from pathlib import Path

HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Item:
    """One candidate file or archive member; cheap and picklable.

    Attributes
    ----------
    path
        Absolute path of the file (of the archive, for a member).
    relative
        Posix path relative to the input it was found under: ``"study/a.dcm"``, ``"films.zip/a.dcm"``; a single
        file: its name.
    size, mtime_ns
        Of the file; of the member and of the archive, for a member.
    reader
        Full name of the reader that recognised it, ``"owner/name"``.
    member
        Name inside the archive, exactly as it stands there.
    data
        Bytes of a member of a compressed tar, which can only be read in passing.
    offset
        Where a member of an uncompressed tar begins.
    """

    path: Path
    relative: str
    size: int
    mtime_ns: int
    reader: str
    member: str = ""
    data: bytes | None = field(default=None, repr=False)
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that is no film, and why."""

    item: Item
    reason: Unreadable


def rejected(item: Item, code: str, message: str, kind: str = "skipped") -> Rejected:
    """Return `item` with the reason why it gives no film.

    Parameters
    ----------
    item
        The candidate.
    code, message, kind
        As in :class:`~cxrx.specs.Unreadable`.
    """
    reason = Unreadable("failed" if kind == "failed" else "skipped", code, message, member=item.member)
    return Rejected(replace(item, data=None), reason)  # a list of these must not hold the bytes of an archive


def printable(name: str) -> str:
    r"""Return `name` with undecodable bytes written as ``\xNN``, so that it can be stored and shown."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def safe_relative(name: str) -> str:
    """Return a relative posix path that stays where it is joined: no root, no drive, no ``..``."""
    parts = printable(name).replace("\\", "/").split("/")
    return "/".join(part.replace(":", "_") for part in parts if part not in {"", ".", ".."}) or "_"
