"""The protocol of CheXlocalize against a second derivation, from the sheet, with other tools throughout."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from cxrx.metrics.chexlocalize import METRICS, chexlocalize_interval, interpolate
from cxrx.metrics.localisation import score_localisation

torch = pytest.importorskip("torch")

NIH = Path(__file__).parents[3] / "shared" / "realdata" / "nih_cxr14"


def derived(raw, truth, *, true_pos_only=True):
    """Return IoU and hit as the sheet says, with PyTorch, a loop for Otsu's threshold, and OpenCV's contours."""
    if raw.max() == raw.min():
        raw = np.zeros_like(raw)  # PyTorch's rounding makes 0.7 vary in the last digit
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(raw)[None, None], size=truth.shape, mode="bilinear", align_corners=False
    )[0, 0]
    scaled = resized - resized.min()
    scaled = 255 * scaled.div(scaled.max())
    predicted = np.zeros(truth.shape, np.uint8)
    if torch.isfinite(scaled).all():
        q = scaled.numpy().astype(np.uint8)
        predicted = drawn(q > between_classes(q))
    both, either = np.logical_and(predicted, truth).sum(), np.logical_or(predicted, truth).sum()
    empty = [predicted.sum() == 0, truth.sum() == 0]
    iou = np.nan if (any(empty) if true_pos_only else all(empty)) else both / either
    best, place = -np.inf, (0, 0)
    for row, line in enumerate(resized.numpy()):  # row-major, the first of equals
        if line.max() > best:
            best, place = line.max(), (row, int(line.argmax()))
    return iou, float(truth[place]) if truth.any() else np.nan


def drawn(above):
    """Return the polygons of all contours of more than one point, filled, as the published code draws them."""
    contours, _ = cv2.findContours(above.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    picture = Image.new("1", above.shape[::-1])
    for contour in contours:
        if len(contour) > 1:
            ImageDraw.Draw(picture).polygon([tuple(map(int, point[0])) for point in contour], outline=1, fill=1)
    return np.asarray(picture)


def between_classes(q):
    counts = np.bincount(q.ravel(), minlength=256)
    best, threshold = -1.0, 0
    for t in range(256):
        w0, w1 = counts[: t + 1].sum(), counts[t + 1 :].sum()
        if w0 and w1:
            mean0 = (np.arange(t + 1) * counts[: t + 1]).sum() / w0
            mean1 = (np.arange(t + 1, 256) * counts[t + 1 :]).sum() / w1
            variance = w0 * w1 * (mean0 - mean1) ** 2
            if variance > best * (1 + 1e-12):
                best, threshold = variance, t
    return threshold


def agrees(raw, truth, **options):
    scores = score_localisation(raw, truth, "chexlocalize", **options)
    assert list(scores) == list(METRICS) == ["iou", "hit"]
    iou, hit = derived(raw, truth, **options)
    assert scores["iou"] == pytest.approx(iou, abs=1e-6, nan_ok=True)
    assert scores["hit"] == pytest.approx(hit, abs=0, nan_ok=True)
    return scores


def blob(shape, rng):
    """A random mask that is not square: a few ellipses."""
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    for _ in range(rng.integers(1, 4)):
        y, x = rng.uniform(0, 1, 2) * shape
        a, b = rng.uniform(0.05, 0.3, 2) * shape
        mask |= ((ys - y) / a) ** 2 + ((xs - x) / b) ** 2 < 1
    return mask


@pytest.mark.parametrize("grid", [(7, 7), (8, 8), (14, 14), (16, 9), (40, 50), (320, 320)])
@pytest.mark.parametrize("shape", [(240, 200), (1024, 1024), (389, 320), (517, 300), (97, 640)])
def test_maps_of_any_grid_on_masks_of_any_shape(grid, shape):
    rng = np.random.default_rng([*grid, *shape])
    for signed in (True, False):
        raw = rng.standard_normal(grid).astype(np.float32)
        agrees(raw if signed else raw.clip(min=0), blob(shape, rng))


@pytest.mark.slow
@pytest.mark.skipif(not NIH.is_dir(), reason="the real films are not here")
def test_real_films_and_their_boxes():
    """Maps that follow the film, against the radiologists' boxes, at the size of every film."""
    rows = list(csv.reader((NIH / "BBox_List_2017_subset.csv").read_text().splitlines()))[1:]
    rng, hits = np.random.default_rng(0), 0.0
    for name, _, *corner in (row[:6] for row in rows):
        x, y, w, h = (float(v) for v in corner)
        with Image.open(NIH / "images" / name) as film:
            truth = np.zeros((film.height, film.width), bool)
            small = np.asarray(film.convert("L").resize((14, 14)), dtype=np.float32) / 255
        truth[round(y) : round(y + h), round(x) : round(x + w)] = True
        agrees(small - small.mean() + 0.05 * rng.standard_normal(small.shape).astype(np.float32), truth)
        own = np.asarray(Image.fromarray(truth).resize((14, 14)), dtype=np.float32)
        hits += agrees(own, truth)["hit"]
    assert len(rows) == 12
    assert hits > 6


SIDES = st.integers(10, 200), st.integers(119, 200)  # PyTorch has other loops, with other last bits, up to 128 together


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), *SIDES)
def test_small_pictures_with_many_ties(seed, h, w, rows, columns):
    rng = np.random.default_rng(seed)
    raw = rng.integers(-2, 3, (h, w)).astype(np.float32)
    truth = rng.random((rows, columns)) < rng.random()
    for true_pos_only in (True, False):
        agrees(raw, truth, true_pos_only=true_pos_only)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 40), *SIDES)
def test_the_resize_is_that_of_pytorch(seed, h, w, rows, columns):
    raw = np.random.default_rng(seed).standard_normal((h, w)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(raw)[None, None], size=(rows, columns), mode="bilinear")
    # Without a fused multiply-add a coordinate of up to 40 is rounded to 4e-6; neighbours differ by up to 9.
    np.testing.assert_allclose(interpolate(raw, (rows, columns)), expected[0, 0].numpy(), rtol=0, atol=4e-5)


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="no fused multiply-add")
@pytest.mark.parametrize("shape", [(1024, 1024), (389, 320), (2320, 2828)])
def test_the_resize_is_that_of_pytorch_bit_for_bit(shape):
    raw = np.random.default_rng(0).standard_normal((14, 9)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(raw)[None, None], size=shape, mode="bilinear")
    np.testing.assert_array_equal(interpolate(raw, shape), expected[0, 0].numpy())


@pytest.mark.parametrize("value", [0.0, 0.7, -3.1])
def test_a_constant_map(value):
    truth = np.zeros((20, 30), bool)
    truth[0, 0] = truth[5:9, 5:9] = True
    constant = np.full((4, 4), value, np.float32)
    assert agrees(constant, truth)["hit"] == 1  # the first pixel, by the letter
    assert np.isnan(agrees(constant, truth)["iou"])
    assert agrees(constant, truth, true_pos_only=False)["iou"] == 0
    assert agrees(constant, ~truth)["hit"] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_with_a_hole_predicts_nothing(bad):
    truth = np.zeros((20, 30), bool)
    truth[10:, 15:] = True
    raw = np.arange(16, dtype=np.float32).reshape(4, 4)
    raw[3, 3] = bad
    scores = score_localisation(raw, truth, "chexlocalize")
    assert np.isnan(scores["iou"])
    assert scores["hit"] == 1  # the first pixel that is none lies in the truth
    assert score_localisation(raw, truth, "chexlocalize", true_pos_only=False)["iou"] == 0
    assert score_localisation(raw, ~truth, "chexlocalize")["hit"] == 0


def test_rules_for_an_empty_truth():
    empty, some, constant = np.zeros((20, 20), bool), np.eye(4, dtype=np.float32), np.zeros((4, 4), np.float32)
    for true_pos_only in (True, False):
        assert np.isnan(agrees(some, empty, true_pos_only=true_pos_only)["hit"])
        assert np.isnan(agrees(constant, empty, true_pos_only=true_pos_only)["iou"])
    assert np.isnan(agrees(some, empty)["iou"])
    assert agrees(some, empty, true_pos_only=False)["iou"] == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 40), st.integers(119, 200), st.floats(0.5, 0.99))
def test_specks_and_threads_and_holes(seed, rows, columns, cut):
    """Masks at the pixels of the film: many regions of a single pixel, pairs at corners, holes within holes."""
    raw = (np.random.default_rng(seed).random((rows, columns)) > cut).astype(np.float32)
    agrees(raw, np.ones((rows, columns), bool))


def test_a_region_of_a_single_pixel_is_dropped():
    raw = np.zeros((60, 80), np.float32)
    raw[10:20, 10:20] = 1
    truth = raw > 0
    assert agrees(raw, truth)["iou"] == 1
    raw[40, 40] = 1  # alone
    assert agrees(raw, truth)["iou"] == 1
    raw[41, 41] = 1  # two that touch at a corner stay
    assert agrees(raw, truth)["iou"] == pytest.approx(100 / 102)
    alone = np.zeros((60, 80), np.float32)
    alone[0, 0] = alone[59, 79] = 1
    assert np.isnan(agrees(alone, truth)["iou"])
    assert agrees(alone, truth, true_pos_only=False)["iou"] == 0
    raw[5:50, 5:50] = 1
    raw[20:40, 20:40] = 0
    raw[30, 30] = 1  # in a hole, which closes
    assert agrees(raw, raw > 0)["iou"] == pytest.approx((45 * 45 - 399) / 45**2)


def test_holes_are_filled():
    ring = np.zeros((50, 50), bool)
    ring[10:40, 10:40] = True
    full = ring.copy()
    ring[20:30, 20:30] = False
    assert agrees(ring.astype(np.float32), full)["iou"] == 1
    assert score_localisation(ring.astype(float), full)["iou"] == pytest.approx(800 / 900)


# ---------------------------------------------------------------------------------------------------------------------
# Intervals


def published(series, seed=0):
    """One resample of the table after the other, as the sheet says, with pandas."""
    np.random.seed(seed)  # noqa: NPY002
    means = [series.iloc[np.random.choice(len(series), len(series), replace=True)].mean() for _ in range(1000)]  # noqa: NPY002
    return np.sort(means)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(0, 3))
def test_the_interval_is_that_of_the_published_order(data_seed, n, seed):
    values = np.random.default_rng(data_seed).random(n)
    found, means = chexlocalize_interval(values, seed), published(pd.Series(values), seed)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((means[24], means[974]))
    assert found.dropped == 0


def test_images_without_a_number_are_drawn_and_skipped():
    values = np.where(np.arange(50) % 3 == 0, np.nan, np.arange(50) / 50)
    found, means = chexlocalize_interval(values), published(pd.Series(values))
    assert found.value == pytest.approx(np.nanmean(values))
    assert found[1:3] == pytest.approx((means[24], means[974]))
    assert chexlocalize_interval(values[::-1])[1:3] != pytest.approx(found[1:3])  # the order of the images counts


def test_replicates_without_a_number_do_not_become_the_upper_bound():
    values = np.array([0.2, 0.4, *[np.nan] * 20])
    means = published(pd.Series(values))
    assert np.isnan(means[974])  # the published defect
    found = chexlocalize_interval(values)
    kept = means[np.isfinite(means)]
    assert found.dropped == 1000 - len(kept) > 50
    assert (found.low, found.high) == pytest.approx(
        (kept[int(0.025 * len(kept)) - 1], kept[int(0.975 * len(kept)) - 1])
    )
    assert np.isnan(chexlocalize_interval([np.nan, np.nan])[:3]).all()
    assert np.isnan(chexlocalize_interval([])[:3]).all()
