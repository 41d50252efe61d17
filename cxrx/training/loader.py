"""Batches of films for an epoch, augmented in worker processes while the network computes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from cxrx.reading.processes import guarded_context
from cxrx.training.augment import augment, build_transform
from cxrx.training.films import FilmStore
from cxrx.training.recipes import Recipe
from cxrx.training.seeds import seed_of

Pick = tuple[int, int]  # epoch and row: a worker that lives through all epochs does not know which one it is
Batch = tuple[torch.Tensor, torch.Tensor]  # (B, H, W) uint8 films and their rows (B,)


class TrainingFilms(Dataset[Batch]):
    """Augmented films by epoch and row."""

    def __init__(self, store: FilmStore, ids: Sequence[str], recipe: Recipe, size: tuple[int, int]) -> None:
        self._store, self._ids, self._seed = store, ids, recipe.seed
        self._transform = build_transform(recipe, size)

    def __getitems__(self, picks: Sequence[Pick]) -> Batch:
        """Return a whole batch at once."""
        epoch, rows = picks[0][0], [row for _, row in picks]
        films = torch.from_numpy(self._store.pixels[rows])
        if self._transform is not None:
            seeds = [seed_of(self._seed, "augment", epoch, self._ids[row]) for row in rows]
            films = augment(films, seeds, self._transform)
        return films, torch.tensor(rows)


def _leave_interrupts(_worker: int) -> None:
    """Let the parent answer Ctrl-C, which reaches every process of a terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch


class Loader:
    """Yields the batches of an epoch.

    Parameters
    ----------
    workers
        Processes that augment; 0: this one. They end with this process, however it ends.
    """

    def __init__(self, films: TrainingFilms, workers: int, device: torch.device) -> None:
        self._batches: list[list[Pick]] = []  # of the epoch to come
        self._loader: DataLoader[Batch] = DataLoader(
            films,
            batch_sampler=self._batches,
            collate_fn=_as_it_is,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            multiprocessing_context=guarded_context() if workers else None,
            worker_init_fn=_leave_interrupts,
            generator=torch.Generator(),  # else it draws from the network's random numbers, once a run or once an epoch
        )

    def epoch(self, epoch: int, batches: Sequence[NDArray[np.intp]]) -> Iterator[Batch]:
        """Yield films and rows of `batches`, in order."""
        self._batches[:] = [[(epoch, int(row)) for row in batch] for batch in batches]
        return iter(self._loader)
