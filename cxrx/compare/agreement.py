"""How alike the maps of two methods, or of two models, are on the same films, and how scattered each is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.compare.corpus import Corpus, FilmInfo, ModelData, Pair, scaled
from cxrx.compare.localisation.table import by_films
from cxrx.compare.notes import Notes
from cxrx.compare.single import SingleMetrics
from cxrx.metrics import agreement as agree
from cxrx.metrics.bootstrap import PatientBootstrap, group_means, numbered
from cxrx.metrics.controls import centre_map, random_map
from cxrx.metrics.geometry import to_source

_VALUES = ("finding", "metric", "value", "n", "low", "high", "random_pair")
METHODS = ("model", "method_a", "method_b", *_VALUES)
MODELS = ("method", "model_a", "model_b", *_VALUES)
DISPERSION = ("image_id", "patient", "model", "method", "finding", "probability", "outcome", "dispersion")
MAX_PAIRS = 2000  # of (film, finding); more change the third digit only


@dataclass
class Agreement:
    """Tables with the columns :data:`METHODS`, :data:`MODELS` and :data:`DISPERSION`."""

    methods: pd.DataFrame
    models: pd.DataFrame
    dispersion: pd.DataFrame


@dataclass
class _Likeness:
    """Compares two sets of maps of the same pairs, and each with maps of other patients."""

    pairs: list[Pair]
    patients: list[str]
    metrics: Sequence[str]
    single: SingleMetrics
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
        same: dict[tuple[int, int], dict[str, agree.Float]] = {}
        foreign: dict[tuple[int, int], dict[str, agree.Float]] = {}
        for j in range(1, len(maps)):
            other = maps[j].take(self.partner)  # one at a time: they are as large as the maps
            for i in range(j):
                same[i, j], foreign[i, j] = self._scores(maps[i], maps[j]), self._scores(maps[i], other)
        none = np.full(len(self.pairs), np.nan)
        for metric in dict.fromkeys(name for scores in same.values() for name in scores):
            values, apart = (
                np.stack([side[pair].get(metric, none) for pair in both], axis=1) for side in (same, foreign)
            )  # (n, P)
            yield from self._means(names, both, metric, values, apart)

    def _scores(self, a: _Maps, b: _Maps) -> dict[str, agree.Float]:
        return {metric: agree.compare(metric, a, b) for metric in self.metrics} | self._third_party(a, b)

    def _means(
        self,
        names: Sequence[Any],
        both: Sequence[tuple[int, int]],
        metric: str,
        same: agree.Float,
        foreign: agree.Float,
    ) -> Iterator[tuple[Any, ...]]:
        foreign[self.partner < 0] = np.nan
        found = self.bootstrap.table(same, self.patients, self.findings, "mean")
        baseline = group_means(foreign, numbered(self.findings)[1])[0] if len(foreign) else found.value
        for g, finding in enumerate(found.groups):
            for p, (i, j) in enumerate(both):
                at = (g, p)
                numbers = (found.value[at], int(found.n[at]), found.low[at], found.high[at], baseline[at])
                yield names[i], names[j], finding, metric, *numbers

    def _third_party(self, a: _Maps, b: _Maps) -> dict[str, agree.Float]:
        """Return the scores ``(n,)`` of metrics that take two maps; NaN where either map orders nothing."""
        scores: dict[str, agree.Float] = {}
        for i in np.flatnonzero(a.usable & b.usable).tolist():
            both = (maps.values[i].reshape(agree.GRID, agree.GRID) for maps in (a, b))
            for name, value in self.single.scores("pairs of maps", *both).items():
                scores.setdefault(name, np.full(len(self.pairs), np.nan))[i] = value
        return scores


_Maps = agree.CommonMaps


def agreement(
    corpus: Corpus,
    bootstrap: PatientBootstrap,
    seed: int,
    metrics: Sequence[str],
    notes: Notes,
    *,
    single: SingleMetrics,
    signed: bool = False,
) -> Agreement:
    """Compare every two methods of a model, and every two models under a method; measure how scattered maps are.

    Parameters
    ----------
    metrics
        Of :data:`cxrx.metrics.agreement.METRICS`.
    signed
        Compare maps as they are stored, not in their published form.
    single
        Agreement metrics of plugins; they are given maps on the common grid, ``(64, 64)``.
    """
    methods: list[tuple[Any, ...]] = []
    models: list[tuple[Any, ...]] = []
    dispersions: list[dict[str, Any]] = []

    def likeness(pairs: Iterable[Pair], what: str) -> _Likeness:
        chosen = _drawn(corpus, pairs, seed, notes, what)
        patients = [corpus.films[image_id].patient for image_id, _ in chosen]
        return _Likeness(chosen, patients, metrics, single, bootstrap, seed)

    for model in corpus.models.values():
        found = likeness(model.pairs(), model.slug)
        if not found.pairs:
            continue
        maps = {name: _read(corpus, model, name, found.pairs, signed=signed) for name in model.methods}
        _warn_constant(model, found.pairs, maps, notes)
        dispersions += _dispersions(corpus, model, found.pairs, maps)
        maps |= _blind(found.pairs, seed, set(maps))
        methods += [(model.slug, *row) for row in found.rows(list(maps), list(maps.values()))]
    for method, sharing in _shared(corpus).items():
        found = likeness(sorted(set.intersection(*(_right(corpus, model, method) for model in sharing))), method)
        if found.pairs:
            read = [
                _read(corpus, model, method, found.pairs, signed=signed, frame=sharing[0]) for model in sharing
            ]  # fmt: skip
            models += [(method, *row) for row in found.rows([model.slug for model in sharing], read)]
    return Agreement(
        pd.DataFrame(methods, columns=list(METHODS)),
        pd.DataFrame(models, columns=list(MODELS)),
        pd.DataFrame(dispersions, columns=list(DISPERSION)),
    )


def _drawn(corpus: Corpus, pairs: Iterable[Pair], seed: int, notes: Notes, what: str) -> list[Pair]:
    chosen = [pair for pair in pairs if pair[0] in corpus.films]
    if len(chosen) > MAX_PAIRS:
        notes.warn(f"{what}: agreement is measured on {MAX_PAIRS} of {len(chosen)} pairs, drawn by seed")
        drawn = np.random.default_rng(seed).choice(len(chosen), MAX_PAIRS, replace=False)
        chosen = [chosen[i] for i in sorted(drawn.tolist())]
    return chosen


def _read(
    corpus: Corpus,
    model: ModelData,
    method: str,
    pairs: Sequence[Pair],
    *,
    signed: bool,
    frame: ModelData | None = None,
) -> _Maps:
    """Return a method's maps on the common grid, over what the model `frame` saw; NaN where there is no map."""
    values = np.full((len(pairs), agree.GRID**2), np.nan, dtype=np.float32)
    place = {pair: i for i, pair in enumerate(pairs)}
    for chunk in by_films(pairs):
        for pair, grid in corpus.read(model, method, chunk, signed=signed).items():
            values[place[pair]] = _framed(grid, model, frame or model, corpus.films[pair[0]]).ravel()
    return _Maps(values)


def _framed(values: NDArray[np.floating], model: ModelData, frame: ModelData, film: FilmInfo) -> agree.Float:
    """Bring a map of `model` to the common grid over what `frame` saw of the film; 0 where `model` saw nothing."""
    (own, size), (target, shape) = model.window(film), frame.window(film)
    if size == shape and np.array_equal(own, target):
        return agree.common_grid(values)
    relative = own.copy()  # from the one's grid to the other's
    relative[:, 2] -= target[:, 2]
    relative /= target[[0, 1], [0, 1]][:, None]
    grid = (agree.GRID, agree.GRID)
    return to_source(values, scaled(relative, shape, grid), size, grid)


def _blind(pairs: Sequence[Pair], seed: int, there: set[str]) -> dict[str, _Maps]:
    """Return the maps of the baselines that need no picture, unless the file has its own."""
    blind = {}
    if "centre" not in there:
        centre = agree.common_grid(centre_map()).reshape(1, -1)
        blind["centre"] = _Maps(np.repeat(centre, len(pairs), axis=0))
    if "random" not in there:
        blind["random"] = _Maps(np.stack([agree.common_grid(random_map(seed, *pair)).ravel() for pair in pairs]))
    return blind


def _dispersions(
    corpus: Corpus, model: ModelData, pairs: Sequence[Pair], maps: Mapping[str, _Maps]
) -> Iterator[dict[str, Any]]:
    for method, own in maps.items():
        for pair, value in zip(pairs, agree.dispersion(own.values).tolist(), strict=True):
            yield {
                "image_id": pair[0], "patient": corpus.films[pair[0]].patient, "model": model.slug, "method": method,
                "finding": pair[1], "probability": model.probability_of(pair),
                "outcome": model.outcome(pair, corpus.labels.get(pair[0], {}).get(pair[1])), "dispersion": value,
            }  # fmt: skip


def _shared(corpus: Corpus) -> dict[str, list[ModelData]]:
    """Return the methods that look at the model and that several models have, with those models."""
    sharing: dict[str, list[ModelData]] = {}
    for model in corpus.models.values():
        for method in model.methods:
            if method not in model.controls:
                sharing.setdefault(method, []).append(model)
    return {method: models for method, models in sharing.items() if len(models) > 1}


def _right(corpus: Corpus, model: ModelData, method: str) -> set[Pair]:
    """Return the pairs that have a map and that the model does not classify wrong, as far as labels tell.

    Networks that answer differently may well look at different things (Arun et al. 2021).
    """
    return {
        pair
        for pair in model.pairs()
        if model.source(method, pair) is not None
        and model.outcome(pair, corpus.labels.get(pair[0], {}).get(pair[1])) not in {"FP", "FN"}
    }


def _warn_constant(model: ModelData, pairs: Sequence[Pair], maps: Mapping[str, _Maps], notes: Notes) -> None:
    for method, own in maps.items():
        there = np.array([model.source(method, pair) is not None for pair in pairs])
        constant = int((there & ~own.usable).sum())
        if constant:
            notes.warn(
                f"{constant} of {int(there.sum())} maps of {method} ({model.slug}) are constant (a ReLU may have left "
                "nothing) or hold NaN: they are misses in localisation and do not count in agreement"
            )
