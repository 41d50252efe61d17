"""From scores of single pairs to means with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.metrics import arun, chexlocalize, localisation
from cxrx.metrics.bootstrap import Kind, PatientBootstrap
from cxrx.metrics.chexlocalize import PublishedInterval, chexlocalize_interval

KEYS = ("model", "method", "finding", "metric", "value", "n", "nan", "low", "high")
SUMMARY = (*KEYS, "skill")
BOUNDED = frozenset({*localisation.METRICS, *localisation.DETAILED, *chexlocalize.METRICS, *arun.METRICS}) - {
    "mass_ratio"
}
"""Metrics that end at 1, which is best: of others, and of those of plugins, skill would mean nothing."""


def summarise(
    scores: pd.DataFrame,
    metrics: Sequence[str],
    bootstrap: PatientBootstrap,
    by: Sequence[str] = ("model", "method"),
) -> pd.DataFrame:
    """Average over the pairs that all methods have, per finding and over findings (``all``: mean of their means).

    Parameters
    ----------
    scores
        One row per film, finding and group: columns image_id, patient, finding, `by`, `metrics`.
    metrics
        Columns to average.
    bootstrap
        Over patients.
    by
        Columns of the groups, the method among them.

    Returns
    -------
    summary
        `by` and the columns of :data:`KEYS` after them; n counts the pairs that all methods have, nan the method's
        others. See :func:`common_pairs`.
    """
    rows: list[tuple[object, ...]] = []
    own = [name for name in by if name != "method"]
    whole, within = (on_pairs(scores, metrics, mask) for mask in common_pairs(scores, metrics, own))
    even, kinds = whole.equals(within), [kind_of(metric) for metric in metrics]
    for key, group in within.groupby(list(by), sort=False):
        of = list(group["patient"]), list(group["finding"])
        found = bootstrap.table(group[list(metrics)].to_numpy(float), *of, kinds)
        over = found if even else bootstrap.table(whole.loc[group.index, list(metrics)].to_numpy(float), *of, kinds)
        for g, finding in enumerate(found.groups):
            table = found if g else over
            for m, metric in enumerate(metrics):
                at = (g, m)
                counts = (int(table.n[at]), int(table.missing[at]))
                bounds = (table.low[at], table.high[at])
                rows.append((*key, finding, metric, table.value[at], *counts, *bounds))
    return pd.DataFrame(rows, columns=[*by, *KEYS[2:]])


def kind_of(metric: str) -> Kind:
    """Return what the numbers of a metric are, for their interval."""
    if metric.startswith("drop"):
        return "difference"
    bare = metric.removeprefix("chexlocalize_").removeprefix("arun_")
    return "share" if bare in BOUNDED or bare.endswith(("_probability", "flagged")) else "auto"


def common_pairs(
    scores: pd.DataFrame, metrics: Sequence[str], own: Sequence[str] = ("model",)
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which numbers are of pairs for which all methods have one, so that means of methods can be compared.

    Parameters
    ----------
    scores
        As of :func:`summarise`; every row has an index of its own.
    metrics
        Columns with numbers.
    own
        Columns of what has methods of its own: the model.

    Returns
    -------
    whole, within
        ``(n, M)``. `whole`: every method that has a number at all has one there; for means over findings. `within`:
        every method that has a number of this finding; for means of a finding.
    """
    finite = np.isfinite(scores[list(metrics)].to_numpy(float))
    pair = _codes(scores, [*own, "image_id", "finding"])
    masks = []
    for place in (list(own), [*own, "finding"]):
        at, member = _codes(scores, place), _codes(scores, [*place, "method"])
        at_of = np.zeros_like(at)
        at_of[member] = at
        mask = np.zeros_like(finite)
        for m, known in enumerate(finite.T):
            some = np.bincount(member, known, minlength=len(at)) > 0  # methods that have a number here
            mask[:, m] = known & (np.bincount(pair, known)[pair] == np.bincount(at_of, some)[at])
        masks.append(mask)
    return masks[0], masks[1]


def _codes(scores: pd.DataFrame, names: Sequence[str]) -> NDArray[np.intp]:
    return np.asarray(scores.groupby(list(names), sort=False).ngroup(), dtype=np.intp)


def on_pairs(scores: pd.DataFrame, metrics: Sequence[str], mask: NDArray[np.bool_]) -> pd.DataFrame:
    """Return the scores without the numbers of `metrics` where `mask` is False."""
    return scores.assign(**{metric: scores[metric].astype(float).where(mask[:, m]) for m, metric in enumerate(metrics)})


def left_out(scores: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Say how many pairs are left out of means over findings, by model, and which methods lack them.

    Metrics that leave out the same pairs share a sentence; :func:`common_pairs` says which those are.
    """
    whole, _ = common_pairs(scores, metrics)
    finite = np.isfinite(scores[list(metrics)].to_numpy(float))
    said: dict[tuple[str, str], list[str]] = {}
    for model, group in scores.reset_index(drop=True).groupby("model", sort=False):
        for m, metric in enumerate(metrics):
            own = group[finite[group.index, m]]
            if whole[own.index, m].all():
                continue
            pairs, kept = (len(part.groupby(["image_id", "finding"])) for part in (own, own[whole[own.index, m]]))
            lacking = [f"{name} lacks {pairs - n}" for name, n in own["method"].value_counts().items() if n < pairs]
            those = (
                f"the {kept} of {pairs} pairs of film and finding that all have"
                if kept
                else "no pair: there is none that all have"
            )
            said.setdefault((str(model), f"{those} ({', '.join(lacking)})"), []).append(metric)
    return [
        f"{model}: methods are compared on {which}" + ("" if len(named) == len(metrics) else f", by {', '.join(named)}")
        for (model, which), named in said.items()
    ]


def with_skill(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``skill = (m - prior) / (1 - prior)``, for metrics that end at 1 and where the prior covers the same n."""
    keys = ["model", "finding", "metric"]
    prior = table[table["method"] == "prior"][[*keys, "value", "n"]]
    joined = table.merge(prior, on=keys, how="left", suffixes=("", "_prior"))
    bounded = joined["metric"].str.removeprefix("chexlocalize_").str.removeprefix("arun_").isin(BOUNDED)
    usable = (joined["n"] == joined["n_prior"]) & (joined["value_prior"] < 1) & bounded
    skill = (joined["value"] - joined["value_prior"]) / (1 - joined["value_prior"]).where(usable)
    return table.assign(skill=skill.to_numpy(float, na_value=np.nan))


def published_intervals(summary: pd.DataFrame, per_pair: pd.DataFrame, name: Callable[[str], str]) -> pd.DataFrame:
    """Replace the findings' intervals by those of the CheXlocalize protocol, whose unit is the film.

    The mean over findings, which that protocol does not have, keeps its interval over patients.

    Parameters
    ----------
    name
        Gives the name of a film; films are drawn in the order of their names, as the published code has them.
    """
    films = sorted(set(per_pair["image_id"]), key=lambda image_id: (name(image_id), image_id))
    bounds: dict[tuple[str, ...], PublishedInterval] = {}
    for named, group in per_pair.groupby(["model", "method", "finding"], sort=False):
        own = group.set_index("image_id").reindex(films)
        for metric in chexlocalize.METRICS:
            key = (*(str(name) for name in named), metric)
            bounds[key] = chexlocalize_interval(own[metric].to_numpy(float))
    keys = list(zip(summary["model"], summary["method"], summary["finding"], summary["metric"], strict=True))
    found = [bounds.get(key) for key in keys]
    low = [old if new is None else new.low for old, new in zip(summary["low"], found, strict=True)]
    high = [old if new is None else new.high for old, new in zip(summary["high"], found, strict=True)]
    return summary.assign(low=low, high=high)
