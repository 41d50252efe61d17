"""Where films come from: an ordered stream of decoded pictures, read ahead in other processes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from cxrx.reading.item import Item
from cxrx.reading.options import ReadOptions
from cxrx.reading.pool import DecodePool
from cxrx.reading.prepare import Prepared, prepare_item
from cxrx.specs import InputSpec, Unreadable

Reading = tuple[Item, list[Prepared | Unreadable]]


@contextmanager
def decoded(
    items: Iterable[Item], spec: InputSpec, options: ReadOptions, workers: int, ahead: int
) -> Iterator[Iterator[Reading]]:
    """Decode `items` in `workers` processes while the caller computes; yields an iterator in the order of `items`.

    Parameters
    ----------
    items
        Files and archive members.
    spec
        The input grid of the model.
    options
        Of reading.
    workers
        0 decodes in this process: simple to debug, and not safe from files that crash a decoder.
    ahead
        How many finished films may wait; it bounds the memory.
    """
    waiting: queue.Queue[Reading | BaseException | None] = queue.Queue(maxsize=ahead)
    stop = threading.Event()
    thread = threading.Thread(target=_pump, args=(items, spec, options, workers, waiting, stop), daemon=True)
    thread.start()
    try:
        yield _drain(waiting)
    finally:
        stop.set()
        thread.join()


def _drain(waiting: queue.Queue[Reading | BaseException | None]) -> Iterator[Reading]:
    while (entry := waiting.get()) is not None:
        if isinstance(entry, BaseException):
            raise entry
        yield entry


def _pump(
    items: Iterable[Item],
    spec: InputSpec,
    options: ReadOptions,
    workers: int,
    waiting: queue.Queue[Reading | BaseException | None],
    stop: threading.Event,
) -> None:
    """Feed the queue from a thread of its own, so that decoding goes on while the model computes."""

    def put(entry: Reading | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    prepare = partial(prepare_item, spec=spec, options=options)
    try:
        with DecodePool(workers) if workers else nullcontext() as pool:
            pairs = pool.map(prepare, items) if pool is not None else ((item, prepare(item)) for item in items)
            for item, result in pairs:
                if not put((item, [result] if isinstance(result, Unreadable) else result)):
                    return
    except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
        put(error)
    else:
        put(None)
