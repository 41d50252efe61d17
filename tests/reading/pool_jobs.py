"""What the workers of test_pool.py are asked to do; a module of its own, so that they can import it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cxrx.reading.item import Item


class Panic(BaseException):
    """As Rust decoders raise."""


def item(number: int, word: str = "") -> Item:
    return Item(Path("/nowhere"), f"{number}", number, 0, "cxrx/dicom", member=word)


def panic() -> None:
    raise Panic


def say_a_name() -> None:
    os.write(1, b"PatientName\n")
    os.write(2, b"PatientName\n")


def no_int(argument: str) -> int:
    return int(argument)  # the ValueError quotes the argument


def fail_to_load() -> Any:
    raise ZeroDivisionError


class Unloadable:
    """Can be pickled, cannot be unpickled."""

    def __reduce__(self) -> Any:
        return fail_to_load, ()


def work_beside(folder: str) -> None:
    """Leave a mark while it works."""
    mark = Path(folder, f"busy{os.getpid()}")
    mark.touch()
    time.sleep(0.3)
    mark.unlink()


def die_once(folder: str) -> int:
    """Be killed the first time; the second time, count who else is at work."""
    died = Path(folder, "died")
    if not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return 100 + len(list(Path(folder).glob("busy*")))


def meet(folder: str, own: str, other: str) -> None:
    """Hang the first time; the second time, wait for another item that does the same."""
    tried = Path(folder, f"tried-{own}")
    if not tried.exists():
        tried.touch()
        time.sleep(600)
    Path(folder, own).touch()
    while not Path(folder, other).exists():
        time.sleep(0.01)


ACTIONS: dict[str, Callable[..., Any]] = {
    "beside": work_beside,
    "once": die_once,
    "meet": meet,
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "abort": os.abort,
    "hang": lambda: time.sleep(600),
    "spin": lambda: ctypes.PyDLL(None).usleep(600_000_000),  # asleep in C with the interpreter's lock held
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "panic": panic,
    "quit": lambda: sys.exit(0),
    "raise": no_int,
    "unpicklable": lambda: lambda: None,
    "unloadable": Unloadable,
    "big": lambda count: np.ones(int(count), np.float32),
    "pid": os.getpid,
    "modules": lambda: sorted(sys.modules),
    "print": say_a_name,
}


def job(item: Item) -> Any:
    """Do what the item's `member` says; give back what that gives, or else the item's number."""
    action, *arguments = item.member.split() or [""]
    result = ACTIONS[action](*arguments) if action else None
    return item.size if result is None else result
