"""How alike the maps of two methods, or of two models, are on the same films, and how scattered each is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from cxrx.compare import agreement as agree
from cxrx.compare.controls import centre_map, random_map
from cxrx.compare.corpus import Corpus, ModelData, Pair
from cxrx.compare.localise import by_films
from cxrx.compare.notes import Notes
from cxrx.compare.statistics import PatientBootstrap

_VALUES = ("finding", "metric", "value", "n", "low", "high", "random_pair")
METHODS = ("model", "method_a", "method_b", *_VALUES)
MODELS = ("method", "model_a", "model_b", *_VALUES)
SPREAD = ("image_id", "patient", "model", "method", "finding", "probability", "outcome", "spread")
MAX_PAIRS = 2000  # of (film, finding); more change the third digit only


@dataclass
class Agreement:
    """Tables with the columns :data:`METHODS`, :data:`MODELS` and :data:`SPREAD`."""

    methods: pd.DataFrame
    models: pd.DataFrame
    spread: pd.DataFrame


@dataclass
class _Likeness:
    """Compares two sets of maps of the same pairs, and each with maps of other patients."""

    pairs: list[Pair]
    patients: list[str]
    metrics: Sequence[str]
    bootstrap: PatientBootstrap
    seed: int

    def __post_init__(self) -> None:
        self.findings = [finding for _, finding in self.pairs]
        self.partner = agree.other_film(self.findings, self.patients, self.seed)

    def rows(self, names: Sequence[Any], maps: Sequence[_Maps]) -> Iterator[tuple[Any, ...]]:
        """Yield ``(name a, name b, finding, metric, value, n, low, high, random_pair)`` of every two of `maps`."""
        both = list(combinations(range(len(names)), 2))
        if not both:
            return
        other = [one.take(self.partner) for one in maps]
        for metric in self.metrics:
            same = np.stack([agree.compare(metric, maps[i], maps[j]) for i, j in both], axis=1)  # (n, P)
            foreign = np.stack([agree.compare(metric, maps[i], other[j]) for i, j in both], axis=1)
            foreign[self.partner < 0] = np.nan
            found = self.bootstrap.table(same, self.patients, self.findings)
            baseline = self.bootstrap.table(foreign, self.patients, self.findings, bounds=False)
            for g, finding in enumerate(found.groups):
                for p, (i, j) in enumerate(both):
                    at = (g, p)
                    numbers = (found.value[at], int(found.n[at]), found.low[at], found.high[at], baseline.value[at])
                    yield names[i], names[j], finding, metric, *numbers


_Maps = agree.CommonMaps


def agreement(
    corpus: Corpus, bootstrap: PatientBootstrap, seed: int, metrics: Sequence[str], notes: Notes
) -> Agreement:
    """Compare every two methods of a model, and every two models under a method; measure how scattered maps are."""
    methods: list[tuple[Any, ...]] = []
    models: list[tuple[Any, ...]] = []
    spreads: list[dict[str, Any]] = []
    for model in corpus.models.values():
        likeness = _likeness(corpus, model.pairs(), metrics, bootstrap, seed, notes, model.slug)
        if likeness is None or not model.methods:
            continue
        maps = {name: _read(corpus, model, name, likeness.pairs) for name in model.methods}
        _tell_constant(model, likeness.pairs, maps, notes)
        spreads += _spreads(corpus, model, likeness.pairs, maps)
        maps |= _blind(likeness.pairs, seed, set(maps))
        methods += [(model.slug, *row) for row in likeness.rows(list(maps), list(maps.values()))]
    for method, sharing in _shared(corpus).items():
        pairs = sorted(set.intersection(*(_pairs_of(model, method) for model in sharing)))
        likeness = _likeness(corpus, pairs, metrics, bootstrap, seed, notes, method)
        if likeness is not None:
            read = [_read(corpus, model, method, likeness.pairs) for model in sharing]
            models += [(method, *row) for row in likeness.rows([model.slug for model in sharing], read)]
    return Agreement(
        pd.DataFrame(methods, columns=list(METHODS)),
        pd.DataFrame(models, columns=list(MODELS)),
        pd.DataFrame(spreads, columns=list(SPREAD)),
    )


def _likeness(
    corpus: Corpus,
    pairs: Iterable[Pair],
    metrics: Sequence[str],
    bootstrap: PatientBootstrap,
    seed: int,
    notes: Notes,
    what: str,
) -> _Likeness | None:
    chosen = [pair for pair in pairs if pair[0] in corpus.films]
    if not chosen:
        return None
    if len(chosen) > MAX_PAIRS:
        notes.warn(f"{what}: agreement is measured on {MAX_PAIRS} of {len(chosen)} pairs, drawn by seed")
        drawn = np.random.default_rng(seed).choice(len(chosen), MAX_PAIRS, replace=False)
        chosen = [chosen[i] for i in sorted(drawn.tolist())]
    patients = [corpus.films[image_id].patient for image_id, _ in chosen]
    return _Likeness(chosen, patients, metrics, bootstrap, seed)


def _read(corpus: Corpus, model: ModelData, method: str, pairs: Sequence[Pair]) -> _Maps:
    """Return a method's maps on the common grid; NaN where there is no map."""
    values = np.full((len(pairs), agree.GRID**2), np.nan, dtype=np.float32)
    place = {pair: i for i, pair in enumerate(pairs)}
    for chunk in by_films(pairs):
        for pair, grid in corpus.read(model, method, chunk).items():
            values[place[pair]] = agree.common_grid(grid).ravel()
    return _Maps(values)


def _blind(pairs: Sequence[Pair], seed: int, there: set[str]) -> dict[str, _Maps]:
    """Return the maps of the baselines that need no picture, unless the file has its own."""
    blind = {}
    if "centre" not in there:
        centre = agree.common_grid(centre_map()).reshape(1, -1)
        blind["centre"] = _Maps(np.repeat(centre, len(pairs), axis=0))
    if "random" not in there:
        blind["random"] = _Maps(np.stack([agree.common_grid(random_map(seed, *pair)).ravel() for pair in pairs]))
    return blind


def _spreads(
    corpus: Corpus, model: ModelData, pairs: Sequence[Pair], maps: Mapping[str, _Maps]
) -> Iterator[dict[str, Any]]:
    for method, own in maps.items():
        for pair, value in zip(pairs, agree.spread(own.values).tolist(), strict=True):
            yield {
                "image_id": pair[0], "patient": corpus.films[pair[0]].patient, "model": model.slug, "method": method,
                "finding": pair[1], "probability": model.probability_of(pair),
                "outcome": model.outcome(pair, corpus.labels.get(pair[0], {}).get(pair[1])), "spread": value,
            }  # fmt: skip


def _shared(corpus: Corpus) -> dict[str, list[ModelData]]:
    """Return the methods that look at the model and that several models have, with those models."""
    sharing: dict[str, list[ModelData]] = {}
    for model in corpus.models.values():
        for method in model.methods:
            if method not in model.controls:
                sharing.setdefault(method, []).append(model)
    return {method: models for method, models in sharing.items() if len(models) > 1}


def _pairs_of(model: ModelData, method: str) -> set[Pair]:
    return {pair for pair in model.pairs() if model.source(method, pair) is not None}


def _tell_constant(model: ModelData, pairs: Sequence[Pair], maps: Mapping[str, _Maps], notes: Notes) -> None:
    for method, own in maps.items():
        there = np.array([model.source(method, pair) is not None for pair in pairs])
        constant = int((there & ~own.usable).sum())
        if constant:
            notes.warn(
                f"{constant} of {int(there.sum())} maps of {method} ({model.slug}) are constant (a ReLU may have left "
                "nothing) or hold NaN: they are misses in localisation and do not count in agreement"
            )
