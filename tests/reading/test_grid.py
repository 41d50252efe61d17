"""CLAHE and ten crops on the input grid: against formulas, OpenCV and torchvision."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from cxrx.reading.prepare import equalise, on_grid, place, resample, ten_crops
from cxrx.specs import InputSpec

SPEC = InputSpec(size=(32, 32), resize=40, clahe=(4.0, 7, 7))


def film(rows, columns):
    y, x = np.mgrid[:rows, :columns] / (rows, columns, 1)[:2][0]
    noise = np.random.default_rng(0).random((rows, columns))
    return (0.3 * y + 0.2 * x + 0.2 * noise).clip(0, 1).astype(np.float32)


def test_one_tile_without_a_limit_is_plain_equalisation():
    pixels = film(40, 40)
    grey = np.round(pixels * 255).astype(int)
    share = np.cumsum(np.bincount(grey.ravel(), minlength=256)) / grey.size
    np.testing.assert_allclose(equalise(pixels, (0.0, 1, 1)), share[grey], atol=1.01 / 255)


def test_the_limit_keeps_the_contrast_down():
    pixels = film(64, 64) * 0.1 + 0.4
    assert equalise(pixels, (1.0, 2, 2)).std() < equalise(pixels, (40.0, 2, 2)).std()
    assert equalise(pixels, (4.0, 2, 2)).std() > pixels.std()


@pytest.mark.parametrize("shape", [(50, 50), (45, 61), (70, 52)])
def test_clahe_comes_after_the_resize_and_before_the_crop(shape):
    pixels = film(*shape)
    short = min(shape)
    size = int(40 * shape[1] / short), int(40 * shape[0] / short)
    whole = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    grey = np.round(whole.clip(0, 1) * 255).astype(np.uint8)
    expected = cv2.createCLAHE(4.0, (7, 7)).apply(grey) / 255
    top, left = round((size[1] - 32) / 2), round((size[0] - 32) / 2)
    got = on_grid(pixels, place(*shape, SPEC), SPEC)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected[top : top + 32, left : left + 32], atol=1e-6)
    rows, columns = equalise(whole, (4.0, 2, 5)), equalise(whole, (4.0, 5, 2))
    np.testing.assert_allclose(rows, cv2.createCLAHE(4.0, (5, 2)).apply(grey) / 255, atol=1e-6)  # (width, height)
    assert not np.allclose(rows, columns)


@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
def test_black_beside_the_film_stays_black_and_is_not_counted(fit):
    spec = replace(SPEC, fit=fit, resize=None)
    pixels = film(40, 20)
    got = on_grid(pixels, place(40, 20, spec), spec)
    plain = resample(pixels, place(40, 20, spec), spec)
    inside = np.s_[:, 8:24] if fit == "pad" else np.s_[:, :]
    np.testing.assert_allclose(got[inside], equalise(plain[inside], SPEC.clahe), atol=1e-6)
    if fit == "pad":
        assert not got[:, :8].any()
        assert not got[:, 24:].any()


def test_a_film_resized_smaller_than_the_grid_lies_in_its_middle():
    spec = replace(SPEC, resize=20)
    pixels = film(40, 50)
    got = on_grid(pixels, place(40, 50, spec), spec)
    assert got.shape == (32, 32)
    assert got[6:26, 4:29].any(axis=0).all()
    assert not got[:6].any()
    assert not got[26:].any()
    plain = replace(spec, clahe=None)
    assert ((on_grid(pixels, place(40, 50, plain), plain) > 0) == (got > 0)).all()


@pytest.mark.parametrize("shape", [(40, 40), (40, 53), (47, 40)])
def test_the_ten_crops_are_torchvisions(shape):
    import torch
    from torchvision.transforms import v2

    pixels = film(*shape)
    expected = torch.stack(v2.TenCrop((32, 30))(torch.from_numpy(pixels)))
    assert (ten_crops(pixels, (32, 30)) == expected.numpy()).all()


def test_the_crop_without_either_is_as_it_was_up_to_its_edge():
    """Pillow resamples a box as if nothing lay beyond it, so the outermost pixels differ a little."""
    pixels = film(60, 80)
    spec = replace(SPEC, clahe=None, crops=10)
    one = replace(spec, crops=1)
    ten, single = on_grid(pixels, place(60, 80, spec), spec), on_grid(pixels, place(60, 80, one), one)
    np.testing.assert_allclose(ten[4][1:-1, 1:-1], single[1:-1, 1:-1], atol=2e-3)


def test_reading_does_without_opencv_until_it_is_asked_for():
    code = "import sys, cxrx.reading.prepare\nassert 'cv2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
