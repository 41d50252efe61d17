"""Faithfulness of every method in the results: the model is run again on changed films."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxrx.compare.corpus import Corpus, ModelData, Pair
from cxrx.compare.faithfulness import FAMILIES
from cxrx.compare.faithfulness.family import Family
from cxrx.compare.faithfulness.score import Faithfulness, score_faithfulness
from cxrx.compare.notes import Notes
from cxrx.compare.rerun import Rerun
from cxrx.compare.single import SingleMetrics
from cxrx.errors import CxrxError
from cxrx.explainers.controls import edge_strength
from cxrx.explainers.seeds import derive_seed
from cxrx.explainers.targets import EMPTY
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.controls import centre_map, random_map
from cxrx.metrics.geometry import Float
from cxrx.metrics.perturbation import upsample
from cxrx.plugins import describe_error
from cxrx.specs import Score

log = logging.getLogger("cxrx")

BASE = ("image_id", "patient", "model", "method", "finding", "probability")
CURVES = ("model", "method", "curve", "x", "value", "low", "high", "n")


def draw_pairs(corpus: Corpus, data: ModelData, limit: int, seed: int) -> list[Pair]:
    """Draw at most `limit` explained pairs of a model by seed; those that every method explains come first.

    Parameters
    ----------
    corpus, data
        The open results, and the model.
    limit
        At most so many.
    seed
        What draws them.
    """
    methods = [name for name in data.methods if name not in data.controls]
    pairs = [pair for pair in data.pairs() if pair[0] in corpus.films and pair[0] in data.logit]
    shared = [pair for pair in pairs if all(data.source(name, pair) is not None for name in methods)]
    pool = shared or pairs
    if len(pool) > limit:
        pool = [pool[i] for i in sorted(np.random.default_rng(seed).choice(len(pool), limit, replace=False).tolist())]
    return pool


@dataclass
class Behaviour:
    """Faithfulness of one model's maps.

    Attributes
    ----------
    rows
        One per film, finding and method: :data:`BASE` and the scores.
    curves
        Curve to its x ``(S,)``; and (method, curve) to the normalised f of each pair ``(n, S)``.
    keys
        Method to (image_id, patient, finding) of each row of its curves.
    """

    slug: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    x: dict[str, Float] = field(default_factory=dict)
    curves: dict[tuple[str, str], list[Float]] = field(default_factory=dict)
    keys: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)

    def forget(self, family: Family) -> None:
        """Take back what a family has said so far."""
        for row in self.rows:
            for key in family.measures:
                row.pop(key, None)
        for curve in family.measures.keys() & self.x.keys():
            del self.x[curve]
            for drawn in [drawn for drawn in self.curves if drawn[1] == curve]:
                del self.curves[drawn]

    def curve_table(self, bootstrap: PatientBootstrap) -> pd.DataFrame:
        """Return the mean curves over findings, of the pairs that all methods have, with the columns :data:`CURVES`."""
        rows = []
        shared = set.intersection(*map(set, self.keys.values())) if self.keys else set()
        for (method, curve), values in self.curves.items():
            kept = [(key, drawn) for key, drawn in zip(self.keys[method], values, strict=True) if key in shared]
            if not kept:
                continue
            keys, drawn = zip(*kept, strict=True)
            _, patients, findings = zip(*keys, strict=True)
            found = bootstrap.table(np.stack(drawn), patients, findings, "mean")
            if np.isfinite(found.low[0]).any():  # where all films have one value, as at the ends of a curve
                for end in (found.low, found.high):
                    np.copyto(end, found.value, where=np.isnan(end))
            for s, x in enumerate(self.x[curve].tolist()):
                at = (0, s)
                bounds = (found.value[at], found.low[at], found.high[at], int(found.n[at]))
                rows.append((self.slug, method, curve, x, *bounds))
        return pd.DataFrame(rows, columns=list(CURVES))


def measure(
    rerun: Rerun,
    corpus: Corpus,
    pairs: Sequence[Pair],
    families: Sequence[Family],
    single: SingleMetrics,
    *,
    seed: int,
    notes: Notes,
    signed: bool = False,
) -> Behaviour:
    """Score the maps of all methods, and of the controls, on `pairs` of one model.

    Parameters
    ----------
    families
        Metrics of all methods at once.
    single
        Metrics of one method at a time.
    signed
        Score maps as they are stored, not in their published form.
    """
    data, behaviour = rerun.data, Behaviour(rerun.data.slug)
    own = [family for family in families if family in FAMILIES]
    foreign = [family for family in families if family not in FAMILIES]
    by_film: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_film.setdefault(pair[0], []).append(pair)
    score = _score(data, notes, softmax=rerun.model.activation == "softmax")
    log.info("%s: running the model again for faithfulness on %d films", data.slug, len(by_film))
    for ids, x in rerun.batches(list(by_film)):
        members = [by_film[image_id] for image_id in ids]
        targets = data.targets(members)
        maps = _maps(corpus, data, members, x, seed, notes, signed=signed)  # method -> (B, T, H, W)
        asked = {name: np.where(np.isfinite(values[:, :, 0, 0]), targets, EMPTY) for name, values in maps.items()}
        seeds = np.array([derive_seed(seed, "faithfulness", image_id) for image_id in ids], dtype=np.int64)
        # all methods side by side: equal perturbations are run once
        beside = np.concatenate([np.nan_to_num(values) for values in maps.values()], axis=1)
        wanted = np.concatenate(list(asked.values()), axis=1)
        found = score_faithfulness(rerun.model, x, beside, wanted, own, seeds=seeds, score=score)
        for family in list(foreign):
            try:
                found.update(score_faithfulness(rerun.model, x, beside, wanted, [family], seeds=seeds, score=score))
            except CxrxError:
                raise
            except Exception as error:  # noqa: BLE001 - a plugin's fault must not end the comparison
                notes.skip(f"{family.name} of {data.slug}", f"the metric failed ({describe_error(error)})")
                foreign.remove(family)
                behaviour.forget(family)
        for m, (name, values) in enumerate(maps.items()):
            explained = rerun.model.explaining(score)
            inputs = explained, x, torch.from_numpy(np.nan_to_num(values)), torch.from_numpy(asked[name])
            others = single.scores(f"batches of {name}", *inputs, shape=targets.shape)
            _note(behaviour, corpus, data, name, members, asked[name], m * targets.shape[1], found, others)
    return behaviour


def _score(data: ModelData, notes: Notes, *, softmax: bool) -> Score:
    """Return the score that all maps of a model are measured on: numbers on two scales cannot be compared."""
    methods = [name for name in data.methods if name not in data.controls]
    raw = [name for name in methods if data.scores[name] == "logit"]
    if softmax and raw and len(raw) < len(methods):  # of a sigmoid both are the same
        notes.warn(
            f"{data.slug}: of its maps, {', '.join(raw)} explain the raw logit, the others the log-odds; faithfulness "
            "measures all of them on the log-odds"
        )
    return "logit" if raw and len(raw) == len(methods) else "log-odds"


def _maps(
    corpus: Corpus,
    data: ModelData,
    members: Sequence[Sequence[Pair]],
    x: torch.Tensor,
    seed: int,
    notes: Notes,
    *,
    signed: bool,
) -> dict[str, NDArray[np.float32]]:
    """Return the maps of every method and control on the model's input, ``(B, T, H, W)``; NaN where there is none."""
    size = (int(x.shape[2]), int(x.shape[3]))
    flat = [pair for own in members for pair in own]
    edges = edge_strength(x).cpu().numpy()
    controls: dict[str, Callable[[int, Pair], Float]] = {
        "centre": lambda _, __: centre_map(),
        "random": lambda _, pair: random_map(seed, *pair),
        "edge": lambda b, _: edges[b],
    }
    maps = {}
    for name in [*data.methods, *(name for name in controls if name not in data.methods)]:
        read = corpus.read(data, name, flat, signed=signed) if name in data.methods else {}
        values = np.full((len(members), max(map(len, members)), *size), np.nan, dtype=np.float32)
        for b, own in enumerate(members):
            for t, pair in enumerate(own):
                grid = read.get(pair) if name in data.methods else controls[name](b, pair)
                if grid is None:
                    continue
                if np.isfinite(grid).all():
                    values[b, t] = upsample(grid, size)
                else:
                    notes.count(f"{{n}} maps of {name} ({data.slug}) hold NaN: they do not count in faithfulness")
        maps[name] = values
    return maps


def _note(
    behaviour: Behaviour,
    corpus: Corpus,
    data: ModelData,
    name: str,
    members: Sequence[Sequence[Pair]],
    asked: NDArray[np.int64],
    first: int,
    found: Faithfulness,
    others: Mapping[str, Float],
) -> None:
    """Add the rows and curves of the method `name`, whose columns begin at `first`."""
    normalised = {curve: found.normalised(curve) for curve in found.curves}
    for curve, (x, _) in normalised.items():
        behaviour.x[curve] = x
    for b, t, pair in _asked(members, asked):
        patient = corpus.films[pair[0]].patient
        row: dict[str, Any] = {
            "image_id": pair[0], "patient": patient, "model": data.slug, "method": name, "finding": pair[1],
            "probability": data.probability_of(pair),
        }  # fmt: skip
        row |= {metric: float(values[b, first + t]) for metric, values in found.scores.items()}
        behaviour.rows.append(row | {metric: float(values[b, t]) for metric, values in others.items()})
        behaviour.keys.setdefault(name, []).append((pair[0], patient, pair[1]))
        for curve, (_, values) in normalised.items():
            behaviour.curves.setdefault((name, curve), []).append(values[b, first + t])


def _asked(members: Sequence[Sequence[Pair]], asked: NDArray[np.int64]) -> Iterator[tuple[int, int, Pair]]:
    for b, own in enumerate(members):
        for t, pair in enumerate(own):
            if asked[b, t] != EMPTY:
                yield b, t, pair
