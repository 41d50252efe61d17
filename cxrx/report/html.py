"""Write a comparison as one HTML file that needs nothing else: no network, no script, light and dark."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from cxrx import __version__
from cxrx.compare.comparison import Comparison, versions
from cxrx.compare.corpus import Corpus
from cxrx.compare.verdict import NOTHING, Statement, sentences
from cxrx.export.films import Films
from cxrx.export.overlay import COLOURS
from cxrx.files.atomic import write_file
from cxrx.report import behaviour, relations
from cxrx.report.choose import MAX_CASES
from cxrx.report.classifier import classifier
from cxrx.report.figures import strokes
from cxrx.report.gallery import Gallery, make_gallery
from cxrx.report.localisation import localisation
from cxrx.report.words import names_of
from cxrx.results.records import explained_score

if TYPE_CHECKING:
    from jinja2 import Environment


def write_report(
    comparison: Comparison,
    corpus: Corpus,
    out: Path,
    *,
    images: Path | None = None,
    share: bool = False,
    max_cases: int = MAX_CASES,
) -> Path:
    """Write ``report.html`` and return its path.

    Parameters
    ----------
    comparison, corpus
        From :func:`cxrx.compare.run.compare`, and the open results files it was made of, for the pictures.
    out
        The file to write.
    images
        Folder of moved films; they are found by their content.
    share
        Leave the films' file names out and call them by image_id.
    max_cases
        Most cards of the case grid.
    """
    gallery = make_gallery(comparison, Films(corpus, images, share=share), max_cases)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, page(comparison, gallery).encode())
    return out


def page(comparison: Comparison, gallery: Gallery) -> str:
    """Return the whole page; sections whose tables are empty are left out."""
    script = files("cxrx.report").joinpath("templates", "filters.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return _environment().get_template("report.html").render(
        comparison=comparison,
        version=__version__,
        versions=versions(),
        sections=_sections(comparison),
        gallery=gallery,
        colours=_gradient(),
        script=Markup(script),  # noqa: S704  our own file; the page's policy lets this text run and no other
        script_hash=Markup(f"sha256-{digest}"),  # noqa: S704  base64
    )  # fmt: skip


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cxrx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["options"] = _options
    return environment


def _options(attrs: dict[str, Any]) -> str:
    """Write what decided a method's maps: its options and seed, the grid, whether the ReLU is part of it."""
    settings = attrs.get("settings") or {}
    options = settings.get("options")
    options = options if isinstance(options, dict) else {}
    said = [f"{name} = {value}" for name, value in options.items() if value is not None]
    said += [f"seed {settings['seed']}"] if settings.get("seed") is not None else []
    said += ["of the raw logit"] if explained_score(settings) == "logit" else []
    said += [f"{attrs['space']} grid"] if attrs.get("space") else []
    said += ["positive part (ReLU)"] if attrs.get("relu") else ["signed"] if attrs.get("signed") else []
    said += [f"fingerprint {attrs['fingerprint']}"] if attrs.get("fingerprint") else []
    return ", ".join(said)


def _sections(comparison: Comparison) -> dict[str, Any]:
    """Return what every section shows: by model where it has models."""
    slugs = list(comparison.models)
    tables = (comparison.summary, comparison.faithfulness, comparison.curves, comparison.sanity)
    methods = list(dict.fromkeys(name for table in tables for name in names_of(table, "method")))
    look = strokes(methods, comparison.controls)
    by_model: dict[str, dict[str, Any]] = {
        "classifier": {slug: classifier(comparison, slug) for slug in slugs},
        "localisation": {slug: localisation(comparison, slug) for slug in slugs},
        "faithfulness": {slug: behaviour.faithfulness(comparison, slug, look) for slug in slugs},
        "sanity": {slug: behaviour.sanity(comparison, slug) for slug in slugs},
        "agreement": {slug: relations.agreement(comparison, slug) for slug in slugs},
        "strata": {slug: relations.strata(comparison, slug) for slug in slugs},
    }
    return {
        "verdict": _verdict(comparison.statements, slugs),
        **{name: {slug: found for slug, found in parts.items() if found} for name, parts in by_model.items()},
        "model_agreement": relations.model_agreement(comparison),
        "paired_tests": relations.paired_tests(comparison),
        "costs": relations.costs(comparison),
        "regions": relations.regions(comparison),
    }


def _verdict(statements: Sequence[Statement], slugs: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Put the sentences on one model under its name, in their order; what is said of several comes last."""
    groups: dict[str, list[str]] = {slug: [] for slug in slugs}
    for slug, sentence in sentences(statements) or [("", NOTHING)]:
        groups.setdefault(slug, []).append(sentence)
    return [(slug, said) for slug, said in groups.items() if said]


def _gradient() -> str:
    """Return the colour scale of the overlays as a CSS gradient."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return ", ".join(to_hex(colormaps[COLOURS](value)) for value in np.linspace(0, 1, 9))
