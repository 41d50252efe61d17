"""How far a method has got within one call, told by its loops to whoever watches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cxrx.explainers.targets import EMPTY

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(eq=False)
class Loop:
    """A loop that is running: how many of its steps are done; one inside another is part of its next step."""

    total: float
    done: float = 0.0


_loops: ContextVar[list[Loop] | None] = ContextVar("cxrx_loops", default=None)


@contextmanager
def watched() -> Iterator[list[Loop]]:
    """Collect the loops that run inside the block, the outermost first, for `share_done`."""
    loops: list[Loop] = []
    token = _loops.set(loops)
    try:
        yield loops
    finally:
        _loops.reset(token)


def share_done(loops: Sequence[Loop]) -> float:
    """Return which share of the work of `loops` is done, from any thread."""
    done, share = 0.0, 1.0
    for loop in tuple(loops):
        done += share * min(1.0, loop.done / loop.total)
        share /= loop.total
    return done


@contextmanager
def looping(total: float) -> Iterator[Loop]:
    """Run a loop of `total` steps inside the block, which counts them itself."""
    loop, loops = Loop(max(total, 1)), _loops.get()
    if loops is not None:
        loops.append(loop)
    try:
        yield loop
    finally:
        if loops is not None:
            loops.remove(loop)


def told(items: Iterable[T], total: int) -> Iterator[T]:
    """Yield `items`, of which there are `total`, and count them."""
    with looping(total) as loop:
        for item in items:
            yield item
            loop.done += 1


def told_pictures(targets: torch.Tensor) -> Iterator[int]:
    """Yield the pictures of which `targets` ``(B, T)`` ask something, and count them."""
    asked = (targets != EMPTY).any(dim=1).nonzero().flatten().tolist()
    return told(asked, len(asked))
