"""Stop on request without losing finished work.

The first signal lets the batch in flight finish; if it takes longer than the grace time it is abandoned (what was
committed before stays). The second signal ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from cxrx.errors import AbandonBatchError

GRACE_SECONDS = 6.0


class Interrupts:
    """Context manager around a run.

    Attributes
    ----------
    signal_number
        The signal that asked to stop, or None.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}
        self._working = False

    def __enter__(self) -> Self:
        # Signals reach the main thread only; a run inside another thread is stopped by its owner.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
            if hasattr(signal, "SIGALRM"):
                self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_alarm)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if signal.SIGALRM in self._previous:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def batch(self) -> _Batch:
        """Return a context for work that may be abandoned; outside it the alarm never raises."""
        return _Batch(self)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None:
            sys.stderr.write("\nstopped at once; finished parts are kept\n")
            sys.stderr.flush()
            os._exit(128 + number)
        self.signal_number = number
        sys.stderr.write("\nstopping after the films in flight (once more: at once) ...\n")
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        if self._working:
            raise AbandonBatchError


class _Batch:
    def __init__(self, owner: Interrupts) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        self._owner._working = True  # noqa: SLF001 - one object in two parts

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._owner._working = False  # noqa: SLF001
        return kind is AbandonBatchError
