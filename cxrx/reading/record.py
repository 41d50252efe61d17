"""What is known of one film: made where it is read, written to results.h5 and its link table, and read back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from cxrx.reading.item import safe_relative
from cxrx.specs import Film, Unreadable

if TYPE_CHECKING:
    from cxrx.reading.item import Item


class Status(IntEnum):
    """What became of a film; the numbers are stored in ``/images/status``."""

    OK = 0
    FLAGGED = 1
    FAILED = 2
    SKIPPED = 3

    @property
    def processed(self) -> bool:
        """Whether the film went through the model."""
        return self in {Status.OK, Status.FLAGGED}


@dataclass(frozen=True, slots=True)
class Link:
    """One row of the link table, which is private: where something came from.

    Attributes
    ----------
    kind
        ``"film"``, ``"duplicate"`` (another file with the same bytes), ``"failure"`` (a file whose bytes could not be
        read; `image_id` is its label in ``/failures``) or ``"model"`` (`image_id` is its slug, `relative` the name it
        was asked for by, `path` its weights).
    relative
        Path relative to the input that the film was found under.
    path, member
        The file, and the film's name in it where it is an archive or holds several.
    uid, patient
        SOPInstanceUID, and a key that films of one patient share; empty where unknown.
    size, mtime_ns
        Of the file; in an archive, the size is the member's.
    """

    kind: str
    image_id: str
    relative: str = ""
    path: str = ""
    member: str = ""
    uid: str = ""
    patient: str = ""
    size: int = 0
    mtime_ns: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        """What a later row with the same key replaces."""
        place = (self.path, self.member) if self.kind in {"film", "duplicate"} else ()
        return (self.kind, self.image_id, *place)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One film, or a file that gave none.

    Attributes
    ----------
    rows, columns
        Of the source picture, pixels; 0 where it could not be read.
    message
        Why it is not ok; without patient data.
    link
        The private side: it goes to the link table, never into results.h5.
    """

    sha256: str
    view: str
    rows: int
    columns: int
    decoder: str
    status: Status
    message: str
    synthetic: bool
    link: Link

    @property
    def image_id(self) -> str:
        """First 16 hex digits of `sha256`."""
        return self.sha256[:16]


def record_of(item: Item, found: Film | Unreadable) -> ImageRecord:
    """Return the record of what was found in `item`."""
    relative = item.relative if found.member in {"", item.member} else f"{item.relative}/{safe_relative(found.member)}"
    uid, patient = (found.uid, found.patient) if isinstance(found, Film) else ("", "")
    own = found.sha256[:16]
    link = Link(
        "film", own, relative, str(item.path), found.member or item.member, uid, patient, item.size, item.mtime_ns
    )
    if isinstance(found, Unreadable):
        status = Status.SKIPPED if found.kind == "skipped" else Status.FAILED
        return ImageRecord(found.sha256, "", 0, 0, "", status, f"{found.code}: {found.message}", False, link)
    rows, columns = found.pixels.shape
    status = Status.FLAGGED if found.flags else Status.OK
    message = "; ".join(found.flags)
    return ImageRecord(found.sha256, found.view, rows, columns, found.decoder, status, message, found.synthetic, link)
