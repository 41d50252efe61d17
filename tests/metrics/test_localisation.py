from __future__ import annotations

import time
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.filters import threshold_otsu
from sklearn.metrics import jaccard_score

from cxrx.errors import UsageError
from cxrx.metrics.geometry import resize
from cxrx.metrics.localisation import METRICS, maximum, score_localisation, score_resized
from cxrx.metrics.otsu import levels, otsu


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
    for k in (1, 5, 10, 20, 40):
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


@given(
    array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
        lambda shape: st.tuples(
            arrays(np.float64, shape, elements=st.integers(-3, 3).map(float)),  # full of ties
            arrays(np.bool_, shape),
        )
    )
)
def test_ties_are_worth_what_a_random_order_is_worth_on_average(drawn):
    """Break the ties in many random ways: the mean over them is what is given."""
    values, truth = drawn
    if not truth.any():
        return
    scores = score_resized(values, truth)
    area, rng = truth.sum(), np.random.default_rng(0)
    ranks = []
    for _ in range(200):
        order = np.lexsort((rng.random(values.size), -values.ravel()))
        ranks.append(truth.ravel()[order[:area]].mean())
    spread = np.std(ranks) / np.sqrt(len(ranks))
    assert scores["rank"] == pytest.approx(np.mean(ranks), abs=5 * spread + 1e-9)
    count = max(1, round(values.size * 0.4))
    cut = np.sort(values, axis=None)[-count]
    common = (values[truth] > cut).sum() + (values[truth] == cut).sum() * (count - (values > cut).sum()) / (
        values == cut
    ).sum()
    assert scores["iou_top_40"] == pytest.approx(common / (count + area - common), abs=1e-9)


@given(arrays(np.int64, 256, elements=st.integers(0, 50)).filter(lambda counts: (counts > 0).sum() > 1))
def test_otsu_maximises_the_variance_between_two_classes(counts):
    """Formula by hand, in exact fractions; the same pixels above as scikit-image and OpenCV leave."""
    total, whole = int(counts.sum()), int((counts * np.arange(256)).sum())
    best, at, n, s = Fraction(-1), -1, 0, 0
    for level in range(255):
        n, s = n + int(counts[level]), s + level * int(counts[level])
        if 0 < n < total:
            w0, w1 = Fraction(n, total), Fraction(total - n, total)
            variance = w0 * w1 * (Fraction(s, n) - Fraction(whole - s, total - n)) ** 2
            if variance > best:
                best, at = variance, level
    threshold = otsu(counts)
    assert threshold == at
    picture = np.repeat(np.arange(256, dtype=np.uint8), counts)[None]
    runner_up = threshold_otsu(hist=(counts, np.arange(256)))
    opencv, _ = cv2.threshold(picture, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    for other in (int(runner_up), int(opencv)):  # theirs is rounded: equal, or as good to seven digits
        n, s = int(counts[: other + 1].sum()), int((counts * np.arange(256))[: other + 1].sum())
        variance = Fraction(n * (total - n), total**2) * (Fraction(s, n) - Fraction(whole - s, total - n)) ** 2
        assert float(variance) == pytest.approx(float(best), rel=1e-6)


@given(arrays(np.float32, 30, elements=st.floats(-5, 5, width=32)).filter(lambda v: v.max() - v.min() > 1e-3))
def test_levels_are_truncated(values):
    expected = np.uint8(np.float32(255) * ((values - values.min()) / (values.max() - values.min())))
    np.testing.assert_array_equal(levels(values), expected)


def test_the_fast_set_is_fast():
    """13,500 maps of 224 x 224 (1,000 films, 14 findings, 5 methods and 4 baselines) must take less than 25 s."""
    rng = np.random.default_rng(0)
    maps = [resize(rng.standard_normal((7, 7)).clip(min=0), (224, 224)) for _ in range(40)]
    truths = [box((224, 224), a, b, a + 60, b + 40) for a, b in rng.integers(0, 160, (40, 2))]
    start = time.process_time()
    for values, truth in zip(maps, truths, strict=True):
        score_resized(values, truth)
    assert (time.process_time() - start) / 40 * 13_500 < 25


def test_what_fits_is_said():
    with pytest.raises(UsageError, match="are needed"):
        score_localisation(np.zeros((2, 2, 2)), np.zeros((2, 2)))
    with pytest.raises(UsageError, match="no protocol 'pointing'") as refused:
        score_localisation(np.eye(2), np.eye(2), "pointing")
    assert "native, chexlocalize, arun" in refused.value.hint
