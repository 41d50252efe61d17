"""The slower metrics of protocol native, and protocol arun, against scikit-learn, scikit-image and hand formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from sklearn.metrics import (
    auc,
    average_precision_score,
    jaccard_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
)

from cxrx.metrics.geometry import resize
from cxrx.metrics.localisation import DETAILED, METRICS, PROTOCOL_METRICS, score_detailed, score_localisation

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=20)
TIED = SHAPES.flatmap(
    lambda shape: st.tuples(
        arrays(np.float64, shape, elements=st.integers(-3, 3).map(float)), arrays(np.bool_, shape)
    ).filter(lambda drawn: drawn[1].any())
)


def box(shape, top, left, bottom, right):
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def smooth(seed, shape=(60, 50)):
    return resize(np.random.default_rng(seed).standard_normal((9, 7)), shape)


@pytest.mark.parametrize("seed", range(6))
def test_detailed_against_independent_formulas(seed):
    values, truth = smooth(seed), box((60, 50), 10, 5, 31, 40)
    scores = score_detailed(values, truth)
    assert list(scores) == list(DETAILED)
    assert not DETAILED.keys() & METRICS.keys()
    order = np.argsort(-values.ravel())
    for k in (1, 5, 10, 20, 40):
        top = np.zeros(values.size, dtype=bool)
        top[order[: round(values.size * k / 100)]] = True
        assert scores[f"sensitivity_top_{k}"] == pytest.approx(recall_score(truth.ravel(), top), abs=1e-6)
        assert scores[f"precision_top_{k}"] == pytest.approx(precision_score(truth.ravel(), top), abs=1e-6)
    scaled = (values - values.min()) / np.ptp(values)
    for t in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        assert scores[f"iou_above_{t}"] == pytest.approx(jaccard_score(truth.ravel(), (scaled > t).ravel()), abs=1e-6)
    q = np.floor(255 * scaled).astype(np.uint8)
    regions = regionprops(label(q > threshold_otsu(q), connectivity=2), intensity_image=values)
    strongest = max(regions, key=lambda region: region.intensity_max)
    found = box(truth.shape, *strongest.bbox)
    iou, iobb = jaccard_score(truth.ravel(), found.ravel()), precision_score(truth.ravel(), found.ravel())
    for t in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        assert scores[f"t_iou_{t}"] == (iou > t)
        assert scores[f"t_iobb_{t}"] == (iobb > t)


def test_the_box_goes_round_the_region_of_the_maximum_only():
    values, truth = np.zeros((40, 40)), box((40, 40), 4, 4, 12, 12)
    values[4:12, 4:12], values[30:36, 30:36] = 1.0, 0.9
    scores = score_detailed(values, truth)
    assert all(scores[f"t_iou_{t}"] == scores[f"t_iobb_{t}"] == 1 for t in (0.1, 0.4, 0.7))
    values[30:36, 30:36] = 1.1
    assert score_detailed(values, truth)["t_iou_0.1"] == 0
    values[30:36, 30:36] = 0
    values[12, 12] = values[13:16, 13:16] = 0.9  # touches at the corner: one region
    scores = score_detailed(values, truth)
    assert 0.4 < 64 / 144 < 0.5
    assert (scores["t_iou_0.4"], scores["t_iou_0.5"]) == (1, 0)
    assert (scores["t_iobb_0.4"], scores["t_iobb_0.5"]) == (1, 0)


def test_an_overlap_of_just_the_threshold_is_no_hit():
    values = np.zeros((20, 20))
    values[:10, :10] = 1
    scores = score_detailed(values, box((20, 20), 0, 0, 10, 5))
    assert (scores["t_iou_0.4"], scores["t_iou_0.5"], scores["t_iobb_0.5"]) == (1, 0, 0)


@settings(max_examples=40)
@given(TIED)
def test_detailed_counts_ties_by_their_share(drawn):
    values, truth = drawn
    scores = score_detailed(values, truth)
    for k in (1, 20, 40):
        count = max(1, round(values.size * k / 100))
        cut = np.sort(values, axis=None)[-count]
        share = (count - (values > cut).sum()) / (values == cut).sum()
        common = (values[truth] > cut).sum() + share * (values[truth] == cut).sum()
        assert scores[f"sensitivity_top_{k}"] == pytest.approx(common / truth.sum(), abs=1e-9)
        assert scores[f"precision_top_{k}"] == pytest.approx(common / count, abs=1e-9)
    whole = [scores[f"sensitivity_top_{k}"] for k in (1, 5, 10, 20, 40)]
    assert whole == sorted(whole)
    assert all(0 <= value <= 1 for value in scores.values())


def test_detailed_rules_for_nothing():
    truth = box((40, 40), 0, 0, 20, 20)
    constant = score_detailed(np.full((40, 40), 0.3), truth)
    assert constant["sensitivity_top_20"] == pytest.approx(0.2)  # chance
    assert constant["precision_top_20"] == pytest.approx(0.25)
    assert constant["iou_above_0.5"] == constant["t_iou_0.1"] == constant["t_iobb_0.1"] == 0
    holed = np.arange(1600.0).reshape(40, 40)
    holed[3, 3] = np.nan
    assert set(score_detailed(holed, truth).values()) == {0.0}
    assert np.isnan(list(score_detailed(np.eye(40), np.zeros((40, 40), bool)).values())).all()


# ---------------------------------------------------------------------------------------------------------------------
# Arun


def by_scikit_learn(values, truth):
    y, p = truth.ravel(), values.ravel()
    precision, recall, _ = precision_recall_curve(y, p)
    return {
        "auprc": auc(recall, precision),
        "average_precision": average_precision_score(y, p),
        "auroc": roc_auc_score(y, p) if not y.all() else np.nan,
    }


@settings(max_examples=40)
@given(TIED)
def test_arun_equals_scikit_learn(drawn):
    values, truth = drawn
    scores = score_localisation(values, truth, "arun")
    assert list(scores) == list(PROTOCOL_METRICS["arun"])
    assert scores == pytest.approx(by_scikit_learn(values, truth), abs=1e-6, nan_ok=True)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.001, 0.6))
def test_arun_equals_scikit_learn_on_smooth_maps(seed, share):
    rng = np.random.default_rng(seed)
    raw, shape = rng.standard_normal((7, 9)), (83, 61)
    truth = smooth(seed + 1, shape) > 0.2 if share > 0.3 else rng.random(shape) < share
    truth[0, 0] = True
    expected = by_scikit_learn(resize(raw, shape), truth)
    assert score_localisation(raw, truth, "arun") == pytest.approx(expected, abs=1e-6)
    raw = raw.clip(min=0)
    assert score_localisation(raw, truth, "arun") == pytest.approx(by_scikit_learn(resize(raw, shape), truth), abs=1e-6)


def test_trapezoid_and_steps_differ():
    values, truth = np.zeros((50, 50)), box((50, 50), 0, 0, 10, 10)
    constant = score_localisation(values, truth, "arun")
    assert constant["average_precision"] == pytest.approx(0.04)  # chance
    assert constant["auprc"] == pytest.approx((1 + 0.04) / 2)  # the artefact
    assert constant["auroc"] == 0.5
    perfect = score_localisation(truth.astype(float), truth, "arun")
    assert perfect == {"auprc": 1, "average_precision": 1, "auroc": 1}


def test_arun_flatters_by_the_pixel_auroc():
    """A small finding, a wide blob around it: the AUROC is high where the overlap is next to nothing."""
    ys, xs = np.ogrid[:200, :200]
    values = np.exp(-((ys - 100) ** 2 + (xs - 100) ** 2) / (2 * 50.0**2))
    truth = box((200, 200), 95, 130, 103, 138)
    scores = score_localisation(values, truth, "arun")
    assert scores["auroc"] > 0.85
    assert scores["average_precision"] < 0.1
    assert score_localisation(values, truth)["iou"] < 0.03


def test_arun_rules_for_nothing():
    holed = np.ones((4, 4))
    holed[0, 0] = np.inf
    assert set(score_localisation(holed, np.eye(4), "arun").values()) == {0.0}
    assert np.isnan(list(score_localisation(np.eye(4), np.zeros((4, 4)), "arun").values())).all()
    full = score_localisation(np.eye(4), np.ones((4, 4)), "arun")
    assert full["average_precision"] == 1
    assert np.isnan(full["auroc"])


@pytest.mark.parametrize("ones", [25, 41, 43, 50, 51])
def test_shares_of_ties_never_round_above_one(ones):
    """Of 25 equal pixels the strongest 7 are wanted, all in the truth: 25 * (7 / 25) is a bit more than 7."""
    values, truth = np.zeros((5, 14)), np.ones((5, 14), dtype=bool)
    values.ravel()[-ones:] = 1
    scores = score_detailed(values, truth)
    assert max(scores[f"precision_top_{k}"] for k in (1, 5, 10, 20, 40)) == 1
