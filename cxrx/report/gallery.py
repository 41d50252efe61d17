"""The case grid: every film once as a JPEG, every map once as a small PNG with its own transparency.

Cards refer to them (SVG ``<use>``), which needs no script and costs a few bytes, so that the same film can stand in
many cards. Maps are drawn on the film's own at :data:`MAP` pixels; the browser enlarges them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.compare.comparison import Comparison
from cxrx.compare.corpus import Corpus, ModelData, Pair
from cxrx.export.films import LABELS, Films
from cxrx.export.overlay import COLOURS, OPACITY, Grey, jpeg, peak, relative, scaled_boxes, thumbnail_shape
from cxrx.metrics.geometry import resize
from cxrx.report.choose import Group, choose_cases, label_of
from cxrx.report.words import OUTCOMES, Record, number, records

PICTURE = 320  # pixels of a film's longer side
MAP = 80  # of a map's: a gradient map has no finer truth to tell at this size
QUALITY = 78
LEVELS = 32  # colours of a map
MOST_MAPS = 1500  # about 4 kB each; more maps a case leave fewer cases
_AT_ONCE = 8  # films whose maps are read at a time


@dataclass(frozen=True)
class Film:
    """One picture of the store."""

    key: str
    width: int
    height: int
    data: str


@dataclass(frozen=True)
class Drawn:
    """A map of the store, and where its maximum lies on the film's picture, ``(row, column)``."""

    key: str
    data: str
    peak: tuple[int, int] | None


@dataclass(frozen=True)
class Truth:
    """Boxes (x, y, width, height) and the outline (an SVG path) of a finding on the film's picture."""

    key: str
    boxes: Sequence[Sequence[float]] = ()
    outline: str = ""


@dataclass
class Gallery:
    """What the template draws.

    Attributes
    ----------
    films, maps, truths
        The store.
    groups
        (heading, rule, cards).
    missing
        Films that could not be found or read any more.
    most
        How many cases the report could show at most.
    """

    films: dict[str, Film] = field(default_factory=dict)
    maps: dict[tuple[str, str, Pair], Drawn] = field(default_factory=dict)
    truths: dict[Pair, Truth] = field(default_factory=dict)
    groups: list[tuple[str, str, list[Record]]] = field(default_factory=list)
    missing: int = 0
    most: int = 0

    def cards(self) -> list[Record]:
        """Return every card."""
        return [card for _, _, cards in self.groups for card in cards]

    def choices(self, name: str) -> list[str]:
        """Return what one can filter by: ``finding``, ``method`` or ``model``."""
        if name == "finding":
            return sorted({card["finding"] for card in self.cards()})
        rows = [row for card in self.cards() for row in card["rows"]]
        if name == "model":
            return list(dict.fromkeys(row["model"] for row in rows))
        return list(dict.fromkeys(cell["method"] for row in rows for cell in row["cells"]))


def make_gallery(comparison: Comparison, films: Films, max_cases: int) -> Gallery:
    """Choose cases, read their films and maps, and put them into a store and cards."""
    corpus = films.corpus
    panels = sum(len(model.methods) for model in corpus.models.values())
    limit = min(max_cases, MOST_MAPS // max(1, panels))
    chosen = choose_cases(comparison, corpus, limit)
    pairs = sorted({case.pair for group in chosen for case in group.cases})
    gallery = Gallery(most=limit)
    wanted = dict.fromkeys(pair[0] for pair in pairs)
    gallery.films = {image_id: _film(f"f{i}", pixels) for i, (image_id, pixels) in enumerate(films.pictures(wanted))}
    gallery.missing = len(wanted) - len(gallery.films)
    pairs = [pair for pair in pairs if pair[0] in gallery.films]
    for i, pair in enumerate(pairs):
        truth = _truth(corpus, pair, gallery.films[pair[0]], f"t{i}")
        if truth is not None:
            gallery.truths[pair] = truth
    for i, (key, values, place) in enumerate(_placed(corpus, pairs, gallery.films)):
        gallery.maps[key] = Drawn(f"m{i}", _encoded(map_png(values)), place)
    scores = _scores(comparison, set(pairs))
    gallery.groups = [_group(group, films, gallery, scores) for group in chosen]
    gallery.groups = [group for group in gallery.groups if group[2]]
    return gallery


# ---------------------------------------------------------------------------------------------------------------------
# The store


def _film(key: str, pixels: NDArray[np.float32]) -> Film:
    shape = thumbnail_shape(pixels.shape[0], pixels.shape[1], PICTURE)
    grey = np.round(255 * np.clip(resize(pixels, shape), 0, 1)).astype(np.uint8)
    return Film(key, shape[1], shape[0], _encoded(jpeg(grey, QUALITY)))


def _placed(
    corpus: Corpus, pairs: Sequence[Pair], films: dict[str, Film]
) -> Iterator[tuple[tuple[str, str, Pair], Grey, tuple[int, int] | None]]:
    """Yield (model, method, pair), the map on its small and the place of its maximum on the picture."""
    for start in range(0, len(pairs), _AT_ONCE):
        chunk = pairs[start : start + _AT_ONCE]
        for model in corpus.models.values():
            for method in model.methods:
                for pair, grid in corpus.read(model, method, chunk).items():
                    info, film = corpus.films[pair[0]], films[pair[0]]
                    shape = thumbnail_shape(film.height, film.width, MAP)
                    place = peak(model.placed(grid, info, (film.height, film.width)))
                    yield (model.slug, method, pair), model.placed(grid, info, shape), place


def map_png(values: Grey) -> bytes:
    """Encode a map as a palette PNG: its share of its own height in :data:`LEVELS` steps, opaque where it is high.

    The same colours and opacity as :func:`cxrx.export.overlay.blend`.
    """
    from PIL import Image

    steps = np.round(relative(values) * (LEVELS - 1)).astype(np.uint8)
    picture = Image.frombytes("P", (steps.shape[1], steps.shape[0]), steps.tobytes())
    palette, opacity = _palette()
    picture.putpalette(palette)
    out = io.BytesIO()
    picture.save(out, "PNG", transparency=opacity, optimize=True)
    return out.getvalue()


@cache
def _palette() -> tuple[bytes, bytes]:
    """Return the colours (RGB by turns) and opacities of the steps."""
    from matplotlib import colormaps

    share = np.linspace(0, 1, LEVELS)
    rgb = np.round(255 * colormaps[COLOURS](share)[:, :3]).astype(np.uint8)
    return rgb.tobytes(), np.round(255 * OPACITY * share**0.7).astype(np.uint8).tobytes()


def _truth(corpus: Corpus, pair: Pair, film: Film, key: str) -> Truth | None:
    """Return the truth on a film's picture; a mask goes before boxes."""
    info, size = corpus.films[pair[0]], (film.height, film.width)
    if pair in corpus.masks:
        return Truth(key, outline=outline(resize(corpus.masks[pair].decode(), size)))
    if pair not in corpus.boxes:
        return None
    boxes = scaled_boxes(corpus.boxes[pair], (info.rows, info.columns), size)
    return Truth(key, [[round(value, 1) for value in box] for box in boxes])


def outline(mask: Grey) -> str:
    """Return the contour of a mask ``(h, w)`` in [0, 1] at one half as an SVG path, pixel corners at integers."""
    from skimage.measure import approximate_polygon, find_contours

    parts = []
    for contour in find_contours(np.pad(mask, 1), 0.5):  # type: ignore[no-untyped-call]
        points = approximate_polygon(contour, 0.4) - 0.5  # type: ignore[no-untyped-call]  # of the padding 1, of the pixel's centre 1/2
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for y, x in points) + "Z")
    return "".join(parts)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# ---------------------------------------------------------------------------------------------------------------------
# Cards


_Scores = dict[tuple[str, str, Pair], Record]  # (model, method, pair) to a row of the table per_pair


def _scores(comparison: Comparison, pairs: set[Pair]) -> _Scores:
    table = comparison.per_pair
    table = table[table["image_id"].isin({pair[0] for pair in pairs})]
    return {(row["model"], row["method"], (row["image_id"], row["finding"])): row for row in records(table)}


def _group(group: Group, films: Films, gallery: Gallery, scores: _Scores) -> tuple[str, str, list[Record]]:
    corpus, cards = films.corpus, []
    for case in group.cases:
        image_id, finding = case.pair
        if image_id not in gallery.films:
            continue
        label = LABELS.get(films.label(image_id, finding))
        rows = [_row(corpus, model, case.pair, gallery, scores) for model in corpus.models.values()]
        cards.append({
            "finding": finding,
            "name": films.name(image_id),
            "facts": [fact for fact in (case.why, f"label: {label}" if label else "") if fact],
            "film": gallery.films[image_id],
            "truth": gallery.truths.get(case.pair),
            "rows": [row for row in rows if row is not None],
        })  # fmt: skip
    return group.heading, group.rule, cards


def _row(corpus: Corpus, model: ModelData, pair: Pair, gallery: Gallery, scores: _Scores) -> Record | None:
    """Return the maps of one model; None where it has none of this pair."""
    cells = []
    for method in model.methods:
        drawn = gallery.maps.get((model.slug, method, pair))
        if drawn is not None:
            said = _caption(scores.get((model.slug, method, pair)))
            cells.append({"method": method, "map": drawn, "caption": said})
    if not cells:
        return None
    probability = model.probability_of(pair)
    outcome = OUTCOMES.get(model.outcome(pair, label_of(corpus, pair)), "")
    said = f"probability {number(probability)}" if np.isfinite(probability) else ""
    return {"model": model.slug, "said": ", ".join(part for part in (said, outcome) if part), "cells": cells}


def _caption(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    parts = [f"IoU {number(row['iou'])}"] if np.isfinite(row.get("iou", np.nan)) else []
    if np.isfinite(row.get("hit", np.nan)):
        parts.append("hit" if row["hit"] else "miss")
    return " · ".join(parts)
