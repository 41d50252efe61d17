"""Compare what results files hold: what the inputs allow is made, the rest is listed with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxrx import __version__
from cxrx.compare import agreement as agree
from cxrx.compare import classification as classify
from cxrx.compare import localisation, tables
from cxrx.compare.comparison import Comparison, write_tables
from cxrx.compare.controls import CONTROLS
from cxrx.compare.corpus import Corpus, open_corpus
from cxrx.compare.statistics import PatientBootstrap
from cxrx.compare.verdict import verdict
from cxrx.errors import UsageError
from cxrx.registry import load
from cxrx.specs import MetricSpec

__all__ = ["SECTIONS", "Comparison", "compare", "write_tables"]

SECTIONS = ("classification", "localisation", "agreement")
_BOOTSTRAP = "95 % interval: percentile bootstrap over patients; none under 10 patients"


def compare(
    paths: Sequence[Path | str] | Path | str,
    truth: Path | str | None = None,
    metrics: str | Sequence[str] = "auto",
    *,
    n_boot: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare the maps and predictions of one or several results files.

    Parameters
    ----------
    paths
        Results files; films, models and methods are united.
    truth
        CSV of labels or boxes (or a folder with some) that counts before what the files hold; keyed by file name or
        by image_id.
    metrics
        ``"auto"`` for all that the inputs allow, else names out of classification, localisation, agreement and
        registered metrics (``owner/name``), as a list or separated by commas.
    n_boot
        Replicates of the bootstrap; 0 for none.
    seed
        For the bootstrap, the random control and the random pairs.

    Raises
    ------
    UsageError
        Unknown metric, no file, no such truth.
    ResultsError
        A file is damaged or no results file.
    """
    listed = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    sections, extra = _chosen(metrics)
    with open_corpus(listed) as corpus:
        notes = tables.Notes()
        matched = corpus.add_truth(Path(truth)) if truth is not None else ""
        if corpus.unknown_truth():
            notes.warnings.append(f"the truth names {corpus.unknown_truth()} films that the results hold no picture of")
        bootstrap = PatientBootstrap([film.patient for film in corpus.films.values()], n_boot, seed)
        found = _tables(corpus, sections, extra, bootstrap=bootstrap, seed=seed, notes=notes)
        notes.flush()
        models = corpus.models.values()
        controls = {*CONTROLS, *(name for model in models for name in model.controls)}
        return Comparison(
            paths=tuple(listed),
            truth=Path(truth) if truth is not None else None,
            films=len(corpus.films),
            **found,
            skipped=notes.skipped,
            warnings=_demo_warnings(corpus) + corpus.warnings + notes.warnings,
            demo=any(model.demo for model in models),
            verdict=verdict(**found, controls=controls, bootstrap=bootstrap),
            settings={"n_boot": n_boot, "seed": seed, "metrics": [*sections, *extra], "truth": matched},
            conventions=_conventions(),
            models=_described(corpus),
            controls=controls,
            names={film.image_id: film.name for film in corpus.films.values() if film.name},
        )


def _tables(
    corpus: Corpus,
    sections: Sequence[str],
    extra: dict[str, MetricSpec],
    *,
    bootstrap: PatientBootstrap,
    seed: int,
    notes: tables.Notes,
) -> dict[str, pd.DataFrame]:
    found = {
        "summary": pd.DataFrame(columns=list(tables.SUMMARY)),
        "per_pair": pd.DataFrame(columns=list(tables.PER_PAIR)),
        "classification": pd.DataFrame(columns=list(classify.COLUMNS)),
        "agreement": pd.DataFrame(columns=list(tables.AGREEMENT)),
    }
    maps = any(model.methods for model in corpus.models.values())
    if not maps:
        notes.skipped += [(what, "the results hold no maps; make some with cxrx explain") for what in SECTIONS[1:]]
    if "classification" in sections:
        if corpus.labels:
            found["classification"] = tables.classification(corpus, bootstrap, notes)
        else:
            notes.skipped.append(("classification", "no labels are known; give them with --truth labels.csv"))
    if "localisation" in sections and maps:
        if corpus.boxes or corpus.masks:
            found["per_pair"] = tables.localise(corpus, seed, extra, notes)
            found["summary"] = tables.summarise(found["per_pair"], bootstrap)
            _tell_priors(found["per_pair"], notes)
        else:
            notes.skipped.append(("localisation", "no boxes or masks are known; give them with --truth boxes.csv"))
    if "agreement" in sections and maps:
        found["agreement"] = tables.agreement(corpus, bootstrap, seed, notes)
    return found


def _tell_priors(per_pair: pd.DataFrame, notes: tables.Notes) -> None:
    with_prior = set(per_pair[per_pair["method"] == "prior"]["finding"])
    notes.skipped += [
        (f"prior of {finding}", "no other patient's film has a box of it")
        for finding in sorted(set(per_pair["finding"]) - with_prior)
    ]


def _chosen(metrics: str | Sequence[str]) -> tuple[list[str], dict[str, MetricSpec]]:
    """Return the sections to make and the third-party localisation metrics to add."""
    shelf = load().metrics
    foreign = {name: spec for name, spec in shelf.items() if not name.startswith("cxrx/")}
    names = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
    if names == ["auto"]:
        return list(SECTIONS), {name: spec for name, spec in foreign.items() if spec.kind == "localisation"}
    sections, extra = [], {}
    for name in names:
        if name in SECTIONS:
            sections.append(name)
            continue
        full = shelf.full_name(name)
        if shelf[full].kind != "localisation":
            raise UsageError(f"{name} is a metric of {shelf[full].kind}; only metrics of localisation can be added")
        extra[full] = shelf[full]
    if extra and "localisation" not in sections:
        sections.append("localisation")
    return sections, extra


def _demo_warnings(corpus: Corpus) -> list[str]:
    real = sum(not film.synthetic for film in corpus.films.values())
    return [
        f"{model.slug} is a demo model, trained on synthetic films only; {real} of these {len(corpus.films)} films are "
        "not synthetic, and what it says of them means nothing"
        for model in corpus.models.values()
        if model.demo and real
    ]


def _described(corpus: Corpus) -> dict[str, dict[str, Any]]:
    return {
        model.slug: {
            "findings": list(model.findings),
            "fingerprint": model.fingerprint,
            "demo": model.demo,
            "methods": {
                name: sources[0].results.attrs(model.slug, name) for name, sources in sorted(model.methods.items())
            },
        }
        for model in corpus.models.values()
    }


def _conventions() -> dict[str, str]:
    said = {f"localisation: {name}": text for name, text in localisation.METRICS.items()}
    said["localisation: protocol"] = (
        "native: maps in their published form (with the ReLU where the method has one) are carried to the pixels of "
        "the source picture, bilinear; what the crop cut off is 0"
    )
    said["localisation: controls"] = (
        f"{', '.join(CONTROLS[:3])} never saw the picture or the model; prior is the mean truth of the finding on the "
        "other patients' films"
    )
    said["localisation: skill"] = "(value - prior) / (1 - prior)"
    said |= {f"agreement: {name}": text for name, text in agree.METRICS.items()}
    said["agreement: random_pair"] = "the same number for maps of the same finding on films of different patients"
    said |= {f"classification: {name}": text for name, text in classify.CONVENTIONS.items()}
    said["interval"] = _BOOTSTRAP
    said["version"] = f"cxrx {__version__}"
    return said
