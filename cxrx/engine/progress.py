"""Show how far a run is: a bar on a terminal, a line now and then elsewhere. Everything goes to stderr."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tqdm import tqdm

from cxrx.engine.estimate import Estimate, duration

log = logging.getLogger("cxrx")

FIRST_LINE_AFTER = 8.0  # seconds
LINE_EVERY = 25.0  # a line at least every 30 s, also where the thread is kept waiting
REFRESH_EVERY = 1.0  # of the bar


class Heartbeat:
    """Calls `say` now and then from a thread of its own, however long one piece of the work inside the block takes.

    Parameters
    ----------
    say
        What to call.
    first, every
        Seconds until the first call, and between calls.
    """

    def __init__(self, say: Callable[[], None], first: float, every: float) -> None:
        self._say, self._first, self._every = say, first, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="cxrx-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        wait = self._first
        while not self._over.wait(wait):
            self._say()
            wait = self._every


def telling(what: str) -> Heartbeat:
    """Return a context in which it is said now and then that `what` goes on."""
    begun = time.monotonic()
    return Heartbeat(
        lambda: log.info("%s: %s so far", what, duration(time.monotonic() - begun)), LINE_EVERY, LINE_EVERY
    )


class Progress(Heartbeat):
    """Progress over a known number of films.

    Parameters
    ----------
    estimate
        Knows how many films are to do, and what is left.
    what
        The work, e.g. ``"predict"``.
    """

    def __init__(self, estimate: Estimate, what: str) -> None:
        self.estimate = estimate
        self.what = what
        self.failed = 0
        self._bar = tqdm(
            total=estimate.total, desc=what, unit="film", file=sys.stderr, disable=None, dynamic_ncols=True,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} {unit}s, {elapsed}{postfix}",
        )  # fmt: skip
        first, every = (FIRST_LINE_AFTER, LINE_EVERY) if self._bar.disable else (REFRESH_EVERY, REFRESH_EVERY)
        super().__init__(self._tell, first, every)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._bar.close()

    def update(self, files: int, failed: int) -> None:
        """Count `files` more; `failed` gave no result so far."""
        self.failed = failed
        self.estimate.batch_done(files)
        self._bar.update(files)

    def _tell(self) -> None:
        rest = f"{self.failed} failed, {self.estimate.in_words()}"
        if self._bar.disable:
            log.info("%s: %d/%d films, %s", self.what, self.estimate.done, self.estimate.total, rest)
        else:
            self._bar.set_postfix_str(rest)
