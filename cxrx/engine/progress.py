"""Show how far a run is: a bar on a terminal, a line now and then elsewhere. Everything goes to stderr."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

log = logging.getLogger("cxrx")

FIRST_LINE_AFTER = 8.0  # seconds: an estimate must be on the screen within fifteen
LINE_EVERY = 30.0


def duration(seconds: float) -> str:
    """Write a number of seconds as people say it: ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Progress over a known number of films.

    Parameters
    ----------
    total
        Films to do.
    what
        The work, e.g. ``"predict"``.
    """

    def __init__(self, total: int, what: str) -> None:
        self.total = total
        self.what = what
        self.done = 0
        self.failed = 0
        self._started = time.monotonic()
        self._next_line = self._started + FIRST_LINE_AFTER
        self._bar = tqdm(total=total, desc=what, unit="film", file=sys.stderr, disable=None, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, films: int, failed: int = 0) -> None:
        """Count `films` more, `failed` of them without a result."""
        self.done += films
        self.failed += failed
        self._bar.update(films)
        if self.failed:
            self._bar.set_postfix(failed=self.failed, refresh=False)
        now = time.monotonic()
        if self._bar.disable and now >= self._next_line:
            self._next_line = now + LINE_EVERY
            log.info(self._line(now))

    def _line(self, now: float) -> str:
        rate = self.done / max(now - self._started, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        text = f"{self.what}: {self.done}/{self.total} films, {rate:.2g} films/s, {self.failed} failed"
        return f"{text}, about {duration(left)} left" if self.done else text
