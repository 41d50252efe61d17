"""Comparing maps of log-odds with maps of raw logits: each is held against what it explains."""

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


def test_metrics_and_sanity_ask_the_model_for_what_was_explained(stored, monkeypatch):
    model, path = stored
    seen = {}

    def asked(model, x, maps, targets):
        return {"f": model.logits(x).gather(1, targets.clamp(min=0)).numpy()}

    def experiment(model, spec, *_arguments, **_named):
        seen.setdefault(spec.name, []).append(model.score)
        raise CxrxError("enough was seen")

    monkeypatch.setattr(table.Experiment, "make", staticmethod(experiment))
    notes = Notes()
    with open_corpus([path]) as corpus:
        rerun = load_again(corpus, model.slug, notes, given=model)
        pairs = rerun.data.pairs()[:3]
        single = SingleMetrics({"own": MetricSpec("own", "faithfulness", asked)}, {}, notes)
        found = measure(rerun, corpus, pairs, [deletion(4)], single, seed=0, notes=notes)
        table.sanity(rerun, corpus, pairs, ["noise"], PatientBootstrap([], 10, 0), seed=0, notes=notes)
        z = {pair: rerun.data.logit[pair[0]].astype(np.float64) for pair in pairs}
    assert seen == {"saliency": ["log-odds", "logit"], "edge": ["log-odds"]}
    for row in found.rows:
        own = z[row["image_id"], "Mass"]
        odds = own[1] - np.logaddexp(own[0], own[2])
        raw = row["method"] == "saliency-logit"
        assert row["f"] == pytest.approx(own[1] if raw else odds, abs=1e-4), row["method"]
    scored = {row["method"]: row["deletion"] for row in found.rows if row["image_id"] == pairs[0][0]}
    assert abs(scored["saliency"] - scored["saliency-logit"]) > 0.01


def test_a_control_is_measured_by_what_all_methods_explain(stored):
    model, path = stored
    with open_corpus([path]) as corpus:
        data = corpus.models[model.slug]
        assert (data.score("saliency"), data.score("saliency-logit"), data.score("centre")) == (
            "log-odds", "logit", "log-odds",
        )  # fmt: skip
        del data.scores["saliency"]
        assert data.score("centre") == "logit"
