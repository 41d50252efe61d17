"""What a run of ``cxrx train`` and one of ``cxrx pretrain`` have in common around their epochs."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal, Self

import cxrx
from cxrx.errors import CxrxError, InterruptedRunError
from cxrx.files.lock import RunLock
from cxrx.models.model import Model
from cxrx.reading.pool import cores
from cxrx.training.films import Decoded, Unread, decode
from cxrx.training.metrics import Evaluation
from cxrx.training.recipes import Recipe, SplitRule
from cxrx.training.state import LAST, SETTINGS, Progress, claim
from cxrx.training.weights import CARD, CURVE, FAILURES, METRICS, MODEL, REPORT, write_failures

_CACHE, _LOCK = "films", ".lock"
_MOST_WORKERS = 16


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What ``cxrx train`` and ``cxrx pretrain`` both need.

    Attributes
    ----------
    films
        Films to learn from; None: all.
    workers
        Processes that decode and augment; None: one a core for decoding, none for augmenting beside a network on the
        CPU.
    cache
        Folder for decoded films that other trainings may use too; None: in `out`, until the training ends.
    resume
        Go on with a training of the same settings in `out`.
    """

    data: Path
    model: str
    out: Path
    films: int | None = None
    input_size: int | None = None
    in_chans: Literal[1, 3] | None = None
    split: SplitRule = "auto"
    device: str = "auto"
    workers: int | None = None
    cache: Path | None = None
    resume: bool = True

    outputs: ClassVar[tuple[str, ...]]  # files that belong to a run


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(RunConfig):
    """What ``cxrx train`` needs.

    Attributes
    ----------
    init
        See :func:`cxrx.training.network.make_network`.
    labels
        Findings to learn; None: all that the data name.
    """

    recipe: Recipe
    init: str = "random"
    labels: Sequence[str] | None = None

    outputs = (LAST, MODEL, METRICS, CURVE, CARD, REPORT, FAILURES)


@dataclass
class TrainingResult:
    """What came of a training.

    Attributes
    ----------
    valid, test
        Numbers of the best weights; `test` is None where there are no test films.
    unread
        Films that gave no pixels.
    """

    out: Path
    findings: tuple[str, ...]
    progress: Progress
    valid: Evaluation | None = None
    test: Evaluation | None = None
    unread: tuple[Unread, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)


class Stop:
    """Context manager that notes SIGINT and SIGTERM, for the step in flight; a second one ends the process at once."""

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

    def watching(self, tick: Callable[[int], Any]) -> Callable[[int], None]:
        """Return a `tick` that also checks, for the time before the first epoch."""

        def ticked(count: int) -> None:
            tick(count)
            self.check(0)

        return ticked

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._number is not None:
            os._exit(128 + number)
        self._number = number
        sys.stderr.write("\nstopping after this step (once more: at once) ...\n")


@contextmanager
def in_folder(config: RunConfig, settings: Mapping[str, Any], model: Model) -> Iterator[Stop]:
    """Claim the folder of a run, and take the decoded films away once it has ended; yields what stops it.

    Raises
    ------
    LockedError
        The folder is in use, or holds a run with other settings, or files of other people.
    """
    with RunLock(config.out / _LOCK), Stop() as stop:
        claim(config.out, settings, resume=config.resume, outputs=config.outputs, made_by=versions(model))
        yield stop
        if config.cache is None:
            shutil.rmtree(config.out / _CACHE, ignore_errors=True)


@contextmanager
def decoded_films(
    config: RunConfig,
    paths: Sequence[str],
    model: Model,
    tick: Callable[[int], Any],
    views: Mapping[str, str] | None = None,
) -> Iterator[Decoded]:
    """Decode films and list those that give no pixels; whoever cannot use them, inside, leaves nothing behind.

    Parameters
    ----------
    config, model
        What the user asks for, and whose input the films become.
    paths, tick, views
        See :func:`cxrx.training.films.decode`.
    """
    cache = config.cache or config.out / _CACHE
    workers = cores() if config.workers is None else config.workers
    try:
        decoded = decode(config.data, paths, model.input, cache, workers=workers, views=views, tick=tick)
        yield decoded
    except CxrxError:
        if not (config.out / LAST).exists():
            (config.out / SETTINGS).unlink(missing_ok=True)
            shutil.rmtree(config.out / _CACHE, ignore_errors=True)
        raise
    write_failures(config.out, decoded.unread)


def report_of(config: RunConfig, log: Callable[[str], Any]) -> dict[str, Any] | None:
    """Return what a finished run reported; None: it has not."""
    if not (config.out / REPORT).is_file():
        return None
    log(f"{config.out.name} is finished; nothing to do (--no-resume starts anew)")
    report: dict[str, Any] = json.loads((config.out / REPORT).read_text(encoding="utf-8"))
    return report


def augmenting(asked: int | None, device: str) -> int:
    """Return how many processes augment: beside a network on the CPU they would only take its cores."""
    return min(_MOST_WORKERS, cores() if asked is None else asked) if device != "cpu" else 0


def model_name(name: str) -> str:
    """Return the name under which the network can be built again; of the user's own file only its name."""
    file, colon, function = name.rpartition(":")
    return f"{Path(file).name}:{function}" if colon else name


def versions(model: Model) -> dict[str, str]:
    """Return what a run was made with."""
    import timm
    import torch
    import torchvision

    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
    packages = {package.__name__: package.__version__ for package in (cxrx, torch, torchvision, timm)}
    return packages | {
        "python": platform.python_version(), "device": device, "threads": str(torch.get_num_threads()),
    }  # fmt: skip
