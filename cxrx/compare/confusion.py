"""Are the maps of different findings different? The map of one finding against the truth of another."""

from __future__ import annotations

import pandas as pd

from cxrx.compare.corpus import Corpus, Pair
from cxrx.compare.localisation import score_resized
from cxrx.compare.localise import Scoring, Truth, by_films

COLUMNS = ("model", "method", "finding_map", "finding_truth", "value", "n")
CONVENTION = (
    "mean IoU (Otsu) of the map of one finding with the truth of another on the same film; a method whose columns look "
    "alike shows the lesion whatever it is asked for"
)


def confusion(corpus: Corpus, truth: Truth, scoring: Scoring) -> pd.DataFrame:
    """Return the mean IoU of every method's maps of one finding with the truth of another, where films have both."""
    by_film: dict[str, list[Pair]] = {}
    for pair in truth.pairs:
        by_film.setdefault(pair[0], []).append(pair)
    sums: dict[tuple[str, str, str, str], list[float]] = {}
    for model in corpus.models.values():
        pairs = [pair for pair in model.pairs() if pair[0] in by_film]
        for chunk in by_films(pairs):
            for method in model.methods:
                for (image_id, finding), grid in corpus.read(model, method, chunk, signed=scoring.signed).items():
                    film = corpus.films[image_id]
                    values = model.placed(grid, film, scoring.shape(film))
                    for other in by_film[image_id]:
                        mask = truth.mask(other)
                        if mask is not None:
                            entry = sums.setdefault((model.slug, method, finding, other[1]), [])
                            entry.append(score_resized(values, mask)["iou"])
    rows = [(*key, sum(values) / len(values), len(values)) for key, values in sums.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(list(COLUMNS[:4]), ignore_index=True)
