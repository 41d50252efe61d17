from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score

from cxrx.metrics.bootstrap import PatientBootstrap, grouped_means, interval, macro, patient_weights
from cxrx.metrics.classification import classify, weighted_auroc


def test_weights_draw_every_replicate_the_same_number_of_patients():
    weights = patient_weights(12, 50, seed=3)
    assert weights.shape == (50, 12)
    assert (weights.sum(axis=1) == 12).all()
    np.testing.assert_array_equal(weights, patient_weights(12, 50, seed=3))
    assert (weights != patient_weights(12, 50, seed=4)).any()


def test_grouped_means_and_macro_by_hand():
    values = np.array([1.0, 3.0, np.nan, 10.0])
    groups = np.array([0, 0, 1, 1])
    weights = np.array([[1.0, 1, 1, 1], [2, 0, 1, 0]])
    means = grouped_means(values, groups, 3, weights)
    np.testing.assert_allclose(means, [[2, 10, np.nan], [1, np.nan, np.nan]])
    np.testing.assert_allclose(macro(means), [6, 1])


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


def test_nan_replicates_do_not_sort_last():
    low, high = interval(np.array([1.0, 2.0, np.nan, 3.0]))
    assert (low, high) == pytest.approx((1.05, 2.95))
    assert np.isnan(interval(np.array([np.nan, 1.0]))).all()


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
