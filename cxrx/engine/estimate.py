"""How long a run still takes: from what its own work has taken so far, renewed with every piece of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

PREDICT = ""
"""Stands among the methods for everything else: reading, predicting, writing."""


def duration(seconds: float) -> str:
    """Write a number of seconds as people say it: ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@dataclass
class _Work:
    """What one method has to do and has done, in its own units: maps, or films where one sweep gives all findings.

    Attributes
    ----------
    planned, here, todo
        Units of all films seen so far, of the batch in hand, and what is left of that.
    seconds, units
        Measured. The first call also warms up, so it counts only until there is another.
    calls
        How many were measured.
    """

    planned: int = 0
    here: int = 0
    todo: int = 0
    seconds: float = 0.0
    units: int = 0
    calls: int = 0

    def measured(self, seconds: float, units: int) -> None:
        self.calls += 1
        before = 0 if self.calls == 2 else 1
        self.seconds = before * self.seconds + seconds
        self.units = before * self.units + units  # never 0 between two looks from another thread
        self.todo -= units

    @property
    def pace(self) -> float | None:
        """Seconds a unit; 0 where nothing was to do yet, None where there was and it is not done."""
        if self.units:
            return self.seconds / self.units
        return None if self.planned else 0.0


class Estimate:
    """The work of a run, as it is known so far.

    Parameters
    ----------
    total
        Files to do.
    methods
        Keys of the methods.
    clock
        Tells the seconds.
    """

    def __init__(self, total: int, methods: Mapping[str, object], clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = 0
        self._clock = clock
        self._work = {key: _Work() for key in (PREDICT, *methods)}
        self._since = clock()  # of what is measured now
        self._call: tuple[str, int, int, Callable[[], float]] | None = None  # method, films, units, share done

    def batch(self, films: int, units: Mapping[str, int]) -> None:
        """Note that `films` films are predicted, and what each method has to do on them."""
        for key, count in {PREDICT: films, **units}.items():
            work = self._work[key]
            work.planned += count
            work.here = work.todo = count
        self._measured(PREDICT, films)

    def begin(self, key: str, films: int, units: int, share: Callable[[], float] = lambda: 0.0) -> None:
        """Note that a method begins a call.

        Parameters
        ----------
        key
            The method.
        films, units
            The call's.
        share
            Tells which share of the call is done; always 0 of a method that does not say.
        """
        self._since, self._call = self._clock(), (key, films, units, share)

    def end(self, key: str, units: int) -> float:
        """Note that the call has ended; return its seconds."""
        self._call = None
        return self._measured(key, units)

    def batch_done(self, files: int) -> None:
        """Note that `files` files are done with, those without a film among them."""
        self.done += files
        for work in self._work.values():
            work.here = work.todo = 0

    def left(self) -> float | None:
        """Return the seconds that are left; None where a method has not been measured yet."""
        if not self._work[PREDICT].units:
            return None
        seconds = 0.0
        seen = max(self.done + self._work[PREDICT].here, 1)  # another thread may be between the two
        for key, work in self._work.items():
            pace, in_hand = self._pace(key)
            if pace is None:
                return None
            to_come = work.planned / seen * max(self.total - seen, 0)
            seconds += pace * (work.todo + to_come) - in_hand
        return seconds

    def _pace(self, key: str) -> tuple[float | None, float]:
        """Return the seconds a unit, as far as they are known, and those that are done of the call in hand."""
        pace, call = self._work[key].pace, self._call
        if call is None or call[0] != key:
            return pace, 0.0
        spent, units, share = self._clock() - self._since, call[2], call[3]()
        if pace is None:
            return (spent / share / units, spent) if share else (None, 0.0)
        return pace, pace * units * share if share else min(spent, pace * units)

    def in_words(self) -> str:
        """Say what is left, and what is in hand."""
        left = self.left()
        unknown = [key for key, work in self._work.items() if key and work.pace is None]
        if left is not None:
            text = f"about {duration(left)} left"
        elif unknown:
            text = f"how long it takes is known after the first films of {' and '.join(unknown)}"
        else:
            text = "how long it takes is known after the first films"
        call = self._call
        if call:
            films = f"{call[1]} film{'s' if call[1] > 1 else ''}"
            text += f" ({call[0]} on {films} for {duration(self._clock() - self._since)})"
        return text

    def _measured(self, key: str, units: int) -> float:
        now = self._clock()
        seconds = now - self._since
        self._since = now
        self._work[key].measured(seconds, units)
        return seconds
