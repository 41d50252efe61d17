"""Are the maps of different findings different? The map of one finding against the truth of another."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cxrx.compare.corpus import Corpus, Pair
from cxrx.compare.localisation.table import FAST_GRID, Scoring, Truth, by_films, shrink
from cxrx.metrics.geometry import Mask
from cxrx.metrics.localisation import score_overlap

COLUMNS = ("model", "method", "finding_map", "finding_truth", "value", "n")
GRID = Scoring(grid=FAST_GRID)
CONVENTION = (
    "mean IoU (Otsu) of the map of one finding with the truth of another on the same film, on a grid whose longer side "
    f"has {FAST_GRID}; a method whose columns look alike shows the lesion whatever it is asked for"
)


def confusion(corpus: Corpus, truth: Truth, scoring: Scoring) -> pd.DataFrame:
    """Return the mean IoU of every method's maps of one finding with the truth of another, where films have both."""
    by_film: dict[str, list[Pair]] = {}
    for pair in truth.pairs:
        by_film.setdefault(pair[0], []).append(pair)
    sums: dict[tuple[str, str, str, str], list[float]] = {}
    for model in corpus.models.values():
        for chunk in by_films([pair for pair in model.pairs() if pair[0] in by_film]):
            films = dict.fromkeys(image_id for image_id, _ in chunk)
            masks = {
                image_id: _masks(truth, by_film[image_id], GRID.shape(corpus.films[image_id])) for image_id in films
            }
            for method in model.methods:
                for (image_id, finding), grid in corpus.read(model, method, chunk, signed=scoring.signed).items():
                    film = corpus.films[image_id]
                    values = model.placed(grid, film, GRID.shape(film))
                    for other, mask in masks[image_id].items():
                        sums.setdefault((model.slug, method, finding, other), []).append(score_overlap(values, mask))
    rows = [(*key, sum(values) / len(values), len(values)) for key, values in sums.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(list(COLUMNS[:4]), ignore_index=True)


def _masks(truth: Truth, pairs: Sequence[Pair], shape: tuple[int, int]) -> dict[str, Mask]:
    """Return the truths of one film by finding."""
    masks = {pair[1]: truth.mask(pair) for pair in pairs}
    return {finding: shrink(mask, shape) for finding, mask in masks.items() if mask is not None}
