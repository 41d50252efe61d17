"""A labelled folder as one thing: its films, what is known of each, and how they are split."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrx.datasets.listing import Listing, list_folder
from cxrx.datasets.names import canonical
from cxrx.datasets.sheet import split_of_path
from cxrx.datasets.splits import FRACTIONS, Splits, make_splits
from cxrx.datasets.truth import FolderTruth, discover, nothing_known
from cxrx.errors import UsageError
from cxrx.specs import FilmTruth, Split

UNKNOWN = -2
"""In a label matrix: nothing is known; 1 present, 0 absent, -1 uncertain."""


class LabelledFolder:
    """Films of a folder and what is known of them. No pixel is read.

    Attributes
    ----------
    folder
        Where the films lie.
    name
        That of the data set.
    findings
        Canonical names.
    paths
        Every film, labelled or not, posix and relative to the folder.
    unlabelled
        Films that no table speaks of.
    """

    def __init__(self, folder: Path, source: FolderTruth, listing: Listing) -> None:
        self.folder, self.source, self.listing = folder, source, listing
        self.name, self.findings = source.name, source.findings
        source.settle(source.place(path) for path in (*listing.films, *listing.bare))
        known = {path: source.truth(path) for path in listing.films}
        bare = {path: truth for path in listing.bare if (truth := source.truth(path)) is not None}
        self.paths = sorted([*known, *bare])
        self.unlabelled = [path for path, truth in known.items() if truth is None]
        labelled = {path: truth for path, truth in (known | bare).items() if truth is not None}
        self._truth = dict(sorted(labelled.items()))
        self._splits: dict[tuple[int, tuple[float, ...]], Splits] = {}
        self._split_of: dict[int, dict[str, Split]] = {}

    @property
    def problems(self) -> list[str]:
        """Sentences on what was left out of the tables, not understood, or contradicts itself."""
        return [*self.source.problems, *self.source.notes()]

    def truth(self, relative_path: str) -> FilmTruth | None:
        """Return what is known of a film."""
        return self._truth.get(relative_path) or self.source.truth(relative_path)

    def films(self) -> list[tuple[str, FilmTruth]]:
        """Return the films that something is known of, in the order of their paths."""
        return list(self._truth.items())

    @cached_property
    def patients(self) -> list[str]:
        """A key a film of :meth:`films`; a film whose patient no table names counts as one of its own."""
        return [truth.patient or f"film {path}" for path, truth in self._truth.items()]

    def splits(self, seed: int = 0, fractions: Sequence[float] = FRACTIONS) -> Splits:
        """Return the split of every film of :meth:`films`: the published one, else one drawn by patient."""
        key = (seed, tuple(fractions))
        if key not in self._splits:
            official = [truth.split or split_of_path(path) for path, truth in self._truth.items()]
            self._splits[key] = make_splits(official, self.patients, seed, fractions)
        return self._splits[key]

    def split(self, path: str, seed: int = 0) -> Split:
        """Return the split of one film; ``""`` where it has none."""
        if seed not in self._split_of:
            self._split_of[seed] = dict(zip(self._truth, self.splits(seed).of, strict=True))
        return self._split_of[seed].get(path, "")

    def label_matrix(self, findings: Sequence[str] | None = None) -> NDArray[np.int8]:
        """Return the labels of :meth:`films`.

        Parameters
        ----------
        findings
            The columns, in any usual spelling; None: all, in the order of :attr:`findings`.

        Returns
        -------
        labels
            ``(N, K)``: 1 present, 0 absent, -1 uncertain, -2 unknown.

        Raises
        ------
        UsageError
            The data set does not speak of a finding; the nearest is suggested.
        """
        names = self.findings if findings is None else [self._finding(name) for name in findings]
        labels = np.full((len(self._truth), len(names)), UNKNOWN, dtype=np.int8)
        rows: dict[int, list[int]] = {}  # many films share one set of labels
        for i, truth in enumerate(self._truth.values()):
            shared = id(truth.labels)
            if shared not in rows:
                rows[shared] = [truth.labels.get(name, UNKNOWN) for name in names]
            labels[i] = rows[shared]
        return labels

    def _finding(self, name: str) -> str:
        if canonical(name) in self.findings:
            return canonical(name)
        near = difflib.get_close_matches(canonical(name), self.findings, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it speaks of {', '.join(self.findings)}"
        raise UsageError(f"the data set knows no finding {name!r}", hint)


def open_dataset(folder: str | Path) -> LabelledFolder:
    """Open a labelled folder, whichever data set it is.

    Raises
    ------
    UsageError
        If it is no folder, holds no film, or nothing is known of its films.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder.name} is no folder", "give the folder that holds the films and their tables")
    source, listing = discover([folder]), list_folder(folder)
    if not source.name:
        sentence = f"nothing in {folder.absolute().name} says what is on its films"
        raise nothing_known(sentence, source.problems, "`cxrx datasets` lists the layouts that are understood")
    return LabelledFolder(folder, source, listing)
