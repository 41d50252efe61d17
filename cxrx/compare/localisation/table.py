"""Score every map that has a truth, and the baselines on the same pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.compare.corpus import Corpus, FilmInfo, ModelData, Pair, scaled
from cxrx.compare.notes import Notes
from cxrx.compare.single import SingleMetrics
from cxrx.metrics.controls import Prior, centre_map, random_map
from cxrx.metrics.geometry import Float, Mask, box_mask, coverage, resize
from cxrx.metrics.localisation import METRICS, score_detailed, score_localisation, score_resized
from cxrx.metrics.protocols import Protocol

BASE = ("image_id", "patient", "model", "method", "finding", "probability", "area", "outcome")
PER_PAIR = (*BASE, *METRICS)
FAST_GRID = 224
FILMS_AT_ONCE = 16


@dataclass(frozen=True)
class Scoring:
    """How maps are scored.

    Attributes
    ----------
    protocol
        See :func:`cxrx.metrics.localisation.score_localisation`.
    grid
        Longer side in pixels of the grid that map and truth are brought to; None: the pixels of the film.
    detailed
        Also the slower metrics of :func:`cxrx.metrics.localisation.score_detailed`.
    single
        Localisation metrics of plugins.
    signed
        Score maps as they are stored, not in their published form.
    seed
        Of the random control.
    """

    protocol: Protocol = "native"
    grid: int | None = None
    detailed: bool = False
    signed: bool = False
    single: SingleMetrics | None = None
    seed: int = 0

    @property
    def raw(self) -> bool:
        """Whether the protocol takes maps as they are: signed, on their own grid."""
        return self.protocol == "chexlocalize"

    def shape(self, film: FilmInfo) -> tuple[int, int]:
        """Return the size at which a film's maps are scored."""
        zoom = 1.0 if self.grid is None else min(1.0, self.grid / max(film.rows, film.columns))
        return max(1, round(film.rows * zoom)), max(1, round(film.columns * zoom))

    def score(self, values: Float, truth: Mask) -> dict[str, float]:
        """Score a map on the pixels of its truth (`raw`: on any grid)."""
        if self.protocol != "native":
            scores = score_localisation(values, truth, self.protocol)
        else:
            scores = score_resized(values, truth)
            if self.detailed:
                scores |= score_detailed(values, truth)
        found = {} if self.single is None else self.single.scores("maps", values, truth)
        return scores | {name: float(value) for name, value in found.items()}


class Truth:
    """Masks of the truth by (film, finding), drawn when asked for."""

    def __init__(self, corpus: Corpus, scoring: Scoring, notes: Notes) -> None:
        self._corpus, self._scoring = corpus, scoring
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
                if pair not in corpus.masks and _reaches_out(corpus.boxes[pair], film):
                    notes.count("{n} truths have a box that reaches beyond its picture; what lies outside was cut off")

    def mask(self, pair: Pair) -> Mask | None:
        """Return the truth on the scoring grid; a stored mask counts before boxes. None where its size is wrong."""
        film = self._corpus.films[pair[0]]
        shape, size = self._scoring.shape(film), (film.rows, film.columns)
        if pair in self._corpus.masks:
            mask = np.asarray(self._corpus.masks[pair].decode(), dtype=bool)
            return shrink(mask, shape) if mask.shape == size else None
        boxes = self._corpus.boxes[pair]
        if shape == size:
            return box_mask(boxes, size)
        # x and y are where pixels begin, so that no half pixel comes in
        scaled_boxes = boxes * np.array([shape[1] / size[1], shape[0] / size[0]] * 2)
        scaled_boxes[:, 2:] = np.maximum(scaled_boxes[:, 2:], 1)  # a small box keeps a pixel
        return box_mask(scaled_boxes, shape)


def shrink(mask: Mask, shape: tuple[int, int]) -> Mask:
    """Bring a mask to a smaller grid: cells that are at least half inside, or else the fullest ones."""
    if mask.shape == shape or not mask.any():
        return mask if mask.shape == shape else np.zeros(shape, dtype=bool)
    share = resize(mask, shape)
    small: Mask = share >= min(0.5, float(share.max()))
    return small


def _reaches_out(boxes: Float, film: FilmInfo) -> bool:
    x, y, width, height = boxes.T
    return bool(
        (x < -1).any() or (y < -1).any() or (x + width > film.columns + 1).any() or (y + height > film.rows + 1).any()
    )


def localise(corpus: Corpus, truth: Truth, scoring: Scoring, edges: Mapping[str, Float], notes: Notes) -> pd.DataFrame:
    """Score every map that has a truth, and the controls on the same pairs.

    Parameters
    ----------
    edges
        image_id to the edge strength of the film, for the control ``edge``; films without one go without.

    Returns
    -------
    per_pair
        One row per film, model, finding and method: the columns :data:`PER_PAIR` and whatever else was scored.
    """
    order = {image_id: i for i, image_id in enumerate(corpus.films)}
    rows: list[dict[str, Any]] = []
    for model in corpus.models.values():
        if not model.methods:
            continue
        mapped = set(model.pairs())
        pairs = sorted((pair for pair in truth.pairs if pair in mapped), key=lambda pair: order[pair[0]])
        unmapped = len(truth.pairs) - len(pairs)
        if unmapped:
            notes.skip(
                f"localisation of {unmapped} of {len(truth.pairs)} truth pairs", f"{model.slug} has no map of them"
            )
        for chunk in by_films(pairs):
            signed = scoring.raw or scoring.signed
            maps = {method: corpus.read(model, method, chunk, signed=signed) for method in model.methods}
            for pair in chunk:
                mask = truth.mask(pair)
                if mask is None:
                    continue
                base = _base(corpus, model, pair, mask, notes)
                drawn = _drawn(corpus, model, pair, maps, None if scoring.raw else mask.shape, notes)
                drawn |= _controls(truth.prior, corpus.films[pair[0]], pair, edges, scoring.seed, mask.shape, drawn)
                rows += [base | {"method": name} | scoring.score(draw(), mask) for name, draw in drawn.items()]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(BASE))  # never columns of numbers for texts
    metrics = [name for name in table.columns if name not in BASE]
    return table.reindex(columns=[*BASE, *(metrics or METRICS)])


def by_films(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Cut pairs (sorted by film) into chunks of a few films."""
    films: dict[str, list[Pair]] = {}
    for pair in pairs:
        films.setdefault(pair[0], []).append(pair)
    members = list(films.values())
    for start in range(0, len(members), FILMS_AT_ONCE):
        yield [pair for group in members[start : start + FILMS_AT_ONCE] for pair in group]


Draw = Callable[[], Float]
"""Draws a map on the scoring grid."""


def _base(corpus: Corpus, model: ModelData, pair: Pair, mask: Mask, notes: Notes) -> dict[str, Any]:
    film, finding = corpus.films[pair[0]], pair[1]
    _warn_unseen(model, film, mask, notes)
    probability = model.probability_of(pair)
    return {
        "image_id": film.image_id,
        "patient": film.patient,
        "model": model.slug,
        "finding": finding,
        "probability": probability,
        "area": float(mask.mean()),
        "outcome": "" if np.isnan(probability) else "TP" if probability >= model.threshold(finding) else "FN",
    }


def _drawn(
    corpus: Corpus,
    model: ModelData,
    pair: Pair,
    maps: Mapping[str, Mapping[Pair, NDArray[np.float32]]],
    shape: tuple[int, int] | None,
    notes: Notes,
) -> dict[str, Draw]:
    """Return the maps of the methods on the grid `shape`; None: a map over the whole film as it is."""
    film = corpus.films[pair[0]]
    drawn: dict[str, Draw] = {}

    def place(grid: NDArray[np.float32]) -> Float:
        return np.asarray(grid) if shape is None and model.covers(film) else model.placed(grid, film, shape)

    for method, grids in maps.items():
        if pair in grids:
            drawn[method] = partial(place, grids[pair])
            if not np.isfinite(grids[pair]).all() or np.ptp(grids[pair]) == 0:
                notes.count(f"{{n}} scored maps of {method} ({model.slug}) are constant or hold NaN: they are misses")
    return drawn


def _controls(
    prior: Prior,
    film: FilmInfo,
    pair: Pair,
    edges: Mapping[str, Float],
    seed: int,
    shape: tuple[int, int],
    there: Iterable[str],
) -> dict[str, Draw]:
    """Return the baselines; the map of a control explainer in the file takes the place of ours."""
    mean = prior.map(pair[1], film.patient)
    controls: dict[str, Draw | None] = {
        # rounded, since equal cells must stay equal: the last bits of a resize part them
        "prior": None if mean is None else lambda: np.round(resize(mean, shape), 12),
        "centre": lambda: resize(centre_map(), shape),
        "random": lambda: resize(random_map(seed, *pair), shape),
        "edge": (lambda: resize(edges[film.image_id], shape)) if film.image_id in edges else None,
    }
    return {name: draw for name, draw in controls.items() if draw is not None and name not in there}


def _warn_unseen(model: ModelData, film: FilmInfo, mask: Mask, notes: Notes) -> None:
    if model.input_size is None or film.image_id not in model.affine:
        return
    affine = scaled(model.affine[film.image_id], (film.rows, film.columns), mask.shape)
    if (mask & ~coverage(affine, model.input_size, mask.shape)).any():
        notes.count(f"{{n}} truths reach beyond what the crop let {model.slug} see; its maps are 0 there")
