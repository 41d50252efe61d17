"""How much memory a film may take while it is read; what it will take is asked before anything is allocated."""

from __future__ import annotations

import os

from cxrx.errors import UsageError
from cxrx.reading.refusal import fail

VARIABLE = "CXRX_FILM_MEMORY"
DEFAULT_MIB = 576


def film_memory() -> int:
    """Return the bytes that reading one film may take, all intermediate arrays counted; the environment says MiB."""
    said = os.environ.get(VARIABLE, "") or str(DEFAULT_MIB)
    if not said.isdecimal() or not 16 <= int(said) <= 2**24:
        raise UsageError(f"{VARIABLE} is {said!r}, which is no number of MiB from 16 to {2**24}")
    return int(said) << 20


def check_memory(what: str, need: int, limit: int) -> None:
    """Refuse `what`, which takes `need` bytes, where only `limit` are allowed."""
    if need > limit:
        raise fail("over-limit", over_limit(what, need, limit))


def over_limit(what: str, need: int, limit: int) -> str:
    """Return the sentence that names the limit and what raises it."""
    return f"{what} takes {-(-need >> 20)} MiB of memory; the limit is {limit >> 20} MiB, which {VARIABLE} raises"
