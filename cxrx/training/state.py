"""What a training keeps on disk to go on after a kill: whole epochs only, tensors and plain data only."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from cxrx.errors import CxrxError, LockedError, UsageError
from cxrx.files import atomic

LAST, SETTINGS = "last.pt", "train.json"


class Learner(Protocol):
    """What learns: a network, called `key` in the file, and its optimiser."""

    key: str
    network: nn.Module
    optimiser: torch.optim.Optimizer


@dataclass
class Progress:
    """Where a training stands between two epochs.

    There are no states of random generators: every number is drawn from the seed and the epoch.

    Attributes
    ----------
    epoch
        Epochs finished.
    best, best_epoch
        Highest score so far, and its epoch (from 1).
    history
        Rows of the tables of metrics.
    """

    epoch: int = 0
    best: float = float("-inf")
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    plateau: dict[str, float] = field(default_factory=dict)
    finished: bool = False


def save_state(folder: Path, progress: Progress, training: Learner) -> None:
    """Write everything that the next epoch needs, all or nothing."""
    content = {
        "progress": asdict(progress),
        "modules": {training.key: training.network.state_dict()},
        "optimiser": training.optimiser.state_dict(),
    }
    data = io.BytesIO()  # torch hides why a write failed
    torch.save(content, data)
    atomic.write_file(folder / LAST, data.getbuffer())


def load_state(folder: Path, training: Learner) -> Progress:
    """Load what :func:`save_state` wrote; a fresh start where it wrote nothing.

    Raises
    ------
    CxrxError
        The file is damaged or of other networks.
    """
    path = folder / LAST
    if not path.is_file():
        return Progress()
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        training.network.load_state_dict(content["modules"][training.key], strict=True)
        training.optimiser.load_state_dict(content["optimiser"])
        return Progress(**content["progress"])
    except Exception as error:
        raise CxrxError(
            f"{path.name} cannot be gone on with ({type(error).__name__})", "--no-resume starts anew"
        ) from error


def check_place(out: Path, data: Path) -> None:
    """Refuse a run among the films: its pictures would be taken for films, its folder for a class.

    Raises
    ------
    UsageError
        `out` lies in `data`.
    """
    if out.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"the run would lie among the films of {data.resolve().name}", "name a folder outside with -o")


def claim(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    resume: bool,
    outputs: tuple[str, ...],
    made_by: Mapping[str, str],
) -> None:
    """Make `folder` the home of the run with these settings.

    Parameters
    ----------
    settings
        All that decides the outcome, as JSON has it.
    resume
        Go on with a run of the same settings; False: begin anew, without what an earlier one left.
    outputs
        Files that belong to a run.
    made_by
        Versions and devices, for the record; a run may go on with others, though then not to the same bits.

    Raises
    ------
    LockedError
        The folder holds a run with other settings, or files of other people.
    """
    path = folder / SETTINGS
    wanted = json.loads(json.dumps(settings, sort_keys=True))
    if resume and path.is_file() and (folder / LAST).is_file():  # before the first epoch there is nothing to lose
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise CxrxError(f"{path.name} in {folder.name} is damaged", "--no-resume starts anew") from error
        if before == wanted:
            return
        other = sorted(key for key in before.keys() | wanted.keys() if before.get(key) != wanted.get(key))
        raise LockedError(
            f"{folder.name} holds a training with other settings ({', '.join(other)})",
            "name another folder with -o, or start anew with --no-resume",
        )
    if not path.is_file() and any((folder / name).exists() for name in outputs):
        raise LockedError(f"{folder.name} holds files that another program wrote", "name a new folder with -o")
    for name in outputs:
        atomic.unlink(folder / name)
    write_json(path, {"settings": wanted, "made_by": made_by})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, all or nothing."""
    atomic.write_file(path, json.dumps(as_plain(content), indent=2, ensure_ascii=False, allow_nan=False).encode())


def as_plain(value: Any) -> Any:
    """Return what JSON can hold: NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
