from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from sklearn.metrics import jaccard_score

from cxrx.metrics.agreement import GRID, common_grid, dispersion, other_film, rank_rows, score_agreement, top_rows
from cxrx.metrics.controls import Prior, centre_map, prior_grid, random_map
from cxrx.metrics.geometry import resize
from cxrx.metrics.localisation import maximum


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_against_scipy_and_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((7, 7)), rng.standard_normal((16, 16))
    scores = score_agreement(a, b)
    one, two = common_grid(a).ravel(), common_grid(b).ravel()
    assert scores["spearman"] == pytest.approx(spearmanr(one, two).statistic, abs=1e-6)
    n = round(GRID * GRID / 10)
    tops = [np.zeros(GRID * GRID, bool) for _ in "ab"]
    for top, values in zip(tops, (one, two), strict=True):
        top[np.argsort(-values, kind="stable")[:n]] = True
    assert scores["iou_top_10"] == pytest.approx(jaccard_score(*tops), abs=1e-9)
    scaled = [((grid - grid.min()) / np.ptp(grid)).reshape(GRID, GRID) for grid in (one, two)]
    assert scores["ssim"] == pytest.approx(structural_similarity(*scaled, data_range=1), abs=1e-6)


def test_a_map_agrees_with_itself_whatever_its_scale():
    values = np.random.default_rng(0).random((8, 8))
    assert score_agreement(values, 4 * values - 1) == pytest.approx({"spearman": 1, "iou_top_10": 1, "ssim": 1})
    assert score_agreement(values, -values)["spearman"] == pytest.approx(-1)


@pytest.mark.parametrize("other", [np.zeros((8, 8)), np.full((8, 8), np.nan)])
def test_what_orders_nothing_agrees_with_nothing(other):
    assert np.isnan(list(score_agreement(np.eye(8), other).values())).all()
    assert not top_rows(rank_rows(other.reshape(1, -1))).any()


def test_dispersion_by_hand():
    """Two equal points half the picture apart lie a quarter from their middle; a point scatters nowhere."""
    grid = np.zeros((3, GRID, GRID))
    grid[0, 10, 20] = 5
    grid[1, 10, 16], grid[1, 10, 48] = 2, 2
    grid[2] = 1
    found = dispersion(grid.reshape(3, -1))
    assert found[:2] == pytest.approx([0, 0.25], abs=1e-9)
    assert found[2] == pytest.approx(np.sqrt(2 * (1 - 1 / GRID**2) / 12))
    assert np.isnan(dispersion(np.stack([np.zeros(GRID**2), np.full(GRID**2, np.nan)]))).all()
    negative = grid.reshape(3, -1)[:1] - 1  # what is negative does not count
    assert dispersion(negative) == pytest.approx([0], abs=1e-9)


def test_partners_are_of_the_same_finding_and_another_patient():
    rng = np.random.default_rng(0)
    findings = [str(f) for f in rng.integers(0, 3, 200)]
    patients = [str(p) for p in rng.integers(0, 30, 200)]
    partner = other_film(findings, patients, seed=1)
    assert (partner >= 0).all()
    for i, j in enumerate(partner):
        assert findings[i] == findings[j]
        assert patients[i] != patients[j]
    np.testing.assert_array_equal(partner, other_film(findings, patients, seed=1))
    assert len(set(partner.tolist())) > 80  # spread over the films


def test_no_partner_where_there_is_one_patient_only():
    assert other_film(["a", "a", "b"], ["1", "1", "2"], seed=0).tolist() == [-1, -1, -1]


def test_centre_is_symmetric_and_highest_in_the_middle():
    centre = centre_map(32)
    np.testing.assert_allclose(centre, centre[::-1, ::-1])
    assert centre.argmax() in (15 * 32 + 15, 15 * 32 + 16, 16 * 32 + 15, 16 * 32 + 16)
    assert centre[0, 16] == pytest.approx(np.exp(-0.5 * ((0.5 - 1 / 64) / 0.25) ** 2) * centre[16, 16], rel=0.01)


def test_random_depends_on_its_keys_only():
    np.testing.assert_array_equal(random_map(0, "a", "b"), random_map(0, "a", "b"))
    assert not np.array_equal(random_map(0, "a", "b"), random_map(0, "ab", ""))
    assert not np.array_equal(random_map(0, "a", "b"), random_map(1, "a", "b"))


def test_prior_leaves_the_patient_out():
    def half(side, size):
        mask = np.zeros((size, size), dtype=bool)
        mask[:, slice(0, size // 2) if side == "left" else slice(size // 2, size)] = True
        return mask

    prior = Prior()
    for finding, patient, side, size in (
        ("m", "p1", "left", 512),
        ("m", "p1", "left", 256),
        ("m", "p2", "right", 1024),
    ):
        prior.add(finding, patient, half(side, size))
    prior.add("n", "p1", half("left", 256))
    inner = np.s_[:, 2:126]  # away from the edge, where the resize averages
    np.testing.assert_allclose(prior.map("m", "p1")[inner], 0, atol=1e-12)
    np.testing.assert_allclose(prior.map("m", "p1")[:, 130:], 1)
    np.testing.assert_allclose(prior.map("m", "p2")[inner], 1)
    np.testing.assert_allclose(prior.map("m", "p3")[inner], 2 / 3)
    assert prior.map("n", "p1") is None
    assert prior.map("o", "p1") is None


BOXES = st.tuples(st.integers(0, 5), st.integers(1, 700), st.integers(1, 700), st.integers(1, 700), st.integers(1, 700))


@settings(max_examples=25, deadline=None)
@given(st.lists(BOXES, min_size=2, max_size=12), st.sampled_from([(256, 256), (700, 389), (301, 640)]), st.randoms())
def test_prior_is_the_direct_mean_to_the_last_bit(boxes, shape, random):
    """No rounding is left by leaving out, so that the ties of the direct mean are ties, whatever the films' order."""
    films = []
    for patient, y, x, height, width in boxes:
        mask = np.zeros(shape, dtype=bool)
        mask[y % shape[0] : y % shape[0] + height, x % shape[1] : x % shape[1] + width] = True
        films.append((str(patient), mask))
    shuffled = random.sample(films, len(films))
    prior = Prior()
    for patient, mask in shuffled:
        prior.add("m", patient, mask)
    for patient in {name for name, _ in films}:
        others = [prior_grid(mask) for name, mask in films if name != patient]
        found = prior.map("m", patient)
        if not others:
            assert found is None
            continue
        np.testing.assert_array_equal(found, np.sum(others, axis=0) / len(others))
        assert maximum(found) == maximum(np.mean(others, axis=0))
    np.testing.assert_allclose(prior_grid(mask), resize(mask, (256, 256)), rtol=0, atol=2**-31)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_prior_by_hand_and_in_little_memory(seed):
    rng = np.random.default_rng(seed)
    prior, films = Prior(), []
    for _ in range(8):
        mask = np.zeros((256, 256), dtype=bool)
        y, x = rng.integers(0, 230, 2)
        mask[y : y + rng.integers(1, 26), x : x + rng.integers(1, 26)] = True
        films.append((str(rng.integers(0, 4)), mask))
        prior.add("m", *films[-1])
    for patient in {name for name, _ in films}:
        others = [mask for name, mask in films if name != patient]
        if others:
            np.testing.assert_allclose(prior.map("m", patient), np.mean(others, axis=0), atol=1e-9)
    kept = sum(part.nbytes for parts in prior._own.values() for _, _, part in parts)
    assert kept <= 8 * 25 * 25 * 8  # not 8 grids of 256 x 256
