"""Bootstrap over patients: the films of one patient are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

MIN_PATIENTS = 10  # below that an interval says nothing


def patient_weights(n_patients: int, n_boot: int, seed: int) -> Float:
    """Draw patients with replacement: how often each is in each replicate, ``(n_boot, n_patients)``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=n_boot).astype(np.float64)


def interval(replicates: Float) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % points of the replicates that are numbers (NaN if fewer than two are)."""
    finite = replicates[np.isfinite(replicates)]
    if finite.size < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def grouped_means(values: Float, groups: NDArray[np.intp], n_groups: int, weights: Float) -> Float:
    """Return the weighted mean of every group, NaN where it has no weight.

    Parameters
    ----------
    values
        ``(n,)``; NaN does not count.
    groups
        ``(n,)`` index of the group of every value.
    weights
        ``(R, n)``.

    Returns
    -------
    means
        ``(R, n_groups)``.
    """
    member = np.zeros((len(values), n_groups))  # (n, G)
    member[np.arange(len(values)), groups] = np.isfinite(values)
    totals: Float = weights @ (member * np.nan_to_num(values)[:, None])
    counts: Float = weights @ member
    means: Float = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
    return means


def macro(means: Float) -> Float:
    """Return the mean over the groups that have one, ``(R, G)`` to ``(R,)``; NaN where none has."""
    known = np.isfinite(means)
    count = known.sum(axis=1)
    total = np.where(known, means, 0).sum(axis=1)
    mean: Float = np.divide(total, count, out=np.full(len(means), np.nan), where=count > 0)
    return mean


def intervals(replicates: Float) -> tuple[Float, Float]:
    """Return :func:`interval` along the first axis, ``(R, ...)`` to two arrays ``(...)``."""
    flat = replicates.reshape(len(replicates), -1)
    bounds = np.full((2, flat.shape[1]), np.nan)
    whole = np.isfinite(flat).all(axis=0)
    if whole.any():
        bounds[:, whole] = np.quantile(flat[:, whole], [0.025, 0.975], axis=0)
    for column in np.flatnonzero(~whole).tolist():
        bounds[:, column] = interval(flat[:, column])
    low, high = bounds.reshape(2, *replicates.shape[1:])
    return low, high


def _group_means(values: Float, index: NDArray[np.intp], n_groups: int, weights: Float) -> Float:
    """Return the weighted mean over the groups, and of each group, of every column: ``(R, 1 + G, P)``."""
    known = np.isfinite(values).astype(np.float64)
    filled = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    means = np.full((len(weights), 1 + n_groups, values.shape[1]), np.nan)
    for g in range(n_groups):
        rows = np.flatnonzero(index == g)
        total, count = weights[:, rows] @ filled[rows], weights[:, rows] @ known[rows]  # (R, P)
        np.divide(total, count, out=means[:, 1 + g], where=count > 0)
    there = np.isfinite(means[:, 1:])
    count = there.sum(axis=1)
    np.divide(np.where(there, means[:, 1:], 0).sum(axis=1), count, out=means[:, 0], where=count > 0)
    return means


@dataclass(frozen=True)
class Intervals:
    """Means with their intervals: arrays ``(1 + G, P)``, a row a group (the first: over all groups)."""

    groups: tuple[str, ...]
    value: Float
    low: Float
    high: Float
    n: NDArray[np.intp]
    missing: NDArray[np.intp]


def numbered(keys: Sequence[str]) -> tuple[list[str], NDArray[np.intp]]:
    """Return the distinct keys in sorted order and, for every key, its index among them."""
    names, index = np.unique(np.asarray(keys, dtype=object), return_inverse=True)
    return [str(name) for name in names], index


class PatientBootstrap:
    """Shared resamples: every table of a comparison draws the same patients.

    Parameters
    ----------
    patients
        All patients of the comparison.
    n_boot
        Replicates; 0 for no intervals.
    """

    def __init__(self, patients: Sequence[str], n_boot: int, seed: int) -> None:
        names, _ = numbered(patients)
        self._index = {name: i for i, name in enumerate(names)}
        self._weights = patient_weights(len(names), n_boot, seed) if names and n_boot else np.zeros((0, len(names)))

    def weights(self, patients: Sequence[str]) -> Float | None:
        """Return how often each row is in each replicate, ``(R, n)``; None under ten patients."""
        if len(set(patients)) < MIN_PATIENTS or not len(self._weights):
            return None
        return self._weights[:, [self._index[name] for name in patients]]

    def table(self, values: Float, patients: Sequence[str], groups: Sequence[str], *, bounds: bool = True) -> Intervals:
        """Return the mean of every column, in every group and over the groups, each with its interval.

        Parameters
        ----------
        values
            ``(n, P)``; NaN does not count.
        patients, groups
            ``(n,)``, a patient and a group (a finding) for every row.
        bounds
            Whether intervals are wanted.

        Returns
        -------
        intervals
            Row 0 is the mean over the groups of the groups' means; the others are the groups in sorted order. No
            interval under ten patients.
        """
        names, index = numbered(groups)
        members = [np.arange(len(values)), *(np.flatnonzero(index == g) for g in range(len(names)))]
        finite = np.isfinite(values)
        means = _group_means(values, index, len(names), np.ones((1, len(values))))[0]  # (1 + G, P)
        low, high = np.full(means.shape, np.nan), np.full(means.shape, np.nan)
        if bounds and len(self._weights) and len(values):
            place, patient = np.array([self._index[name] for name in patients]), np.asarray(patients, dtype=object)
            replicates = _group_means(values, index, len(names), self._weights[:, place])  # (R, 1 + G, P)
            enough = np.array([
                [len(set(patient[rows[finite[rows, p]]])) >= MIN_PATIENTS for p in range(values.shape[1])]
                for rows in members
            ])  # fmt: skip
            low, high = (np.where(enough, bound, np.nan) for bound in intervals(replicates))
        n = np.stack([finite[rows].sum(axis=0) for rows in members])
        missing = np.stack([len(rows) - count for rows, count in zip(members, n, strict=True)])
        return Intervals(("all", *names), means, low, high, n, missing)

    def mean(
        self, values: Float, patients: Sequence[str], groups: NDArray[np.intp] | None = None
    ) -> tuple[float, float, float]:
        """Return the mean of `values` (over groups: the mean of the groups' means) and its interval."""
        groups = np.zeros(len(values), dtype=np.intp) if groups is None else groups
        n_groups = int(groups.max()) + 1 if len(groups) else 1
        value = float(macro(grouped_means(values, groups, n_groups, np.ones((1, len(values)))))[0])
        known = np.isfinite(values)
        weights = self.weights([name for name, ok in zip(patients, known, strict=True) if ok])
        if weights is None:
            return value, float("nan"), float("nan")
        low, high = interval(macro(grouped_means(values[known], groups[known], n_groups, weights)))
        return value, low, high
