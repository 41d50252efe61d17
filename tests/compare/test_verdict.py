"""The sentences claim what the statistics allow, and say so where they allow nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cxrx.compare.comparison import empty_tables
from cxrx.compare.verdict import decided, verdict
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.paired import COLUMNS, paired_tests

CONTROLS = {"centre", "random"}


def faithfulness(metric, **values):
    """Return the tables of a comparison that measured one faithfulness metric of some methods."""
    base = {"model": "m", "finding": "Mass"}
    rows = [
        base | {"image_id": f"i{i}", "patient": f"p{i}", "method": method, metric: value + noise}
        for method, value in values.items()
        for i, noise in enumerate(np.random.default_rng(len(method)).normal(0, 0.01, 30))
    ]  # fmt: skip
    scores = pd.DataFrame(rows)
    means = scores.groupby("method", sort=False)[metric].mean()
    table = [("m", method, finding, metric, value, 30, 0, value - 0.1, value + 0.1)
             for method, value in means.items() for finding in ("all", "Mass")]  # fmt: skip
    tables = empty_tables()
    tables["faithfulness"] = pd.DataFrame(table, columns=tables["faithfulness"].columns)
    tables["paired_tests"] = paired_tests(
        scores, [metric], CONTROLS, PatientBootstrap(list(scores["patient"].unique()), 200, 0)
    )
    return tables


def test_of_deletion_the_lowest_is_the_best():
    said = verdict(faithfulness("deletion", gradcam=0.2, saliency=0.9, centre=1.5, random=2.0), controls=CONTROLS)
    assert "the model follows gradcam most: deletion AUC 0.20" in said[0]
    assert "lower is better" in said[0]
    assert said[1].startswith("gradcam against centre: -1.3")
    assert said[2].startswith("gradcam against saliency: -0.7")
    assert all("gradcam is better." in sentence for sentence in said[1:3])


def test_a_baseline_that_keeps_the_finding_is_told_of_deletion_alone():
    tables = faithfulness("deletion", gradcam=0.2, centre=1.5)
    flag = ("m", "gradcam", "Mass", "flagged", 0.8, 30, 0, 0.6, 0.9)
    tables["faithfulness"].loc[len(tables["faithfulness"])] = flag
    assert "baseline of deletion keeps over half of the probability of Mass" in verdict(tables, controls=CONTROLS)[-1]


def test_a_correlation_is_not_in_logits():
    (first, *_) = verdict(faithfulness("sensitivity_n", gradcam=0.5, centre=0.1), controls=CONTROLS)
    assert "sensitivity-n 0.50" in first
    assert "logits" not in first
    (first, *_) = verdict(faithfulness("road", gradcam=0.5, centre=0.1), controls=CONTROLS)
    assert "ROAD 0.50 [0.40, 0.60] logits" in first


def test_what_the_randomisation_leaves_open_is_said():
    tables = empty_tables()
    rows = [
        ("m", "gradcam", "randomisation", None, "gradcam: the randomisation is not decidable with these films"),
        ("m", "saliency", "randomisation", True, "saliency passes"),
        ("m", "edge", "randomisation", False, "edge fails"),
    ]
    tables["sanity_verdicts"] = pd.DataFrame(rows, columns=tables["sanity_verdicts"].columns)
    said = verdict(tables, controls={"edge"})
    assert said[0].startswith("saliency passes the randomisation test")
    assert said[1:] == ["gradcam: the randomisation is not decidable with these films.", "edge fails."]


def test_two_findings_that_disagree_decide_nothing():
    """Ninety patients of a common finding say a, ten of a rare one say b, and much: the mean and the test part ways."""
    rows = []
    rng = np.random.default_rng(0)
    for i in range(100):
        rare = i >= 85
        for method, value in (("a", 0.0), ("b", 0.9 if rare else -0.05)):
            rows.append({
                "image_id": f"i{i}", "patient": f"p{i}", "model": "m", "method": method, "finding": "xy"[rare],
                "iou": value + 0.001 * rng.normal(),
            })  # fmt: skip
    scores = pd.DataFrame(rows)
    tests = paired_tests(scores, ["iou"], set(), PatientBootstrap(list(scores["patient"].unique()), 200, 0))
    row = tests[tests["finding"] == "all"].iloc[0]
    assert row["high"] < 0 < row["effect"]
    assert row["p_holm"] < 0.05
    assert not row["decided"]
    assert "point different ways" in decided(tests, "iou", "b", "a")


def test_no_bootstrap_is_not_called_few_patients():
    row = dict.fromkeys(COLUMNS, np.nan) | {
        "kind": "methods", "metric": "hit", "finding": "all", "model_a": "m", "model_b": "m", "method_a": "a",
        "method_b": "b", "n": 40, "patients": 40, "difference": 0.5, "p_holm": 0.001, "decided": False,
    }  # fmt: skip
    assert "n_boot is 0" in decided(pd.DataFrame([row]), "hit", "a", "b")
    assert "fewer than 10 patients" in decided(pd.DataFrame([row | {"patients": 6}]), "hit", "a", "b")


@pytest.mark.parametrize("metric", ["hit", "hit_15px", "chexlocalize_hit", "t_iou_0.3", "t_iobb_0.7"])
def test_yes_or_no_gets_mcnemar(metric):
    rng = np.random.default_rng(1)
    scores = pd.DataFrame([
        {"image_id": f"i{i}", "patient": f"p{i}", "model": "m", "method": method, "finding": "x",
         metric: float(rng.random() < 0.5)}
        for i in range(20) for method in "ab"
    ])  # fmt: skip
    tests = paired_tests(scores, [metric], set(), PatientBootstrap(list(scores["patient"].unique()), 0, 0))
    assert set(tests["test"]) == {"McNemar, exact"}
