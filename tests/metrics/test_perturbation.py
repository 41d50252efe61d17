"""Orders of pixels, imputation, tiles, subsets: the parts that need no model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr

from cxrx.compare.faithfulness.noise import best_scaled
from cxrx.metrics.imputation import NEIGHBOURS, _dissection, impute
from cxrx.metrics.perturbation import area, counts, mean_correlation, normalise, rank, subsets, tiles, upsample

grids = st.tuples(st.integers(1, 9), st.integers(1, 9))
values = arrays(np.float64, grids, elements=st.integers(-3, 3).map(float))


@settings(deadline=None)
@given(values, st.integers(0, 2**63 - 1))
def test_a_rank_is_a_permutation_in_falling_order(a, seed):
    places = rank(a, seed)
    assert sorted(places.ravel()) == list(range(a.size))
    assert (np.diff(a.ravel()[np.argsort(places.ravel())]) <= 0).all()


@settings(deadline=None)
@given(arrays(np.float64, grids, elements=st.integers(-1000, 1000).map(float), unique=True), st.integers(0, 9))
def test_least_relevant_first_is_most_relevant_first_of_the_negative_without_ties(a, seed):
    np.testing.assert_array_equal(a.size - 1 - rank(a, seed), rank(-a, seed + 1))


@settings(deadline=None)
@given(values, st.floats(0.01, 100), st.floats(-10, 10))
def test_a_rank_does_not_depend_on_scale_and_shift(a, scale, shift):
    np.testing.assert_array_equal(rank(scale * a + shift, 5), rank(a, 5))


def test_ties_fall_in_random_order_not_all_at_once():
    """A map of 60 % zeros: the zeros that are removed first lie everywhere, and not in any order of the pixels."""
    a = np.zeros((50, 50))
    a[10:30] = np.arange(1, 1001).reshape(20, 50)  # 40 %
    places = rank(a, 3)
    assert (places[10:30] < 1000).all()
    first = places < 1750  # half of the zeros
    assert first.sum() == 1750
    for part in (first[:10], first[30:40], first[40:], first[30:, :25], first[30:, 25:]):
        assert part.mean() == pytest.approx(0.5, abs=0.1)
    assert not np.array_equal(places, rank(a, 4))
    np.testing.assert_array_equal(places, rank(a, 3))


def test_rounding_does_not_order_a_plateau():
    """0.1 resized is 0.1 up to the last bit: its pixels would come in a fixed pattern."""
    coarse = np.full((7, 7), 0.1)
    coarse[3, 3] = 1.0
    fine = upsample(coarse, (224, 224))
    plateau = np.abs(fine - 0.1) < 1e-12
    places = rank(fine, 0)
    halves = places[:80][plateau[:80]], places[144:][plateau[144:]]
    assert np.mean(halves[0]) == pytest.approx(np.mean(halves[1]), rel=0.02)
    assert np.unique(upsample(np.full((7, 7), 0.1), (224, 224))).size == 1


def test_a_map_is_upsampled_as_torch_does_it():
    coarse = np.random.default_rng(0).standard_normal((7, 5))
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(coarse)[None, None], (30, 41), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(upsample(coarse, (30, 41)), wanted[0, 0], atol=1e-12)


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(2, 100))
def test_counts_go_from_nothing_to_everything(n, steps):
    taken = counts(n, steps)
    assert taken[0] == 0
    assert taken[-1] == n
    assert np.abs(np.diff(taken) - n / steps).max() <= 1


@settings(deadline=None)
@given(arrays(np.float64, st.integers(2, 60), elements=st.floats(0, 1)))
def test_an_area_lies_between_the_curve_s_ends(f):
    x = np.linspace(0, 1, len(f))
    assert f.min() - 1e-12 <= area(x, f) <= f.max() + 1e-12
    assert area(x, 2 * f + 1) == pytest.approx(2 * area(x, f) + 1)


def test_a_span_too_small_is_not_divided_by():
    full, baseline = np.array([1.0, 0.05, -1.0]), np.zeros(3)
    np.testing.assert_array_equal(normalise(full / 2, full, baseline), [0.5, np.nan, np.nan])


# ---------------------------------------------------------------------------------------------------------------------
# Imputation


def residual(filled, mask):
    """By how much each masked pixel misses the weighted mean of the neighbours it has, pixel by pixel."""
    height, width = mask.shape
    worst = 0.0
    for row, column in np.argwhere(mask):
        total = weight = 0.0
        for down, across, share in NEIGHBOURS:
            r, c = row + down, column + across
            if 0 <= r < height and 0 <= c < width:
                total += share * filled[r, c]
                weight += share
        worst = max(worst, abs(filled[row, column] - total / weight))
    return worst


@settings(deadline=None)
@given(arrays(bool, st.tuples(st.integers(2, 14), st.integers(2, 14))), st.integers(0, 100))
def test_imputation_solves_its_system(mask, seed):
    mask[0, 0] = False
    planes = np.random.default_rng(seed).standard_normal((2, *mask.shape))
    filled = impute(planes, mask)
    np.testing.assert_array_equal(filled[:, ~mask], planes[:, ~mask])
    for plane in filled:
        assert residual(plane, mask) < 1e-10
    assert filled.max() <= planes[:, ~mask].max() + 1e-9  # a mean never leaves what is known
    assert filled.min() >= planes[:, ~mask].min() - 1e-9


def test_imputation_of_a_film_sized_picture():
    rng = np.random.default_rng(0)
    mask = rng.random((224, 200)) < 0.9
    mask[40:120, 50:130] = True
    plane = rng.standard_normal((224, 200))
    assert residual(impute(plane[None], mask)[0], mask) < 1e-10


def test_weights_of_neighbours_are_those_of_the_paper():
    assert sorted(weight for _, _, weight in NEIGHBOURS) == pytest.approx([1 / 12] * 4 + [1 / 6] * 4)
    assert sum(weight for _, _, weight in NEIGHBOURS) == pytest.approx(1)
    plane = np.arange(9.0).reshape(3, 3) ** 2
    mask = np.zeros((3, 3), dtype=bool)
    mask[1, 1] = True
    wanted = (plane[0, 1] + plane[1, 0] + plane[1, 2] + plane[2, 1]) / 6
    wanted += (plane[0, 0] + plane[0, 2] + plane[2, 0] + plane[2, 2]) / 12
    assert impute(plane[None], mask)[0, 1, 1] == pytest.approx(wanted)


def test_a_plane_is_imputed_as_a_plane():
    rows, columns = np.mgrid[:20, :30]
    plane = 2.0 * rows - columns
    mask = np.zeros((20, 30), dtype=bool)
    mask[4:15, 6:22] = True  # away from the edge, where neighbours lie all round
    np.testing.assert_allclose(impute(plane[None], mask)[0], plane, atol=1e-10)


@settings(deadline=None)
@given(st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_the_order_of_elimination_has_every_pixel_once(shape):
    assert sorted(_dissection(shape)) == list(range(shape[0] * shape[1]))


# ---------------------------------------------------------------------------------------------------------------------
# Tiles, subsets, correlations


def test_tiles_scale_with_the_picture():
    number = tiles((224, 224), 16)
    assert number.max() == 195
    assert (np.bincount(number.ravel()) == 256).all()
    assert tiles((448, 448), 16).max() == 195
    assert tiles((512, 512), 16).max() == 195
    assert set(np.bincount(tiles((230, 250), 16).ravel())) <= {16 * 16, 16 * 17, 17 * 17, 16 * 18, 17 * 18, 15 * 16}
    assert tiles((4, 4), 16).max() == 15  # tiles are at least a pixel


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(0, 100))
def test_subsets_have_their_size(m, seed):
    chosen = subsets(m, (0.1, 0.5, 0.9), 20, seed)
    assert chosen.shape == (3, 20, m)
    for share, of_size in zip((0.1, 0.5, 0.9), chosen, strict=True):
        assert (of_size.sum(axis=1) == min(max(1, round(share * m)), m - 1)).all()


def test_subsets_are_uniform():
    chosen = subsets(10, (0.3,), 4000, 0)[0]
    np.testing.assert_allclose(chosen.mean(axis=0), 0.3, atol=0.03)


def test_correlation_is_pearson_s_averaged_over_sizes():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 12)), rng.standard_normal((3, 12))
    wanted = [pearsonr(*rows).statistic for rows in zip(a, b, strict=True)]
    assert mean_correlation(a, b) == pytest.approx(np.mean(wanted))
    a[1] = 0.3 * 3  # constant: has no correlation
    assert mean_correlation(a, b) == pytest.approx((wanted[0] + wanted[2]) / 2)
    assert np.isnan(mean_correlation(a, np.zeros((3, 12))))


numbers = arrays(np.float64, 20, elements=st.integers(-80, 80).map(lambda n: n / 16))


@settings(deadline=None)  # the first call imports captum
@given(numbers, numbers, st.floats(-2, 2))
def test_infidelity_is_that_of_the_best_scale(sums, perturbed, full):
    change = full - perturbed
    beta = (sums * change).sum() / (sums**2).sum() if (sums**2).sum() > 0 else 0.0
    wanted = ((beta * sums - change) ** 2).mean()
    found = best_scaled(torch.from_numpy(sums), torch.from_numpy(perturbed), torch.tensor(full, dtype=torch.float64))
    assert found == pytest.approx(wanted, abs=1e-9)
    assert found <= (change**2).mean() + 1e-9
