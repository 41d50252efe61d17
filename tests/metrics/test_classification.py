from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    auc,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from cxrx.metrics import classification as made
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.calibration import expected_calibration_error, reliability
from cxrx.metrics.ranking import mean_curve, precision_recall, roc, thinned, weighted_ranking
from cxrx.metrics.thresholds import RULES, _cross_fitted, choose, patient_folds, rates, threshold_table

NOBODY = PatientBootstrap([], 0, 0)


def problem(seed, n, *, ties=True):
    """Labels of both classes and scores, many of them equal."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    y[:2] = 0, 1
    return y, (rng.integers(0, 8, n) / 8 if ties else rng.random(n)), rng


def table(seed=0, n=200):
    """Three findings of very different prevalence, uncertain and unknown labels among them."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < [0.5, 0.1, 0.03]).astype(int)
    labels[:3] = 1
    p = 1 / (1 + np.exp(-(1.5 * labels - 1 + rng.standard_normal((n, 3)))))
    labels[rng.random((n, 3)) < 0.1] = -1
    labels[rng.random((n, 3)) < 0.1] = -2
    labels[:3] = 1
    patients = [f"p{i}" for i in rng.integers(0, n // 2, n)]
    return labels, p, ["common", "rare", "rarest"], patients


# ---------------------------------------------------------------------------------------------------------------------
# Replicates


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(4, 60), st.booleans())
def test_replicates_equal_scikit_learn(seed, n, ties):
    y, p, rng = problem(seed, n, ties=ties)
    weights = rng.integers(0, 4, (5, n)).astype(float)
    weights[:, :2] += 1
    found = weighted_ranking(y, p, weights, chunk=2)
    np.testing.assert_allclose(found[0], [roc_auc_score(y, p, sample_weight=row) for row in weights], atol=1e-9)
    np.testing.assert_allclose(
        found[1], [average_precision_score(y, p, sample_weight=row) for row in weights], atol=1e-9
    )


@given(st.integers(0, 10_000))
def test_weights_of_patients_are_weights_of_their_films(seed):
    y, p, rng = problem(seed, 30)
    patient = rng.integers(0, 6, 30)
    weights = rng.integers(0, 3, (7, 6)).astype(float)
    by_patient, by_film = weighted_ranking(y, p, weights, patient), weighted_ranking(y, p, weights[:, patient])
    np.testing.assert_allclose(by_patient, by_film, atol=1e-12)


def test_replicates_of_one_class_are_nan():
    y, p = np.array([0, 1]), np.array([0.1, 0.9])
    auroc, precision = weighted_ranking(y, p, np.array([[1.0, 0], [0, 1], [1, 1]]))
    np.testing.assert_array_equal(auroc, [np.nan, np.nan, 1])
    np.testing.assert_array_equal(precision, [np.nan, 1, 1])
    assert np.isnan(weighted_ranking(np.zeros(3, int), np.arange(3.0), np.ones((2, 3)))).all()


def test_a_thousand_replicates_of_a_large_data_set_take_less_than_a_second():
    rng = np.random.default_rng(0)
    n, patients = 25_000, 12_000
    y, unit = (rng.random(n) < 0.1).astype(int), rng.integers(0, patients, n)
    p = y + rng.standard_normal(n)
    weights = rng.multinomial(patients, np.full(patients, 1 / patients), size=1000).astype(float)
    start = time.process_time()
    weighted_ranking(y, p, weights, unit)
    assert time.process_time() - start < 1


# ---------------------------------------------------------------------------------------------------------------------
# The table


def test_every_number_equals_scikit_learn():
    labels, p, findings, patients = table()
    rows = made.classify(
        labels, p, findings, patients=patients, bootstrap=PatientBootstrap(patients, 200, 0), thresholds={"rare": 0.3}
    )
    assert all(set(row) == set(made.COLUMNS) - {"model"} for row in rows)
    for k, row in enumerate(rows[:-1]):
        known = labels[:, k] >= 0
        y, scores = labels[known, k], p[known, k]
        said = scores >= (0.3 if findings[k] == "rare" else 0.5)
        expected = {
            "auroc": roc_auc_score(y, scores),
            "auprc": average_precision_score(y, scores),
            "f1": f1_score(y, said),
            "f1_macro": f1_score(y, said, average="macro"),
            "f1_weighted": f1_score(y, said, average="weighted"),
            "accuracy": accuracy_score(y, said),
            "sensitivity": recall_score(y, said),
            "specificity": recall_score(y, said, pos_label=0),
            "brier": brier_score_loss(y, scores),
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-9)
        assert [row["tn"], row["fp"], row["fn"], row["tp"]] == confusion_matrix(y, said).ravel().tolist()
        for name in ("auroc", "auprc"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    overall = rows[-1]
    for name in ("auroc", "auprc", "f1", "f1_macro", "f1_weighted", "sensitivity", "specificity", "brier", "ece"):
        assert overall[name] == pytest.approx(np.mean([row[name] for row in rows[:-1]]))
    assert overall["auprc_low"] < overall["auprc"] < overall["auprc_high"]
    assert overall["tp"] == sum(row["tp"] for row in rows[:-1])


def test_a_report_of_another_f1_is_told_apart():
    """An F1 of .70 with a recall of .38 cannot be that of the positive class."""
    y = np.repeat([1, 0], [100, 300])[:, None]
    p = np.concatenate([np.full(38, 0.9), np.full(62, 0.1), np.full(10, 0.9), np.full(290, 0.1)])[:, None]
    row = made.classify(y, p, ["a"], patients=["p"] * 400, bootstrap=NOBODY)[0]
    assert row["sensitivity"] == pytest.approx(0.38)
    assert row["f1"] == pytest.approx(2 * 38 / (2 * 38 + 10 + 62))
    assert row["f1"] < 0.55
    assert 0.7 < row["f1_macro"] < row["f1_weighted"]


def test_an_auroc_of_zero_counts_in_the_mean():
    y = np.array([[0, 0], [0, 0], [1, 1], [1, 1]])
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
    a, b, overall = made.classify(y, p, ["a", "b"], patients=list("pqrs"), bootstrap=NOBODY)
    assert (a["auroc"], b["auroc"], overall["auroc"]) == (0, 1, 0.5)
    assert overall["note"] == "mean over 2 of 2 findings"


def test_one_class_has_what_it_can_have():
    y, p = np.zeros((4, 1), int), np.array([[0.1], [0.2], [0.6], [0.3]])
    row = made.classify(y, p, ["a"], patients=list("pqrs"), bootstrap=NOBODY)[0]
    assert row["specificity"] == 0.75
    assert row["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.09) / 4)
    assert np.isnan([row[name] for name in ("auroc", "auprc", "f1", "f1_macro", "f1_weighted", "sensitivity")]).all()
    assert made.classifier_curves(y, p, ["a"])[0]["curve"] == "reliability"
    assert threshold_table(y, p, ["a"], patients=list("pqrs")) == []


# ---------------------------------------------------------------------------------------------------------------------
# Calibration


def test_calibration_by_hand():
    y, p = np.array([0, 1, 1, 0]), np.array([0.1, 0.3, 0.7, 0.9])
    np.testing.assert_allclose(reliability(y, p, 2), [[0.2, 0.5, 2], [0.8, 0.5, 2]])
    assert expected_calibration_error(y, p, 2) == pytest.approx(0.3)
    np.testing.assert_allclose(reliability(y, p, 3), [[0.2, 0.5, 2], [0.7, 1, 1], [0.9, 0, 1]])
    assert expected_calibration_error(y, p) == pytest.approx((0.1 + 0.7 + 0.3 + 0.9) / 4)  # a bin a film
    assert expected_calibration_error(np.ones(5, int), np.ones(5)) == 0


def test_bins_of_equal_mass_are_those_of_scikit_learn():
    y, p, _ = problem(3, 150, ties=False)
    found, said = calibration_curve(y, p, n_bins=15, strategy="quantile")
    curve = reliability(y, p)
    np.testing.assert_allclose(curve, np.stack([said, found, np.full(15, 10)], axis=1))
    assert expected_calibration_error(y, p) == pytest.approx(np.abs(said - found).mean())


@given(st.integers(0, 10_000), st.integers(1, 80))
def test_calibration_does_not_depend_on_the_order_of_the_films(seed, n):
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, 2, n), rng.integers(0, 4, n) / 4
    order = rng.permutation(n)
    curve = reliability(y, p)
    np.testing.assert_allclose(curve, reliability(y[order], p[order]))
    assert curve[:, 2].sum() == n
    assert np.ptp(curve[:, 2]) <= 1
    assert (curve[:, 1] * curve[:, 2]).sum() == pytest.approx(y.sum())
    assert 0 <= expected_calibration_error(y, p) <= 1


# ---------------------------------------------------------------------------------------------------------------------
# Curves


def test_curves_hold_the_areas_and_no_more_than_200_points():
    rng = np.random.default_rng(0)
    y = (rng.random(20_000) < 0.05).astype(int)
    p = y + rng.standard_normal(20_000)
    curve = roc(y, p)
    assert 150 < len(curve) <= 200
    assert curve[[0, -1]].tolist() == [[0, 0], [1, 1]]
    assert auc(curve[:, 0], curve[:, 1]) == pytest.approx(roc_auc_score(y, p), abs=1e-3)
    curve = precision_recall(y, p)
    assert len(curve) <= 200
    assert (curve[[0, -1], 0] == [0, 1]).all()
    assert (np.diff(curve[:, 0]) >= 0).all()
    area = (np.diff(curve[:, 0]) * curve[1:, 1]).sum()  # steps
    assert area == pytest.approx(average_precision_score(y, p), abs=5e-3)


def test_short_curves_are_whole():
    y, p, _ = problem(1, 40)
    false, true, _ = roc_curve(y, p)
    np.testing.assert_array_equal(roc(y, p), np.stack([false, true], axis=1))
    with pytest.raises(ValueError, match="both classes"):
        roc(np.ones(3, int), np.arange(3.0))
    with pytest.raises(ValueError, match="a positive"):
        precision_recall(np.zeros(3, int), np.arange(3.0))


@given(st.integers(0, 1000), st.integers(2, 2000), st.integers(2, 50))
def test_thinning_keeps_the_ends_and_takes_only_points_of_the_curve(seed, n, most):
    points = np.sort(np.random.default_rng(seed).random((n, 2)), axis=0)
    thin = thinned(points, most)
    assert len(thin) <= max(most, 2)
    assert (thin[[0, -1]] == points[[0, -1]]).all()
    assert {tuple(point) for point in thin.tolist()} <= {tuple(point) for point in points.tolist()}


def test_the_mean_curve_by_hand():
    steps = np.array([[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1.0]])
    line = np.array([[0, 0], [1, 1.0]])
    mean = mean_curve([steps, line], stepped=False)
    assert mean[0].tolist() == [0, 0.25]
    assert mean[25] == pytest.approx([0.25, (0.5 + 0.25) / 2])
    assert mean[75] == pytest.approx([0.75, (1 + 0.75) / 2])
    falling = np.array([[0, 1], [0.5, 1], [1, 0.5]])
    assert mean_curve([falling], stepped=True)[[0, 50, 51, 100], 1].tolist() == [1, 1, 0.5, 0.5]


def test_the_table_of_curves():
    labels, p, findings, _ = table()
    points = made.classifier_curves(labels, p, findings)
    assert all(tuple(point) == made.CURVES for point in points)
    assert {(point["finding"], point["curve"]) for point in points} == {
        *((finding, curve) for finding in findings for curve in ("roc", "pr", "reliability")),
        ("all", "roc"),
        ("all", "pr"),
    }
    bins = [point for point in points if (point["finding"], point["curve"]) == ("rare", "reliability")]
    assert len(bins) == 15
    assert sum(point["n"] for point in bins) == (labels[:, 1] >= 0).sum()


# ---------------------------------------------------------------------------------------------------------------------
# Thresholds


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(3, 40))
def test_no_other_threshold_is_better(seed, n):
    y, p, _ = problem(seed, n)
    tried = [rates(y, p >= cut) for cut in [*np.unique(p), 2.0]]
    youden = rates(y, p >= choose(y, p, "youden"))
    best = max(row["sensitivity"] + row["specificity"] for row in tried)
    assert youden["sensitivity"] + youden["specificity"] == pytest.approx(best)
    assert rates(y, p >= choose(y, p, "f1-max"))["f1"] == pytest.approx(max(row["f1"] for row in tried))
    chosen = choose(y, p, "sensitivity-0.95")
    assert rates(y, p >= chosen)["sensitivity"] >= 0.95
    assert rates(y, p >= np.nextafter(p[p >= chosen].min(), 2))["sensitivity"] < 0.95


@given(st.integers(0, 10_000), st.integers(3, 40))
def test_rates_equal_scikit_learn(seed, n):
    y, p, _ = problem(seed, n)
    said = p >= 0.5
    expected = {
        "sensitivity": recall_score(y, said),
        "specificity": recall_score(y, said, pos_label=0),
        "ppv": precision_score(y, said, zero_division=np.nan),
        "npv": precision_score(y, said, pos_label=0, zero_division=np.nan),
        "f1": f1_score(y, said, zero_division=np.nan),
    }
    assert rates(y, said) == pytest.approx(expected, nan_ok=True)


def test_thresholds_lie_between_scores():
    y, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.7])
    assert [choose(y, p, rule) for rule in RULES] == pytest.approx([0.5, 0.4, 0.4, 0.4])
    close = np.array([0.2, np.nextafter(0.2, 1)])
    assert choose(np.array([0, 1]), close, "youden") == close[1]
    assert choose(np.array([1, 0]), close, "sensitivity-0.95") == close[0]  # the lowest score is taken


@given(st.integers(0, 10_000), st.integers(4, 60))
def test_folds_part_patients_and_not_their_films(seed, n):
    rng = np.random.default_rng(seed)
    patients = [f"p{i}" for i in rng.integers(0, 12, n)]
    y = rng.integers(0, 2, n)
    fold = patient_folds(patients, y, 5, seed)
    of = {name: {int(f) for other, f in zip(patients, fold, strict=True) if other == name} for name in patients}
    assert all(len(folds) == 1 for folds in of.values())
    assert set(fold.tolist()) == set(range(min(5, len(of))))
    with_positive = {name for name, label in zip(patients, y, strict=True) if label}
    assert len({min(of[name]) for name in with_positive}) == min(5, len(with_positive))  # spread over the folds
    order = rng.permutation(n)
    again = patient_folds([patients[i] for i in order], y[order], 5, seed)
    np.testing.assert_array_equal(again, fold[order])


def test_cross_fitting_judges_films_by_thresholds_that_never_saw_them():
    labels, p, findings, patients = table()
    rows = threshold_table(labels, p, findings, patients=patients, seed=4)
    assert [(row["finding"], row["rule"]) for row in rows] == [(f, r) for f in [*findings, "all"] for r in RULES]
    row = next(row for row in rows if (row["finding"], row["rule"]) == ("common", "youden"))
    known = labels[:, 0] >= 0
    y, scores = labels[known, 0], p[known, 0]
    fold = patient_folds([name for name, ok in zip(patients, known, strict=True) if ok], y, 5, 4)
    said, chosen = np.zeros(len(y), bool), []
    for i in range(5):
        train, test = fold != i, fold == i
        false, true, cuts = roc_curve(y[train], scores[train], drop_intermediate=False)
        cut = cuts[np.argmax(true - false)]
        below = scores[train][scores[train] < cut].max()
        chosen.append((cut + below) / 2)
        said[test] = scores[test] >= chosen[-1]
    np.testing.assert_allclose(_cross_fitted(y, scores, fold, "youden"), chosen)
    assert row["threshold"] == pytest.approx(np.median(chosen))
    assert row["chosen"] == "cross-fitted"
    assert row["sensitivity"] == pytest.approx(recall_score(y, said))
    assert row["ppv"] == pytest.approx(precision_score(y, said))
    assert rows == threshold_table(labels, p, findings, patients=patients, seed=4)


def test_a_threshold_chosen_on_noise_does_not_flatter_itself():
    """Where scores say nothing, the best threshold on the same films still shows a Youden index well above 0."""
    own, fitted = [], []
    for seed in range(40):
        y, p, _ = problem(seed, 60, ties=False)
        found = rates(y, p >= choose(y, p, "youden"))
        own.append(found["sensitivity"] + found["specificity"] - 1)
        row = threshold_table(y[:, None], p[:, None], ["a"], patients=[str(i) for i in range(60)], seed=seed)[1]
        fitted.append(row["sensitivity"] + row["specificity"] - 1)
    assert np.mean(own) > 0.12
    assert abs(np.mean(fitted)) < 0.08


def test_thresholds_of_training_say_so():
    labels, p, findings, patients = table()
    rows = threshold_table(labels, p, findings, patients=patients, thresholds={"rare": 0.25}, stored_rule="youden")
    by = {(row["finding"], row["rule"]): row for row in rows}
    assert by["rare", "youden"]["chosen"] == "validation"
    assert by["rare", "youden"]["threshold"] == 0.25
    known = labels[:, 1] >= 0
    assert by["rare", "youden"]["sensitivity"] == recall_score(labels[known, 1], p[known, 1] >= 0.25)
    assert by["rare", "f1-max"]["chosen"] == by["common", "youden"]["chosen"] == "cross-fitted"
    assert by["rare", "0.5"]["chosen"] == "fixed"
    rows = threshold_table(labels, p, findings, patients=patients, thresholds={"rare": 0.5}, stored_rule="0.5")
    assert {row["chosen"] for row in rows} == {"fixed", "cross-fitted"}
    assert by["all", "youden"]["chosen"] == "validation or cross-fitted"
    assert by["all", "f1-max"]["f1"] == pytest.approx(np.mean([by[name, "f1-max"]["f1"] for name in findings]))


def test_what_training_could_not_choose_is_not_called_chosen():
    """Of a finding whose validation films showed one class only, training stores 0.5."""
    labels, p, findings, patients = table()
    rows = threshold_table(labels, p, findings, patients=patients, thresholds={"rare": 0.5, "common": 0.4})
    by = {row["finding"]: row for row in rows if row["rule"] == "f1-max"}
    assert (by["rare"]["chosen"], by["common"]["chosen"]) == ("cross-fitted", "validation")
    alone = threshold_table(labels, p, findings, patients=patients)
    assert by["rare"] == next(row for row in alone if (row["finding"], row["rule"]) == ("rare", "f1-max"))


def test_one_positive_patient_cannot_be_cross_fitted():
    y = np.array([1, 0, 0, 0, 0, 0])[:, None]
    rows = threshold_table(y, np.linspace(0.9, 0.1, 6)[:, None], ["a"], patients=list("abcdef"))
    assert rows[0]["sensitivity"] == 1
    assert np.isnan([rows[1]["threshold"], rows[1]["sensitivity"], rows[1]["f1"]]).all()
