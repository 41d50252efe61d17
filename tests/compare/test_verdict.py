"""The sentences claim what the statistics allow, and say so where they allow nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cxrx.compare.comparison import empty_tables
from cxrx.compare.verdict import Estimate, Statement, difference, sentences, verdict
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.paired import COLUMNS, paired_tests

CONTROLS = {"centre", "random"}


def said_of(statements):
    return [sentence for _, sentence in sentences(statements)]


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
    found = verdict(faithfulness("deletion", gradcam=0.2, saliency=0.9, centre=1.5, random=2.0), controls=CONTROLS)
    said = said_of(found)
    assert "the model follows gradcam most: deletion AUC 0.20" in said[0]
    assert "lower is better" in said[0]
    assert said[1].startswith("gradcam against centre: -1.3")
    assert said[2].startswith("gradcam against saliency: -0.7")
    assert all("gradcam is better." in sentence for sentence in said[1:3])
    best, centre, saliency = found
    assert (best.model, best.who, best.against, best.metric, best.unit) == (
        "m", "gradcam", ("saliency",), "deletion", "logits"
    )  # fmt: skip
    assert (best.n, best.reason, [one.who for one in best.beside]) == (30, "lower is better", ["centre", "random"])
    assert (best.value, best.low, best.high) == pytest.approx((0.2, 0.1, 0.3), abs=0.01)
    assert (centre.against, saliency.against) == (("centre",), ("saliency",))
    assert centre.low < centre.value < centre.high < 0
    assert 0 < centre.p < 0.05
    assert (centre.n, centre.patients, centre.decision, centre.reason) == (30, 30, "better", "")


def test_a_baseline_that_keeps_the_finding_is_told_of_deletion_alone():
    tables = faithfulness("deletion", gradcam=0.2, centre=1.5)
    flag = ("m", "gradcam", "Mass", "flagged", 0.8, 30, 0, 0.6, 0.9)
    tables["faithfulness"].loc[len(tables["faithfulness"])] = flag
    assert (
        "baseline of deletion keeps over half of the probability of Mass"
        in said_of(verdict(tables, controls=CONTROLS))[-1]
    )


def test_a_correlation_is_not_in_logits():
    (first, *_) = said_of(verdict(faithfulness("sensitivity_n", gradcam=0.5, centre=0.1), controls=CONTROLS))
    assert "sensitivity-n 0.50" in first
    assert "logits" not in first
    (first, *_) = said_of(verdict(faithfulness("road", gradcam=0.5, centre=0.1), controls=CONTROLS))
    assert "ROAD 0.50 [0.40, 0.60] logits" in first


def test_what_the_randomisation_leaves_open_is_said():
    tables = empty_tables()
    rows = [
        ("gradcam", None, "", "the randomisation is not decidable with these films"),
        ("rise", None, "cannot be tested", "all its maps are constant"),
        ("saliency", True, "passes", "it is so"),
        ("edge", False, "fails", "its map stays"),
    ]
    rows = [("m", who, "randomisation", passed, outcome, reason, "") for who, passed, outcome, reason in rows]
    tables["sanity_verdicts"] = pd.DataFrame(rows, columns=tables["sanity_verdicts"].columns)
    found = verdict(tables, controls={"edge"})
    assert [(one.who, one.decision) for one in found] == [
        ("saliency", "passes"), ("gradcam", "undecided"), ("rise", "cannot be tested"), ("edge", "fails"),
    ]  # fmt: skip
    said = said_of(found)
    assert said[0].startswith("saliency passes the randomisation test")
    assert said[1:] == [
        "gradcam: the randomisation is not decidable with these films.",
        "rise cannot be tested: all its maps are constant.",
        "edge fails: its map stays.",
    ]


def test_findings_weigh_alike_in_the_mean_and_in_its_test():
    """Most patients, of a common finding, say a; few, of a rare one, say b, and much: so does the mean."""
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
    assert row["decided"]
    found = difference(tests, "iou", "b", "a")
    assert (found.decision, found.p, found.value) == ("better", row["p_holm"], -row["difference"])


def test_no_bootstrap_is_not_called_few_patients():
    row = dict.fromkeys(COLUMNS, np.nan) | {
        "kind": "methods", "metric": "hit", "finding": "all", "model_a": "m", "model_b": "m", "method_a": "a",
        "method_b": "b", "n": 40, "patients": 40, "difference": 0.5, "p_holm": 0.001, "decided": False,
    }  # fmt: skip
    none, few, same, foreign = said_of([
        difference(pd.DataFrame([row]), "hit", "a", "b"),
        difference(pd.DataFrame([row | {"patients": 6}]), "hit", "a", "b"),
        difference(pd.DataFrame([row | {"difference": 0.0}]), "hit", "b", "a"),
        difference(pd.DataFrame([row]), "hit", "a", "c"),
    ])  # fmt: skip
    assert none == "a against b: +0.50 hit rate (n = 40); not decidable without an interval (n_boot is 0)."
    assert few == "a against b: +0.50 hit rate (n = 40); not decidable with these films: fewer than 10 patients."
    assert same == "b against a: +0.00 hit rate (n = 40); they do not differ on these films."
    assert foreign == "Whether a is better than c cannot be said: they have no pair in common."


def test_statements_that_share_a_sentence_are_said_together_and_no_others():
    ends = [
        Statement(
            a, kind="agreement", model="m", against=(b,), metric="spearman", value=v, beside=(Estimate("x", 0.1),)
        )
        for a, b, v in (("a", "b", 0.2), ("a", "c", 0.8))
    ]
    passing = [
        Statement(name, kind="sanity", model=model, decision="passes")
        for name, model in (("a", "m"), ("b", "m"), ("c", "m"), ("a", "other"))
    ]
    failing = [Statement(name, kind="sanity", model="m", decision="fails", reason="so") for name in "de"]
    kept = [
        Statement("deletion", kind="baseline", model="m", finding=name, metric="flagged") for name in ("Mass", "Nodule")
    ]
    assert sentences([*passing, *failing, *kept, *ends]) == [
        ("m", "a, b and c pass the randomisation test: with a random network the maps are others."),
        ("other", "a passes the randomisation test: with a random network the maps are others."),
        ("m", "d fails: so."),
        ("m", "e fails: so."),
        (
            "m",
            "The baseline of deletion keeps over half of the probability of Mass, Nodule: deletion says little there.",
        ),
        ("m", (
            "The methods' rank correlations lie between 0.20 (a and b) and 0.80 (a and c); maps of different "
            "patients reach 0.10."
        )),
    ]  # fmt: skip
    assert sentences(ends[:1]) == [
        ("m", "a and b agree with a rank correlation of 0.20; maps of different patients reach 0.10.")
    ]


def test_two_models_are_compared_under_each_method():
    row = dict.fromkeys(COLUMNS, np.nan) | {
        "kind": "models", "metric": "hit", "finding": "all", "model_a": "m", "model_b": "o", "method_a": "{a}",
        "method_b": "{a}", "n": 40, "patients": 30, "difference": -0.5, "low": -0.7, "high": -0.3, "p_holm": 0.001,
        "decided": True,
    }  # fmt: skip
    tables = empty_tables() | {"paired_tests": pd.DataFrame([row, row | {"decided": False}])}
    found = verdict(tables, controls=CONTROLS)
    assert [(one.who, one.model, one.against, one.decision) for one in found] == [
        ("{a}", "m", ("o",), "worse"), ("{a}", "m", ("o",), "undecided"),
    ]  # fmt: skip
    said = "{a} on m against o: -0.50 [-0.70, -0.30] hit rate (n = 40)"
    assert sentences(found) == [("", f"{said}."), ("", f"{said}; not decidable with these films.")]


@pytest.mark.parametrize("metric", ["hit", "hit_15px", "chexlocalize_hit", "t_iou_0.3", "t_iobb_0.7"])
def test_yes_or_no_gets_mcnemar(metric):
    rng = np.random.default_rng(1)
    scores = pd.DataFrame([
        {"image_id": f"i{i}", "patient": f"p{i}", "model": "m", "method": method, "finding": "x",
         metric: float(rng.random() < 0.5)}
        for i in range(20) for method in "ab"
    ])  # fmt: skip
    tests = paired_tests(scores, [metric], set(), PatientBootstrap(list(scores["patient"].unique()), 0, 0))
    assert set(tests["test"]) == {"t over patients"}
