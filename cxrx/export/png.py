"""Every map over its film, as PNG files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxrx.compare.corpus import Corpus
from cxrx.errors import UsageError
from cxrx.export.cases import Key, load_cases
from cxrx.export.overlay import LONGEST, Case, draw_cases, png
from cxrx.files.atomic import write_file

if TYPE_CHECKING:
    from cxrx.results.reader import Results

CASES_AT_ONCE = 16


def write_png(
    results: Results,
    out: Path,
    *,
    images: Path | None = None,
    model: str | None = None,
    methods: Sequence[str] | None = None,
    findings: Sequence[str] | None = None,
    grid: bool = False,
    longest: int = LONGEST,
) -> None:
    """Write overlays into the folder `out`, named ``<image_id>_<finding>_<model>_<method>.png``.

    Parameters
    ----------
    images
        Folder of moved films; they are found by their content.
    model, methods, findings
        Which of them; None: all.
    grid
        One picture per film and finding with the methods side by side, instead of one per method.
    longest
        Pixels of the longer side of the film.

    Raises
    ------
    UsageError
        If there are no such maps, or none of the films can be found.
    """
    corpus = Corpus([results])
    slugs = [results.model(model)] if model is not None else list(corpus.models)
    chosen = {slug: [m for m in corpus.models[slug].methods if methods is None or m in methods] for slug in slugs}
    wanted: list[Key] = [
        (slug, pair)
        for slug in slugs
        for pair in corpus.models[slug].pairs()
        if pair[0] in corpus.films
        and (findings is None or pair[1] in findings)
        and any(corpus.models[slug].source(method, pair) for method in chosen[slug])
    ]
    if not wanted:
        raise UsageError(f"{results.path.name} holds no such maps", "make some with: cxrx explain")
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for start in range(0, len(wanted), CASES_AT_ONCE):
        cases, _ = load_cases(corpus, wanted[start : start + CASES_AT_ONCE], chosen, images=images, longest=longest)
        for key, case in cases.items():
            written += _write_case(out, key, case, grid=grid)
    if not written:
        raise UsageError(
            "none of the films can be found", "say where they are with --images DIR; they are found by their content"
        )


def _write_case(out: Path, key: Key, case: Case, *, grid: bool) -> int:
    slug, (image_id, finding) = key
    stem = f"{image_id}_{_safe(finding)}_{_safe(slug)}"
    panels = [panel for panel in case.panels if panel.values is not None]
    shown = [(f"{stem}.png", panels)] if grid else [(f"{stem}_{_safe(panel.title)}.png", [panel]) for panel in panels]
    for name, members in shown:
        write_file(out / name, png(draw_cases([replace(case, panels=members)])))
    return len(shown)


def _safe(name: str) -> str:
    """Return `name` with nothing in it that a file name cannot hold."""
    return re.sub(r"[^0-9A-Za-z@.+-]+", "-", name)
