"""Places on a film that a model should, or should not, look at: the marker of a cheating model, the lungs.

They stand in a folder of films as ``regions.csv`` (path, region, x, y, w, h in pixels of the film) and as masks
``regions/STEM__REGION.png``, as ``cxrx phantom --shortcut`` writes them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from cxrx.compare.corpus import Corpus, FilmInfo, ModelData, Pair
from cxrx.compare.localisation.table import FAST_GRID, Scoring, by_films, shrink
from cxrx.compare.notes import Notes
from cxrx.importing.truth import read_mask
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.controls import centre_map, random_map
from cxrx.metrics.geometry import Float, Mask, box_mask, resize
from cxrx.metrics.localisation import maximum
from cxrx.metrics.summaries import summarise
from cxrx.results.truth import Mask as RunLengths

COLUMNS = ("model", "method", "region", "finding", "metric", "value", "low", "high", "n")
METRICS = ("mass", "mass_ratio", "hit")
GRID = Scoring(grid=FAST_GRID)
CONVENTIONS = {
    "mass": "share of the positive relevance that lies in the region",
    "mass_ratio": "mass divided by the region's share of the picture: 1 is chance",
    "hit": "the maximum lies in the region",
    "drop": "log-odds of the film minus that of the film with the region painted over by the mean of a ring around it; "
    "all explained pairs whose film has the region",
    "drop_mirror": "the same for the region's mirror image across the midline, where nothing was planted",
}

Regions = Mapping[str, Mapping[str, RunLengths]]
"""image_id to region to its mask, ``(rows, columns)`` of the film, encoded: there may be thousands of films."""


def read_regions(corpus: Corpus, notes: Notes) -> Regions:
    """Find the regions of the films, in the folders they came from; needs the private link table."""
    regions: dict[str, dict[str, RunLengths]] = {}
    for root, films in _roots(corpus).items():
        for image_id, region, mask in chain(_boxes(root, films, corpus, notes), _masks(root, films, notes)):
            film, known = corpus.films[image_id], regions.get(image_id, {}).get(region)
            if mask.shape != (film.rows, film.columns):
                notes.count("{n} regions have another size than their film and were left out")
            elif mask.any():
                whole = mask if known is None else mask | known.decode()
                regions.setdefault(image_id, {})[region] = RunLengths.encode(image_id, region, whole)
    return regions


def _roots(corpus: Corpus) -> dict[Path, dict[str, str]]:
    """Return the folders that the films were found in, each with relative path to image_id."""
    roots: dict[Path, dict[str, str]] = {}
    for results in corpus.files:
        for link in results.links():
            path = Path(link.path)
            if link.kind == "film" and not link.member and path.as_posix().endswith(f"/{link.relative}"):
                root = Path(path.as_posix().removesuffix(f"/{link.relative}"))
                if link.image_id in corpus.films:
                    roots.setdefault(root, {})[link.relative] = link.image_id
    return roots


def _boxes(root: Path, films: Mapping[str, str], corpus: Corpus, notes: Notes) -> Iterator[tuple[str, str, Mask]]:
    path = root / "regions.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        missing = {"path", "region", "x", "y", "w", "h"} - set(rows.fieldnames or ())
        if missing:
            notes.warn(f"regions.csv was left out: it has no column {', '.join(sorted(missing))}")
            return
        for row in rows:
            image_id = films.get(row["path"])
            if image_id is None:
                continue
            film = corpus.films[image_id]
            try:
                corner = [[float(row[name]) for name in ("x", "y", "w", "h")]]
            except (TypeError, ValueError):  # a short row, or words
                notes.count("{n} rows of regions.csv hold no numbers and were left out")
                continue
            if np.isfinite(corner).all():
                yield image_id, row["region"], box_mask(corner, (film.rows, film.columns))
            else:
                notes.count("{n} rows of regions.csv hold no numbers and were left out")


def _masks(root: Path, films: Mapping[str, str], notes: Notes) -> Iterator[tuple[str, str, Mask]]:
    by_stem = {Path(relative).stem: image_id for relative, image_id in films.items()}
    for path in sorted((root / "regions").glob("*__*.png")):
        stem, _, region = path.stem.rpartition("__")
        if stem in by_stem:
            mask = read_mask(path)
            if mask is None:
                notes.count("{n} masks of regions cannot be read and were left out")
            else:
                yield by_stem[stem], region, mask


def mass_in_regions(
    corpus: Corpus, regions: Regions, scoring: Scoring, edges: Mapping[str, Float], bootstrap: PatientBootstrap
) -> pd.DataFrame:
    """Return how much of every method's relevance lies in each region, per finding: the columns :data:`COLUMNS`.

    Parameters
    ----------
    corpus, regions
        The open results, and the regions of their films.
    scoring
        In which form maps are taken, and what draws the control ``random``.
    edges
        image_id to the control ``edge``, ``(h, w)``.
    bootstrap
        What draws patients.
    """
    rows = []
    for model in corpus.models.values():
        for chunk in by_films([pair for pair in model.pairs() if pair[0] in regions]):
            films = dict.fromkeys(image_id for image_id, _ in chunk)
            small = {image_id: _shrunk(regions[image_id], corpus.films[image_id]) for image_id in films}
            for method, pair, values in _placed(corpus, model, chunk, scoring, edges):
                rows += [
                    (model.slug, method, region, pair, _scores(values, mask)) for region, mask in small[pair[0]].items()
                ]
    return summarise_regions(corpus, rows, METRICS, bootstrap)


def _shrunk(regions: Mapping[str, RunLengths], film: FilmInfo) -> dict[str, Mask]:
    shape = GRID.shape(film)
    return {region: shrink(mask.decode(), shape) for region, mask in regions.items()}


def _placed(
    corpus: Corpus, model: ModelData, chunk: Sequence[Pair], scoring: Scoring, edges: Mapping[str, Float]
) -> Iterator[tuple[str, Pair, Float]]:
    """Yield the maps of all methods and controls on a grid over the film."""
    for method in model.methods:
        for pair, values in corpus.read(model, method, chunk, signed=scoring.signed).items():
            film = corpus.films[pair[0]]
            yield method, pair, model.placed(values, film, GRID.shape(film))
    for pair in chunk:
        shape = GRID.shape(corpus.films[pair[0]])
        controls = {"centre": centre_map(), "random": random_map(scoring.seed, *pair)}
        controls |= {"edge": edges[pair[0]]} if pair[0] in edges else {}
        for method, blind in controls.items():
            if method not in model.methods:
                yield method, pair, resize(blind, shape)


def _scores(values: Float, mask: Mask) -> dict[str, float]:
    positive = np.maximum(np.nan_to_num(values), 0)
    total = float(positive.sum())
    if total <= 0 or np.ptp(values) == 0:
        return dict.fromkeys(METRICS, float("nan"))
    mass = float(positive[mask].sum()) / total
    return {"mass": mass, "mass_ratio": mass / float(mask.mean()), "hit": float(mask[maximum(values)])}


def summarise_regions(
    corpus: Corpus,
    rows: Sequence[tuple[str, str, str, Pair, dict[str, float]]],
    metrics: Sequence[str],
    bootstrap: PatientBootstrap,
) -> pd.DataFrame:
    """Average (model, method, region, pair, scores) per finding and over findings; the columns :data:`COLUMNS`.

    Parameters
    ----------
    corpus
        Knows the patients.
    rows
        One a pair.
    metrics
        Keys of the scores.
    bootstrap
        Over patients.
    """
    by = COLUMNS[:3]
    scores = pd.DataFrame(
        [(*key, pair[0], corpus.films[pair[0]].patient, pair[1], *(scores[name] for name in metrics))
         for *key, pair, scores in rows],
        columns=[*by, "image_id", "patient", "finding", *metrics],
    )  # fmt: skip
    return summarise(scores, metrics, bootstrap, by)[list(COLUMNS)]
