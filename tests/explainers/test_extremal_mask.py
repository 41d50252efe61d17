from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrx.explainers.extremal_mask import MaskGenerator, area_penalty

CPU = torch.device("cpu")


def direct_mask(p: np.ndarray, step: int) -> np.ndarray:
    """Transcribe the generator in float64: every pixel looks at the 9 x 9 cells around its own; outside they are 0."""
    sigma = 3 * step
    h, w = p.shape
    mask = np.zeros((step * (h + 5) + 1, step * (w + 5) + 1))
    for i, j in np.ndindex(mask.shape):
        y, x = i - sigma, j - sigma  # in pixels of the picture; cell c lies at step * c
        values = []
        for a in range(y // step - 4, y // step + 5):
            for b in range(x // step - 4, x // step + 5):
                distance = math.hypot(y - step * a, x - step * b)
                weight = math.exp(-2 * max(distance / sigma - 0.5, 0) ** 2)
                values.append(weight * (p[a, b] if 0 <= a < h and 0 <= b < w else 0))
        v = np.array(values)
        mask[i, j] = (v * np.exp(20 * v)).sum() / np.exp(20 * v).sum()
    return mask.clip(0, 1)


@pytest.mark.parametrize("size", [(40, 48), (33, 50), (70, 64)])
def test_the_generator_is_the_formula(size):
    generator = MaskGenerator(size)
    rng = np.random.default_rng(0)
    parameters = rng.random((1, *generator.grid)) ** 4
    parameters[0][rng.random(generator.grid) < 0.1] = 1.0
    expected = direct_mask(parameters[0], generator.step)
    for dtype, tolerance in ((torch.float64, 2e-7), (torch.float32, 1e-5)):
        mask = generator(torch.from_numpy(parameters).to(dtype), generator.kernels(dtype, CPU))
        assert mask.shape == (1, *generator.canvas)
        np.testing.assert_allclose(mask[0], expected, rtol=0, atol=tolerance)


def test_the_constants_at_224_pixels_are_the_published_ones():
    generator = MaskGenerator((224, 224))
    assert (generator.step, generator.grid, generator.canvas) == (7, (32, 32), (260, 260))
    assert generator.kernels(torch.float32, CPU).shape == (2, 49, 16, 9, 9)
    assert MaskGenerator((512, 512)).step == 16


def test_the_visible_part_of_the_canvas_lies_a_margin_inside():
    generator = MaskGenerator((64, 96))
    canvas = torch.arange(math.prod(generator.canvas)).view(1, *generator.canvas)
    visible = generator.visible(canvas)
    assert visible.shape == (1, 64, 96)
    assert visible[0, 0, 0] == canvas[0, 6, 6]


def test_no_parameters_no_mask_and_more_give_more():
    generator = MaskGenerator((64, 64))
    kernels = generator.kernels(torch.float64, CPU)
    grid = generator.grid
    assert generator(torch.zeros(1, *grid, dtype=torch.float64), kernels).abs().max() < 1e-6
    assert generator.visible(generator(torch.ones(1, *grid, dtype=torch.float64), kernels)).min() > 0.9


def test_gradients_of_the_generator():
    generator = MaskGenerator((8, 8))
    p = torch.rand(2, *generator.grid, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernels = generator.kernels(torch.float64, CPU)
    assert torch.autograd.gradcheck(lambda q: generator(q, kernels), p.requires_grad_(), eps=1e-6, atol=1e-6)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=9, max_size=9), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(0, 3),
)
def test_the_area_penalty_is_the_sorted_one(rows, kept, spare):
    mask = torch.tensor(rows, dtype=torch.float64)
    ones = torch.full((len(rows),), kept)
    reference = torch.cat([torch.zeros(9 - kept), torch.ones(kept)]).double()
    expected = ((mask.sort(dim=1).values - reference) ** 2).mean(dim=1)
    torch.testing.assert_close(area_penalty(mask, ones, min(9, kept + spare)), expected, rtol=0, atol=1e-15)


def test_rows_may_differ_in_the_number_of_ones():
    mask = torch.rand(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = area_penalty(mask, torch.tensor([5, 20, 50]), 50)
    one_by_one = [area_penalty(mask[i : i + 1], torch.tensor([k]), k) for i, k in enumerate((5, 20, 50))]
    torch.testing.assert_close(together, torch.cat(one_by_one))


def test_equal_pixels_get_equal_gradients():
    mask = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.1, 0.9]], requires_grad=True)
    (gradient,) = torch.autograd.grad(area_penalty(mask, torch.tensor([3]), 3).sum(), mask)
    assert gradient[0, :4].unique().numel() == 1
    # 2 m - 2 r, over N: two of the three ones are shared by four pixels.
    torch.testing.assert_close(gradient[0], torch.tensor([0.0, 0.0, 0.0, 0.0, 0.2, -0.2]) / 6)


def test_gradients_of_the_area_penalty():
    mask = torch.rand(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: area_penalty(m, torch.tensor([4, 9]), 9), mask)
