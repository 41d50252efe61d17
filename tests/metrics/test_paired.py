from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.paired import holm, paired_tests, patient_means, rank_biserial


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


def test_the_rank_biserial_correlation_by_hand():
    d = np.array([3.0, -1.0, 2.0, 0.0, 4.0])
    assert rank_biserial(d) == pytest.approx((3 + 2 + 4 - 1) / 10)  # ranks of |3|, |1|, |2|, |4|: 3, 1, 2, 4
    assert rank_biserial(np.zeros(7)) == rank_biserial(np.full(5, 1e-17)) == 0
    assert rank_biserial(np.array([0.5] * 6 + [-0.5] * 2 + [0.0] * 9)) == pytest.approx((6 - 2) / (6 + 2))


def test_a_patient_enters_once():
    values = patient_means(np.array([1.0, 3.0, np.nan, 5.0, np.nan]), np.array([1, 1, 1, 0, 2]))
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


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-0.3, 0.3))
def test_test_and_interval_are_of_the_same_quantity(seed, effect):
    """The interval leaves 0 out just where p is below 0.05, of hits and of other scores, over findings and in each."""
    table = scores(40, effect=effect, seed=seed)
    tests = paired_tests(table, ["hit", "iou"], set(), bootstrap(table))
    outside = (tests["low"] > 0) | (tests["high"] < 0)
    assert (outside == (tests["p"] < 0.05)).all()
    assert (tests["decided"] <= outside).all()


def test_one_film_a_patient_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    table = scores(30)
    table = table[table["finding"] == "Mass"].assign(iou=lambda rows: rng.random(len(rows)))
    tests = paired_tests(table, ["iou"], {"prior", "centre"}, bootstrap(table)).query("finding == 'all'")
    wide = table.pivot_table(index="image_id", columns="method", values="iou")
    for row in tests.to_dict("records"):
        expected = ttest_rel(wide[row["method_a"]], wide[row["method_b"]])
        assert row["p"] == pytest.approx(expected.pvalue)
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval()))


def test_identical_methods_do_not_differ():
    table = scores(40)
    table["iou"] = table.groupby("image_id")["iou"].transform("first")
    tests = paired_tests(table, ["iou"], set(), bootstrap(table))
    assert (tests["p"] == 1).all()
    assert not tests["decided"].any()


def test_nothing_to_pair_gives_an_empty_table():
    empty = pd.DataFrame(columns=["image_id", "patient", "model", "method", "finding", "iou"])
    assert paired_tests(empty, ["iou"], set(), PatientBootstrap(["a"], 10, 0)).empty
    one = scores()
    one = one[one["method"] == "gradcam"]
    assert paired_tests(one, ["iou"], set(), bootstrap(one)).empty
