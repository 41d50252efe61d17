"""Which cases a report shows: by rule, never by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import numpy as np
import pandas as pd

from cxrx.compare.comparison import Comparison
from cxrx.compare.corpus import Corpus
from cxrx.export.cases import Key

MAX_CASES = 24


def lead_method(comparison: Comparison, slug: str, methods: Sequence[str]) -> str:
    """Return the method with the highest hit rate (controls only if there is nothing else), else the first."""
    table = comparison.summary
    table = table[(table["model"] == slug) & (table["metric"] == "hit") & (table["finding"] == "all")]
    values = dict(zip(table["method"], table["value"], strict=True))
    real = [name for name in methods if name not in comparison.controls] or list(methods)
    return max(real, key=lambda name: values.get(name, -1.0))


def choose_cases(comparison: Comparison, corpus: Corpus, limit: int = MAX_CASES) -> list[tuple[str, str, list[Key]]]:
    """Choose at most `limit` cases.

    Returns
    -------
    groups
        (heading, rule in one sentence, cases), empty ones left out. With truth: the cases where the best method of a
        model does best and worst (IoU, findings in turn) and a seeded draw of the others, a third each; everything
        where there are few. Without truth: a seeded draw.
    """
    groups: list[tuple[str, str, list[Key]]] = []
    models = [model for model in corpus.models.values() if model.methods]
    for model in models:
        share = max(3, limit // len(models))
        name = f" ({model.slug})" if len(models) > 1 else ""
        lead = lead_method(comparison, model.slug, list(model.methods))
        table = comparison.per_pair
        table = table[(table["model"] == model.slug) & (table["method"] == lead)]
        if table.empty:
            pairs = [pair for pair in model.pairs() if pair[0] in corpus.films]
            drawn = _draw(pairs, share, comparison.settings["seed"])
            rule = f"{len(drawn)} of {len(pairs)} maps without a known truth, drawn by seed."
            groups.append((f"Cases{name}", rule, [(model.slug, pair) for pair in drawn]))
            continue
        for heading, rule, pairs in _by_score(table, lead, share, comparison.settings["seed"]):
            groups.append((heading + name, rule, [(model.slug, pair) for pair in pairs]))
    return [group for group in groups if group[2]]


def _by_score(
    table: pd.DataFrame, lead: str, share: int, seed: int
) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    table = table.sort_values(["iou", "image_id"], ascending=[False, True], kind="stable")
    ordered = list(zip(table["image_id"], table["finding"], strict=True))
    if len(ordered) <= share:
        yield "All cases", f"Every pair with a truth, from the highest IoU of {lead} to the lowest.", ordered
        return
    third = share // 3
    best = _in_turn(ordered)[:third]
    rest = [pair for pair in ordered if pair not in best]
    worst = _in_turn(rest[::-1])[:third]
    rest = [pair for pair in rest if pair not in worst]
    drawn = _draw(rest, share - len(best) - len(worst), seed)
    yield "Where it works", f"Highest IoU of {lead}, findings in turn.", best
    yield "Where it fails", f"Lowest IoU of {lead}, findings in turn.", worst
    yield "Drawn by lot", f"{len(drawn)} of the other {len(rest)} pairs, drawn by seed.", drawn


def _in_turn(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Take one pair of each finding, then the next of each, keeping their order."""
    by_finding: dict[str, list[tuple[str, str]]] = {}
    for pair in pairs:
        by_finding.setdefault(pair[1], []).append(pair)
    return [pair for row in zip_longest(*by_finding.values()) for pair in row if pair is not None]


def _draw(pairs: Sequence[tuple[str, str]], n: int, seed: int) -> list[tuple[str, str]]:
    order = np.random.default_rng(seed).permutation(len(pairs))[:n].tolist()
    return [pairs[i] for i in sorted(order)]
