"""The comparison in sentences, each with its n."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np
import pandas as pd

from cxrx.compare.statistics import MIN_PATIENTS, PatientBootstrap, numbered

LEAD_METRIC = "hit"


def verdict(
    summary: pd.DataFrame,
    per_pair: pd.DataFrame,
    classification: pd.DataFrame,
    agreement: pd.DataFrame,
    *,
    controls: AbstractSet[str],
    bootstrap: PatientBootstrap,
) -> list[str]:
    """Say what the tables say, model by model; a difference whose interval holds 0 is called not decidable.

    `controls` are the methods that never look at the model.
    """
    sentences = []
    tables = (summary, classification, agreement)
    models = list(dict.fromkeys(model for table in tables for model in table["model"]))
    for model in models:
        prefix = f"{model}: " if len(models) > 1 else ""
        said = [
            *_localisation(
                summary[summary["model"] == model], per_pair[per_pair["model"] == model], controls, bootstrap
            ),
            *_agreement(agreement[agreement["model"] == model], controls),
            *_classifier(classification[classification["model"] == model]),
        ]
        sentences += [prefix + sentence for sentence in said]
    return sentences or ["Nothing could be compared; see what was skipped and why."]


def number(value: float, low: float = np.nan, high: float = np.nan, *, sign: bool = False) -> str:
    """Write a value with its interval: ``0.62 [0.40, 0.80]``."""
    form = "+z.2f" if sign else "z.2f"  # z: no minus sign before a zero
    return f"{value:{form}} [{low:{form}}, {high:{form}}]" if np.isfinite(low + high) else f"{value:{form}}"


def paired_difference(
    per_pair: pd.DataFrame, a: str, b: str, metric: str, bootstrap: PatientBootstrap
) -> tuple[float, float, float, int]:
    """Return the mean difference ``a - b`` over the pairs both have (mean over findings), its interval and n.

    `per_pair` is of one model; the resamples are shared, so that the difference is paired.
    """
    keys = ["image_id", "patient", "finding"]
    one, two = (per_pair[per_pair["method"] == name].set_index(keys)[metric] for name in (a, b))
    difference = (one - two).dropna().reset_index()
    if difference.empty:
        return np.nan, np.nan, np.nan, 0
    _, groups = numbered(list(difference["finding"]))
    value, low, high = bootstrap.mean(difference[metric].to_numpy(float), list(difference["patient"]), groups)
    return value, low, high, len(difference)


def _classifier(table: pd.DataFrame) -> list[str]:
    row = table[table["finding"] == "all"]
    if row.empty or not np.isfinite(row["auroc"].iloc[0]):
        return []
    found = row.iloc[0]
    auroc = number(found["auroc"], found["auroc_low"], found["auroc_high"])
    return [f"The classifier separates films with an AUROC of {auroc} ({found['note']})."]


def _localisation(
    summary: pd.DataFrame, per_pair: pd.DataFrame, controls: AbstractSet[str], bootstrap: PatientBootstrap
) -> list[str]:
    lead = summary[(summary["metric"] == LEAD_METRIC) & (summary["finding"] == "all")].set_index("method")
    methods = [name for name in lead.index if name not in controls]
    blind = [name for name in lead.index if name in controls]
    if not methods:
        return []
    best = max(methods, key=lambda name: lead.loc[name, "value"])
    row = lead.loc[best]
    patients = per_pair[per_pair["method"] == best]["patient"].nunique()
    others = ", ".join(f"{name} {number(lead.loc[name, 'value'])}" for name in blind)
    often = "most often, " if len(methods) > 1 else ""
    cases = f"mean over findings; {int(row['n'])} truth pairs of {patients} patients"
    share = number(row["value"], row["low"], row["high"])
    said = f"{best} puts its maximum into the finding {often}in {share} of cases ({cases})."
    sentences = [f"{said} Without looking at the model: {others}."]
    # the prior of a finding with one box does not exist: a rival must be scored on the same pairs
    rivals = [name for name in blind if lead.loc[name, "n"] == row["n"]] or blind
    seconds = [name for name in methods if name != best]
    for group in (rivals, seconds):
        if group:
            other = max(group, key=lambda name: lead.loc[name, "value"])
            sentences.append(_decided(per_pair, best, other, bootstrap))
    return sentences


def _decided(per_pair: pd.DataFrame, best: str, other: str, bootstrap: PatientBootstrap) -> str:
    value, low, high, n = paired_difference(per_pair, best, other, LEAD_METRIC, bootstrap)
    if n == 0:
        return f"Whether {best} is better than {other} cannot be said: they have no pair in common."
    said = f"{best} against {other}: {number(value, low, high, sign=True)} hit rate (n = {n})"
    if value == 0:
        return f"{said}; they do not differ on these films."
    if not np.isfinite(low + high):
        return f"{said}; not decidable with these films: fewer than {MIN_PATIENTS} patients."
    if low <= 0 <= high:
        return f"{said}; not decidable with these films: the interval holds 0."
    return f"{said}; {best} is {'better' if value > 0 else 'worse'} (95 % interval, not adjusted for many tests)."


def _agreement(table: pd.DataFrame, controls: AbstractSet[str]) -> list[str]:
    if table.empty:
        return []
    table = table[(table["metric"] == "spearman") & (table["finding"] == "all")]
    real = table[~table["method_a"].isin(list(controls)) & ~table["method_b"].isin(list(controls))]
    real = real[np.isfinite(real["value"])]
    if real.empty:
        return []
    low, high = real.loc[real["value"].idxmin()], real.loc[real["value"].idxmax()]
    baseline = number(real["random_pair"].max())
    if len(real) == 1:
        said = f"{low['method_a']} and {low['method_b']} agree with a rank correlation of {number(low['value'])}"
        return [f"{said}; maps of different patients reach {baseline}."]
    ends = [f"{number(row['value'])} ({row['method_a']} and {row['method_b']})" for row in (low, high)]
    return [
        f"The methods' rank correlations lie between {' and '.join(ends)}; maps of different patients reach {baseline}."
    ]
