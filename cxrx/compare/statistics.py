"""Bootstrap over patients: the films of one patient are not independent."""

from __future__ import annotations

from collections.abc import Sequence

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
