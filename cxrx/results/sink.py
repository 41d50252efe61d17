"""A file object for HDF5 that never fails under it: HDF5 does not survive a full disk, so it never sees one."""

from __future__ import annotations

import io
import os

from cxrx.files import atomic

_PAGE = 1 << 16
_BUFFER = 1 << 20


class Sink(io.RawIOBase):
    """Writes to a descriptor until a write fails; keeps what comes after that in memory, and the error for later.

    HDF5 that meets an error while flushing leaves the file open and can take the interpreter down at exit. Here it
    meets none: it closes in peace, and :meth:`finish` raises. Even an interrupt in the middle of a write is kept.
    HDF5 also writes in small pieces, mostly one after the other; these are joined.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._position = 0
        self._size = 0
        self._buffer = bytearray()
        self._start = 0  # where the buffer belongs
        self._pages: dict[int, bytearray] = {}
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise the error that a write has met."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Write what is still held; raise the error that a write has met."""
        self._drain()
        self.check()
        os.ftruncate(self._fd, self._size)

    def write(self, data: object) -> int:
        """Write all of `data`; never fails."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        if self._position != self._start + len(self._buffer) or len(self._buffer) + len(view) > _BUFFER:
            self._drain()
            self._start = self._position
        self._buffer += view
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def readinto(self, buffer: object) -> int:
        """Read what has been written, wherever it went."""
        self._drain()
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = max(0, min(len(view), self._size - self._position))
        for number, begin, end, done in _pieces(self._position, count):
            view[done : done + end - begin] = self._page(number)[begin:end]
        self._position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the size as reading sees it; HDF5 does so once, at the end of what it has written."""
        self._size = self._position if size is None else size
        return self._size

    def flush(self) -> None:
        """Do nothing: the one who opened the descriptor syncs it at the end."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def _drain(self) -> None:
        held, self._buffer = self._buffer, bytearray()
        if held and self._error is None:
            try:
                atomic.write_at(self._fd, bytes(held), self._start)
            except BaseException as error:  # noqa: BLE001 - kept for check(); HDF5 must not see it
                self._error = error
        if held and self._error is not None:
            for number, begin, end, done in _pieces(self._start, len(held)):
                page = self._pages.setdefault(number, bytearray(self._page(number)))
                page[begin:end] = held[done : done + end - begin]

    def _page(self, number: int) -> bytes | bytearray:
        page = self._pages.get(number)
        return page if page is not None else os.pread(self._fd, _PAGE, number * _PAGE).ljust(_PAGE, b"\0")


def _pieces(position: int, count: int) -> list[tuple[int, int, int, int]]:
    """Cut a range at the borders of pages: (page, begin and end in it, how much lies before)."""
    pieces = []
    done = 0
    while done < count:
        number, begin = divmod(position + done, _PAGE)
        end = min(_PAGE, begin + count - done)
        pieces.append((number, begin, end, done))
        done += end - begin
    return pieces
