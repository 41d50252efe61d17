"""Every map over its film, as PNG files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxrx.compare.corpus import Corpus
from cxrx.datasets import canonical
from cxrx.errors import UsageError
from cxrx.export.films import LABELS, Films
from cxrx.export.overlay import Case, draw_cases, png, scaled_boxes, thumbnail_shape
from cxrx.export.specs import PngOptions
from cxrx.files.atomic import write_file
from cxrx.metrics.geometry import resize

if TYPE_CHECKING:
    from cxrx.results.reader import Results


def write_png(
    results: Results,
    out: Path,
    *,
    films: Films | None = None,
    model: str | None = None,
    methods: Sequence[str] | None = None,
    findings: Sequence[str] | None = None,
    grid: bool = False,
    longest: int = PngOptions.longest,
) -> None:
    """Write overlays into the folder `out`, named ``<image_id>_<finding>_<model>_<method>.png``.

    Parameters
    ----------
    films
        The films behind `results`; None: they are looked for where they were.
    model, methods, findings, grid, longest
        See :class:`cxrx.export.specs.PngOptions`.

    Raises
    ------
    UsageError
        If there are no such maps, or none of the films can be found.
    """
    films = films or Films(Corpus([results]))
    models = films.corpus.models
    named = None if findings is None else {canonical(name) for name in findings}
    wanted: dict[str, list[tuple[str, str, list[str]]]] = {}  # by film: model, finding, methods
    for slug in [results.model(model)] if model is not None else models:
        chosen = [name for name in models[slug].methods if methods is None or name in methods]
        for pair in models[slug].pairs():
            image_id, finding = pair
            there = [name for name in chosen if models[slug].source(name, pair)]
            if there and image_id in films.corpus.films and (named is None or finding in named):
                wanted.setdefault(image_id, []).append((slug, finding, there))
    if not wanted:
        raise UsageError(f"{results.path.name} holds no such maps", "make some with: cxrx explain")
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for image_id, pixels in films.pictures(wanted):
        for slug, finding, there in wanted[image_id]:
            case = _case(films, image_id, pixels, (slug, finding, there), longest)
            stem = f"{image_id}_{_safe(finding)}_{_safe(slug)}"
            each = [(f"{stem}_{_safe(name)}", {name: values}) for name, values in case.panels.items()]
            for name, panels in [(stem, case.panels)] if grid else each:
                write_file(out / f"{name}.png", png(draw_cases([replace(case, panels=panels)])))
                written += 1
    if not written:
        raise UsageError(
            "none of the films can be found", "say where they are with --images DIR; they are found by their content"
        )


def _case(
    films: Films, image_id: str, pixels: NDArray[np.float32], shown: tuple[str, str, list[str]], longest: int
) -> Case:
    """Put a film ``(rows, columns)``, its truth and the maps of (model, finding, methods) on a thumbnail."""
    slug, finding, methods = shown
    shape = thumbnail_shape(pixels.shape[0], pixels.shape[1], longest)
    maps = {name: films.map(image_id, finding, name, slug, shape) for name in methods}
    probability, label = films.corpus.models[slug].probability_of((image_id, finding)), films.label(image_id, finding)
    facts = [f"probability {probability:.2f}"] if np.isfinite(probability) else []
    facts += [f"label: {LABELS[label]}"] if label in LABELS else []
    boxes, mask = scaled_boxes(films.boxes(image_id, finding), pixels.shape, shape), films.mask(image_id, finding)
    outline = None if mask is None else resize(mask, shape)
    panels = {name: values for name, values in maps.items() if values is not None}
    return Case(finding, resize(pixels, shape), panels, boxes=boxes, outline=outline, facts=facts)


def _safe(name: str) -> str:
    """Return `name` with nothing in it that a file name cannot hold."""
    return re.sub(r"[^0-9A-Za-z@.+-]+", "-", name)
