from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cxrx.errors import ResultsError
from cxrx.metrics.geometry import box_mask, coverage, resize, to_source

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
maps = shapes.flatmap(lambda s: arrays(np.float64, s, elements=st.floats(-1e3, 1e3)))


def affine_of_crop(size, shape):
    """The affine of Resize(short side), CenterCrop onto a square input, in half-pixel geometry."""
    rows, columns = shape
    side = min(rows, columns)
    step = side / size[0]
    left, top = (columns - side) / 2, (rows - side) / 2
    return np.array([[step, 0, left + step / 2 - 0.5], [0, step, top + step / 2 - 0.5]])


@pytest.mark.parametrize(
    ("old", "new"), [((7, 7), (64, 50)), ((64, 50), (7, 7)), ((16, 9), (10, 33)), ((1, 1), (5, 4)), ((33, 20), (33, 7))]
)
def test_resize_equals_torch(old, new):
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal(old)
    tensor = torch.from_numpy(values)[None, None]
    antialiased = torch.nn.functional.interpolate(tensor, size=new, mode="bilinear", antialias=True)[0, 0].numpy()
    np.testing.assert_allclose(resize(values, new), antialiased, atol=1e-12)


@given(maps, shapes)
def test_resize_stays_within_the_range_and_is_linear(values, shape):
    resized = resize(values, shape)
    assert resized.shape == shape
    assert resized.min() >= values.min() - 1e-9
    assert resized.max() <= values.max() + 1e-9
    np.testing.assert_allclose(resize(2 * values + 1, shape), 2 * resized + 1, atol=1e-8)


@given(maps)
def test_identity_affine_of_the_whole_picture_is_a_plain_resize(values):
    size, shape = (24, 36), (48, 90)
    affine = np.array([[90 / 36, 0, 90 / 72 - 0.5], [0, 2.0, 0.5]])
    np.testing.assert_allclose(to_source(values, affine, size, shape), resize(values, shape), atol=1e-9)


@given(st.integers(2, 30), st.integers(10, 60), st.integers(10, 60))
def test_a_linear_ramp_keeps_its_coordinates(cells, rows, columns):
    """A map that says where it is must say so after it was carried over."""
    size, shape = (30, 30), (rows, columns)
    affine = affine_of_crop(size, shape)
    centres = (np.arange(cells) + 0.5) * size[1] / cells - 0.5  # x on the input grid
    x = affine[0, 0] * centres + affine[0, 2]
    carried = to_source(np.tile(x, (cells, 1)), affine, size, shape, outside=np.nan)
    pixels = np.broadcast_to(np.arange(columns, dtype=float), shape)
    step = size[1] / cells * affine[0, 0]  # source pixels a cell
    inner = (pixels >= x[0] + step / 2) & (pixels <= x[-1] - step / 2) & np.isfinite(carried)
    if step >= 1:  # enlarging: plain interpolation is exact on a ramp
        np.testing.assert_allclose(carried[inner], pixels[inner], atol=1e-8)


def test_a_crop_leaves_zero_outside_and_says_so():
    size, shape = (8, 8), (16, 32)
    affine = affine_of_crop(size, shape)
    carried = to_source(np.ones((2, 2)), affine, size, shape)
    seen = coverage(affine, size, shape)
    assert seen[:, 8:24].all()
    assert not seen[:, :8].any()
    assert not seen[:, 24:].any()
    np.testing.assert_array_equal(carried, seen.astype(float))


def test_padding_is_cut_away():
    # a 16 x 32 picture padded to 32 x 32 and shrunk to 8 x 8: four input rows hold the picture
    affine = np.array([[4, 0, 1.5], [0, 4, 1.5 - 8]])
    grid = np.arange(64.0).reshape(8, 8)
    carried = to_source(grid, affine, (8, 8), (16, 32))
    np.testing.assert_allclose(carried, resize(grid, (32, 32))[8:24])


@given(st.integers(0, 7), st.integers(0, 7))
def test_a_single_cell_lands_on_its_pixels(row, column):
    grid = np.zeros((8, 8))
    grid[row, column] = 1
    affine = affine_of_crop((64, 64), (320, 400))
    carried = to_source(grid, affine, (64, 64), (320, 400))
    assert carried[row * 40 + 19 : row * 40 + 21, 40 + column * 40 + 19 : 40 + column * 40 + 21].min() > 0.95
    assert set(np.nonzero(carried.max(axis=1) > 0.5)[0]) >= set(range(row * 40 + 1, row * 40 + 39))
    assert (carried > 0.5).sum() < 60 * 60


def test_a_turning_affine_is_refused():
    with pytest.raises(ResultsError, match="scale and shift"):
        to_source(np.ones((2, 2)), [[1, 0.1, 0], [0, 1, 0]], (4, 4), (4, 4))


def test_nan_stays_nan():
    grid = np.ones((4, 4))
    grid[0, 0] = np.nan
    assert np.isnan(resize(grid, (8, 8))).all()


def test_box_mask_counts_pixels_and_is_cut_at_the_edge():
    mask = box_mask([[1, 2, 3, 4]], (10, 10))
    assert mask.sum() == 12
    assert mask[2:6, 1:4].all()
    assert box_mask([[-5, -5, 7, 7]], (10, 10)).sum() == 4
    assert box_mask([[20, 20, 5, 5], [-9, 0, 3, 3]], (10, 10)).sum() == 0
    assert box_mask([[0, 0, 2, 2], [1, 1, 2, 2]], (10, 10)).sum() == 7
