"""Films: determinism, truth that agrees with itself, and the look of a chest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrx.phantom import FINDINGS, make_film
from cxrx.phantom.anatomy import LEFT, RIGHT, Thorax, draw_patient, draw_pose
from cxrx.phantom.film import blur_wide
from cxrx.phantom.findings import bounding_box
from cxrx.phantom.scene import make_grid, make_lungs

SMALL = (128, 112)
seeds = st.integers(0, 2**31)


def test_same_seed_same_film_whatever_came_before():
    first = make_film(3, 5, size=SMALL)
    make_film(3, 4, size=SMALL)
    again = make_film(3, 5, size=SMALL)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert first.labels == again.labels
    assert first.boxes == again.boxes
    assert not np.array_equal(first.pixels, make_film(3, 6, size=SMALL).pixels)
    assert not np.array_equal(first.pixels, make_film(4, 5, size=SMALL).pixels)


@given(seed=seeds, index=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_labels_boxes_and_masks_agree(seed, index):
    film = make_film(seed, index, size=SMALL)
    assert film.pixels.shape == SMALL
    assert film.pixels.dtype == np.float32
    assert np.isfinite(film.pixels).all()
    assert film.pixels.min() >= 0
    assert film.pixels.max() <= 1
    assert film.view in {"PA", "AP"}
    assert tuple(film.labels) == FINDINGS
    present = {name for name, value in film.labels.items() if value}
    assert set(film.masks) == present
    assert {box.finding for box in film.boxes} == present
    for finding, mask in film.masks.items():
        boxes = [box for box in film.boxes if box.finding == finding]
        covered = np.zeros(SMALL, bool)
        for box in boxes:
            x, y, width, height = (round(value) for value in (box.x, box.y, box.width, box.height))
            assert x >= 0
            assert y >= 0
            assert x + width <= SMALL[1]
            assert y + height <= SMALL[0]
            inside = mask[y : y + height, x : x + width]
            assert inside[0].any()  # tight on every side
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
            covered[y : y + height, x : x + width] = True
        assert not (mask & ~covered).any()


@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_a_film_is_no_negative_and_its_lungs_are_dark(seed):
    film = make_film(seed, 0, size=SMALL)
    pose = draw_pose(np.random.default_rng([seed, 1, 0]))
    thorax = Thorax(draw_patient(np.random.default_rng([seed, 0, 0])), pose, enlarged=bool(film.labels["Cardiomegaly"]))
    grid = make_grid(SMALL, thorax)
    lungs = make_lungs(grid, thorax)
    lung = (lungs[0].path + lungs[1].path) > 60
    middle = (np.abs(grid.u) < 15) & (grid.v > 60) & (grid.v < 0.9 * thorax.base)
    assert film.pixels[middle].mean() - film.pixels[lung].mean() > 20 / 255


def test_the_same_patient_at_every_resolution():
    """Labels are the same, lesions lie in the same place, and the pictures agree once they are of one size."""
    for index in range(5):
        small, large = make_film(9, index, size=SMALL), make_film(9, index, size=(512, 448))
        assert small.labels == large.labels
        assert len(small.boxes) == len(large.boxes)
        for a, b in zip(small.boxes, large.boxes, strict=True):
            np.testing.assert_allclose([4 * a.x, 4 * a.y], [b.x, b.y], atol=14)
            np.testing.assert_allclose([4 * a.width, 4 * a.height], [b.width, b.height], atol=22)
        shrunk = large.pixels.reshape(128, 4, 112, 4).mean((1, 3))
        assert np.corrcoef(shrunk.ravel(), small.pixels.ravel())[0, 1] > 0.97
        assert large.pixel_spacing * 4 == pytest.approx(small.pixel_spacing, abs=1e-5)


def test_findings_are_drawn_as_promised():
    """About a third normal, each finding in about a fifth, several together in some; 3 sigma of 1500 draws."""
    from cxrx.phantom.findings import draw_findings

    drawn = [draw_findings(np.random.default_rng([5, k])) for k in range(1500)]
    counts = np.array([[name in found for name in FINDINGS] for found in drawn])
    assert (counts.sum(1) == 0).mean() == pytest.approx(1 / 3, abs=0.037)
    np.testing.assert_allclose(counts.mean(0), 0.2, atol=0.032)  # 2/3 x (0.6 + 2 x 0.3 + 3 x 0.1) / 5
    assert (counts.sum(1) >= 2).mean() == pytest.approx(0.4 * 2 / 3, abs=0.035)


def test_findings_change_the_film_where_their_mask_is():
    """Against the same film without lesions: nodule, consolidation and effusion are lighter, air is darker."""
    from cxrx.phantom import film as module

    signs = {"Consolidation": 1, "Nodule": 1, "Effusion": 1, "Pneumothorax": -1}
    changes = {name: [] for name in signs}
    for index in range(40):
        rng = np.random.default_rng([21, 1, index])
        pose, _ = draw_pose(rng), module.draw_findings(rng)
        thorax = Thorax(draw_patient(np.random.default_rng([21, 0, index])), pose, enlarged=False)
        grid = make_grid(SMALL, thorax)
        lungs = make_lungs(grid, thorax)
        for name in signs:
            for lesion in module.plant(name, grid, thorax, lungs, np.random.default_rng(index)):
                changes[name].append(lesion.path[lesion.mask].mean())
                assert abs(lesion.path[~lesion.mask]).mean() < abs(lesion.path[lesion.mask]).mean()
    for name, sign in signs.items():
        assert min(sign * value for value in changes[name]) > 0.5, name  # mm of tissue


def test_cardiothoracic_ratio_is_what_the_label_says():
    """The heart's outline measured on the film plane, against the inner width of the thorax."""
    for index in range(30):
        pose = draw_pose(np.random.default_rng([1, index]))
        patient = draw_patient(np.random.default_rng([2, index]))
        grid = make_grid((512, 448), Thorax(patient, pose, enlarged=False))
        for enlarged in (False, True):
            thorax = Thorax(patient, pose, enlarged)
            u = grid.u[thorax.heart_radius(grid.u, grid.v) < 1]
            ratio = (u.max() - u.min()) / (2 * patient.half_width)
            assert (ratio > 0.515) if enlarged else (ratio < 0.50)


def test_both_sides_are_affected_and_lungs_face_outwards():
    pose = draw_pose(np.random.default_rng(0))
    thorax = Thorax(draw_patient(np.random.default_rng(0)), pose, enlarged=False)
    grid = make_grid(SMALL, thorax)
    right, left = make_lungs(grid, thorax)
    assert (right.side, left.side) == (RIGHT, LEFT)
    assert grid.u[right.path > 30].max() < grid.u[left.path > 30].min()
    assert grid.u[left.path > 30].mean() > 0  # the patient's left is at the right of the picture


def test_to_pixel_undoes_the_grid():
    pose = draw_pose(np.random.default_rng(4))
    grid = make_grid((96, 80), Thorax(draw_patient(np.random.default_rng(4)), pose, enlarged=False))
    rows, columns = grid.to_pixel(grid.u, grid.v)
    np.testing.assert_allclose(rows, np.broadcast_to(np.arange(96)[:, None], (96, 80)), atol=1e-3)
    np.testing.assert_allclose(columns, np.broadcast_to(np.arange(80)[None], (96, 80)), atol=1e-3)


def test_two_films_of_a_patient_share_the_build_only():
    a, b = make_film(2, 10, patient=3, size=SMALL), make_film(2, 11, patient=3, size=SMALL)
    assert a.patient == b.patient == 3
    assert not np.array_equal(a.pixels, b.pixels)


@pytest.mark.slow
def test_the_shortcut_goes_with_its_label_and_changes_nothing_else():
    hits = {0: [], 1: []}
    for index in range(60):
        marked = make_film(8, index, size=(64, 64), shortcut="Nodule", shortcut_strength=0.9)
        hits[marked.labels["Nodule"]].append(marked.shortcut is not None)
        if index < 10:
            plain = make_film(8, index, size=(64, 64))
            changed = plain.pixels != marked.pixels
            assert changed.any() == (marked.shortcut is not None)
            if marked.shortcut is not None:
                box = bounding_box("Nodule", changed)
                token = marked.shortcut
                assert (token.x, token.y) == (box.x, box.y)
                assert (token.width, token.height) == (box.width, box.height)
            assert plain.labels == marked.labels
    assert np.mean(hits[1]) > 0.7
    assert np.mean(hits[0]) < 0.25


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": (32, 448)}, "64 pixels"),
        ({"shortcut": "Fracture"}, "no phantom finding"),
        ({"shortcut": "Nodule", "shortcut_strength": 1.5}, "probability"),
    ],
)
def test_impossible_requests_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        make_film(0, 0, **options)


def test_wide_blur_agrees_with_the_plain_one():
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(np.random.default_rng(0).standard_normal((150, 130)), 6)
    np.testing.assert_allclose(
        blur_wide(image, 14.0), gaussian_filter(image, 14.0, mode="nearest"), atol=0.1 * image.std()
    )
