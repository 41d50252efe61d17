"""Negatives are found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxrx.reading.polarity import contrast, looks_negative
from cxrx.specs import Film

SAMPLES = Path(__file__).parents[2] / "sample_data"


def chest(rows: int = 256, columns: int = 240) -> np.ndarray:
    """Two dark ellipses in something grey."""
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    lungs = np.minimum(*(((x - c) / 0.14) ** 2 + ((y - 0.45) / 0.32) ** 2 for c in (0.3, 0.7))) < 1
    return np.where(lungs, 40, 180).astype(np.uint8)


def test_modes(make):
    upright, negative = make.png(chest()), make.png(255 - chest())
    for mode in ("header", "report", "auto"):
        assert make.read(upright, "cxrx/image", polarity=mode).flags == ()
    left, reported, righted = (make.read(negative, "cxrx/image", polarity=m) for m in ("header", "report", "auto"))
    assert left.flags == ()
    assert reported.flags == ("polarity: looks like a negative, left as it is",)
    assert righted.flags == ("polarity: looks like a negative, inverted",)
    np.testing.assert_array_equal(reported.pixels, left.pixels)
    np.testing.assert_allclose(righted.pixels, chest() / 255, atol=1e-6)
    assert all(looks_negative(film) for film in (left, reported, righted))


def test_side_views_cannot_be_told(make):
    pixels = 255 - chest()
    assert not looks_negative(make.read(make.film(pixels, ViewPosition="LL"), views=("all",)))
    assert looks_negative(make.read(make.film(pixels)))


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (5, 5), (3000, 20)])
def test_any_shape_will_do(shape):
    assert np.isfinite(contrast(np.random.default_rng(0).random(shape, np.float32)))


def test_real_films(make, realdata):
    found = set()
    for path in sorted((realdata / "nih_cxr14" / "images").glob("*.png")):
        film = make.read(path.read_bytes(), "cxrx/image", polarity="report")
        assert isinstance(film, Film)
        if looks_negative(film):
            found.add(path.stem)
        assert bool(film.flags) == looks_negative(film)
    assert found == {"00017625_000", "00017999_000"}
    negatives = [p.name for p in (realdata / "dicom").glob("*.dcm") if looks_negative_file(make, p)]
    assert negatives == ["Fake_MONOHR1.dcm"]


def test_sample_films(make):
    films = [make.read(p.read_bytes()) for p in sorted(SAMPLES.glob("films/*.dcm"))]
    assert len(films) >= 20
    assert all(isinstance(f, Film) and f.synthetic and not looks_negative(f) and not f.flags for f in films)


def looks_negative_file(make, path) -> bool:
    film = make.read(path.read_bytes())
    return isinstance(film, Film) and looks_negative(film)
