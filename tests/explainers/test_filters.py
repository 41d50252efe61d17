from __future__ import annotations

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter

from cxrx.explainers.filters import gaussian_blur


@pytest.mark.parametrize("sigma", [0.5, 1.7, 6.0])
def test_the_blur_is_scipys_with_zeros_around(sigma):
    x = torch.randn(2, 3, 17, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    radius = math.ceil(4 * sigma)
    expected = gaussian_filter(x.numpy(), sigma, mode="constant", axes=(2, 3), radius=radius)
    torch.testing.assert_close(gaussian_blur(x, sigma), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_no_blur_is_the_picture_itself():
    x = torch.randn(1, 5, 5)
    assert gaussian_blur(x, 0) is x


def test_float32_stays_float32():
    assert gaussian_blur(torch.ones(4, 4), 1.0).dtype == torch.float32
