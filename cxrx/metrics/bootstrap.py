"""Intervals over patients: the films of one patient are not independent, and patients are few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Float = NDArray[np.float64]
Kind = Literal["auto", "share", "mean", "difference"]

MIN_PATIENTS = 10  # below that an interval says nothing
ROUNDING = 1e-12  # a difference below it is none
_Z = 1.959963984540054
CONVENTIONS = {
    "mean": "95 % interval with Student's t, a variance over patients that is corrected for few of them (CR2, Bell and "
    "McCaffrey 2002), and as many degrees of freedom as patients of equal weight would leave",
    "share": "of values between 0 and 1 (hits, overlaps, masses): Wilson's score interval on the effective number of "
    "pairs (Dean and Pagano 2015), which never is of width 0",
    "difference": "of two methods on the same pairs, as a mean; of hits with Bonett and Price's (2012) two added pairs",
    "AUROC, AUPRC": "Wilson's score interval on the effective number of films, from the variance of a bootstrap over "
    "patients; at most the number that Hanley and McNeil's (1982) variance stands for (AUPRC: the positive films)",
}


def patient_weights(n_patients: int, n_boot: int, seed: int) -> Float:
    """Draw patients with replacement: how often each is in each replicate, ``(n_boot, n_patients)``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=n_boot).astype(np.float64)


def quantile_of_t(df: Float) -> Float:
    """Return the 97.5 % point of Student's t."""
    from scipy.special import stdtrit

    quantile: Float = stdtrit(df, 0.975)
    return quantile


def score_interval(share: Float, variance: Float, df: Float, most: Float) -> tuple[Float, Float]:
    """Return the 95 % score interval of a share (Wilson 1927) on an effective number of observations.

    The number is the one whose binomial variance is that of the estimate, less for few degrees of freedom (Korn and
    Graubard 1998; Dean and Pagano 2015).

    Parameters
    ----------
    share, variance
        The estimate in [0, 1] and its variance.
    df
        Degrees of freedom of the variance.
    most
        The number may not be above it: a variance of few patients may be 0 by chance.
    """
    spread = share * (1 - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        number = np.where(variance > 0, spread / variance, np.inf) * (_Z / quantile_of_t(df)) ** 2
        number = np.minimum(number, most)
        centre = (share + _Z**2 / (2 * number)) / (1 + _Z**2 / number)
        half = _Z * np.sqrt(spread / number + (_Z / (2 * number)) ** 2) / (1 + _Z**2 / number)
    return np.clip(centre - half, 0, share), np.clip(centre + half, share, 1)


def resampled_interval(share: float, replicates: Float, n_patients: int, most: float) -> tuple[float, float]:
    """Return the score interval of a share whose variance is that of its replicates over patients.

    Parameters
    ----------
    share
        The estimate in [0, 1].
    replicates
        ``(R,)``, the estimate on patients drawn again; NaN does not count.
    n_patients
        How many patients there are.
    most
        As :func:`score_interval`.
    """
    finite = replicates[np.isfinite(replicates)]
    if finite.size < 2 or n_patients < MIN_PATIENTS:
        return float("nan"), float("nan")
    variance = finite.var(ddof=1) * n_patients / (n_patients - 1)
    low, high = score_interval(*(np.array(value, np.float64) for value in (share, variance, n_patients - 1, most)))
    return float(low), float(high)


@dataclass(frozen=True)
class Intervals:
    """Means with their intervals: arrays ``(1 + G, P)``, a row a group (the first: over all groups).

    `p` is two-sided, of a mean of 0, and below 0.05 where the interval leaves 0 out; NaN but for differences.
    """

    groups: tuple[str, ...]
    value: Float
    low: Float
    high: Float
    n: NDArray[np.intp]
    missing: NDArray[np.intp]
    p: Float


@dataclass(frozen=True)
class _Means:
    """Means of groups and over them, ``(1 + G, P)``, with what their intervals need."""

    value: Float
    variance: Float
    df: Float
    number: Float  # how many independent values would weigh the same
    patients: Float
    n: Float


def numbered(keys: Sequence[str]) -> tuple[list[str], NDArray[np.intp]]:
    """Return the distinct keys in sorted order and, for every key, its index among them."""
    index, names = pd.factorize(np.asarray(keys, dtype=object), sort=True)
    return [str(name) for name in names], index


def _sums(values: Float, index: NDArray[np.intp], n: int) -> Float:
    """Return the sum of the rows ``(m, P)`` of each index below n, all of which there are, ``(n, P)``."""
    order = np.argsort(index, kind="stable")
    sums: Float = np.add.reduceat(values[order], np.searchsorted(index[order], np.arange(n)), axis=0)
    return sums


def group_means(values: Float, group: NDArray[np.intp]) -> tuple[Float, Float]:
    """Return the means of the columns of `values` ``(n, P)`` over the groups and in each, ``(1 + G, P)``, and n."""
    n_groups = int(group.max()) + 1
    finite = np.isfinite(values)
    n, sums = (_sums(each, group, n_groups) for each in (finite.astype(float), np.where(finite, values, 0.0)))  # (G, P)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums / n
        overall = np.where(n > 0, mean, 0).sum(axis=0) / (n > 0).sum(axis=0)
    return np.stack([overall, *mean]), np.stack([n.sum(axis=0), *n])


def _means(values: Float, patient: NDArray[np.intp], group: NDArray[np.intp]) -> _Means:
    """Average the columns of `values` ``(n, P)`` in every group and over the groups; NaN does not count."""
    n_patients, n_groups = int(patient.max()) + 1, int(group.max()) + 1
    cells, cell = np.unique(group * n_patients + patient, return_inverse=True)  # a patient in a group, (C,)
    of_group, of_patient = np.divmod(cells, n_patients)
    finite = np.isfinite(values)
    count, total = (_sums(each, cell, len(cells)) for each in (finite.astype(float), np.where(finite, values, 0.0)))
    (overall, *means), (all_n, *ns) = group_means(values, group)
    mean, n = np.stack(means), np.stack(ns)  # (G, P)
    groups = (n > 0).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = count / n[of_group]  # a patient's leverage
        # a patient alone in a group tells of the variance only by the distance from the other groups
        alone = share > 1 - 1e-9
        centre, correction = np.where(alone, overall, mean[of_group]), np.where(alone, 1, 1 - share)
        part = np.where(count > 0, (total - centre * count) / n[of_group] / np.sqrt(correction), 0)
        own = np.where(count > 0, share / n[of_group] / correction, 0)
        common = np.where((count > 0) & ~alone, share / np.sqrt(n[of_group] * correction), 0)
        number = np.stack([groups**2 / np.where(n > 0, 1 / n, 0).sum(axis=0), *n])
        df = _degrees_of_freedom(own, common, of_patient, of_group)
        overall_variance = (_sums(part, of_patient, n_patients) ** 2).sum(axis=0) / groups**2
    variance = [overall_variance, *_sums(part**2, of_group, n_groups)]
    seen = (_sums(count, of_patient, n_patients) > 0).sum(axis=0)
    patients = np.stack([seen, *_sums((count > 0).astype(float), of_group, n_groups)])
    return _Means(np.stack([overall, *mean]), np.stack(variance), df, number, patients, np.stack([all_n, *n]))


def _degrees_of_freedom(own: Float, common: Float, of_patient: NDArray[np.intp], of_group: NDArray[np.intp]) -> Float:
    """Return Bell and McCaffrey's degrees of freedom, over the groups and of each, ``(1 + G, P)``.

    They are Satterthwaite's, ``trace(C)^2 / trace(C^2)``, of the covariance C of the patients' parts in the variance if
    all films were alike and independent: `own` on the diagonal, less the products of `common`, both ``(C, P)``.
    """
    n_patients, n_groups = int(of_patient.max()) + 1, int(of_group.max()) + 1
    light = _sums(own - common**2, of_group, n_groups)
    heavy = _sums(own**2 - 2 * own * common**2, of_group, n_groups) + _sums(common**2, of_group, n_groups) ** 2
    diagonal, taken = (_sums(each, of_patient, n_patients) for each in (own, common**2))
    between = np.zeros(own.shape[1])
    for p in range(own.shape[1]):
        grid = np.zeros((n_patients, n_groups))
        grid[of_patient, of_group] = common[:, p]
        between[p] = ((grid.T @ grid) ** 2).sum()
    over = light.sum(axis=0) ** 2 / ((diagonal**2 - 2 * diagonal * taken).sum(axis=0) + between)
    return np.stack([over, *(light**2 / heavy)])


def _share_bounds(means: _Means, hits: NDArray[np.bool_]) -> tuple[Float, Float]:
    """Return the score intervals of columns in [0, 1]; in those of nothing but 0 and 1 the number is bounded.

    Where all are the same, nothing tells how alike a patient's films are: then only patients count.
    """
    most = np.where(means.variance <= ROUNDING**2, means.df + 1, np.where(hits, means.number, np.inf))
    return score_interval(means.value, means.variance, means.df, most)


def _mean_bounds(means: _Means, step: Float) -> tuple[Float, Float, Float]:
    """Return the bounds of means and the two-sided p of a mean of 0.

    `step` is, of a column that knows no other values than -step, 0 and step (as of hits), that number; of others NaN.
    """
    from scipy.special import stdtr

    n, signs = means.number, np.isfinite(step)
    middle = np.where(signs, means.value * n / (n + 2), means.value)
    added = ((means.variance * n + means.value**2) * n + 2 * step**2) / (n + 2) ** 2 - middle**2 / (n + 2)
    error = np.sqrt(np.where(signs, added, means.variance))
    # Values that are all the same have no variance to judge them by.
    error = np.where(error > ROUNDING, error, np.nan)
    half = quantile_of_t(means.df) * error
    p = np.where(np.isnan(error) & (np.abs(middle) <= ROUNDING), 1.0, 2 * stdtr(means.df, -np.abs(middle) / error))
    low, high = (np.where(signs, np.clip(end, -step, step), end) for end in (middle - half, middle + half))
    return low, high, p


class PatientBootstrap:
    """The patients of a comparison: intervals over them, and the resamples that AUROC and AUPRC need.

    Parameters
    ----------
    patients
        All patients of the comparison.
    n_boot
        Resamples; 0 for no intervals at all.
    """

    def __init__(self, patients: Sequence[str], n_boot: int, seed: int) -> None:
        names, _ = numbered(patients)
        self._index = {name: i for i, name in enumerate(names)}
        self._n_boot, self._seed = n_boot, seed
        self.draws = n_boot > 0 and bool(names)

    @cached_property
    def _weights(self) -> Float:
        return patient_weights(len(self._index), self._n_boot, self._seed)

    def weights(self, patients: Sequence[str]) -> Float | None:
        """Return how often each row is in each resample, ``(R, n)``; None under ten patients."""
        if len(set(patients)) < MIN_PATIENTS or not self.draws:
            return None
        return self._weights[:, [self._index[name] for name in patients]]

    def table(
        self, values: Float, patients: Sequence[str], groups: Sequence[str], kind: Kind | Sequence[Kind] = "auto"
    ) -> Intervals:
        """Return the mean of every column, in every group and over the groups, each with its interval.

        Parameters
        ----------
        values
            ``(n, P)``; NaN does not count.
        patients, groups
            ``(n,)``, a patient and a group (a finding) for every row.
        kind
            What the columns hold, one for all or one for each: ``share``, numbers between 0 and 1; ``mean``, any;
            ``difference``, of two on the same pairs, which is compared with 0; ``auto``: a share where all are 0 or 1.

        Returns
        -------
        intervals
            Row 0 is the mean over the groups of the groups' means; the others are the groups in sorted order. No
            interval under ten patients. :data:`CONVENTIONS` says how they are made.
        """
        names, index = numbered(groups)
        if not len(values):
            empty = np.full((1, values.shape[1]), np.nan)
            none = np.zeros(empty.shape, dtype=np.intp)
            return Intervals(("all",), empty, empty, empty, none, none, empty)
        means = _means(values, numbered(patients)[1], index)
        kinds = np.broadcast_to(np.asarray(kind), values.shape[1:])
        missing = ~np.isfinite(values)
        hits = (missing | (values == 0) | (values == 1)).all(axis=0)
        share = np.where(kinds == "auto", hits, kinds == "share")
        share &= (missing | ((values >= 0) & (values <= 1))).all(axis=0)
        difference = kinds == "difference"
        low, high, p = _mean_bounds(means, np.where(difference, _step(values), np.nan))
        low, high = (np.where(share, *both) for both in zip(_share_bounds(means, hits), (low, high), strict=True))
        known = (means.patients >= MIN_PATIENTS) & self.draws
        low, high, p = (np.where(known, end, np.nan) for end in (low, high, np.where(difference, p, np.nan)))
        n = means.n.astype(np.intp)
        rows = np.array([len(values), *np.bincount(index)])[:, None]
        return Intervals(("all", *names), means.value, low, high, n, rows - n, p)

    def mean(self, values: Float, patients: Sequence[str], kind: Kind = "auto") -> tuple[float, float, float]:
        """Return the mean of `values` and its interval, as :meth:`table`."""
        found = self.table(np.asarray(values, np.float64)[:, None], patients, [""] * len(values), kind)
        return float(found.value[0, 0]), float(found.low[0, 0]), float(found.high[0, 0])


def _step(values: Float) -> Float:
    """Return s of the columns that know no other values than -s, 0 and s, as differences of hits do; of others NaN."""
    size = np.where(np.isfinite(values), np.abs(values), 0)
    step = size.max(axis=0)
    whole = (size * (step - size) <= ROUNDING * step**2).all(axis=0)
    return np.where(whole & (step > 0), step, np.nan)
