"""Compare what results files hold: what the inputs allow is made, the rest is listed with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxrx.compare.agreement import DISPERSION, agreement
from cxrx.compare.classifier import classifier
from cxrx.compare.comparison import Comparison, empty_tables
from cxrx.compare.conventions import conventions
from cxrx.compare.corpus import Corpus, ModelData, open_corpus
from cxrx.compare.costs import costs
from cxrx.compare.faithfulness import FAMILIES
from cxrx.compare.films import check_within_reach, film_edges
from cxrx.compare.localisation import table as locate
from cxrx.compare.localisation.confusion import confusion
from cxrx.compare.localisation.table import Scoring, Truth
from cxrx.compare.notes import Notes
from cxrx.compare.regions.mass import Regions, mass_in_regions, read_regions
from cxrx.compare.selection import METRIC_KINDS, SANITY_PAIRS, SECTIONS, Selection, select, taken_keys
from cxrx.compare.single import SingleMetrics
from cxrx.compare.verdict import verdict
from cxrx.engine.progress import telling
from cxrx.errors import CxrxError, UsageError
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.controls import CONTROLS
from cxrx.metrics.paired import paired_tests
from cxrx.metrics.protocols import PROTOCOLS, Protocol
from cxrx.metrics.strata import KINDS, strata
from cxrx.metrics.summaries import common_pairs, left_out, on_pairs, published_intervals, summarise, with_skill
from cxrx.specs import Measure

if TYPE_CHECKING:
    from cxrx.models.model import Model

__all__ = ["SECTIONS", "Comparison", "compare"]

MIN_RESAMPLES = 10
MAX_EDGES = 300
"""Films that are read again for the control ``edge``; beyond, it costs more than it is worth."""


def compare(
    paths: Corpus | Sequence[Path | str] | Path | str,
    truth: Path | str | None = None,
    metrics: str | Sequence[str] = "auto",
    *,
    protocol: Protocol = "native",
    signed: bool = False,
    model: Model | Sequence[Model] | None = None,
    device: str = "auto",
    images: Path | str | None = None,
    stratify: Sequence[str] = KINDS,
    max_pairs: int | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Comparison:
    r"""Compare the maps and predictions of one or several results files.

    Parameters
    ----------
    paths
        Results files; films, models and methods are united. Or what :func:`cxrx.compare.corpus.open_corpus` returns for
        them, which stays open: the report and exports take their pictures from it.
    truth
        CSV of labels or boxes (or a folder with some) that counts before what the files hold; keyed by file name or
        by image_id. An open corpus keeps it.
    metrics
        ``"auto"``: all that the inputs allow but the sanity tests; ``"fast"``: without running the model, localisation
        on a grid of 224 px; ``"full"``: all; else names of sections, metrics and tests, as a list or separated by
        commas.
    protocol
        How localisation is scored: see :func:`cxrx.score_localisation`.
    signed
        Score maps as they are stored, not in their published form (without the ReLU of CAMs).
    model
        The model itself (or several), for metrics that run it, where it cannot be found through the file's own record.
    device
        Where models run that are loaded again: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    images
        Folder of moved films.
    stratify
        Some of size, confidence, outcome.
    max_pairs
        At most so many pairs of film and finding for metrics that run the model.
    n_boot
        Resamples of patients, for AUROC and AUPRC; 0: no intervals and no tests at all.
    seed
        For the bootstrap, the random control, the random pairs, and whatever else is drawn.

    Raises
    ------
    UsageError
        Unknown metric, protocol or stratum, too few resamples, no file, no such truth.
    ResultsError
        A file is damaged or no results file.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import cxrx
    >>> from cxrx.compare.run import compare
    >>> truth = np.zeros((8, 8))
    >>> truth[2:4, 2:4] = 1
    >>> for i in range(12):
    ...     np.save(f"film{i}__Nodule.npy", truth)
    >>> rows = [f"film{i},Nodule,2,2,2,2,8,8" for i in range(12)]
    >>> _ = Path("boxes.csv").write_text("\n".join(["path,finding,x,y,w,h,rows,columns", *rows]))
    >>> comparison = compare(cxrx.import_maps(".", truth="boxes.csv", out="results.h5"), metrics="localisation")
    >>> table = comparison.summary
    >>> float(table[(table.method == "imported") & (table.metric == "iou") & (table.finding == "all")].value.iloc[0])
    1.0
    """
    selection = select(metrics, max_pairs)
    _check(protocol, n_boot, stratify)
    if device != "auto" and {"faithfulness", "sanity"} & set(selection.sections):
        from cxrx.models.load import pick_device

        pick_device(device)  # only "auto" may fall back, and here a model that cannot be loaded is left out
    given = [paths] if isinstance(paths, (str, Path)) else paths
    with nullcontext(given) if isinstance(given, Corpus) else open_corpus([Path(path) for path in given]) as corpus:
        if truth is not None:
            corpus.add_truth(Path(truth))
        grid = selection.grid if protocol == "native" else None  # the published protocols score at native size
        work = _Work(
            corpus,
            selection,
            PatientBootstrap([film.patient for film in corpus.films.values()], n_boot, seed),
            Scoring(protocol, grid, selection.detailed, signed, seed=seed),
            images=Path(images) if images is not None else None,
            given=() if model is None else model if isinstance(model, Sequence) else (model,),
            device=device,
            stratify=tuple(stratify),
        )
        work.make()
        return work.comparison({
            "n_boot": n_boot, "seed": seed, "metrics": selection.names, "truth": corpus.matched, "protocol": protocol,
            "signed": signed, "grid": grid, "max_pairs": selection.pairs, "stratify": list(stratify),
        })  # fmt: skip


def _check(protocol: str, n_boot: int, stratify: Sequence[str]) -> None:
    if protocol not in PROTOCOLS:
        raise UsageError(f"there is no protocol {protocol!r}", f"there are {', '.join(PROTOCOLS)}")
    if n_boot != 0 and n_boot < MIN_RESAMPLES:
        raise UsageError(f"a bootstrap needs at least {MIN_RESAMPLES} resamples, not {n_boot}", "0 is for none")
    if unknown := [name for name in stratify if name not in KINDS]:
        raise UsageError(f"there are no strata by {unknown[0]!r}", f"there are {', '.join(KINDS)}")


class _Work:
    """A comparison under way: the tables that are made, and what is noted beside them."""

    def __init__(
        self,
        corpus: Corpus,
        selection: Selection,
        bootstrap: PatientBootstrap,
        scoring: Scoring,
        *,
        images: Path | None,
        given: Sequence[Model],
        device: str,
        stratify: tuple[str, ...],
    ) -> None:
        self.corpus, self.selection, self.bootstrap, self.scoring = corpus, selection, bootstrap, scoring
        self.images, self.device, self.stratify = images, device, stratify
        self.given = {model.slug: model for model in given}
        self.notes = Notes()
        self.single = {
            kind: SingleMetrics(selection.single(kind), taken_keys(kind), self.notes) for kind in METRIC_KINDS
        }
        self.regions: Regions = {}
        self.edges: dict[str, Any] = {}
        self.tables = empty_tables()
        self.mapped = [model for model in corpus.models.values() if model.methods]
        self.controls = {*CONTROLS, *(name for model in corpus.models.values() for name in model.controls)}

    def make(self) -> None:
        """Make every section; what cannot be made is noted."""
        if self.corpus.unknown_truth():
            self.notes.warn(f"the truth names {self.corpus.unknown_truth()} films that the results hold no picture of")
        for slug in sorted(self.given.keys() - self.corpus.models.keys()):
            self.notes.warn(
                f"the model that was named is {slug}, which none of these results come from; it was not used"
            )
        if "classification" in self.selection.sections:
            self._classification()
        if self.mapped:
            self._maps()
        else:
            why = "the results hold no maps; make some with cxrx explain"
            left = [name for name in self.selection.sections if name != "classification"]
            self.notes.skipped += [(what, why) for what in left]
        self._tests()
        self.tables["costs"] = costs(self.corpus)
        self.notes.skipped += self.selection.left_out
        self.notes.flush()

    def comparison(self, settings: dict[str, Any]) -> Comparison:
        """Return what was made, with the `settings` it was asked for with."""
        corpus, protocol, plugin_metrics = self.corpus, self.scoring.protocol, self.measures(plugins=True)
        return Comparison(
            paths=tuple(results.path for results in corpus.files),
            films=len(corpus.films),
            **self.tables,
            skipped=self.notes.skipped,
            warnings=_demo_warnings(corpus) + corpus.warnings + self.notes.warnings,
            demo=any(model.demo for model in corpus.models.values()),
            statements=verdict(
                self.tables,
                controls=self.controls,
                protocol=protocol,
                faithfulness=self.measures()["faithfulness"],
            ),
            settings=settings,
            conventions=conventions(self.selection, protocol, plugin_metrics, signed=self.scoring.signed),
            models=_described(corpus),
            controls=self.controls,
            plugin_metrics=plugin_metrics,
        )

    def _maps(self) -> None:
        dispersion = pd.DataFrame(columns=list(DISPERSION))
        if {"localisation", "faithfulness"} & set(self.selection.sections):
            self.regions = read_regions(self.corpus, self.notes)
        if self.regions:
            edges = self._edges(self.regions)
            found = mass_in_regions(self.corpus, self.regions, self.scoring, edges, self.bootstrap)
            self._append("regions", found)
        if "localisation" in self.selection.sections:
            self._localisation()
        if "agreement" in self.selection.sections:
            alike = agreement(
                self.corpus, self.bootstrap, self.scoring.seed, self.selection.similarities, self.notes,
                single=self.single["agreement"], signed=self.scoring.signed,
            )  # fmt: skip
            self.tables |= {"agreement": alike.methods, "model_agreement": alike.models}
            dispersion = alike.dispersion
        if self.stratify:
            self.tables["strata"] = strata(self.tables["per_pair"], dispersion, self.stratify, self.bootstrap)
        if {"faithfulness", "sanity"} & set(self.selection.sections):
            for model in self.mapped:
                self._run_again(model)

    def _classification(self) -> None:
        if not self.corpus.labels:
            self.notes.skip("classification", "no labels are known; give them with --truth labels.csv")
            return
        found = classifier(self.corpus, self.bootstrap, self.scoring.seed, self.notes)
        self.tables |= {
            "classification": found.classification,
            "classifier_curves": found.curves,
            "thresholds": found.thresholds,
        }

    def _localisation(self) -> None:
        if not (self.corpus.boxes or self.corpus.masks):
            self.notes.skip("localisation", "no boxes or masks are known; give them with --truth boxes.csv")
            return
        truth = Truth(self.corpus, self.scoring, self.notes)
        edges = self._edges(dict.fromkeys(image_id for image_id, _ in truth.pairs))
        scoring = replace(self.scoring, single=self.single["localisation"])
        per_pair = locate.localise(self.corpus, truth, scoring, edges, self.notes)
        per_pair = self._with_protocols(per_pair, truth, edges)
        metrics = [name for name in per_pair.columns if name not in locate.BASE]
        summary = with_skill(summarise(per_pair, metrics, self.bootstrap))
        self.notes.warnings += left_out(per_pair, metrics)
        if self.scoring.protocol == "chexlocalize":
            shared = on_pairs(per_pair, metrics, common_pairs(per_pair, metrics)[1])
            summary = published_intervals(summary, shared, self.corpus.name)
        self.tables |= {"per_pair": per_pair, "summary": summary}
        if self.selection.detailed:
            self.tables["confusion"] = confusion(self.corpus, truth, self.scoring)
        with_prior = set(per_pair[per_pair["method"] == "prior"]["finding"])
        for finding in sorted(set(per_pair["finding"]) - with_prior):
            self.notes.skip(f"prior of {finding}", "no other patient's film has a box of it")

    def _with_protocols(self, per_pair: pd.DataFrame, truth: Truth, edges: Mapping[str, Any]) -> pd.DataFrame:
        """Add the numbers of other protocols, as columns of their own."""
        keys = ["image_id", "model", "method", "finding"]
        for protocol in self.selection.protocols:
            if protocol == self.scoring.protocol:
                continue
            scoring = replace(self.scoring, protocol=protocol, detailed=False)
            table = locate.localise(self.corpus, truth, scoring, edges, Notes())
            metrics = [name for name in table.columns if name not in locate.BASE]
            renamed = table[[*keys, *metrics]].rename(columns={name: f"{protocol}_{name}" for name in metrics})
            per_pair = per_pair.merge(renamed, on=keys, how="left")
        return per_pair

    def _edges(self, wanted: Iterable[str]) -> Mapping[str, Any]:
        """Return the edges of those films that have maps, where they can be read again."""
        mapped = {image_id for model in self.mapped for image_id, _ in model.pairs()}
        films = [image_id for image_id in wanted if image_id in mapped]
        if all("edge" in model.methods for model in self.mapped):
            return {}
        if self.edges.keys() >= set(films):
            return self.edges
        if len(films) > MAX_EDGES:
            self.notes.skip("edge", f"it would read {len(films)} films again; store it: cxrx explain --method edge")
            return {}
        try:
            edges = film_edges(self.corpus, films, self.images)
        except CxrxError as error:
            self.notes.skip("edge", f"the films cannot be read again: {error}")
            return {}
        if len(edges) < len(films):  # a control on some of the films would not be paired
            self.notes.skip("edge", f"{len(films) - len(edges)} of {len(films)} films cannot be found or read again")
            return {}
        self.edges |= edges
        return self.edges

    def _run_again(self, data: ModelData) -> None:
        """Make the sections that need the model; a model or films that are gone are noted."""
        sections = [name for name in ("faithfulness", "sanity") if name in self.selection.sections]
        try:
            # before torch is loaded for nothing
            given = self.given.get(data.slug)
            check_within_reach(self.corpus, data, self.images, given=given is not None)
            from cxrx.compare.rerun import load_again

            rerun = load_again(self.corpus, data.slug, self.notes, given=given, device=self.device, images=self.images)
        except CxrxError as error:
            hint = f" ({error.hint})" if error.hint else ""
            for section in sections:
                self.notes.skip(f"{section} of {data.slug}", f"{error}{hint}")
            return
        for section in sections:
            try:
                with telling(f"{section} of {data.slug}"):
                    self._faithfulness(rerun) if section == "faithfulness" else self._sanity(rerun)
            except CxrxError as error:
                self.notes.skip(f"{section} of {data.slug}", str(error))

    def _faithfulness(self, rerun: Any) -> None:
        from cxrx.compare.faithfulness.table import BASE, draw_pairs, measure

        pairs = draw_pairs(self.corpus, rerun.data, self.selection.pairs, self.scoring.seed)
        found = measure(
            rerun, self.corpus, pairs, self.selection.families, self.single["faithfulness"], seed=self.scoring.seed,
            notes=self.notes, signed=self.scoring.signed,
        )  # fmt: skip
        table = pd.DataFrame(found.rows)
        metrics = [name for name in table.columns if name not in BASE]
        if table.empty:
            self.notes.skip(f"faithfulness of {rerun.data.slug}", "none of its maps and films could be used")
            return
        self._append("faithfulness_pairs", table)
        self._append("faithfulness", summarise(table, metrics, self.bootstrap))
        self.notes.warnings += [f"faithfulness of {sentence}" for sentence in left_out(table, metrics)]
        self._append("curves", found.curve_table(self.bootstrap))
        if self.regions:
            from cxrx.compare.regions.removal import removal

            marked = [pair for pair in rerun.data.pairs() if pair[0] in self.regions]
            self._append("regions", removal(rerun, self.corpus, self.regions, marked, self.bootstrap))

    def _sanity(self, rerun: Any) -> None:
        from cxrx.compare.faithfulness.table import draw_pairs
        from cxrx.compare.sanity.table import sanity

        limit = min(self.selection.pairs, SANITY_PAIRS)
        pairs = draw_pairs(self.corpus, rerun.data, limit, self.scoring.seed)
        rows, verdicts = sanity(
            rerun, self.corpus, pairs, self.selection.tests, self.bootstrap, seed=self.scoring.seed, notes=self.notes
        )
        self._append("sanity", rows)
        self._append("sanity_verdicts", verdicts)

    def measures(self, *, plugins: bool = False) -> dict[str, dict[str, Measure]]:
        """Return what the numbers of the chosen metrics are, by kind and key; of `plugins` only."""
        families = [family for family in self.selection.families if not (plugins and family in FAMILIES)]
        found = {kind: dict(single.measures) for kind, single in self.single.items()}
        found["faithfulness"] |= {key: measure for family in families for key, measure in family.measures.items()}
        return found

    def _tests(self) -> None:
        measures = self.measures()
        for name, kind in (("per_pair", "localisation"), ("faithfulness_pairs", "faithfulness")):
            table = self.tables[name]
            known = {key: measures[kind].get(key, Measure()) for key in table.columns if key not in locate.BASE}
            judging = [key for key, measure in known.items() if measure.higher_is_better is not None]
            own_scale = {key for key, measure in known.items() if measure.unit}
            self._append(
                "paired_tests", paired_tests(table, judging, self.controls, self.bootstrap, own_scale=own_scale)
            )

    def _append(self, name: str, table: pd.DataFrame) -> None:
        parts = [part for part in (self.tables[name], table) if len(part)]
        if parts:
            self.tables[name] = pd.concat(parts, ignore_index=True)


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
