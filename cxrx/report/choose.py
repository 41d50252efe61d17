"""Which cases a report shows: by rule, never by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd

from cxrx.compare.comparison import Comparison
from cxrx.compare.corpus import Corpus, ModelData, Pair
from cxrx.report.words import number, pick, records

MAX_CASES = 250


@dataclass(frozen=True)
class Chosen:
    """A case and why it was chosen."""

    pair: Pair
    why: str = ""


@dataclass(frozen=True)
class Group:
    """The cases of one rule."""

    heading: str
    rule: str
    cases: Sequence[Chosen]


def lead_method(comparison: Comparison, slug: str, methods: Sequence[str]) -> str:
    """Return the method with the highest hit rate (controls only if there is nothing else), else the first."""
    table = pick(comparison.summary, model=slug, metric="hit", finding="all")
    values = {row["method"]: row["value"] for row in records(table)}
    real = [name for name in methods if name not in comparison.controls] or list(methods)
    return max(real, key=lambda name: values[name] if np.isfinite(values.get(name, np.nan)) else -1.0)


def choose_cases(comparison: Comparison, corpus: Corpus, limit: int = MAX_CASES) -> list[Group]:
    """Choose at most `limit` cases.

    Returns
    -------
    groups
        Empty ones left out. Cherries: the true positives of the highest IoU of each model's leading method; lemons: its
        lowest; the most confident false negatives and false positives; a draw by seed from all pairs that have a map,
        whatever came of them. A fifth of `limit` each, shared by the models, findings in turn; of the cherries, the
        lemons and the draw at most a third of what there is. A case can stand in several groups.
    """
    models = [model for model in corpus.models.values() if model.methods]
    share = max(1, limit // (5 * max(1, len(models))))
    rules: dict[str, tuple[str, list[Chosen]]] = {}
    for model in models:
        lead = lead_method(comparison, model.slug, list(model.methods))
        mark = f", {model.slug}" if len(models) > 1 else ""
        table = pick(comparison.per_pair, model=model.slug, method=lead)
        for heading, rule, cases in (*_by_iou(model, table, lead, share, mark), *_by_error(model, corpus, share, mark)):
            rules.setdefault(heading, (rule, []))[1].extend(cases)
    drawn, total = _lot(models, corpus, limit // 5, comparison.settings.get("seed", 0))
    rules["Drawn by lot"] = (f"{len(drawn)} of all {total} pairs that have a map, drawn by seed.", drawn)
    return [Group(heading, rule, _once(cases)) for heading, (rule, cases) in rules.items() if cases]


def _by_iou(
    model: ModelData, table: pd.DataFrame, lead: str, share: int, mark: str
) -> list[tuple[str, str, list[Chosen]]]:
    """Return the best and the worst of the true positives; of all pairs where no outcome is known (imported maps)."""
    if table.empty or "iou" not in table.columns:
        return []
    found = table[np.isfinite(table["iou"].to_numpy(float))]
    found = found.sort_values(["iou", "image_id", "finding"], ascending=[False, True, True], kind="stable")
    iou = {(row["image_id"], row["finding"]): row["iou"] for row in records(found)}
    outcomes = {pair: model.outcome(pair, 1) for pair in iou}
    known = any(outcomes.values())
    ordered = [pair for pair in iou if outcomes[pair] == "TP"] if known else list(iou)

    def chosen(pairs: Sequence[Pair]) -> list[Chosen]:
        return [Chosen(pair, f"IoU {number(iou[pair])} of {lead}{mark}") for pair in pairs]

    size = min(share, -(-len(ordered) // 3))
    best = _in_turn([pair for pair in ordered if iou[pair] > 0])[:size]  # a map beside its truth did not work
    worst = _in_turn([pair for pair in ordered[::-1] if pair not in set(best)])[:size]
    kind = "True positives" if known else "Pairs with a truth"
    rule = "IoU of each model's leading method, findings in turn."
    return [
        ("Where it works", f"{kind} of the highest {rule}", chosen(best)),
        ("Where it fails", f"{kind} of the lowest {rule}", chosen(worst)),
    ]


def _by_error(model: ModelData, corpus: Corpus, share: int, mark: str) -> list[tuple[str, str, list[Chosen]]]:
    """Return the most confident errors of a classifier that have a map."""
    outcomes = {pair: model.outcome(pair, label_of(corpus, pair)) for pair in _pairs(model, corpus)}
    missed, alarms = ([pair for pair, outcome in outcomes.items() if outcome == kind] for kind in ("FN", "FP"))

    def chosen(pairs: Sequence[Pair]) -> list[Chosen]:
        some = _in_turn(pairs)[:share]
        return [Chosen(pair, f"probability {number(model.probability_of(pair))}{mark}") for pair in some]

    missed.sort(key=lambda pair: (model.probability_of(pair), pair))
    alarms.sort(key=lambda pair: (-model.probability_of(pair), pair))
    rule = "that has a map, the most confident first, findings in turn; the map explains that finding."
    return [
        ("Missed findings", f"False negatives: a finding {rule}", chosen(missed)),
        ("False alarms", f"False positives: a finding {rule}", chosen(alarms)),
    ]


def label_of(corpus: Corpus, pair: Pair) -> int | None:
    """Return the label of a pair; a box or a mask is a label too. None where nothing is known."""
    label = corpus.labels.get(pair[0], {}).get(pair[1])
    return 1 if label is None and (pair in corpus.boxes or pair in corpus.masks) else label


def _lot(models: Sequence[ModelData], corpus: Corpus, share: int, seed: int) -> tuple[list[Chosen], int]:
    pairs = list(dict.fromkeys(pair for model in models for pair in _pairs(model, corpus)))
    size = min(max(1, share), -(-len(pairs) // 3))
    order = np.random.default_rng(seed).permutation(len(pairs))[:size].tolist()
    return [Chosen(pairs[i]) for i in sorted(order)], len(pairs)


def _pairs(model: ModelData, corpus: Corpus) -> list[Pair]:
    return [pair for pair in model.pairs() if pair[0] in corpus.films]


def _once(cases: Iterable[Chosen]) -> list[Chosen]:
    """Join what several models say of one case."""
    said: dict[Pair, list[str]] = {}
    for case in cases:
        said.setdefault(case.pair, []).append(case.why)
    return [Chosen(pair, "; ".join(part for part in parts if part)) for pair, parts in said.items()]


def _in_turn(pairs: Sequence[Pair]) -> list[Pair]:
    """Take one pair of each finding, then the next of each, keeping their order."""
    by_finding: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_finding.setdefault(pair[1], []).append(pair)
    return [pair for row in zip_longest(*by_finding.values()) for pair in row if pair is not None]
