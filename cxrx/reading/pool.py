"""Decode workers: processes that a broken film may crash, hang or kill without taking anything else along."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from cxrx.errors import UsageError
from cxrx.reading.options import MOST_WORKERS
from cxrx.reading.processes import guarded_context
from cxrx.specs import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

    from cxrx.reading.item import Item

T = TypeVar("T")

IN_FLIGHT_PER_WORKER = 8
"""Films begun but not yet handed over, so that one slow film does not stop the other workers."""


NO_ANSWER = frozenset({"decoder-crash", "timeout", "decoder-error"})
"""Codes of items that a worker gave no answer to."""
BYTES_IN_FLIGHT = 2**26
"""As many bytes of items that carry their own may be begun before the next one waits."""


def cores() -> int:
    """Return how many processors this process may use: what a batch system grants, not what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@dataclass
class _Worker:
    process: ForkServerProcess
    pipe: Connection
    task: int = -1  # sequence number of the item it works on; -1: idle
    deadline: float = 0.0

    def kill(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()
        self.process.close()


@dataclass
class _Map(Generic[T]):
    """The state of one call of :meth:`DecodePool.map`."""

    function: Callable[[Item], T]
    source: Iterator[Item]
    limit: int
    count: int = 0
    order: deque[int] = field(default_factory=deque)  # numbers of items not yet handed over, oldest first
    items: dict[int, Item] = field(default_factory=dict)
    results: dict[int, T | Unreadable] = field(default_factory=dict)
    again: deque[int] = field(default_factory=deque)  # items whose worker died, to be tried once more
    late: deque[int] = field(default_factory=deque)  # items that took too long, to be tried once more among the others
    tried_again: set[int] = field(default_factory=set)
    alone: int = -1  # the item that no other may be worked on beside

    def draw(self) -> int | None:
        """Take the next item from the source, if there is one and the bounds allow it."""
        waiting = sum(len(item.data or b"") for item in self.items.values())
        if len(self.order) >= self.limit or waiting > BYTES_IN_FLIGHT:
            return None
        item = next(self.source, None)
        if item is None:
            return None
        number = self.count
        self.count += 1
        self.order.append(number)
        self.items[number] = item
        return number


class DecodePool:
    """A pool of decode workers, to be used as a context manager.

    Each worker has a pipe of its own and one item at a time, so that the culprit of a crash is always known. Workers
    are started by forkserver, import nothing of the caller's main module, ignore SIGINT and die with their parent.

    Parameters
    ----------
    workers
        Number of processes, at least one.
    timeout
        Seconds that one item may take.
    """

    def __init__(self, workers: int, *, timeout: float = 30.0) -> None:
        if workers < 1:
            raise ValueError(f"a pool needs at least one worker, not {workers}")
        if workers > MOST_WORKERS:
            raise UsageError(f"there are at most {MOST_WORKERS} decode processes, not {workers}")
        self._timeout = timeout
        self._context = guarded_context(
            ["cxrx.reading.prepare", "cxrx.reading.dicom", "cxrx.reading.picture", "pydicom.pixels", "PIL.Image"]
        )
        self._workers = [self._start() for _ in range(workers)]
        self._busy = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def map(
        self, function: Callable[[Item], T], items: Iterable[Item], *, in_flight: int | None = None
    ) -> Iterator[tuple[Item, T | Unreadable]]:
        """Yield ``(item, function(item))`` in the order of `items`.

        The pump runs in the caller's thread, between one result and the next.

        Parameters
        ----------
        function
            A picklable function (or partial of one) from an importable module.
        items
            Drawn from only as far as `in_flight` allows.
        in_flight
            Items begun and not yet handed over; eight a worker if None.

        Yields
        ------
        item, result
            The result is an :class:`~cxrx.specs.Unreadable` for an item whose worker died (``"decoder-crash"``) or
            took too long (``"timeout"``), both twice, or raised (``"decoder-error"``).
        """
        if self._busy:
            raise RuntimeError("this pool is already mapping")
        self._busy = True
        state: _Map[T] = _Map(function, iter(items), in_flight or IN_FLIGHT_PER_WORKER * len(self._workers))
        try:
            while self._feed(state):
                self._collect(state, block=state.order[0] not in state.results)
                self._feed(state)
                if state.order[0] in state.results:
                    number = state.order.popleft()
                    yield state.items.pop(number), state.results.pop(number)
        finally:
            self._busy = False
            # Work that nobody waits for any more must not answer a later call.
            for index, worker in enumerate(self._workers):
                if worker.task >= 0:
                    self._replace(index)

    def _feed(self, state: _Map[T]) -> bool:
        """Give items to idle workers as far as the bounds allow; return whether anything is left to hand over.

        An item whose worker died is tried again, alone: it may have lacked the memory that the others took. One that
        took too long is tried again like any other, so that many of them do not stop all workers in turn.
        """
        if not self._workers:
            raise RuntimeError("this pool is closed")
        busy = {worker.task for worker in self._workers if worker.task >= 0}
        if state.again and not busy:
            state.alone = state.again.popleft()
            self._assign(0, state.alone, state)
        elif not state.again and state.alone not in busy:
            for index, worker in enumerate(self._workers):
                if worker.task >= 0:
                    continue
                number = state.late.popleft() if state.late else state.draw()
                if number is None:
                    break
                self._assign(index, number, state)
        return bool(state.order)

    def _assign(self, index: int, number: int, state: _Map[T]) -> None:
        message = (state.function, state.items[number])
        try:
            self._workers[index].pipe.send(message)
        except OSError:  # it died while idle, which is not the item's fault
            self._replace(index)
            self._workers[index].pipe.send(message)
        self._workers[index].task = number
        self._workers[index].deadline = time.monotonic() + self._timeout

    def _collect(self, state: _Map[T], *, block: bool) -> None:
        """Take the answers that are there; if `block`, wait until a worker answers, dies or runs out of time."""
        busy = {worker.pipe: index for index, worker in enumerate(self._workers) if worker.task >= 0}
        patience = min((self._workers[index].deadline for index in busy.values()), default=0.0) - time.monotonic()
        for pipe in connection.wait(list(busy), max(0.0, patience) if block else 0.0):
            self._receive(busy[pipe], state)  # type: ignore[index]
        for index in busy.values():
            worker = self._workers[index]
            if worker.task >= 0 and worker.deadline <= time.monotonic() and not worker.pipe.poll():
                reason = Unreadable("failed", "timeout", f"decoding took longer than {self._timeout:g} s, twice")
                self._give_up(index, state, reason)

    def _receive(self, index: int, state: _Map[T]) -> None:
        worker = self._workers[index]
        try:
            ok, value = worker.pipe.recv()
        except Exception:  # noqa: BLE001 - EOFError when it died; unpickling half an answer raises nearly anything
            self._give_up(
                index, state, Unreadable("failed", "decoder-crash", "the decoder crashed on this file, twice")
            )
            return
        state.results[worker.task] = value if ok else Unreadable("failed", "decoder-error", value)
        worker.task = -1

    def _give_up(self, index: int, state: _Map[T], reason: Unreadable) -> None:
        """Put a new worker in the place of one that died; its item fails where this is the second time."""
        number = self._workers[index].task
        if number in state.tried_again:
            state.results[number] = reason
        else:
            state.tried_again.add(number)
            (state.late if reason.code == "timeout" else state.again).append(number)
        self._replace(index)

    def _replace(self, index: int) -> None:
        self._workers[index].kill()
        self._workers[index] = self._start()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._timeout), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


# ---------------------------------------------------------------------------------------------------------------------
# In the worker's process

GRACE = 2.0
"""Seconds after the time limit at which a worker ends by itself, should nobody be left to end it."""


def _work(pipe: Connection, timeout: float) -> None:
    """Answer items until the pipe closes: ``(True, result)`` or ``(False, sentence)``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - os.devnull is no path to take apart
        if not os.environ.get("CXRX_DEBUG"):
            # Native decoders print, and what they print may echo a header.
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        while True:
            task: list[bytes] = []  # emptied while it is answered, so that a film's bytes are there once
            try:
                task.append(pipe.recv_bytes())
            except (EOFError, OSError):
                return
            # A timer in C: it works even where a decoder hangs holding the interpreter's lock.
            faulthandler.dump_traceback_later(timeout + GRACE, exit=True, file=nowhere)
            answer = _answer(task)
            faulthandler.cancel_dump_traceback_later()
            try:
                pipe.send(answer)
            except OSError:
                return
            except Exception as error:  # noqa: BLE001 - pickling raises what the result's classes raise
                pipe.send((False, f"the result cannot be handed over ({type(error).__name__})"))


def _answer(task: list[bytes]) -> tuple[bool, Any]:
    try:
        function, item = pickle.loads(task.pop())  # noqa: S301 - from our own parent
        return True, function(item)
    except BaseException as error:  # noqa: BLE001 - Rust decoders panic with a BaseException
        return False, f"the decoder raised {type(error).__name__}"


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
