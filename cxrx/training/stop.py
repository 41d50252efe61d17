"""Stop a training on request: after the step in flight, with the last whole epoch kept."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from cxrx.errors import InterruptedRunError


class Stop:
    """Context manager that notes SIGINT and SIGTERM; a second one ends the process at once."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self, epoch: int) -> None:
        """Raise if somebody asked to stop; `epoch` epochs are finished.

        Raises
        ------
        InterruptedRunError
            Somebody did.
        """
        if self._number is not None:
            raise InterruptedRunError(
                f"stopped; {epoch} finished epochs are kept", self._number, "the same command goes on after them"
            )

    def watching(self, tick: Callable[[int], Any] | None) -> Callable[[int], None]:
        """Return a `tick` that also checks, for the time before the first epoch."""

        def ticked(count: int) -> None:
            if tick is not None:
                tick(count)
            self.check(0)

        return ticked

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._number is not None:
            os._exit(128 + number)
        self._number = number
        sys.stderr.write("\nstopping after this step (once more: at once) ...\n")
