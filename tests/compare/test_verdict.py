"""The sentences claim what the statistics allow, and say so where they allow nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxrx.compare.comparison import empty_tables
from cxrx.compare.verdict import Estimate, Statement, _difference, sentences, verdict
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.paired import COLUMNS, paired_tests
from cxrx.metrics.summaries import common_pairs, on_pairs, summarise, with_skill

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
    found = _difference(tests, "iou", "b", "a")
    assert (found.decision, found.p, found.value) == ("better", row["p_holm"], -row["difference"])


def paired(**values):
    """Return one paired test of a against b, over findings."""
    row = dict.fromkeys(COLUMNS, np.nan) | {
        "kind": "methods", "metric": "hit", "finding": "all", "model_a": "m", "model_b": "m", "method_a": "a",
        "method_b": "b", "n": 40, "patients": 40, "difference": 0.5, "low": 0.1, "high": 0.9, "p": 0.02, "p_holm": 0.04,
        "decided": True,
    }  # fmt: skip
    return row | values


@pytest.mark.parametrize(
    ("values", "decision", "reason"),
    [
        ({}, "better", ""),
        ({"difference": -0.5, "low": -0.9, "high": -0.1}, "worse", ""),
        ({"p_holm": 0.06, "decided": False}, "undecided", "the difference does not survive Holm's correction"),
        ({"low": -0.1, "p": 0.3, "p_holm": 0.6, "decided": False}, "undecided", "the interval holds 0"),
        ({"low": -0.1, "p": 0.3, "p_holm": 0.3, "decided": False}, "undecided", "the interval holds 0"),
        ({"patients": 9, "low": np.nan, "high": np.nan, "decided": False}, "undecided", "fewer than 10 patients"),
        (
            {"difference": 1e-17, "p": 1.0, "p_holm": 1.0, "decided": False},
            "same",
            "their means are the same on these films",
        ),
    ],
)
def test_the_reason_is_the_true_one(values, decision, reason):
    """Holm's correction is blamed only where p was below .05 before it."""
    for said in (
        _difference(pd.DataFrame([paired(**values)]), "hit", "a", "b"),
        verdict(
            empty_tables() | {"paired_tests": pd.DataFrame([paired(**values) | {"kind": "models", "model_b": "o"}])},
            controls=CONTROLS,
        )[0],
    ):
        assert (said.decision, said.reason) == (decision, reason)
        assert reason in said_of([said])[0]


def pointing(**hits):
    """Return the tables of a comparison of methods by their hits, pair by pair (None: no map)."""
    scores = pd.DataFrame([
        {"image_id": f"i{i}", "patient": f"p{i}", "model": "m", "method": method, "finding": "Mass", "hit": hit}
        for method, values in hits.items()
        for i, hit in enumerate(values) if hit is not None
    ])  # fmt: skip
    bootstrap = PatientBootstrap(list(scores["patient"].unique()), 200, 0)
    shared = on_pairs(scores, ["hit"], common_pairs(scores, ["hit"])[0])
    return empty_tables() | {
        "per_pair": scores,
        "summary": with_skill(summarise(scores, ["hit"], bootstrap)),
        "paired_tests": paired_tests(shared, ["hit"], CONTROLS, bootstrap),
    }


def test_no_hit_at_all_is_not_called_the_most():
    nothing = verdict(pointing(a=[0] * 12, b=[0] * 12, centre=[1] * 3 + [0] * 9), controls=CONTROLS)
    assert [(one.who, one.decision) for one in nothing[:2]] == [("a", "none"), ("b", "none")]
    said = said_of(nothing)
    assert said[0].startswith("None of a and b puts its maximum into the finding: 0.00")
    assert "12 truth pairs of 12 patients). Without looking at the model: centre 0.25." in said[0]
    assert not any("most often" in sentence for sentence in said)
    (alone, *_) = said_of(verdict(pointing(a=[0] * 12, centre=[0] * 12), controls=CONTROLS))
    assert alone.startswith("a never puts its maximum into the finding: 0.00")


def test_ties_are_called_ties():
    hits = {"a": [1] * 6 + [0] * 6, "b": [0] * 6 + [1] * 6, "centre": [0] * 12}
    first, second, *rest = verdict(pointing(**hits), controls=CONTROLS)
    assert (first.who, second.who, first.decision, second.decision) == ("a", "b", "tied", "tied")
    assert {one.kind for one in rest} == {"difference"}
    (said, *_) = said_of([first, second])
    assert said.startswith(
        "a and b tie: each puts its maximum into the finding in 0.50 of cases (mean over findings; 12"
    )
    (said, *_) = said_of(verdict(pointing(**hits, c=[0] * 11 + [1]), controls=CONTROLS))
    assert said.startswith("a and b tie for the first place: each")
    (said, *_) = said_of(verdict(faithfulness("road", aa=0.5, bb=0.5, centre=0.1), controls=CONTROLS))
    assert said.startswith("aa and bb tie: when the pixels of their maps are changed, the model follows each with ROAD")


def test_methods_are_ranked_on_the_pairs_that_all_have():
    """On its own six pairs b is always right; on those, a is too."""
    tables = pointing(a=[1] * 6 + [0] * 14, b=[1] * 6 + [None] * 14, centre=[0, 1] * 10)
    found = verdict(tables, controls=CONTROLS)
    assert [(one.who, one.value, one.n, one.patients) for one in found[:2]] == [("a", 1, 6, 6), ("b", 1, 6, 6)]
    assert found[0].beside[0].value == 0.5
    assert {one.n for one in found} == {6}
    said = said_of(found)
    assert "a and b tie: each" in said[0]
    assert "6 truth pairs of 6 patients; fewer than 10 patients say nothing" in said[0]


def test_methods_without_a_common_pair_are_not_ranked():
    found = verdict(pointing(a=[1] * 6 + [None] * 6, b=[None] * 6 + [0] * 6, centre=[0] * 12), controls=CONTROLS)
    assert {one.decision for one in found} == {"nothing in common"}
    (said,) = said_of(found)
    assert said.startswith("Which of a and b is best by hit rate cannot be said: there is no pair of film and finding")


def test_what_is_missing_is_said_as_far_as_it_is_known():
    """Twelve numbers may be of four patients: then all that is known is that there is no interval."""
    known = Statement("a", kind="agreement", against=("b",), metric="spearman", value=0.5, low=0.4, high=0.6, n=12)
    bare = replace(known, low=np.nan, high=np.nan)
    said = said_of([known, replace(bare, model="m"), replace(bare, model="n", n=9), replace(bare, patients=4)])
    assert [text.partition("(")[2] for text in said] == [
        "n = 12).", "n = 12; no interval).", "n = 9; fewer than 10 patients say nothing).",
        "n = 12; fewer than 10 patients say nothing).",
    ]  # fmt: skip


def test_no_bootstrap_is_not_called_few_patients():
    row = paired(low=np.nan, high=np.nan, decided=False)
    none, few, same, foreign = said_of([
        _difference(pd.DataFrame([row]), "hit", "a", "b"),
        _difference(pd.DataFrame([row | {"patients": 6}]), "hit", "a", "b"),
        _difference(pd.DataFrame([row | {"difference": 0.0}]), "hit", "b", "a"),
        _difference(pd.DataFrame([row]), "hit", "a", "c"),
    ])  # fmt: skip
    assert none.startswith("a against b: +0.50 hit rate (n = 40); not decidable without an interval (n_boot is 0, or")
    assert few == "a against b: +0.50 hit rate (n = 40); not decidable with these films: fewer than 10 patients."
    assert same == "b against a: +0.00 hit rate (n = 40); their means are the same on these films."
    assert foreign == "Whether a is better than c cannot be said: they have no pair in common."


def test_statements_that_share_a_sentence_are_said_together_and_no_others():
    ends = [
        Statement(
            a, n=12, kind="agreement", model="m", against=(b,), metric="spearman", value=v, beside=(Estimate("x", 0.1),)
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
        ("m", (
            "The baseline of deletion keeps over half of the probability of Mass, Nodule on most films: deletion says "
            "little there."
        )),
        ("m", (
            "The methods' rank correlations lie between 0.20 (a and b, n = 12) and 0.80 (a and c, n = 12); maps of "
            "different patients reach 0.10."
        )),
    ]  # fmt: skip
    ((_, said),) = sentences(ends[:1])
    assert said.startswith("a and b agree with a rank correlation of 0.20 (n = 12; no interval); maps of different")


def test_two_models_are_compared_under_each_method():
    row = paired(
        kind="models", model_b="o", method_a="{a}", method_b="{a}", difference=-0.5, low=-0.7, high=-0.3, p_holm=0.001
    )
    tables = empty_tables() | {"paired_tests": pd.DataFrame([row, row | {"p_holm": 0.1, "decided": False}])}
    found = verdict(tables, controls=CONTROLS)
    assert [(one.who, one.model, one.against, one.decision) for one in found] == [
        ("{a}", "m", ("o",), "worse"), ("{a}", "m", ("o",), "undecided"),
    ]  # fmt: skip
    said = "{a} on m against o: -0.50 [-0.70, -0.30] hit rate (n = 40, Holm-adjusted p = 0.0"
    undecided = "not decidable with these films: the difference does not survive Holm's correction."
    assert sentences(found) == [
        ("", f"{said}01); m is worse."), ("", f"{said.removesuffix('0.0')}0.1); {undecided}"),
    ]  # fmt: skip
