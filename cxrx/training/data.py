"""The labels of a folder, as a training needs them; the one place that knows the interface of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxrx.datasets import NO_FINDING, LabelledFolder, Splits, make_splits, open_dataset
from cxrx.errors import UsageError
from cxrx.training.recipes import Recipe, SplitRule
from cxrx.training.seeds import seed_of

Task = Literal["multi-label", "binary", "multi-class"]

SPLITS = ("train", "valid", "test")
FRACTIONS = (0.7, 0.1, 0.2)
_EXCLUSIVE = "class-folders"  # the layout in which a film has one class


@dataclass(frozen=True, eq=False)
class Labelled:
    """Films with labels and a split; no pixel is read.

    Attributes
    ----------
    findings
        In the order of the network's outputs.
    paths
        ``N``, relative to the folder.
    labels
        ``(N, K)`` int8: 1 present, 0 absent, -2 unknown; -1 uncertain is settled by the recipe.
    patients, views, splits
        ``N`` each; the view that a table tells, else empty.
    split_kind
        Whether the split was published or drawn.
    notes
        Sentences on films that were left out.
    """

    name: str
    task: Task
    findings: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int8]
    patients: tuple[str, ...]
    views: tuple[str, ...]
    splits: tuple[str, ...]
    split_kind: str
    notes: tuple[str, ...] = ()

    def rows(self, split: str) -> NDArray[np.intp]:
        """Return the rows of one split."""
        return np.flatnonzero(np.asarray(self.splits) == split)

    def take(self, rows: NDArray[np.intp], *notes: str) -> Labelled:
        """Return only these rows."""
        kept = rows.tolist()
        names = ("paths", "patients", "views", "splits")
        parts: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in kept) for name in names}
        return replace(self, **parts, labels=self.labels[rows], notes=(*self.notes, *notes))

    def without_copies(self, ids: Sequence[str]) -> Labelled:
        """Take films out of their split that could not be read (no id) or are in another one that counts more.

        The same bytes under two names, perhaps of two patients, must not be learned and tested: the test keeps them,
        then validation. Within a split the first one counts.
        """
        owner: dict[str, int] = {}
        for split in reversed(SPLITS):
            for row in self.rows(split).tolist():
                owner.setdefault(ids[row], row)
        splits = tuple(
            split if image_id and owner.get(image_id) == row else ""
            for row, (split, image_id) in enumerate(zip(self.splits, ids, strict=True))
        )
        copies = sum(bool(image_id) and not new for image_id, new in zip(ids, splits, strict=True))
        note = (f"{copies} films are copies of others, byte for byte, and are left out",) if copies else ()
        return replace(self, splits=splits, notes=(*self.notes, *note))


def read_labels(folder: Path, recipe: Recipe, findings: Sequence[str] | None, split: SplitRule = "auto") -> Labelled:
    """Read labels, patients and splits.

    Parameters
    ----------
    folder
        Of films, in a layout that :mod:`cxrx.datasets` knows.
    recipe
        Tells the task, and what uncertain labels count as.
    findings
        In the order of the outputs; None: all that the folder names.
    split
        The published one where there is one, or one drawn by patient.

    Raises
    ------
    UsageError
        Nothing is known of the films, a finding is not among what is known, a patient is in several published splits,
        or a finding has no positive or no negative film to learn from.
    """
    dataset = open_dataset(folder)
    task, names = choose_task(dataset, recipe.task, findings)
    labels = dataset.label_matrix(names)
    settled = {"ignore": -2, "positive": 1, "negative": 0}[recipe.uncertain]
    labels = np.where(labels == -1, np.int8(settled), labels)
    placed = draw_or_take(dataset, split, recipe.split_seed)
    if placed.shared_patients:
        raise UsageError(
            f"{placed.shared_patients} patients have films in more than one of the splits that {folder.name} "
            "gives, so a test would not be one",
            "--split patient draws a split by patient",
        )
    paths, views = (tuple(column) for column in ([p for p, _ in dataset.films()], [t.view for _, t in dataset.films()]))
    known = (paths, labels, tuple(dataset.patients), views, placed.of, placed.kind, tuple(dataset.problems))
    films = _usable(Labelled(dataset.name, task, tuple(names), *known))
    check_classes(films)
    return films


def choose_task(
    dataset: LabelledFolder, task: Literal["auto", "multi-label", "binary", "multi-class"], given: Sequence[str] | None
) -> tuple[Task, list[str]]:
    """Return the task and the findings in the order of the outputs."""
    named = list(given) if given is not None else list(dataset.findings)
    abnormal = named if given is not None else [name for name in named if name != NO_FINDING]
    if task == "auto":
        exclusive = dataset.name == _EXCLUSIVE and len(abnormal) > 1
        task = "multi-class" if exclusive else "binary" if len(abnormal) == 1 else "multi-label"
    names = named if task == "multi-class" else abnormal
    if not names:
        raise UsageError(f"{dataset.folder.name} speaks of no finding that could be learned", "name some with --labels")
    if task == "binary" and len(names) != 1:
        raise UsageError(f"a binary task has one finding, and there are {len(names)}", f"--labels {names[0]}")
    if task == "multi-class" and len(names) < 2:
        raise UsageError("a multi-class task needs at least two classes", "-O task=binary learns one finding")
    return task, names


def draw_or_take(dataset: LabelledFolder, rule: SplitRule, seed: int) -> Splits:
    """Return the split of every film of the folder: the published one, or with ``"patient"`` one drawn by patient.

    The seed is not that of the training: with another seed of the weights the test films must stay the same, or what
    was pre-trained on films of one seed would be tested on them with the next.
    """
    if rule == "patient":
        return make_splits([""] * len(dataset.patients), dataset.patients, seed, FRACTIONS)
    return dataset.splits(seed)


def _usable(films: Labelled) -> Labelled:
    """Leave out films without a split or without a label to learn from."""
    placed = np.isin(films.splits, SPLITS)
    if films.task == "multi-class":
        known = (films.labels == 1).sum(axis=1) == 1
        what = "do not have exactly one of the classes"
    else:
        known = (films.labels >= 0).any(axis=1)
        what = "have no label of these findings"
    notes = []
    if not placed.all():
        notes.append(f"{(~placed).sum()} films are in no split and are left out")
    if (placed & ~known).any():
        notes.append(f"{(placed & ~known).sum()} films {what} and are left out")
    return films.take(np.flatnonzero(placed & known), *notes)


def check_classes(films: Labelled) -> None:
    """Refuse to learn what is never seen, and to choose a model on nothing.

    Raises
    ------
    UsageError
        A split that must have films has none, or a finding lacks positive or negative films for training.
    """
    train = films.labels[films.rows("train")]
    if len(train) < 2 or not len(films.rows("valid")):
        raise UsageError(
            f"there are {len(train)} films to train on and {len(films.rows('valid'))} to choose the best epoch on",
            "both are needed; --split patient draws a split by patient",
        )
    for k, finding in enumerate(films.findings):
        for value, word in ((1, "positive"), (0, "negative")):
            if not (train[:, k] == value).any():
                others = ",".join(name for name in films.findings if name != finding)
                raise UsageError(
                    f"{finding} has no {word} film among the {len(train)} for training",
                    f"leave it out: --labels {others}" if others else "",
                )


def of_one_class(films: Labelled) -> list[str]:
    """Return the findings whose validation films are all positive or all negative: for them, nothing can be chosen."""
    valid = films.labels[films.rows("valid")]
    both = (valid == 1).any(axis=0) & (valid == 0).any(axis=0)
    return [name for name, known in zip(films.findings, both.tolist(), strict=True) if not known]


def fewer(films: Labelled, count: int, seed: int) -> Labelled:
    """Keep only `count` training films, as if fewer had been labelled; the other splits stay whole.

    A film's place in the queue depends on the seed and its patient: 100 films are among the 200 of the same seed.
    """
    train = films.rows("train")
    queue = sorted(train.tolist(), key=lambda i: (seed_of(seed, "fewer", films.patients[i]), films.paths[i]))
    kept = np.sort(np.concatenate([np.asarray(queue[:count], np.intp), films.rows("valid"), films.rows("test")]))
    chosen = films.take(kept)
    check_classes(chosen)
    return chosen
