"""Numbers and thresholds against scikit-learn and against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    roc_auc_score,
    roc_curve,
)

from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.training.metrics import choose_thresholds, evaluate


@pytest.fixture
def imbalanced():
    """RSNA-like: one positive in four, scores that help."""
    rng = np.random.default_rng(0)
    labels = (np.arange(200) % 4 == 0).astype(np.int8)[:, None]
    scores = 1 / (1 + np.exp(-(1.5 * labels - 1 + rng.standard_normal((200, 1)))))
    return labels, scores.astype(np.float32)


def evaluated(task, labels, scores, findings, patients, thresholds):
    bootstrap = PatientBootstrap(patients, 200, 0)
    return evaluate(task, labels, scores, findings, patients=patients, thresholds=thresholds, bootstrap=bootstrap)


def test_binary_numbers(imbalanced):
    labels, scores = imbalanced
    thresholds = {"Lung Opacity": choose_thresholds("f1", labels, scores)[0]}
    found = evaluated("binary", labels, scores, ["Lung Opacity"], [f"p{i}" for i in range(200)], thresholds)
    row, y, said = found.rows[0], labels[:, 0], scores[:, 0] >= thresholds["Lung Opacity"]
    assert row["auroc"] == pytest.approx(roc_auc_score(y, scores[:, 0]))
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
    assert row["auprc"] == pytest.approx(average_precision_score(y, scores[:, 0]))
    assert row["f1"] == pytest.approx(f1_score(y, said))
    assert row["f1_macro"] == pytest.approx(f1_score(y, said, average="macro"))
    assert row["f1_weighted"] == pytest.approx(f1_score(y, said, average="weighted"))
    assert row["accuracy"] == pytest.approx(accuracy_score(y, said))
    assert [row[k] for k in ("tn", "fp", "fn", "tp")] == confusion_matrix(y, said).ravel().tolist()
    assert found.overall["auroc"] == row["auroc"]


@pytest.mark.parametrize("ties", [False, True])
def test_thresholds_are_the_best_of_all(imbalanced, ties):
    labels, scores = imbalanced
    scores = np.round(scores, 1) if ties else scores
    y, p = labels[:, 0], scores[:, 0]
    cut = choose_thresholds("f1", labels, scores)[0]
    assert f1_score(y, p >= cut) == pytest.approx(max(f1_score(y, p >= c) for c in np.unique(p)))
    cut = choose_thresholds("youden", labels, scores)[0]
    false, true, _ = roc_curve(y, p)
    reached = (p[y == 1] >= cut).mean() - (p[y == 0] >= cut).mean()
    assert reached == pytest.approx((true - false).max())
    assert choose_thresholds("half", labels, scores) == [0.5]


def test_unknown_labels_do_not_count():
    labels = np.array([[1, -2], [0, 0], [1, -2], [0, 0]], np.int8)
    scores = np.array([[0.9, 0.9], [0.2, 0.1], [0.3, 0.9], [0.6, 0.2]], np.float32)
    found = evaluated("multi-label", labels, scores, ["a", "b"], [*"wxyz"], {"a": 0.5, "b": 0.5})
    a, b, everything = found.rows
    assert (a["tn"], a["fp"], a["fn"], a["tp"], a["auroc"]) == (1, 1, 1, 1, 0.75)
    assert (b["n"], b["accuracy"], b["tn"]) == (2, 1.0, 2)
    assert math.isnan(b["auroc"])
    assert math.isnan(b["f1"])
    assert "both classes" in b["note"]
    assert everything["auroc"] == 0.75
    assert choose_thresholds("f1", labels, scores)[1] == 0.5


def test_classes_that_exclude_each_other():
    labels = np.eye(3, dtype=np.int8)[[0, 0, 1, 1, 2, 2]]
    rng = np.random.default_rng(0)
    raw = rng.random((6, 3)) + labels
    scores = (raw / raw.sum(1, keepdims=True)).astype(np.float32)
    scores[0] = [0.1, 0.7, 0.2]
    thresholds = dict.fromkeys("abc", 0.9)
    found = evaluated("multi-class", labels, scores, [*"abc"], [*"uvwxyz"], thresholds)
    true, said = labels.argmax(1), scores.argmax(1)
    assert found.confusion == confusion_matrix(true, said).tolist()
    assert found.overall["accuracy"] == accuracy_score(true, said)
    assert found.overall["f1_macro"] == pytest.approx(f1_score(true, said, average="macro"))
    assert found.rows[0]["fn"] == 1  # decided by the highest probability, whatever the threshold
    assert found.rows[1]["fp"] == 1
