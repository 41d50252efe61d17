"""Put films, truth and maps side by side: what both the report and the exported pictures show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.compare.corpus import Corpus, Pair
from cxrx.compare.films import film_paths, read_options, read_pictures
from cxrx.export.overlay import LONGEST, Box, Case, Grey, Panel, scaled_boxes, thumbnail_shape
from cxrx.metrics.geometry import resize

Key = tuple[str, Pair]  # (model slug, (image_id, finding))


def load_cases(
    corpus: Corpus,
    wanted: Sequence[Key],
    methods: Mapping[str, Sequence[str]],
    *,
    images: Path | None = None,
    longest: int = LONGEST,
    caption: Callable[[str, str, Pair], str] | None = None,
) -> tuple[dict[Key, Case], int]:
    """Read films and maps, and put them on thumbnails.

    Parameters
    ----------
    wanted
        What to show.
    methods
        By model: the panels, in order; a method without a map of the pair gives a panel without values.
    images
        Folder of moved films; they are found by their content.
    longest
        Pixels of the longer side.
    caption
        (model, method, pair) to the text below a panel.

    Returns
    -------
    cases, missing
        Cases in the order of `wanted`; films that cannot be found or read any more are left out and counted.
    """
    pictures, missing = _pictures(corpus, [pair[0] for _, pair in wanted], images)
    maps = _maps(corpus, [key for key in wanted if key[1][0] in pictures], methods)
    cases = {}
    for slug, pair in wanted:
        if pair[0] not in pictures:
            continue
        film = corpus.films[pair[0]]
        shape = thumbnail_shape(film.rows, film.columns, longest)
        panels = []
        for method in methods[slug]:
            grid = maps.get((slug, method, pair))
            values = None if grid is None else corpus.models[slug].placed(grid, film, shape)
            said = caption(slug, method, pair) if caption is not None else ""
            panels.append(Panel(method, said if grid is not None else "no map", values))
        picture: Grey = resize(pictures[pair[0]], shape)
        cases[slug, pair] = Case(
            pair[1],
            picture,
            tuple(panels),
            boxes=_boxes(corpus, pair, shape),
            outline=resize(corpus.masks[pair].decode(), shape) if pair in corpus.masks else None,
            facts=_facts(corpus, slug, pair),
        )
    return cases, missing


_LABELS = {1: "present", 0: "absent", -1: "uncertain"}


def _facts(corpus: Corpus, slug: str, pair: Pair) -> tuple[str, ...]:
    """Return the model's probability and the label, as far as they are known."""
    image_id, finding = pair
    model, facts = corpus.models[slug], []
    if image_id in model.probability and finding in model.findings:
        facts.append(f"probability {float(model.probability[image_id][model.findings.index(finding)]):.2f}")
    label = corpus.labels.get(image_id, {}).get(finding)
    if label in _LABELS:
        facts.append(f"label: {_LABELS[label]}")
    return tuple(facts)


def _boxes(corpus: Corpus, pair: Pair, shape: tuple[int, int]) -> list[Box]:
    """Return the truth's boxes on the thumbnail; of a mask the box around it."""
    film = corpus.films[pair[0]]
    boxes: Any = corpus.boxes.get(pair)
    if boxes is None and pair in corpus.masks:
        ys, xs = np.nonzero(corpus.masks[pair].decode())
        boxes = [[xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]] if ys.size else None
    return scaled_boxes(boxes, (film.rows, film.columns), shape) if boxes is not None else []


def _maps(
    corpus: Corpus, wanted: Sequence[Key], methods: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str, Pair], NDArray[np.float32]]:
    maps: dict[tuple[str, str, Pair], NDArray[np.float32]] = {}
    for slug in dict.fromkeys(slug for slug, _ in wanted):
        pairs = [pair for model, pair in wanted if model == slug]
        for method in methods[slug]:
            read = corpus.read(corpus.models[slug], method, pairs)
            maps |= {(slug, method, pair): values for pair, values in read.items()}
    return maps


def _pictures(corpus: Corpus, ids: Sequence[str], images: Path | None) -> tuple[dict[str, NDArray[np.float32]], int]:
    settings = next((model.settings for model in corpus.models.values() if model.settings), {})
    pictures, missing = read_pictures(film_paths(corpus, images), ids, read_options(settings))
    fitting = {
        image_id: pixels
        for image_id, pixels in pictures.items()
        if pixels.shape == (corpus.films[image_id].rows, corpus.films[image_id].columns)
    }
    return fitting, missing + len(pictures) - len(fitting)
