"""The sanity tests of every method in the results, on a sample of its pairs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from cxrx.compare.corpus import Corpus, ModelData, Pair
from cxrx.compare.notes import Notes
from cxrx.compare.rerun import Rerun
from cxrx.compare.sanity.check import check_sanity
from cxrx.compare.sanity.experiment import Experiment
from cxrx.compare.sanity.judge import judge, sentence_of, summarise
from cxrx.errors import CxrxError
from cxrx.explainers.seeds import derive_seed
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.options import parse_options
from cxrx.registry import load
from cxrx.specs import ExplainerSpec

log = logging.getLogger("cxrx")

ROWS = ("model", "method", "test", "stage", "metric", "value", "low", "high", "n", "random_pair")
VERDICTS = ("model", "method", "test", "passed", "outcome", "reason", "sentence")
DEAR = 100
"""Methods of more evaluations a map are tried on a few pairs, with one wholly random network only."""
DEAR_PAIRS = 12


def sanity(
    rerun: Rerun,
    corpus: Corpus,
    pairs: Sequence[Pair],
    tests: Sequence[str],
    bootstrap: PatientBootstrap,
    *,
    seed: int,
    notes: Notes,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the tests for every method of a model, and for the control ``edge``, which must fail.

    Parameters
    ----------
    rerun, corpus
        The model, loaded again, and the open results.
    pairs
        Explained pairs of film and finding.
    tests
        Names of the tests.
    bootstrap, seed
        What draws patients, and everything else.
    notes
        Takes what is left out.

    Returns
    -------
    rows, verdicts
        With the columns :data:`ROWS` and :data:`VERDICTS`.
    """
    data = rerun.data
    ids, x = _films(rerun, [pair[0] for pair in pairs])
    members = [[pair for pair in pairs if pair[0] == image_id] for image_id in ids]
    tables, verdicts = [], []
    for name, spec, options, drawn in _methods(data, notes):
        log.info("%s: randomising the network for %s", data.slug, name)
        dear = spec.evaluations is not None and spec.evaluations(options) > DEAR
        few = _first(members, DEAR_PAIRS) if dear else members
        kept = [b for b, own in enumerate(few) if own]
        explained = rerun.model.explaining(data.scores.get(name, "log-odds"))
        try:
            experiment = Experiment.make(
                explained, spec, options, x[kept], torch.from_numpy(data.targets([few[b] for b in kept])),
                torch.tensor([derive_seed(drawn, spec.name, ids[b]) for b in kept]),
                image_ids=[ids[b] for b in kept], patients=[corpus.films[ids[b]].patient for b in kept],
                findings=data.findings,
            )  # fmt: skip
            wanted = [test for test in tests if not (dear and test == "sensitivity")]
            result = check_sanity(experiment, tests=wanted, draws=1 if dear else 3, every_stage=not dear, seed=seed)
        except CxrxError as error:
            notes.skip(f"sanity of {name} ({data.slug})", str(error))
            continue
        if dear:
            notes.warn(f"{data.slug}: sanity of {name}, which is dear, on {DEAR_PAIRS} pairs and one random network")
        named = {"model": data.slug, "method": name}
        tables.append(summarise(result.rows, result.random_pairs, bootstrap).assign(**named))
        for verdict in judge(result.rows, result.random_pairs, bootstrap, stochastic=result.stochastic):
            test, _, outcome, reason = verdict
            if test != "repeatability" or test in tests:
                verdicts.append((data.slug, name, *verdict, sentence_of(name, outcome, reason)))
    rows = pd.concat(tables, ignore_index=True)[list(ROWS)] if tables else pd.DataFrame(columns=list(ROWS))
    return rows, pd.DataFrame(verdicts, columns=list(VERDICTS))


def _films(rerun: Rerun, wanted: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    ids: list[str] = []
    parts: list[torch.Tensor] = []
    for found, x in rerun.batches(list(dict.fromkeys(wanted))):
        ids += found
        parts.append(x)
    if not parts:
        raise CxrxError("none of its films can be found")
    return ids, torch.cat(parts)


def _methods(data: ModelData, notes: Notes) -> list[tuple[str, ExplainerSpec, Any, int]]:
    """Return (name, spec, options, seed) of every method whose plugin is here, and of ``edge``."""
    registry = load().explainers
    found: list[tuple[str, ExplainerSpec, Any, int]] = []
    for name in data.methods:
        attrs = data.methods[name][0].results.attrs(data.slug, name)
        if name in data.controls and attrs["method"] != "edge":
            continue  # controls that ignore the picture say nothing here
        try:
            spec = registry.find(attrs["method"])
            found.append((name, spec, parse_options(spec.options, attrs["options"], spec.name), int(attrs["seed"])))
        except CxrxError as error:
            notes.skip(f"sanity of {name} ({data.slug})", str(error))
    if not any(spec.name == "edge" for _, spec, _, _ in found):
        spec = registry.find("cxrx/edge")
        found.append(("edge", spec, spec.options(), 0))
    return found


def _first(members: Sequence[Sequence[Pair]], limit: int) -> list[list[Pair]]:
    """Return the first `limit` pairs, a film at a time in turn, so that many patients stay."""
    kept: list[list[Pair]] = [[] for _ in members]
    for t in range(max(map(len, members))):
        for b, own in enumerate(members):
            if t < len(own) and sum(map(len, kept)) < limit:
                kept[b].append(own[t])
    return kept
