"""Comparing maps of log-odds with maps of raw logits: their faithfulness is measured on one scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import cxrx
from cxrx.compare.corpus import open_corpus
from cxrx.compare.faithfulness import deletion
from cxrx.compare.faithfulness.table import measure
from cxrx.compare.notes import Notes
from cxrx.compare.rerun import load_again
from cxrx.compare.sanity import table
from cxrx.compare.single import SingleMetrics
from cxrx.errors import CxrxError
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.specs import MetricSpec

LABELS = ["Normal", "Mass", "Nodule"]


@pytest.fixture
def stored(films, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    model = cxrx.wrap_model(network, LABELS, input_size=32, in_chans=1, activation="softmax")
    for score in ("log-odds", "logit"):
        cxrx.run(model, films, ("saliency",), tmp_path / "r.h5", score=score, targets="Mass", workers=0)
    return model, tmp_path / "r.h5"


def logits_asked(model, x, maps, targets):
    return {"f": model.logits(x).gather(1, targets.clamp(min=0)).numpy()}


def test_mixed_maps_are_measured_on_the_log_odds_and_sanity_asks_for_what_was_explained(stored, monkeypatch):
    model, path = stored
    seen = {}

    def experiment(model, spec, *_arguments, **_named):
        seen.setdefault(spec.name, []).append(model.score)
        raise CxrxError("enough was seen")

    monkeypatch.setattr(table.Experiment, "make", staticmethod(experiment))
    notes = Notes()
    with open_corpus([path]) as corpus:
        rerun = load_again(corpus, model.slug, notes, given=model)
        pairs = rerun.data.pairs()[:3]
        single = SingleMetrics({"own": MetricSpec("own", "faithfulness", logits_asked)}, {}, notes)
        found = measure(rerun, corpus, pairs, [deletion(4)], single, seed=0, notes=notes)
        table.sanity(rerun, corpus, pairs, ["noise"], PatientBootstrap([], 10, 0), seed=0, notes=notes)
        z = {pair: rerun.data.logit[pair[0]].astype(np.float64) for pair in pairs}
    assert seen == {"saliency": ["log-odds", "logit"], "edge": ["log-odds"]}
    for row in found.rows:
        own = z[row["image_id"], "Mass"]
        odds = own[1] - np.logaddexp(own[0], own[2])
        assert row["f"] == pytest.approx(odds, abs=1e-4), row["method"]
        assert abs(own[1] - odds) > 0.3
        assert row["deletion"] == pytest.approx(odds, abs=0.1), row["method"]  # this network hardly sees the deletion
    assert notes.warnings[0] == (
        f"{model.slug}: of its maps, saliency-logit explain the raw logit, the others the log-odds; faithfulness "
        "measures all of them on the log-odds"
    )


def test_raw_logits_are_measured_where_all_maps_explain_them(stored):
    model, path = stored
    notes = Notes()
    with open_corpus([path]) as corpus:
        rerun = load_again(corpus, model.slug, notes, given=model)
        del rerun.data.methods["saliency"]
        pairs = rerun.data.pairs()[:2]
        single = SingleMetrics({"own": MetricSpec("own", "faithfulness", logits_asked)}, {}, notes)
        found = measure(rerun, corpus, pairs, [deletion(4)], single, seed=0, notes=notes)
        z = {pair: rerun.data.logit[pair[0]][1] for pair in pairs}
    assert notes.warnings == []
    for row in found.rows:
        assert row["f"] == pytest.approx(z[row["image_id"], "Mass"], abs=1e-4), row["method"]
