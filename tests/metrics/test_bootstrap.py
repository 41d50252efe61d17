from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t, ttest_1samp
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score

from cxrx.metrics.bootstrap import PatientBootstrap, patient_weights
from cxrx.metrics.classification import classify, weighted_auroc

Z = 1.959963984540054
Z2 = Z**2


def test_weights_draw_every_replicate_the_same_number_of_patients():
    weights = patient_weights(12, 50, seed=3)
    assert weights.shape == (50, 12)
    assert (weights.sum(axis=1) == 12).all()
    np.testing.assert_array_equal(weights, patient_weights(12, 50, seed=3))
    assert (weights != patient_weights(12, 50, seed=4)).any()


def test_the_patient_is_the_unit():
    """Thirty films of three patients say no more than three patients do."""
    values = np.repeat([0.0, 1.0, 0.0], 10)
    patients = [str(i) for i in np.repeat([0, 1, 2], 10)]
    _, low, high = PatientBootstrap(patients, 200, 0).mean(values, patients)
    assert np.isnan([low, high]).all()
    films = [str(i) for i in range(30)]
    _, low, high = PatientBootstrap(films, 200, 0).mean(values, films)
    assert 0 < low < 1 / 3 < high < 1


def test_interval_of_a_mean_is_as_wide_as_theory_says():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(400)
    names = [str(i) for i in range(400)]
    value, low, high = PatientBootstrap(names, 1000, 0).mean(values, names)
    assert value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(10, 60))
def test_one_value_a_patient_is_the_t_interval(seed, n):
    values = np.random.default_rng(seed).normal(size=n)
    names = [str(i) for i in range(n)]
    value, low, high = PatientBootstrap(names, 10, 0).mean(values, names, "difference")
    expected = ttest_1samp(values, 0).confidence_interval()
    assert (value, low, high) == pytest.approx((values.mean(), *expected))


@pytest.mark.parametrize(("hits", "n"), [(0, 15), (1, 15), (7, 15), (40, 40), (39, 40)])
def test_one_hit_or_miss_a_patient_is_wilsons_interval(hits, n):
    """As scipy has it, but for the few degrees of freedom, which make the number of patients count for less."""
    names = [str(i) for i in range(n)]
    _, low, high = PatientBootstrap(names, 10, 0).mean(np.arange(n) < hits, names)
    variance = hits * (n - hits) / n**2 / (n - 1)
    effective = hits * (n - hits) / n**2 / variance if variance else np.inf
    effective = min(n, effective * (Z / t.ppf(0.975, n - 1)) ** 2)
    middle, half = Z2 / 2 + hits / n * effective, Z * np.sqrt(hits * (n - hits) / n**2 * effective + Z2 / 4)
    assert (low, high) == pytest.approx(tuple((middle + sign * half) / (effective + Z2) for sign in (-1, 1)), abs=1e-9)
    if hits in (0, n):
        expected = binomtest(hits, n).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert low < high


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_variance_and_degrees_of_freedom_are_those_of_least_squares(seed):
    """Bell and McCaffrey written out with matrices: the mean of group means is a regression on groups."""
    rng = np.random.default_rng(seed)
    patient, group = np.repeat(np.arange(12), 4), rng.permuted(np.tile(np.arange(3), 16))
    values = rng.normal(size=48)
    x, contrast = np.eye(3)[group], np.full(3, 1 / 3)
    bread = np.linalg.inv(x.T @ x)
    maker = np.eye(48) - x @ bread @ x.T
    parts = []
    for p in range(12):
        own = patient == p
        left = np.eye(4) - x[own] @ bread @ x[own].T
        w, v = np.linalg.eigh(left)
        parts.append(contrast @ bread @ x[own].T @ (v / np.sqrt(w)) @ v.T @ maker[own])
    covariance = np.array(parts) @ np.array(parts).T
    df = np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
    half = t.ppf(0.975, df) * np.linalg.norm(np.array(parts) @ values)
    names = [f"p{p:02d}" for p in patient]
    found = PatientBootstrap(names, 10, 0).table(values[:, None], names, [f"g{g}" for g in group], "difference")
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx((found.value[0, 0] - half, found.value[0, 0] + half))


@pytest.mark.parametrize(("a", "b", "neither"), [(4, 1, 15), (10, 0, 2), (0, 3, 12)])
def test_differences_of_hits_are_bonett_and_prices(a, b, neither):
    values = np.repeat([1.0, -1.0, 0.0], [a, b, neither])
    n, names = len(values), [str(i) for i in range(len(values))]
    _, low, high = PatientBootstrap(names, 10, 0).mean(values, names, "difference")
    p, q = (a + 1) / (n + 2), (b + 1) / (n + 2)
    # the variance of the sample is divided by n - 1 here, by n in the paper
    more = (a + b - (a - b) ** 2 / n) / (n - 1) * n - (a + b - (a - b) ** 2 / n)
    half = t.ppf(0.975, n - 1) * np.sqrt((p + q - (p - q) ** 2) / (n + 2) + more / (n + 2) ** 2)
    assert (low, high) == pytest.approx((max(p - q - half, -1), min(p - q + half, 1)))


@pytest.mark.parametrize("kind", ["mean", "difference"])
def test_numbers_that_are_no_shares_are_not_taken_for_them(kind):
    """All between 0 and 1 by chance, or all alike: an interval of a mean may pass 0 and 1, and needs a variance."""
    names = [str(i) for i in range(12)]
    boot = PatientBootstrap(names, 10, 0)
    _, low, high = boot.mean(np.array([0.9] + [0.0] * 11), names, "mean")
    assert low < 0 < high
    assert np.isnan(boot.mean(np.ones(12), names, "mean")[1:]).all()
    assert boot.mean(np.zeros(12), names, kind)[0] == 0
    assert np.isnan(boot.mean(np.zeros(12), names, kind)[1:]).all()


def test_differences_of_hits_end_at_one():
    names = [str(i) for i in range(10)]
    _, low, high = PatientBootstrap(names, 10, 0).mean(np.ones(10), names, "difference")
    assert 0 < low < 0.9
    assert high == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.booleans())
def test_no_interval_is_of_width_0_and_every_one_holds_its_value(seed, rate, yes_or_no):
    rng = np.random.default_rng(seed)
    n = 40
    values = (rng.random((n, 2)) < rate).astype(float)
    if not yes_or_no:
        values *= rng.random((n, 2))
    patients = [f"p{i}" for i in rng.integers(0, 15, n)]
    groups = ["ab"[i] for i in rng.integers(0, 2, n)]
    found = PatientBootstrap(patients, 10, 0).table(values, patients, groups, "share")
    known = np.isfinite(found.low)
    assert known[0].all()
    assert (found.low < found.high)[known].all()
    assert ((found.low <= found.value) & (found.value <= found.high))[known].all()
    assert ((found.low >= 0) & (found.high <= 1))[known].all()


def test_a_column_of_nothing_has_no_mean_and_no_interval():
    names = [str(i) for i in range(12)]
    values = np.stack([np.full(12, np.nan), np.arange(12.0)], axis=1)
    found = PatientBootstrap(names, 10, 0).table(values, names, ["a", "b"] * 6)
    assert np.isnan([found.value[:, 0], found.low[:, 0], found.p[:, 0]]).all()
    assert (found.n[:, 0] == 0).all()
    assert found.missing[:, 0].tolist() == [12, 6, 6]
    assert found.low[0, 1] < 5.5 < found.high[0, 1]


def test_a_perfect_classifier_of_few_patients_is_not_certain():
    rng = np.random.default_rng(0)
    labels = np.arange(20)[:, None] % 2
    patients = [str(i) for i in range(20)]
    scores = labels * 0.5 + rng.random((20, 1)) / 3
    row, overall = classify(labels, scores, ["a"], patients=patients, bootstrap=PatientBootstrap(patients, 200, 0))
    assert (row["auroc"], row["auprc"]) == pytest.approx((1, 1))
    assert 0.7 < row["auroc_low"] < 0.9 < row["auroc_high"] <= 1
    assert row["auprc_low"] < row["auroc_low"]
    assert overall["auroc_low"] == pytest.approx(row["auroc_low"])


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(4, 60))
def test_weighted_auroc_equals_scikit_learn(seed, n):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    y[:2] = 0, 1
    p = rng.integers(0, 8, n) / 8  # ties
    weights = rng.integers(0, 4, (5, n)).astype(float)
    weights[:, :2] += 1
    expected = [roc_auc_score(y, p, sample_weight=row) for row in weights]
    np.testing.assert_allclose(weighted_auroc(y, p, weights, chunk=2), expected, atol=1e-9)


def test_weighted_auroc_of_one_class_is_nan():
    assert np.isnan(weighted_auroc(np.array([0, 1]), np.array([0.1, 0.9]), np.array([[1.0, 0.0]]))).all()


def test_classification_equals_scikit_learn_and_refuses_one_class():
    rng = np.random.default_rng(0)
    n = 80
    labels = np.stack([rng.integers(0, 2, n), np.zeros(n, int), rng.integers(-2, 2, n), np.full(n, -2)], axis=1)
    p = rng.random((n, 4))
    patients = [str(i) for i in range(n)]
    bootstrap = PatientBootstrap(patients, 300, 0)
    rows = classify(labels, p, ["a", "b", "c", "d"], patients=patients, bootstrap=bootstrap, thresholds={"c": 0.3})
    a, b, c, d, macro_row = rows
    decided = p[:, 0] >= 0.5
    assert a["auroc"] == pytest.approx(roc_auc_score(labels[:, 0], p[:, 0]))
    assert a["f1"] == pytest.approx(f1_score(labels[:, 0], decided))
    assert a["accuracy"] == pytest.approx(accuracy_score(labels[:, 0], decided))
    assert [a["tn"], a["fp"], a["fn"], a["tp"]] == confusion_matrix(labels[:, 0], decided).ravel().tolist()
    assert a["auroc_low"] < a["auroc"] < a["auroc_high"]
    assert np.isnan(b["auroc"])
    assert b["note"] == "AUROC and F1 need both classes; all 80 films are negative"
    assert b["tp"] == 0
    known = labels[:, 2] >= 0
    assert c["n"] == known.sum()
    assert c["f1"] == pytest.approx(f1_score(labels[known, 2], p[known, 2] >= 0.3))
    assert d["note"] == "no film has a label"
    assert macro_row["finding"] == "all"
    assert macro_row["auroc"] == pytest.approx((a["auroc"] + c["auroc"]) / 2)
    assert macro_row["note"] == "mean over 2 of 4 findings"
    assert macro_row["n"] == 80 + 80 + known.sum()
