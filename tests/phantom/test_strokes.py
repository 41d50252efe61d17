"""Curves on a grid: the promised peak in the middle, the same at every resolution."""

from __future__ import annotations

import numpy as np
import pytest

from cxrx.phantom.strokes import SIGMAS, Strokes


def draw(spacing: float, sigma: float, peak: float) -> np.ndarray:
    size = round(60 / spacing)
    strokes = Strokes(lambda u, v: (v / spacing, u / spacing), (size, size), spacing)
    strokes.curve(np.linspace(5, 55, 400), np.full(400, 30.0), peak, sigma)
    return strokes.render()


@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_line_has_the_promised_peak_and_profile(sigma):
    spacing = 0.2
    picture = draw(spacing, sigma, 3.0)
    profile = picture[:, picture.shape[1] // 2]
    distance = np.arange(len(profile)) * spacing - 30.0
    np.testing.assert_allclose(profile, 3.0 * np.exp(-(distance**2) / (2 * sigma**2)), atol=0.09)


def test_what_a_line_holds_does_not_depend_on_the_resolution():
    held = [draw(spacing, SIGMAS[1], 3.0).sum() * spacing**2 for spacing in (0.4, 0.8, 1.6, 3.0)]
    np.testing.assert_allclose(held, 3.0 * np.sqrt(2 * np.pi) * SIGMAS[1] * 50, rtol=0.01)


def test_a_band_is_flat_inside_and_empty_outside():
    spacing = 0.25
    strokes = Strokes(lambda u, v: (v / spacing, u / spacing), (160, 160), spacing)
    strokes.band(np.linspace(-20, 60, 900), np.full(900, 20.0), 12.0, 5.0)
    profile = strokes.render()[:, 80]
    at = np.arange(160) * spacing - 20
    np.testing.assert_allclose(profile[np.abs(at) < 3], 5.0, rtol=0.1)
    assert profile[np.abs(at) > 11].max() < 0.05


def test_what_lies_outside_the_film_is_left_out():
    strokes = Strokes(lambda u, v: (v, u), (20, 20), 1.0)
    strokes.curve(np.linspace(-50, -30, 40), np.linspace(100, 130, 40), 5.0, SIGMAS[0])
    assert strokes.render().sum() == 0
