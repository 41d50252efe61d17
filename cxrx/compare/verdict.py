"""The comparison in sentences, each with its n: the answer first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import pandas as pd

from cxrx.compare.faithfulness import MEASURES
from cxrx.metrics.bootstrap import MIN_PATIENTS
from cxrx.metrics.paired import LEVEL
from cxrx.specs import Measure

LEAD = {"native": "hit", "chexlocalize": "hit", "arun": "average_precision"}
"""The metric that decides which method points best, by protocol; by trapezoids (``auprc``) a constant map would win."""
WORDS = {
    "hit": "hit rate",
    "average_precision": "average precision",
    "road": "ROAD",
    "insertion": "insertion AUC",
    "aopc": "AOPC",
    "sensitivity_n": "sensitivity-n",
    "deletion": "deletion AUC",
}
FAITHFUL = ("road", "insertion", "aopc", "degradation", "sensitivity_n", "deletion")
"""Metrics that decide which method is most faithful: the first that was measured."""

Tables = Mapping[str, pd.DataFrame]


def verdict(
    tables: Tables,
    *,
    controls: AbstractSet[str],
    protocol: str = "native",
    faithfulness: Mapping[str, Measure] = MEASURES,
) -> list[str]:
    """Say what the tables say, model by model.

    A difference counts where Holm's correction leaves it significant and its interval leaves 0 out; else the sentence
    says that it is not decidable with these films. `controls` are the methods that never look at the model,
    `faithfulness` is what the numbers of that section are.
    """
    names = ("summary", "faithfulness", "sanity_verdicts", "regions", "classification", "agreement")
    models = list(dict.fromkeys(model for name in names for model in tables[name]["model"]))
    sentences = []
    for model in models:
        own = {name: table[table["model"] == model] for name, table in tables.items() if "model" in table.columns}
        own["paired_tests"] = _methods_of(tables["paired_tests"], model)
        prefix = f"{model}: " if len(models) > 1 else ""
        said = [
            *_regions(own["regions"], controls),
            *_localisation(own, controls, LEAD[protocol]),
            *_sanity(own["sanity_verdicts"], controls),
            *_faithfulness(own, controls, faithfulness),
            *_classifier(own["classification"]),
            *_agreement(own["agreement"], controls),
        ]
        sentences += [prefix + sentence for sentence in said]
    sentences += _models(tables["paired_tests"], LEAD[protocol])
    return sentences or ["Nothing could be compared; see what was skipped and why."]


def number(value: float, low: float = np.nan, high: float = np.nan, *, sign: bool = False) -> str:
    """Write a value with its interval: ``0.62 [0.40, 0.80]``."""
    form = "+z.2f" if sign else "z.2f"  # z: no minus sign before a zero
    return f"{value:{form}} [{low:{form}}, {high:{form}}]" if np.isfinite(low + high) else f"{value:{form}}"


def _methods_of(tests: pd.DataFrame, model: str) -> pd.DataFrame:
    return tests[(tests["kind"] == "methods") & (tests["model_a"] == model)]


def _localisation(tables: Tables, controls: AbstractSet[str], metric: str) -> list[str]:
    lead = _means(tables["summary"], metric)
    methods = [name for name in lead.index if name not in controls]
    blind = [name for name in lead.index if name in controls]
    if not methods:
        return []
    best = max(methods, key=lambda name: lead.loc[name, "value"])
    row = lead.loc[best]
    pairs = tables["per_pair"]
    patients = pairs[pairs["method"] == best]["patient"].nunique()
    share = number(row["value"], row["low"], row["high"])
    cases = f"mean over findings; {int(row['n'])} truth pairs of {patients} patients"
    often = "most often, " if len(methods) > 1 else ""
    said = (
        f"{best} puts its maximum into the finding {often}in {share} of cases ({cases})."
        if metric == "hit"
        else f"{best} overlaps the finding best: {WORDS.get(metric, metric)} {share} ({cases})."
    )
    others = ", ".join(f"{name} {number(lead.loc[name, 'value'])}" for name in blind)
    # the prior of a finding with one box does not exist: a rival must be scored on the same pairs
    rivals = [name for name in blind if lead.loc[name, "n"] == row["n"]] or blind
    sentences = [f"{said} Without looking at the model: {others}."]
    for group in (rivals, [name for name in methods if name != best]):
        if group:
            other = max(group, key=lambda name: lead.loc[name, "value"])
            sentences.append(decided(tables["paired_tests"], metric, best, other))
    return sentences


def _means(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the means over findings of one metric, by method."""
    return table[(table["metric"] == metric) & (table["finding"] == "all") & table["value"].notna()].set_index("method")


def decided(tests: pd.DataFrame, metric: str, best: str, other: str, *, higher: bool = True) -> str:
    """Say whether `best` differs from `other` in a metric, after Holm's correction."""
    rows = tests[(tests["metric"] == metric) & (tests["finding"] == "all")]
    forward = rows[(rows["method_a"] == best) & (rows["method_b"] == other)]
    backward = rows[(rows["method_a"] == other) & (rows["method_b"] == best)]
    if forward.empty and backward.empty:
        return f"Whether {best} is better than {other} cannot be said: they have no pair in common."
    row, turn = (forward.iloc[0], 1) if len(forward) else (backward.iloc[0], -1)
    low, high = sorted((turn * row["low"], turn * row["high"])) if np.isfinite(row["low"]) else (np.nan, np.nan)
    value = turn * row["difference"]
    what = WORDS.get(metric, metric.replace("_", " "))
    said = f"{best} against {other}: {number(value, low, high, sign=True)} {what} (n = {row['n']}"
    if value == 0:
        return f"{said}); they do not differ on these films."
    if not np.isfinite(low + high):
        few = row["patients"] < MIN_PATIENTS
        why = f"with these films: fewer than {MIN_PATIENTS} patients" if few else "without an interval (n_boot is 0)"
        return f"{said}); not decidable {why}."
    said += f", Holm-adjusted p = {row['p_holm']:.2g})"
    if row["decided"]:
        return f"{said}; {best} is {'better' if (value > 0) == higher else 'worse'}."
    if low <= 0 <= high:
        why = "the interval holds 0"
    elif row["p_holm"] >= LEVEL:
        why = "the difference does not survive Holm's correction"
    else:
        why = "the mean over findings and the test over patients point different ways"
    return f"{said}; not decidable with these films: {why}."


def _faithfulness(tables: Tables, controls: AbstractSet[str], measures: Mapping[str, Measure]) -> list[str]:
    table = tables["faithfulness"]
    judging = [name for name, measure in measures.items() if measure.higher_is_better is not None]
    metric = next((name for name in (*FAITHFUL, *judging) if name in set(table["metric"])), None)
    if metric is None:
        return []
    lead = _means(table, metric)
    methods = [name for name in lead.index if name not in controls]
    blind = [name for name in lead.index if name in controls]
    if not methods:
        return []
    higher = measures[metric].higher_is_better is True

    def best_of(names: Sequence[Any]) -> Any:
        return max(names, key=lambda name: lead.loc[name, "value"] * (1 if higher else -1))

    best = best_of(methods)
    row, what = lead.loc[best], WORDS.get(metric, metric.replace("_", " "))
    unit = f" {measures[metric].unit}".rstrip()
    low_is_good = "" if higher else "lower is better, "
    others = ", ".join(f"{name} {number(lead.loc[name, 'value'])}" for name in blind)
    most = " most" if len(methods) > 1 else ""
    said = (
        f"When the pixels of a map are changed, the model follows {best}{most}: {what} "
        f"{number(row['value'], row['low'], row['high'])}{unit} ({low_is_good}n = {int(row['n'])}). "
        f"Without looking at the model: {others}."
    )
    sentences = [said]
    groups = [group for group in (blind, [name for name in methods if name != best]) if group]
    sentences += [decided(tables["paired_tests"], metric, best, best_of(group), higher=higher) for group in groups]
    return sentences + _flagged(table)


def _flagged(table: pd.DataFrame) -> list[str]:
    """Tell where a baseline keeps the finding, so that deletion or insertion says little."""
    said = []
    for metric, name in (("flagged", "deletion"), ("insertion_flagged", "insertion")):
        rows = table[(table["metric"] == metric) & (table["finding"] != "all")]
        rows = rows.drop_duplicates("finding")  # the baseline is the same for all methods
        bad = rows[rows["value"] > 0.5]
        if len(bad):
            findings = ", ".join(bad["finding"])
            said.append(
                f"The baseline of {name} keeps over half of the probability of {findings}: {name} says little there."
            )
    return said


def _sanity(table: pd.DataFrame, controls: AbstractSet[str]) -> list[str]:
    """Say which methods look at the network at all; what is not decided, and that a control does not, is said last."""
    rows = table[table["test"] == "randomisation"].to_dict("records")
    failed = [row for row in rows if row["passed"] is False]
    passed = [row["method"] for row in rows if row["passed"] is True]
    failed += [row for row in rows if row["passed"] is None]
    said = [f"{row['sentence']}." for row in sorted(failed, key=lambda row: row["method"] in controls)]
    if passed:
        verb = "passes" if len(passed) == 1 else "pass"
        said.insert(0, f"{_list(passed)} {verb} the randomisation test: with a random network the maps are others.")
    return said


def _regions(table: pd.DataFrame, controls: AbstractSet[str]) -> list[str]:
    """Say whether a model looks at what is not in the patient: the finding and method with most of it on the marker."""
    marker = table[(table["region"] == "marker") & (table["finding"] != "all") & ~table["method"].isin(list(controls))]
    rows = {metric: part.to_dict("records") for metric, part in marker.groupby("metric", sort=False)}
    said = []
    known = [row for row in rows.get("mass_ratio", []) if np.isfinite(row["value"])]
    if known:
        top = max(known, key=lambda row: row["value"])
        share = next(row for row in rows["mass"] if all(row[key] == top[key] for key in ("method", "finding")))
        said.append(
            f"{top['finding']}: {top['method']} puts {number(share['value'], share['low'], share['high'])} of its "
            f"relevance on the marker, {top['value']:.1f} times the marker's share of the film (n = {int(top['n'])})."
        )
    if rows.get("drop"):
        most = max(rows["drop"], key=lambda row: row["value"])
        mirror = next(row for row in rows["drop_mirror"] if row["finding"] == most["finding"])
        drop, other = (number(row["value"], row["low"], row["high"]) for row in (most, mirror))
        reads = most["low"] > 0 and most["low"] > mirror["high"]
        end = ": the model reads the marker." if reads else "."
        said.append(
            f"{most['finding']}: painting the marker over lowers the logit by {drop} (n = {int(most['n'])}), "
            f"painting its mirror image over by {other}{end}"
        )
    return said


def _models(tests: pd.DataFrame, metric: str) -> list[str]:
    """Compare the models under each method, on the films both explain."""
    rows = tests[(tests["kind"] == "models") & (tests["finding"] == "all") & (tests["metric"] == metric)]
    said = []
    for row in rows.to_dict("records"):
        difference = number(row["difference"], row["low"], row["high"], sign=True)
        end = "" if row["decided"] else "; not decidable with these films"
        said.append(
            f"{row['method_a']} on {row['model_a']} against {row['model_b']}: {difference} "
            f"{WORDS.get(metric, metric)} (n = {row['n']}){end}."
        )
    return said


def _classifier(table: pd.DataFrame) -> list[str]:
    row = table[table["finding"] == "all"]
    if row.empty or not np.isfinite(row["auroc"].iloc[0]):
        return []
    found = row.iloc[0]
    auroc = number(found["auroc"], found["auroc_low"], found["auroc_high"])
    return [f"The classifier separates films with an AUROC of {auroc} ({found['note']})."]


def _agreement(table: pd.DataFrame, controls: AbstractSet[str]) -> list[str]:
    table = table[(table["metric"] == "spearman") & (table["finding"] == "all")]
    real = table[~table["method_a"].isin(list(controls)) & ~table["method_b"].isin(list(controls))]
    real = real[np.isfinite(real["value"].astype(float))]
    if real.empty:
        return []
    records = real.sort_values("value", kind="stable").to_dict("records")
    low, high = records[0], records[-1]
    baseline = number(real["random_pair"].max())
    if len(records) == 1:
        said = f"{low['method_a']} and {low['method_b']} agree with a rank correlation of {number(low['value'])}"
        return [f"{said}; maps of different patients reach {baseline}."]
    ends = [f"{number(row['value'])} ({row['method_a']} and {row['method_b']})" for row in (low, high)]
    return [
        f"The methods' rank correlations lie between {' and '.join(ends)}; maps of different patients reach {baseline}."
    ]


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
