"""From files to scores: confusion of findings, plugins' metrics, skill."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxrx.compare.corpus import open_corpus
from cxrx.compare.localisation.confusion import confusion
from cxrx.compare.localisation.table import Scoring, Truth, _controls, localise
from cxrx.compare.notes import Notes
from cxrx.compare.selection import taken_keys
from cxrx.compare.single import SingleMetrics
from cxrx.metrics.controls import Prior
from cxrx.metrics.localisation import score_localisation, score_overlap
from cxrx.metrics.summaries import with_skill
from cxrx.specs import MetricSpec


def test_confusion_is_the_iou_of_one_findings_map_with_anothers_truth(tiny, on_source):
    with open_corpus([tiny.results]) as corpus:
        truth = Truth(corpus, Scoring(), Notes())
        table = confusion(corpus, truth, Scoring())
        expected = []
        for i in range(0, 14, 2):  # films that have both
            values = on_source(np.maximum(tiny.maps["gradcam"][i, 0], 0))
            expected.append(score_localisation(values, truth.mask((tiny.ids[i], "Effusion")))["iou"])
    rows = table[(table["method"] == "gradcam") & (table["finding_map"] == "Mass")].set_index("finding_truth")
    assert rows.loc["Effusion", "value"] == pytest.approx(np.mean(expected))
    assert rows["n"].to_dict() == {"Effusion": 7, "Mass": 14}


@pytest.mark.parametrize("values", [np.eye(30), np.ones((30, 30)), np.full((30, 30), np.nan), -np.eye(30)])
def test_overlap_is_the_iou_of_all_scores(values):
    truth = np.zeros((30, 30), dtype=bool)
    truth[3:12, 5:20] = True
    assert score_overlap(values, truth) == score_localisation(values, truth)["iou"]
    assert np.isnan(score_overlap(values, truth & False))


def test_a_plugin_takes_no_name_of_ours(tiny):
    spec = MetricSpec("own/metric", "localisation", lambda *_: {"hit": 7.0, "area": 7.0, "method": 7.0, "mine": 7.0})
    notes = Notes()
    with open_corpus([tiny.results]) as corpus:
        truth = Truth(corpus, Scoring(), notes)
        plain = localise(corpus, truth, Scoring(), {}, notes)
        single = SingleMetrics({spec.name: spec}, taken_keys("localisation"), notes)
        table = localise(corpus, truth, Scoring(single=single), {}, notes)
    assert (table.pop("mine") == 7).all()
    pd.testing.assert_frame_equal(table, plain)
    notes.flush()
    assert notes.warnings == [
        f"{key} of the metric own/metric was left out: {owner} has a number of that name"
        for key, owner in (("hit", "cxrx/localisation"), ("area", "the table"), ("method", "the table"))
    ]


def test_the_drawn_prior_is_flat_where_its_cells_are_equal():
    """Two of three other patients share a square: 2/3 stays 2/3 on the pixels of a film of any size."""
    prior = Prior()
    for patient, corner in (("own", 10), ("a", 200), ("b", 200), ("c", 600)):
        mask = np.zeros((1024, 1024), dtype=bool)
        mask[corner : corner + 300, 300:700] = True
        prior.add("m", patient, mask)
    film = SimpleNamespace(image_id="i", patient="own")
    drawn = _controls(prior, film, ("i", "m"), {}, 0, (701, 903), ())["prior"]()
    assert len(np.unique(drawn[drawn > drawn.max() - 1e-9])) == 1
    assert drawn.max() == pytest.approx(2 / 3, abs=1e-12)


def test_skill_is_for_metrics_that_end_at_one():
    metrics = ("hit", "mass_ratio", "t_iou_0.3", "chexlocalize_iou", "arun_auprc", "auroc", "own_distance")
    rows = [("m", method, "all", metric, value, 10, 0, 0.0, 0.0)
            for method, value in (("gradcam", 0.6), ("prior", 0.2)) for metric in metrics]  # fmt: skip
    table = pd.DataFrame(rows, columns=["model", "method", "finding", "metric", "value", "n", "nan", "low", "high"])
    skill = with_skill(table).query("method == 'gradcam'").set_index("metric")["skill"]
    assert skill.isna().to_dict() == {metric: metric in ("mass_ratio", "own_distance") for metric in metrics}
    assert skill["hit"] == pytest.approx(0.5)
