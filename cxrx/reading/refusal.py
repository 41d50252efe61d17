"""How reading says no: one exception that carries the reason that the user is shown."""

from __future__ import annotations

from typing import Literal

from cxrx.specs import Unreadable


class RefusalError(Exception):
    """A file (or archive member) gives no film.

    Never leaves the package: :func:`cxrx.reading.readers.read_films` turns it into :class:`~cxrx.specs.Unreadable`.

    Parameters
    ----------
    kind
        ``"skipped"`` for what is not a chest film, ``"failed"`` for a film that could not be read.
    code
        A short stable word for the cause.
    message
        One sentence without patient data and without the path.
    """

    def __init__(self, kind: Literal["skipped", "failed"], code: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.message = message

    def unreadable(self, sha256: str = "", member: str = "") -> Unreadable:
        """Return the record that stands for this refusal."""
        return Unreadable(self.kind, self.code, self.message, sha256, member)


def skip(code: str, message: str) -> RefusalError:
    """Return a refusal of something that is not a film to be read."""
    return RefusalError("skipped", code, message)


def fail(code: str, message: str) -> RefusalError:
    """Return a refusal of a film that is broken, too large or in a form nothing here decodes."""
    return RefusalError("failed", code, message)
