from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes
from skimage.filters import threshold_otsu
from sklearn.metrics import jaccard_score

from cxrx.compare.localisation import METRICS, maximum, score_localisation
from cxrx.errors import UsageError


def blob(shape, row, column, width):
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    return np.exp(-((ys - row) ** 2 + (xs - column) ** 2) / (2 * width**2))


def box(shape, top, left, bottom, right):
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("seed", range(5))
def test_against_independent_formulas(seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((60, 50))  # no ties
    truth = box(values.shape, 10, 5, 31, 40)
    scores = score_localisation(values, truth)
    assert list(scores) == list(METRICS)

    scaled = np.floor(255 * (values - values.min()) / np.ptp(values)).astype(np.uint8)
    above = scaled > threshold_otsu(scaled)
    assert scores["iou"] == pytest.approx(jaccard_score(truth.ravel(), above.ravel()), abs=1e-6)

    point = np.unravel_index(values.argmax(), values.shape)
    assert scores["hit"] == truth[point]
    distance = min(np.hypot(point[0] - y, point[1] - x) for y, x in np.argwhere(truth))
    assert scores["hit_15px"] == (distance < 15 / 500 * 60)

    positive = values.clip(min=0)
    assert scores["mass"] == pytest.approx(positive[truth].sum() / positive.sum(), abs=1e-6)
    assert scores["mass_ratio"] == pytest.approx(scores["mass"] / truth.mean(), abs=1e-6)
    order = np.argsort(-values.ravel())
    assert scores["rank"] == pytest.approx(truth.ravel()[order[: truth.sum()]].mean(), abs=1e-6)
    for k in (1, 5, 10, 20):
        top = np.zeros(values.size, dtype=bool)
        top[order[: round(values.size * k / 100)]] = True
        assert scores[f"iou_top_{k}"] == pytest.approx(jaccard_score(truth.ravel(), top), abs=1e-6)


@pytest.mark.parametrize(
    "truth", [box((64, 64), 8, 8, 20, 30), box((64, 64), 0, 0, 4, 4) | box((64, 64), 40, 50, 64, 64)]
)
def test_a_perfect_map_scores_one(truth):
    scores = score_localisation(truth.astype(float), truth)
    assert [scores[name] for name in ("hit", "hit_15px", "iou", "mass", "rank")] == [1, 1, 1, 1, 1]
    assert scores["mass_ratio"] == pytest.approx(1 / truth.mean())


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0])
def test_a_constant_map_is_a_miss(value):
    truth = box((40, 40), 0, 0, 20, 20)
    scores = score_localisation(np.full((7, 7), value), truth)
    assert scores["hit"] == scores["hit_15px"] == scores["iou"] == 0
    assert scores["mass"] == pytest.approx(0.25 if value > 0 else 0)
    assert scores["rank"] == pytest.approx(0.25)  # chance


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_with_holes_is_a_miss(bad):
    values = np.arange(49.0).reshape(7, 7)
    values[6, 6] = bad
    assert set(score_localisation(values, box((40, 40), 20, 20, 40, 40)).values()) == {0.0}


def test_an_empty_truth_has_no_score():
    assert np.isnan(list(score_localisation(np.eye(7), np.zeros((9, 9))).values())).all()


def test_ties_go_to_the_middle_of_the_plateau():
    values = box((21, 21), 4, 4, 9, 9).astype(float)
    assert maximum(values) == (6, 6)
    assert maximum(values[:, ::-1]) == (6, 14)
    both = box((21, 21), 0, 0, 5, 5) | box((21, 21), 16, 16, 21, 21)
    assert both[maximum(both.astype(float))]  # never between two plateaus


def test_tied_ranks_count_by_their_share():
    values = np.zeros((10, 10))
    values[0, :5] = 1
    truth = box((10, 10), 0, 0, 1, 10)
    # five strongest in the truth; five of the 95 equal ones follow, five of which are truth
    assert score_localisation(values, truth)["rank"] == pytest.approx((5 + 5 * 5 / 95) / 10)


def test_the_tolerance_grows_with_the_picture():
    values = blob((500, 500), 100, 114, 20)
    assert score_localisation(values, box((500, 500), 90, 0, 110, 101))["hit_15px"] == 1
    assert score_localisation(values, box((500, 500), 90, 0, 110, 100))["hit_15px"] == 0  # 15 px is not less than 15
    assert score_localisation(values, box((500, 500), 90, 0, 110, 101))["hit"] == 0


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-10, 10))
def test_shift_and_scale_change_no_order(seed, factor, shift):
    values = np.random.default_rng(seed).random((8, 8)).astype(np.float32).astype(float)
    truth = box((32, 24), 4, 4, 20, 12)
    one, two = score_localisation(values, truth), score_localisation(values * factor + shift, truth)
    for name in ("hit", "hit_15px"):
        assert one[name] == two[name]
    assert one["iou_top_10"] == pytest.approx(two["iou_top_10"], abs=0.05)
    assert all(0 <= one[name] <= 1 for name in METRICS if name != "mass_ratio")


@given(st.integers(0, 1000))
def test_mirrors_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    values, truth = rng.standard_normal((30, 20)), rng.random((30, 20)) > 0.8
    one, two = score_localisation(values, truth), score_localisation(values[::-1, ::-1], truth[::-1, ::-1])
    assert one == pytest.approx(two)


@pytest.mark.parametrize("shape", [(240, 200), (320, 320)])
def test_chexlocalize_against_torch_and_skimage(shape):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    for _ in range(20):
        raw = rng.standard_normal((8, 8)).astype(np.float32)
        truth = box(shape, *(rng.integers(0, 100, 2)), *(rng.integers(110, 200, 2)))
        resized = torch.nn.functional.interpolate(torch.from_numpy(raw)[None, None], size=shape, mode="bilinear")
        resized = resized[0, 0].numpy()
        m = (resized - resized.min()) / (resized - resized.min()).max()
        q = np.uint8(255 * m)
        predicted = binary_fill_holes(q > threshold_otsu(q))
        scores = score_localisation(raw, truth, "chexlocalize")
        assert list(scores) == ["iou", "hit"]
        assert scores["iou"] == pytest.approx(jaccard_score(truth.ravel(), predicted.ravel()), abs=1e-3)
        assert scores["hit"] == truth.ravel()[resized.argmax()]


def test_chexlocalize_fills_holes():
    ring = box((50, 50), 10, 10, 40, 40) & ~box((50, 50), 20, 20, 30, 30)
    full = box((50, 50), 10, 10, 40, 40)
    assert score_localisation(ring.astype(float), full, "chexlocalize")["iou"] == 1
    assert score_localisation(ring.astype(float), full)["iou"] == pytest.approx(800 / 900)


def test_chexlocalize_rules_for_nothing():
    empty, truth = np.zeros((20, 20)), box((20, 20), 0, 0, 5, 5)
    constant, some = np.ones((4, 4)), np.eye(4)
    score = score_localisation
    assert np.isnan(score(constant, truth, "chexlocalize")["iou"])
    assert score(constant, truth, "chexlocalize")["hit"] == 1  # the first pixel, by the letter
    assert score(constant, truth, "chexlocalize", true_pos_only=False)["iou"] == 0
    assert np.isnan(score(some, empty, "chexlocalize")["iou"])
    assert np.isnan(score(some, empty, "chexlocalize")["hit"])
    assert score(some, empty, "chexlocalize", true_pos_only=False)["iou"] == 0
    assert np.isnan(score(constant, empty, "chexlocalize", true_pos_only=False)["iou"])


def test_what_fits_is_said():
    with pytest.raises(UsageError, match="are needed"):
        score_localisation(np.zeros((2, 2, 2)), np.zeros((2, 2)))
    with pytest.raises(UsageError, match="native, chexlocalize"):
        score_localisation(np.eye(2), np.eye(2), "arun")
