"""One run at a time: an advisory lock that the kernel lets go when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from cxrx.errors import LockedError, ResultsError
from cxrx.files.atomic import make_folder


class RunLock:
    """Hold `path` (created, with its folder, where missing) against a second run; a context manager.

    ``flock`` on a descriptor that is close-on-exec: programs this process starts do not inherit the lock, and a
    killed run leaves nothing to clean up.

    Raises
    ------
    LockedError
        On entering, if another process (or another lock object) holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._fd: int | None = None

    def __enter__(self) -> Self:
        while self._fd is None:
            make_folder(self.path.parent)
            fd = self._open()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(fd)
                raise LockedError(
                    "another run is writing these results", "wait until it has ended, or name another file with -o"
                ) from error
            except OSError as error:
                os.close(fd)
                raise LockedError(
                    f"the file system of the results cannot lock files ({error.strerror})",
                    "write to a local disk with -o, then move the file",
                ) from error
            if self._is_current(fd):
                self._fd = fd
            else:  # the last holder removed the file between our open and our lock: a lock on it guards nothing
                os.close(fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ResultsError(f"{self.path.name} could not be created: {error.strerror}") from error

    def _is_current(self, fd: int) -> bool:
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        held = os.fstat(fd)
        return (named.st_ino, named.st_dev) == (held.st_ino, held.st_dev)
