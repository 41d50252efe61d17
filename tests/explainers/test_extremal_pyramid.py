from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cxrx.explainers.extremal_pyramid import BlurPyramid, Fade


@pytest.fixture
def pictures():
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_pyramid_is_the_formula(pictures):
    sigma = 20 * 32 / 224
    levels = []
    for level in range(8):
        s = sigma * (1 - level / 7)
        radius = int(np.ceil(4 * s))
        blurred = gaussian_filter(pictures.numpy(), s, mode="constant", axes=(2, 3), radius=radius) if s else pictures
        levels.append(np.asarray(blurred))
    mask = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    which = torch.tensor([1, 0, 1])
    ours = BlurPyramid(pictures)(mask, which)
    for row, m, picture in zip(ours, mask.numpy(), which, strict=True):
        low = np.floor(7 * m).astype(int)
        part = 7 * m - low
        stack = np.stack([level[picture] for level in levels])  # (8, C, H, W)
        y, x = np.indices(m.shape)
        expected = (1 - part) * stack[low, :, y, x].transpose(2, 0, 1) + part * stack[low + 1, :, y, x].transpose(
            2, 0, 1
        )
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_a_full_mask_leaves_the_picture_and_an_empty_one_the_strongest_blur(pictures):
    pyramid = BlurPyramid(pictures)
    which = torch.tensor([0, 1])
    torch.testing.assert_close(pyramid(torch.ones(2, 32, 48, dtype=torch.float64), which), pictures)
    blurred = pyramid(torch.zeros(2, 32, 48, dtype=torch.float64), which)
    assert (blurred.std(dim=(1, 2, 3)) < 0.2 * pictures.std(dim=(1, 2, 3))).all()


def test_a_faded_picture_is_the_picture_times_the_mask(pictures):
    mask = torch.rand(2, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(Fade(pictures)(mask, torch.tensor([1, 1])), mask[:, None] * pictures[[1, 1]])


@pytest.mark.parametrize("perturbation", [BlurPyramid, Fade])
def test_gradients(pictures, perturbation):
    perturb = perturbation(pictures[:, :, :6, :6])
    # Away from multiples of 1/7, where the slope jumps.
    mask = ((torch.arange(36) % 7 + 0.5) / 7).view(1, 6, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda m: perturb(m, torch.tensor([1])), mask)
