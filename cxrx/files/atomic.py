"""Every byte that reaches the disk passes here: temporary name, write, fsync, rename, fsync of the folder.

The steps are module-level functions, looked up at each call, so that a test can make any one of them fail. A reader
therefore sees the old file or the new one, whole, whatever happens in between; what a killed process leaves behind is
a temporary file that :func:`strays` finds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from cxrx.errors import CxrxError, DiskFullError, ResultsError

_TEMPORARY = ".cxrx-tmp"
FULL = (errno.ENOSPC, errno.EDQUOT)
# Some network file systems refuse these two calls altogether; the write itself is then all there is.
_UNSUPPORTED = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
_MAKE_ROOM = "make room and start the same command again; finished parts are intact, and it goes on where it stopped"


# ---------------------------------------------------------------------------------------------------------------------
# The steps


def create(path: Path, mode: int) -> int:
    """Open a new temporary file for writing and reading; close-on-exec, as all of Python's descriptors are."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)


def allocate(fd: int, size: int) -> None:
    """Reserve `size` bytes, so that a full disk shows before the first of them is written."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def sync(fd: int) -> None:
    """Wait until the file is on the disk."""
    os.fsync(fd)


def rename(old: Path, new: Path) -> None:
    """Give the file its name, in place of whatever had it."""
    old.replace(new)


def sync_folder(folder: Path) -> None:
    """Wait until the new name is on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(fd)


def unlink(path: Path) -> None:
    """Remove a file; one that is gone already is fine."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ResultsError(f"{path.name} could not be removed: {error.strerror}") from error


def make_folder(path: Path) -> None:
    """Create a folder for its owner only, where it is missing.

    Raises
    ------
    ResultsError
        If the system refuses.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{path.name} could not be created: {error.strerror}") from error


# ---------------------------------------------------------------------------------------------------------------------
# Whole files


def write_file(path: Path, data: bytes | memoryview, *, mode: int = 0o666) -> None:
    """Write `data` to `path`, all or nothing.

    Raises
    ------
    DiskFullError
        If the disk is full; `path` is as it was.
    ResultsError
        If the system refuses the write for another reason.
    """
    with replacing(path, mode=mode) as fd:
        allocate(fd, len(data))
        write_at(fd, data, 0)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[int]:
    """Open a temporary file that becomes `path` when the block ends well; yields its descriptor.

    An error or an interrupt removes the temporary file; a kill leaves it. Raises as :func:`write_file` does.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        fd = create(temporary, mode)
        try:
            yield fd
            sync(fd)
        finally:
            os.close(fd)
        rename(temporary, path)
        sync_folder(path.parent)
    except (Exception, KeyboardInterrupt) as error:
        with contextlib.suppress(OSError):  # the error that matters is the one under way
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise sentence(error, path.name) from error
        raise


def sentence(error: OSError, name: str, hint: str = _MAKE_ROOM) -> CxrxError:
    """Turn a system error on the file called `name` into one of ours; `hint` is for a full disk."""
    if error.errno in FULL:
        return DiskFullError(f"the disk is full: {name} could not be written", hint)
    return ResultsError(f"{name} could not be written: {error.strerror or type(error).__name__}")


def require_space(folder: Path, size: int, name: str) -> None:
    """Raise DiskFullError unless `folder`'s disk has room for `size` more bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskFullError(
            f"writing {name} may take {size / 1e6:,.0f} MB and the disk has {free / 1e6:,.0f} MB left", _MAKE_ROOM
        )


def strays(folder: Path, names: Iterable[str] = ("",)) -> list[Path]:
    """Return temporary files that killed writers left in `folder`: of the files called `names`, or of any."""
    starts = tuple(f".{name}." if name else "." for name in names)
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if path.name.startswith(starts) and path.name.endswith(_TEMPORARY))
