"""The tables of a comparison, from scores of single pairs to means with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.compare import agreement as agree
from cxrx.compare.classification import COLUMNS as CLASSIFICATION
from cxrx.compare.classification import classify
from cxrx.compare.controls import Prior, centre_map, random_map
from cxrx.compare.corpus import Corpus, FilmInfo, ModelData, Pair
from cxrx.compare.geometry import Float, Mask, box_mask, coverage, resize
from cxrx.compare.localisation import METRICS, score_resized
from cxrx.compare.statistics import PatientBootstrap, numbered
from cxrx.specs import MetricSpec

PER_PAIR = ("image_id", "patient", "model", "method", "finding", "probability", "area", *METRICS)
SUMMARY = ("model", "method", "finding", "metric", "value", "n", "low", "high", "skill")
AGREEMENT = ("model", "method_a", "method_b", "finding", "metric", "value", "n", "low", "high", "random_pair")

FILMS_AT_ONCE = 16
MAX_PAIRS = 2000  # of (film, finding) in the agreement tables; more change the third digit only


class Notes:
    """Sentences gathered on the way: `skipped` as (what, why), `warnings`; counted ones are told once."""

    def __init__(self) -> None:
        self.skipped: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self._counts: Counter[str] = Counter()

    def count(self, sentence: str) -> None:
        """Count an event; `sentence` has a place ``{n}`` for how often it happened."""
        self._counts[sentence] += 1

    def flush(self) -> None:
        """Turn the counted events into warnings."""
        self.warnings += [sentence.format(n=n) for sentence, n in self._counts.items()]
        self._counts.clear()


# ---------------------------------------------------------------------------------------------------------------------
# Localisation


class Truth:
    """Masks of the truth by (film, finding), drawn when asked for."""

    def __init__(self, corpus: Corpus, notes: Notes) -> None:
        self._corpus = corpus
        self.pairs: list[Pair] = []
        self.prior = Prior()
        for pair in dict.fromkeys([*corpus.masks, *corpus.boxes]):
            film = corpus.films.get(pair[0])
            if film is None:
                continue
            mask = self.mask(pair)
            if mask is None:
                notes.count("{n} masks have another size than their film and were left out")
            elif not mask.any():
                notes.count("{n} boxes or masks lie outside their picture or are empty and were left out")
            else:
                self.pairs.append(pair)
                self.prior.add(pair[1], film.patient, mask)

    def mask(self, pair: Pair) -> Mask | None:
        """Return the ``(rows, columns)`` truth; a stored mask counts before boxes. None where its size is wrong."""
        film = self._corpus.films[pair[0]]
        if pair in self._corpus.masks:
            mask = np.asarray(self._corpus.masks[pair].decode(), dtype=bool)
            return mask if mask.shape == (film.rows, film.columns) else None
        return box_mask(self._corpus.boxes[pair], (film.rows, film.columns))


def localise(corpus: Corpus, seed: int, extra: Mapping[str, MetricSpec], notes: Notes) -> pd.DataFrame:
    """Score every map that has a truth, and the controls on the same pairs; one row per film, finding and method."""
    truth = Truth(corpus, notes)
    order = {image_id: i for i, image_id in enumerate(corpus.films)}
    rows: list[dict[str, Any]] = []
    for model in corpus.models.values():
        mapped = set(model.pairs())
        pairs = sorted((pair for pair in truth.pairs if pair in mapped), key=lambda pair: order[pair[0]])
        unmapped = sum(pair not in mapped for pair in truth.pairs)
        if unmapped:
            notes.skipped.append(
                (f"localisation of {unmapped} of {len(truth.pairs)} truth pairs", f"{model.slug} has no map of them")
            )
        for chunk in _by_films(pairs):
            maps = {method: corpus.read(model, method, chunk) for method in model.methods}
            for pair in chunk:
                rows += _score_pair(corpus, model, pair, maps, truth, seed, extra, notes)
        _tell_uneven(model, pairs, notes)
    table = pd.DataFrame(rows)
    return table.reindex(columns=[*PER_PAIR, *(name for name in table.columns if name not in PER_PAIR)])


def _by_films(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Cut pairs (sorted by film) into chunks of a few films."""
    films: dict[str, list[Pair]] = {}
    for pair in pairs:
        films.setdefault(pair[0], []).append(pair)
    members = list(films.values())
    for start in range(0, len(members), FILMS_AT_ONCE):
        yield [pair for group in members[start : start + FILMS_AT_ONCE] for pair in group]


def _score_pair(
    corpus: Corpus,
    model: ModelData,
    pair: Pair,
    maps: Mapping[str, Mapping[Pair, NDArray[np.float32]]],
    truth: Truth,
    seed: int,
    extra: Mapping[str, MetricSpec],
    notes: Notes,
) -> list[dict[str, Any]]:
    film, finding = corpus.films[pair[0]], pair[1]
    mask = truth.mask(pair)
    if mask is None:
        return []
    _tell_unseen(model, film, mask, notes)
    shape = mask.shape
    placed: dict[str, Callable[[], Float]] = {}
    for method, grids in maps.items():
        if pair in grids:
            placed[method] = lambda grid=grids[pair]: model.placed(grid, film)  # type: ignore[misc]
            if not np.isfinite(grids[pair]).all() or np.ptp(grids[pair]) == 0:
                notes.count(f"{{n}} scored maps of {method} ({model.slug}) are constant or hold NaN: they are misses")
    prior = truth.prior.map(finding, film.patient)
    if prior is not None:
        placed["prior"] = lambda: resize(prior, shape)
    # the map of a control explainer in the file takes the place of ours
    if "centre" not in placed:
        placed["centre"] = lambda: resize(centre_map(), shape)
    if "random" not in placed:
        placed["random"] = lambda: resize(random_map(seed, *pair), shape)
    probability = model.probability.get(film.image_id)
    base = {
        "image_id": film.image_id,
        "patient": film.patient,
        "model": model.slug,
        "finding": finding,
        "probability": np.nan if probability is None else float(probability[model.findings.index(finding)]),
        "area": float(mask.mean()),
    }
    rows = []
    for method, draw in placed.items():
        values = draw()
        row = base | {"method": method} | score_resized(values, mask)
        for spec in extra.values():
            row |= _third_party(spec, values, mask, notes)
        rows.append(row)
    return rows


def _third_party(spec: MetricSpec, values: Float, mask: Mask, notes: Notes) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in spec.compute(values, mask).items()}
    except Exception as error:  # noqa: BLE001  a plugin's fault must not end the comparison; it is told
        notes.count(f"the metric {spec.name} failed on {{n}} maps ({type(error).__name__})")
        return {}


def _tell_unseen(model: ModelData, film: FilmInfo, mask: Mask, notes: Notes) -> None:
    if model.input_size is None or film.image_id not in model.affine:
        return
    seen = coverage(model.affine[film.image_id], model.input_size, (film.rows, film.columns))
    if (mask & ~seen).any():
        notes.count(f"{{n}} truths reach beyond what the crop let {model.slug} see; its maps are 0 there")


def _tell_uneven(model: ModelData, pairs: Sequence[Pair], notes: Notes) -> None:
    counts = {method: sum(model.source(method, pair) is not None for pair in pairs) for method in model.methods}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{method} {n}" for method, n in counts.items())
        notes.warnings.append(
            f"{model.slug}: the methods explain different pairs ({listed}), so their rows are not paired"
        )


def summarise(per_pair: pd.DataFrame, bootstrap: PatientBootstrap) -> pd.DataFrame:
    """Average over pairs, per finding and over findings (``all``: the mean of the findings' means)."""
    metrics = [name for name in per_pair.columns if name not in PER_PAIR or name in METRICS]
    rows = []
    for (model, method), group in per_pair.groupby(["model", "method"], sort=False):
        names, index = numbered(list(group["finding"]))
        for finding in ("all", *names):
            keep = np.ones(len(group), bool) if finding == "all" else (group["finding"] == finding).to_numpy()
            patients = list(group["patient"][keep])
            for metric in metrics:
                values = group[metric].to_numpy(float)[keep]
                groups = index[keep] if finding == "all" else np.zeros(keep.sum(), np.intp)
                value, low, high = bootstrap.mean(values, patients, groups)
                n = int(np.isfinite(values).sum())
                rows.append((model, method, finding, metric, value, n, low, high))
    table = pd.DataFrame(rows, columns=list(SUMMARY[:-1]))
    return _with_skill(table)


def _with_skill(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``skill = (m - prior) / (1 - prior)``, for metrics that end at 1 and where the prior covers the same n."""
    keys = ["model", "finding", "metric"]
    prior = table[table["method"] == "prior"][[*keys, "value", "n"]]
    joined = table.merge(prior, on=keys, how="left", suffixes=("", "_prior"))
    usable = (joined["n"] == joined["n_prior"]) & (joined["value_prior"] < 1) & (joined["metric"] != "mass_ratio")
    skill = (joined["value"] - joined["value_prior"]) / (1 - joined["value_prior"]).where(usable)
    return table.assign(skill=skill.to_numpy(float))


# ---------------------------------------------------------------------------------------------------------------------
# Classification


def classification(corpus: Corpus, bootstrap: PatientBootstrap, notes: Notes) -> pd.DataFrame:
    """Score every model against the labels."""
    rows = []
    for model in corpus.models.values():
        ids = [image_id for image_id in corpus.films if image_id in model.probability]
        if not ids:
            notes.skipped.append((f"classification of {model.slug}", "the results hold no predictions of it"))
            continue
        labels = np.array([[corpus.labels.get(i, {}).get(name, -2) for name in model.findings] for i in ids])
        if not np.isin(labels, (0, 1)).any():
            notes.skipped.append((f"classification of {model.slug}", "no label is about one of its findings"))
            continue
        scored = classify(
            labels,
            np.stack([model.probability[i] for i in ids]),
            model.findings,
            patients=[corpus.films[i].patient for i in ids],
            bootstrap=bootstrap,
            thresholds=model.thresholds,
        )
        rows += [{"model": model.slug, **row} for row in scored]
        refused = [row for row in scored if row["finding"] != "all" and row["note"]]
        notes.skipped += [(f"AUROC of {row['finding']} ({model.slug})", row["note"]) for row in refused]
    return pd.DataFrame(rows, columns=list(CLASSIFICATION))


# ---------------------------------------------------------------------------------------------------------------------
# Agreement


def agreement(corpus: Corpus, bootstrap: PatientBootstrap, seed: int, notes: Notes) -> pd.DataFrame:
    """Compare every two methods on the same film, finding and model; beside it, maps of different patients."""
    rows: list[tuple[Any, ...]] = []
    for model in corpus.models.values():
        pairs = [pair for pair in model.pairs() if pair[0] in corpus.films]
        if len(pairs) > MAX_PAIRS:
            chosen = np.random.default_rng(seed).choice(len(pairs), MAX_PAIRS, replace=False)
            notes.warnings.append(
                f"{model.slug}: agreement is measured on {MAX_PAIRS} of {len(pairs)} pairs, drawn by seed"
            )
            pairs = [pairs[i] for i in sorted(chosen)]
        if pairs:
            ranks = _ranked(corpus, model, pairs, seed)
            _tell_constant(model, pairs, ranks, notes)
            rows += _agreement_rows(corpus, model, pairs, ranks, bootstrap=bootstrap, seed=seed)
    return pd.DataFrame(rows, columns=list(AGREEMENT))


def _tell_constant(model: ModelData, pairs: list[Pair], ranks: Mapping[str, Float], notes: Notes) -> None:
    for method in model.methods:
        there = np.array([model.source(method, pair) is not None for pair in pairs])
        constant = int((there & np.isnan(ranks[method][:, 0])).sum())
        if constant:
            notes.warnings.append(
                f"{constant} of {int(there.sum())} maps of {method} ({model.slug}) are constant (a ReLU may have left "
                "nothing) or hold NaN: they are misses in localisation and do not count in agreement"
            )


def _agreement_rows(
    corpus: Corpus,
    model: ModelData,
    pairs: list[Pair],
    ranks: Mapping[str, Float],
    *,
    bootstrap: PatientBootstrap,
    seed: int,
) -> Iterator[tuple[Any, ...]]:
    findings, patients = [pair[1] for pair in pairs], [corpus.films[pair[0]].patient for pair in pairs]
    tops = {method: agree.top_rows(rank) for method, rank in ranks.items()}
    partner = agree.other_film(findings, patients, seed)
    names, index = numbered(findings)
    methods = list(ranks)
    for i, a in enumerate(methods):
        for b in methods[i + 1 :]:
            same = {"spearman": agree.spearman(ranks[a], ranks[b]), "iou_top_10": agree.top_iou(tops[a], tops[b])}
            other = {
                "spearman": agree.spearman(ranks[a], ranks[b][partner]),
                "iou_top_10": agree.top_iou(tops[a], tops[b][partner]),
            }
            for finding in ("all", *names):
                keep = np.ones(len(pairs), bool) if finding == "all" else index == names.index(finding)
                for metric, values in same.items():
                    chosen = values[keep]
                    value, low, high = bootstrap.mean(chosen, [patients[j] for j in np.flatnonzero(keep)])
                    baseline = other[metric][keep & (partner >= 0)]
                    baseline = baseline[np.isfinite(baseline)]
                    random_pair = float(baseline.mean()) if baseline.size else np.nan
                    n = int(np.isfinite(chosen).sum())
                    yield model.slug, a, b, finding, metric, value, n, low, high, random_pair


def _ranked(corpus: Corpus, model: ModelData, pairs: list[Pair], seed: int) -> dict[str, Float]:
    """Return the ranks of every method's maps on the common grid, ``(n, 4096)``, NaN where there is no map."""
    ranks = {method: np.full((len(pairs), agree.GRID**2), np.nan) for method in model.methods}
    place = {pair: i for i, pair in enumerate(pairs)}
    for chunk in _by_films(pairs):
        for method, into in ranks.items():
            maps = corpus.read(model, method, chunk)
            if maps:
                values = np.stack([agree.common_grid(grid).ravel() for grid in maps.values()])
                into[[place[pair] for pair in maps]] = agree.rank_rows(values)
    if "centre" not in ranks:
        centre = agree.rank_rows(agree.common_grid(centre_map()).reshape(1, -1))
        ranks["centre"] = np.repeat(centre, len(pairs), axis=0)
    if "random" not in ranks:
        noise = np.stack([agree.common_grid(random_map(seed, *pair)).ravel() for pair in pairs])
        ranks["random"] = agree.rank_rows(noise)
    return ranks
