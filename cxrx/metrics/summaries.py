"""From scores of single pairs to means with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from cxrx.metrics import arun, chexlocalize, localisation
from cxrx.metrics.bootstrap import PatientBootstrap
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
    """Average over pairs, per finding and over findings (``all``: the mean of the findings' means).

    Parameters
    ----------
    scores
        One row per film, finding and group: columns patient, finding, `by`, `metrics`.
    metrics
        Columns to average.
    bootstrap
        Over patients.
    by
        Columns of the groups.

    Returns
    -------
    summary
        `by` and the columns of :data:`KEYS` after them; n counts the values that are numbers, nan the others.
    """
    rows: list[tuple[object, ...]] = []
    for key, group in scores.groupby(list(by), sort=False):
        found = bootstrap.table(group[list(metrics)].to_numpy(float), list(group["patient"]), list(group["finding"]))
        for g, finding in enumerate(found.groups):
            for m, metric in enumerate(metrics):
                at = (g, m)
                counts = (int(found.n[at]), int(found.missing[at]))
                bounds = (found.low[at], found.high[at])
                rows.append((*key, finding, metric, found.value[at], *counts, *bounds))
    return pd.DataFrame(rows, columns=[*by, *KEYS[2:]])


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
