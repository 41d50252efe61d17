"""The verdict as statements, the answer first, and the sentences that say them, each with its n."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from cxrx.compare.faithfulness import MEASURES
from cxrx.metrics.bootstrap import MIN_PATIENTS, ROUNDING
from cxrx.metrics.paired import LEVEL
from cxrx.metrics.summaries import common_pairs
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
NOTHING = "Nothing could be compared; see what was skipped and why."
_NO_INTERVAL = "without an interval (n_boot is 0, or all differences are the same)"

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Estimate:
    """A number of a method, or of what else it is of, with its 95 % interval (NaN: none) and n (0: not counted)."""

    who: str
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n: int = 0

    def __format__(self, sign: str) -> str:
        """Write the value with its interval: ``0.62 [0.40, 0.80]``; with ``+`` as the format, always with a sign."""
        form = f"{sign}z.2f"  # z: no minus sign before a zero
        interval = f" [{self.low:{form}}, {self.high:{form}}]" if np.isfinite(self.low + self.high) else ""
        return f"{self.value:{form}}{interval}"


@dataclass(frozen=True, kw_only=True)
class Statement(Estimate):
    """One statement of the verdict.

    Attributes
    ----------
    kind
        ``localisation``, ``faithfulness``: the best method; ``difference``: one method against another; ``models``: a
        method under one model and another; ``sanity``: a method's test; ``agreement``: the methods that are least and
        most alike; ``classifier``; ``marker``: how much of a method's relevance lies on a marker; ``removal``: what the
        model loses without it; ``baseline``: the picture of a curve's end still shows a finding.
    who, against
        What it is about and what that is set against: methods; of ``models`` a method and the other model.
    metric, unit, finding, value, low, high, n, patients, p
        The number, of pairs of film and finding; of ``difference`` and ``models`` how much it differs, with p after
        Holm's correction. The finding ``all`` is the mean over findings.
    decision
        ``better`` or ``worse`` than what it is set against, ``same``, ``undecided``; of best methods ``tied`` where
        several are, ``none`` where no method has a hit, ``nothing in common`` where no pair has a number of every
        method; of a test ``passes``, ``fails``, ``cannot be tested`` or ``undecided``; of a removal ``reads`` where the
        model reads the marker.
    reason
        Why, or what the number rests on.
    beside
        Numbers that it is read with: of controls, of the mirror image, of maps of different patients; of ``marker`` the
        ratio to the marker's share of the film.
    """

    kind: str
    model: str = ""
    against: tuple[str, ...] = ()
    finding: str = "all"
    metric: str = ""
    unit: str = ""
    patients: int = 0
    p: float = np.nan
    decision: str = ""
    reason: str = ""
    beside: tuple[Estimate, ...] = ()


# ---------------------------------------------------------------------------------------------------------------------
# From tables to statements


def verdict(
    tables: Tables,
    *,
    controls: AbstractSet[str],
    protocol: str = "native",
    faithfulness: Mapping[str, Measure] = MEASURES,
) -> list[Statement]:
    """Return what the tables say, model by model.

    Methods are ranked on the pairs that all of them have. A difference counts where Holm's correction leaves it
    significant; else it is undecided.

    Parameters
    ----------
    tables
        Of a comparison, by name.
    controls
        Methods that never look at the model.
    protocol
        How localisation was scored.
    faithfulness
        What the numbers of that section are.
    """
    statements = []
    tests = tables["paired_tests"]
    for model in models_of(tables):
        own = {name: table[table["model"] == model] for name, table in tables.items() if "model" in table.columns}
        own["paired_tests"] = tests[(tests["kind"] == "methods") & (tests["model_a"] == model)]
        found = [
            *_regions(own["regions"], controls),
            *_best(Statement("", kind="localisation", metric=LEAD[protocol]), own, controls),
            *_sanity(own["sanity_verdicts"], controls),
            *_faithfulness(own, controls, faithfulness),
            *_classifier(own["classification"]),
            *_agreement(own["agreement"], controls),
        ]
        statements += [replace(one, model=model) for one in found]
    return statements + _models(tests, LEAD[protocol])


def models_of(tables: Tables) -> list[str]:
    """Return the models that the tables speak of."""
    names = ("summary", "faithfulness", "sanity_verdicts", "regions", "classification", "agreement")
    return list(dict.fromkeys(model for name in names for model in tables[name]["model"]))


def _numbers(row: Any, value: str = "value") -> dict[str, Any]:
    low, high = ("low", "high") if value in ("value", "difference") else (f"{value}_low", f"{value}_high")
    return {"value": row[value], "low": row[low], "high": row[high], "n": int(row["n"])}


def _best(said: Statement, tables: Tables, controls: AbstractSet[str], *, higher: bool = True) -> list[Statement]:
    """Fill `said` with the best methods of its metric; set each against a control, and one alone against the next."""
    means, pairs = (
        (tables["summary"], tables["per_pair"])
        if said.kind == "localisation"
        else (tables["faithfulness"], tables["faithfulness_pairs"])
    )
    means = means[(means["metric"] == said.metric) & (means["finding"] == "all")]
    lead = means[means["value"].notna()].set_index("method")
    values = (lead["value"] if higher else -lead["value"]).to_dict()
    methods = [name for name in lead.index if name not in controls]
    blind = [name for name in lead.index if name in controls]
    if not methods:
        names = tuple(name for name in means["method"] if name not in controls)
        return [replace(said, who=name, against=names[:i] + names[i + 1 :], decision="nothing in common", reason="")
                for i, name in enumerate(names)]  # fmt: skip
    top = max(values[name] for name in methods)
    best = [name for name in methods if top - values[name] < ROUNDING]
    others = [name for name in methods if name not in best]
    if said.metric == "hit" and top == 0:
        said = replace(said, decision="none")
    elif len(best) > 1:
        said = replace(said, decision="tied")
    said = replace(
        said, against=tuple(others), beside=tuple(Estimate(name, **_numbers(lead.loc[name])) for name in blind)
    )
    if said.metric in pairs.columns:
        pairs = pairs[common_pairs(pairs, [said.metric])[0][:, 0]]
    patients = pairs[pairs["method"] == best[0]]["patient"].nunique()
    leading = [replace(said, who=name, **_numbers(lead.loc[name]), patients=patients) for name in best]
    rivals = [max(group, key=values.__getitem__) for group in (blind, [] if best[1:] else others) if group]
    tests = tables["paired_tests"]
    return leading + [_difference(tests, said.metric, name, rival, higher=higher) for name in best for rival in rivals]


def _difference(tests: pd.DataFrame, metric: str, best: str, other: str, *, higher: bool = True) -> Statement:
    """Return whether a method differs from another in a metric, after Holm's correction."""
    rows = tests[(tests["metric"] == metric) & (tests["finding"] == "all")]
    forward = rows[(rows["method_a"] == best) & (rows["method_b"] == other)]
    backward = rows[(rows["method_a"] == other) & (rows["method_b"] == best)]
    said = Statement(best, kind="difference", against=(other,), metric=metric)
    if forward.empty and backward.empty:
        return replace(said, decision="undecided", reason="they have no pair in common")
    return _decided(said, *((forward.iloc[0], 1) if len(forward) else (backward.iloc[0], -1)), higher=higher)


def _decided(said: Statement, row: Any, turn: int = 1, *, higher: bool = True) -> Statement:
    """Fill `said` with a paired test, turned round where `turn` is -1, and with what it decides and why."""
    low, high = sorted((turn * row["low"], turn * row["high"])) if np.isfinite(row["low"]) else (np.nan, np.nan)
    value = turn * row["difference"]
    decision, reason = "undecided", ""
    if abs(value) < ROUNDING:
        decision, reason = "same", "their means are the same on these films"
    elif row["patients"] < MIN_PATIENTS:
        reason = f"fewer than {MIN_PATIENTS} patients"
    elif not np.isfinite(low + high):
        reason = _NO_INTERVAL
    elif row["decided"]:
        decision = "better" if (value > 0) == higher else "worse"
    elif row["p"] < LEVEL:
        reason = "the difference does not survive Holm's correction"
    else:
        reason = "the interval holds 0"
    return replace(
        said, value=value, low=low, high=high, n=int(row["n"]), patients=int(row["patients"]), p=row["p_holm"],
        decision=decision, reason=reason,
    )  # fmt: skip


def _faithfulness(tables: Tables, controls: AbstractSet[str], measures: Mapping[str, Measure]) -> list[Statement]:
    """Return the best by the first metric there is, and where a baseline keeps the finding, so that it says little."""
    table = tables["faithfulness"]
    judging = [name for name, measure in measures.items() if measure.higher_is_better is not None]
    metric = next((name for name in (*FAITHFUL, *judging) if name in set(table["metric"])), None)
    if metric is None:
        return []
    higher = measures[metric].higher_is_better is True
    reason = "" if higher else "lower is better"
    said = _best(
        Statement("", kind="faithfulness", metric=metric, unit=measures[metric].unit, reason=reason),
        tables,
        controls,
        higher=higher,
    )
    for flag, curve in (("flagged", "deletion"), ("insertion_flagged", "insertion")) if said else ():
        rows = table[(table["metric"] == flag) & (table["finding"] != "all")]
        rows = rows.drop_duplicates("finding")  # the baseline is the same for all methods
        said += [
            Statement(curve, kind="baseline", metric=flag, finding=row["finding"], **_numbers(row))
            for row in rows[rows["value"] > 0.5].to_dict("records")
        ]
    return said


def _sanity(table: pd.DataFrame, controls: AbstractSet[str]) -> list[Statement]:
    """Return which methods look at the network at all; what is not decided, and that a control does not, comes last."""
    rows = table[table["test"] == "randomisation"].to_dict("records")
    said = [
        Statement(
            row["method"], kind="sanity", metric="randomisation", decision=row["outcome"] or "undecided",
            reason=row["reason"],
        )
        for passed in (True, False, None)
        for row in rows
        if row["passed"] is passed
    ]  # fmt: skip
    return sorted(said, key=lambda one: one.decision != "passes" and 1 + (one.who in controls))


def _regions(table: pd.DataFrame, controls: AbstractSet[str]) -> list[Statement]:
    """Return whether a model looks at what is not in the patient: the finding and method with most on the marker."""
    marker = table[(table["region"] == "marker") & (table["finding"] != "all") & ~table["method"].isin(list(controls))]
    rows = {metric: part.to_dict("records") for metric, part in marker.groupby("metric", sort=False)}
    said = []
    known = [row for row in rows.get("mass_ratio", []) if np.isfinite(row["value"])]
    if known:
        top = max(known, key=lambda row: row["value"])
        share = next(row for row in rows["mass"] if all(row[key] == top[key] for key in ("method", "finding")))
        times = Estimate("mass_ratio", **_numbers(top))
        said.append(Statement(
            top["method"], kind="marker", finding=top["finding"], metric="mass", beside=(times,), **_numbers(share),
        ))  # fmt: skip
    if rows.get("drop"):
        most = max(rows["drop"], key=lambda row: row["value"])
        mirror = next(row for row in rows["drop_mirror"] if row["finding"] == most["finding"])
        said.append(Statement(
            "marker", kind="removal", against=("mirror image",), finding=most["finding"], metric="drop", unit="logits",
            **_numbers(most), beside=(Estimate("drop_mirror", **_numbers(mirror)),),
            decision="reads" if most["low"] > 0 and most["low"] > mirror["high"] else "",
        ))  # fmt: skip
    return said


def _models(tests: pd.DataFrame, metric: str) -> list[Statement]:
    """Compare the models under each method, on the films both explain."""
    rows = tests[(tests["kind"] == "models") & (tests["finding"] == "all") & (tests["metric"] == metric)]
    return [
        _decided(
            Statement(row["method_a"], kind="models", model=row["model_a"], against=(row["model_b"],), metric=metric),
            row,
        )
        for row in rows.to_dict("records")
    ]  # fmt: skip


def _classifier(table: pd.DataFrame) -> list[Statement]:
    rows = table[(table["finding"] == "all") & np.isfinite(table["auroc"].astype(float))]
    return [
        Statement(row["model"], kind="classifier", metric="auroc", **_numbers(row, "auroc"), reason=row["note"])
        for row in rows.to_dict("records")
    ]


def _agreement(table: pd.DataFrame, controls: AbstractSet[str]) -> list[Statement]:
    """Return the methods that are least alike and those that are most alike."""
    table = table[(table["metric"] == "spearman") & (table["finding"] == "all")]
    real = table[~table["method_a"].isin(list(controls)) & ~table["method_b"].isin(list(controls))]
    real = real[np.isfinite(real["value"].astype(float))].sort_values("value", kind="stable")
    beside = (Estimate("different patients", real["random_pair"].max()),)
    return [
        Statement(
            row["method_a"], kind="agreement", against=(row["method_b"],), metric="spearman", **_numbers(row),
            beside=beside,
        )
        for row in real.to_dict("records")[:: max(1, len(real) - 1)]
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# From statements to sentences

_SENTENCES = {
    "marker": "{one.finding}: {one.who} puts {one} of its relevance on the marker, {beside.value:.1f} times the "
    "marker's share of the film (n = {one.n}{few}).",
    "removal": "{one.finding}: painting the marker over lowers the logit by {one} (n = {one.n}{few}), painting "
    "its mirror image over by {beside}.",
    "removal reads": "{one.finding}: painting the marker over lowers the logit by {one} (n = {one.n}{few}), "
    "painting its mirror image over by {beside}: the model reads the marker.",
    "localisation": "{one.who} overlaps the finding{best}: {word} {one} ({truths}){controls}.",
    "localisation tied": "{names} tie{ahead}: each overlaps the finding with {word} {one.value:.2f} "
    "({truths}){controls}.",
    "localisation hit": "{one.who} puts its maximum into the finding{often} in {one} of cases ({truths}){controls}.",
    "localisation hit tied": "{names} tie{ahead}: each puts its maximum into the finding in {one.value:.2f} of cases "
    "({truths}){controls}.",
    "localisation hit none": "{none} its maximum into the finding: {one} of cases ({truths}){controls}.",
    "nothing in common": "{which} by {word} cannot be said: there is no pair of film and finding that all methods and "
    "controls have.",
    "sanity": "{one.who} {one.decision}: {one.reason}.",
    "sanity undecided": "{one.who}: {one.reason}.",
    "sanity passes": "{passing} the randomisation test: with a random network the maps are others.",
    "faithfulness": "When the pixels of a map are changed, the model follows {one.who}{most}: {word} {one}{unit} "
    "({reason}n = {one.n}{few}){controls}.",
    "faithfulness tied": "{names} tie{ahead}: when the pixels of their maps are changed, the model follows each with "
    "{word} {one.value:.2f}{unit} ({reason}n = {one.n}{few}){controls}.",
    "baseline": "The baseline of {one.who} keeps over half of the probability of {findings} on most films: {one.who} "
    "says little there.",
    "classifier": "The classifier separates films with an AUROC of {one} ({one.reason}; {one.n} labels{few}).",
    "agreement": "The methods' rank correlations lie between {ends}{strangers}.",
    "agreement of two": "{one.who} and {other} agree with a rank correlation of {one.value:z.2f} (n = {one.n}{few})"
    "{strangers}.",
}
"""By kind, and where they differ by what was decided or measured."""


def sentences(statements: Iterable[Statement]) -> list[tuple[str, str]]:
    """Return (model, sentence) in the statements' order; the model is empty where several are compared.

    One sentence names all methods that pass a test, all findings that a baseline keeps, both ends of an agreement.
    """
    groups = [list(group) for _, group in groupby(statements, _shared)]
    return [("" if group[0].kind == "models" else group[0].model, _sentence(group)) for group in groups]


def _shared(one: Statement) -> Hashable:
    """Return what statements of one sentence have in common."""
    together = one.kind in ("baseline", "agreement") or one.decision in ("passes", "tied", "none", "nothing in common")
    return one.model, one.kind, one.metric, one.decision, None if together else id(one)


def _sentence(group: Sequence[Statement]) -> str:
    one = group[0]
    if one.kind in ("difference", "models"):
        return _difference_sentence(one)
    *first, last = (each.who for each in group)
    names = f"{', '.join(first)} and {last}" if first else last
    special = "of two" if one.kind == "agreement" and not first else one.decision
    forms = (
        f"{one.kind} {one.metric} {special}",
        f"{one.kind} {special}",
        special,
        f"{one.kind} {one.metric}",
        one.kind,
    )
    few = _few(one)
    return next(_SENTENCES[form] for form in forms if form in _SENTENCES).format(
        one=one,
        names=names,
        few=few,
        truths=f"mean over findings; {one.n} truth pairs of {one.patients} patients{few}",
        other="".join(one.against[:1]),
        beside=one.beside[0] if one.beside else None,
        word=_word(one.metric),
        unit=f" {one.unit}".rstrip(),
        reason=f"{one.reason}, " if one.reason else "",
        best=" best" if one.against else "",
        often=" most often," if one.against else "",
        most=" most" if one.against else "",
        ahead=" for the first place" if one.against else "",
        none=f"None of {names} puts" if first else f"{last} never puts",
        which=f"Which of {names} is best" if first else f"How good {last} is",
        controls=_controls(one),
        strangers=_strangers(one),
        findings=", ".join(each.finding for each in group),
        passing=f"{names} {'pass' if first else 'passes'}",
        ends=" and ".join(f"{end.value:z.2f} ({end.who} and {''.join(end.against)}, n = {end.n})" for end in group),
    )


def _controls(one: Statement) -> str:
    listed = ", ".join(f"{control.who} {control.value:z.2f}" for control in one.beside)
    return f". Without looking at the model: {listed}" if listed else ""


def _strangers(one: Statement) -> str:
    known = [beside.value for beside in one.beside if np.isfinite(beside.value)]
    return f"; maps of different patients reach {known[0]:z.2f}" if known else ""


def _few(one: Statement) -> str:
    """Say that a number is of few patients; where they were not counted, at least that it has no interval."""
    if (one.patients or one.n) < MIN_PATIENTS:  # no more patients than numbers
        return f"; fewer than {MIN_PATIENTS} patients say nothing"
    return "" if one.patients or np.isfinite(one.low + one.high) else "; no interval"


def _difference_sentence(one: Statement) -> str:
    other, who = one.against[0], f"{one.who} on {one.model}" if one.kind == "models" else one.who
    if not one.n:
        return f"Whether {who} is better than {other} cannot be said: {one.reason}."
    p = f", Holm-adjusted p = {one.p:.2g}" if np.isfinite(one.low + one.high) and one.value != 0 else ""
    said = f"{who} against {other}: {one:+} {_word(one.metric)} (n = {one.n}{p})"
    if one.decision == "same":
        return f"{said}; {one.reason}."
    if one.decision != "undecided":
        return f"{said}; {one.model if one.kind == 'models' else who} is {one.decision}."
    return f"{said}; not decidable {'' if one.reason == _NO_INTERVAL else 'with these films: '}{one.reason}."


def _word(metric: str) -> str:
    return WORDS.get(metric, metric.replace("_", " "))
