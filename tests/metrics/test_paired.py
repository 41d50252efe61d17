from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, wilcoxon

from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.paired import holm, paired_tests, patient_means, sign_test, signed_rank


def scores(n=40, effect=0.0, seed=0, models=("m",)):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        for model in models:
            base = rng.normal()
            for method, shift in (("gradcam", effect), ("saliency", 0.0), ("prior", -5.0), ("centre", -5.0)):
                value = base + shift + 0.1 * rng.normal()
                rows.append({
                    "image_id": f"i{i}", "patient": f"p{i // 2}", "model": model, "method": method,
                    "finding": ("Mass", "Edema")[i % 2], "iou": value, "hit": float(value > 0),
                })  # fmt: skip
    return pd.DataFrame(rows)


def bootstrap(table):
    return PatientBootstrap(list(table["patient"]), 300, 0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_against_its_definition(p):
    got = holm(np.array(p))
    order = sorted(range(len(p)), key=lambda i: p[i])
    worst = 0.0
    for step, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - step) * p[i]))
        assert got[i] == pytest.approx(worst)
    assert (got >= np.array(p) - 1e-12).all()


def test_holm_leaves_nan_out():
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.04])), [0.02, np.nan, 0.04])


def test_signed_rank_by_hand_and_scipy():
    d = np.array([3.0, -1.0, 2.0, 0.0, 4.0])
    p, effect = signed_rank(d)
    assert effect == pytest.approx((3 + 2 + 4 - 1) / 10)  # ranks of |3|, |1|, |2|, |4|: 3, 1, 2, 4
    assert p == pytest.approx(wilcoxon(d[d != 0], method="exact").pvalue)
    assert signed_rank(np.zeros(7)) == (1.0, 0.0)
    assert signed_rank(np.full(5, 1e-17)) == (1.0, 0.0)


@settings(max_examples=30)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 5))
def test_mcnemar_is_the_binomial_test_of_the_discordant(wins, losses, ties):
    p, effect = sign_test(np.array([0.5] * wins + [-1.0] * losses + [0.0] * ties))
    if wins + losses:
        assert p == pytest.approx(binomtest(wins, wins + losses).pvalue)
        assert effect == pytest.approx((wins - losses) / (wins + losses))
    else:
        assert (p, effect) == (1.0, 0.0)


def test_a_patient_enters_once():
    values = patient_means(np.array([1.0, 3.0, np.nan, 5.0, np.nan]), ["b", "b", "b", "a", "c"])
    np.testing.assert_allclose(values, [5.0, 2.0])


def test_a_real_difference_is_decided_and_noise_is_not():
    table = scores(60, effect=0.5)
    tests = paired_tests(table, ["iou"], {"prior", "centre"}, bootstrap(table))
    row = tests[(tests["finding"] == "all") & (tests["method_a"] == "gradcam") & (tests["method_b"] == "saliency")]
    assert row["difference"].item() == pytest.approx(0.5, abs=0.05)
    assert row["decided"].item()
    assert row["patients"].item() == 30
    assert row["effect"].item() == pytest.approx(1.0)
    assert row["low"].item() < row["difference"].item() < row["high"].item()
    assert row["value_a"].item() - row["value_b"].item() == pytest.approx(row["difference"].item())

    table = scores(60, effect=0.0, seed=3)
    tests = paired_tests(table, ["iou"], {"prior", "centre"}, bootstrap(table))
    row = tests[(tests["finding"] == "all") & (tests["method_a"] == "gradcam") & (tests["method_b"] == "saliency")]
    assert not row["decided"].item()


def test_the_mean_over_findings_is_macro():
    table = scores(40)
    table = table[~((table["finding"] == "Edema") & (table["image_id"] > "i2"))]  # uneven findings
    tests = paired_tests(table, ["iou"], set(), bootstrap(table))
    pair = tests[(tests["method_a"] == "gradcam") & (tests["method_b"] == "prior")].set_index("finding")["difference"]
    assert pair["all"] == pytest.approx((pair["Mass"] + pair["Edema"]) / 2)


def test_controls_are_not_compared_with_each_other():
    table = scores()
    tests = paired_tests(table, ["iou"], {"prior", "centre"}, bootstrap(table))
    pairs = set(zip(tests["method_a"], tests["method_b"], strict=True))
    assert ("gradcam", "prior") in pairs
    assert not {("prior", "centre"), ("centre", "prior")} & pairs


def test_models_are_compared_on_the_same_films():
    table = scores(40, models=("a", "b"))
    table.loc[(table["model"] == "b") & (table["method"] == "gradcam"), "iou"] += 1.0
    table = table[~((table["model"] == "b") & (table["image_id"] == "i0"))]
    tests = paired_tests(table, ["iou"], {"prior", "centre"}, bootstrap(table))
    row = tests[(tests["kind"] == "models") & (tests["finding"] == "all") & (tests["method_a"] == "gradcam")]
    assert (row["model_a"].item(), row["model_b"].item(), row["n"].item()) == ("a", "b", 39)
    assert row["difference"].item() < 0
    assert set(tests[tests["kind"] == "models"]["method_a"]) == {"gradcam", "saliency"}


def test_what_is_on_a_scale_of_its_own_is_not_compared_between_models():
    table = scores(40, models=("a", "b"))
    tests = paired_tests(table, ["iou", "hit"], set(), bootstrap(table), own_scale={"iou"})
    assert set(tests[tests["kind"] == "models"]["metric"]) == {"hit"}
    assert set(tests[tests["kind"] == "methods"]["metric"]) == {"iou", "hit"}


def test_hits_get_mcnemar():
    table = scores()
    tests = paired_tests(table, ["hit", "iou"], set(), bootstrap(table))
    assert set(tests[tests["metric"] == "hit"]["test"]) == {"McNemar, exact"}
    assert set(tests[tests["metric"] == "iou"]["test"]) == {"Wilcoxon"}


def test_nothing_to_pair_gives_an_empty_table():
    empty = pd.DataFrame(columns=["image_id", "patient", "model", "method", "finding", "iou"])
    assert paired_tests(empty, ["iou"], set(), PatientBootstrap(["a"], 10, 0)).empty
    one = scores()
    one = one[one["method"] == "gradcam"]
    assert paired_tests(one, ["iou"], set(), bootstrap(one)).empty


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_the_table_of_a_bootstrap_equals_its_means_one_by_one(seed):
    rng = np.random.default_rng(seed)
    n = 60
    values = rng.normal(size=(n, 3))
    values[rng.random((n, 3)) < 0.2] = np.nan
    patients = [f"p{i}" for i in rng.integers(0, 25, n)]
    groups = [("x", "y", "z")[i] for i in rng.integers(0, 3, n)]
    boot = PatientBootstrap(patients, 50, seed)
    found = boot.table(values, patients, groups)
    assert found.groups == ("all", *sorted(set(groups)))
    index = np.unique(groups, return_inverse=True)[1]
    for p in range(3):
        one = boot.mean(values[:, p], patients, index)
        np.testing.assert_allclose((found.value[0, p], found.low[0, p], found.high[0, p]), one)
        for g, name in enumerate(found.groups[1:], 1):
            keep = np.array([group == name for group in groups])
            own = boot.mean(values[keep, p], [q for q, k in zip(patients, keep, strict=True) if k])
            np.testing.assert_allclose((found.value[g, p], found.low[g, p], found.high[g, p]), own)
            assert found.n[g, p] == np.isfinite(values[keep, p]).sum()
            assert found.missing[g, p] == np.isnan(values[keep, p]).sum()
