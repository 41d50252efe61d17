from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cxrx.compare.corpus import Corpus
from cxrx.errors import UsageError
from cxrx.export.films import Films
from cxrx.export.overlay import Case, blend, draw_cases, peak, relative, scaled_boxes, thumbnail_shape
from cxrx.export.specs import BUILTIN_EXPORTERS
from cxrx.results.reader import open_results

PNG = BUILTIN_EXPORTERS[2]


def test_nothing_is_laid_over_where_a_map_is_not_positive():
    film = np.linspace(0, 1, 64).reshape(8, 8)
    grey = np.round(film * 255).astype(np.uint8)
    values = np.full((8, 8), -1.0)
    values[2, 3] = 1
    rgb = blend(film, values)
    away = np.ones((8, 8), bool)
    away[2, 3] = False
    np.testing.assert_array_equal(rgb[away], np.repeat(grey[away][:, None], 3, axis=1))
    assert (rgb[2, 3] != grey[2, 3]).any()
    np.testing.assert_array_equal(blend(film, None), np.repeat(grey[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(blend(film, np.full((4, 4), np.nan)), blend(film, None))


def test_scale_of_a_map_does_not_matter():
    film, values = np.random.default_rng(0).random((2, 16, 16))
    np.testing.assert_array_equal(blend(film, values), blend(film, values * 1e-6))
    assert relative(values).max() == 1


def test_peak_names_no_place_where_there_is_none():
    assert peak(np.zeros((4, 4))) is None
    assert peak(np.full((4, 4), np.nan)) is None
    assert peak(np.pad([[3.0]], ((0, 4), (4, 0)))) == (0, 4)


def test_thumbnails_keep_their_proportions():
    assert thumbnail_shape(1841, 1955, 512) == (482, 512)
    assert thumbnail_shape(100, 50, 512) == (100, 50)
    assert thumbnail_shape(5000, 1, 512) == (512, 1)
    assert scaled_boxes([[10, 20, 30, 40]], (200, 100), (100, 50)) == [(5, 10, 15, 20)]


def test_one_png_a_map(make_tiny, tmp_path):
    own = make_tiny(n=3)
    with open_results(own.results) as results:
        PNG.write(results, tmp_path / "png", methods=["gradcam"], longest=120)
    files = sorted((tmp_path / "png").iterdir())
    assert len(files) == 3 + 2  # Mass on each, effusion on every second
    assert files[0].name.endswith("tiny@01234567_gradcam.png")
    picture = np.asarray(Image.open(files[0]).convert("RGB")).astype(int)
    colourful = (picture.max(axis=2) - picture.min(axis=2)) > 60
    assert 0.01 < colourful.mean() < 0.5


def test_grid_and_moved_films(make_tiny, tmp_path):
    own = make_tiny(n=3)
    moved = tmp_path / "elsewhere"
    own.films.rename(moved)
    with open_results(own.results) as results:
        with pytest.raises(UsageError, match="none of the films"):
            PNG.write(results, tmp_path / "png")
        PNG.write(results, tmp_path / "png", films=Films(Corpus([results]), moved), grid=True, findings=["Mass"])
    assert len(list((tmp_path / "png").iterdir())) == 3


def test_no_such_maps(tiny, tmp_path):
    with open_results(tiny.results) as results, pytest.raises(UsageError, match="no such maps"):
        PNG.write(results, tmp_path / "png", methods=["lime"])


def test_a_mask_is_drawn_as_its_contour_and_the_facts_stand_below_the_film():
    outline = np.zeros((32, 32))
    outline[8:16, 8:24] = 1
    panels = {"m": np.eye(32)}
    case = Case("Mass", np.zeros((32, 32)), panels, outline=outline, facts=("probability 0.93",))
    figure = draw_cases([case])
    film, shown = figure.axes[:2]
    assert film.get_xlabel() == "probability 0.93"
    for axis in (film, shown):
        paths = [path for drawn in axis.collections for path in drawn.get_paths() if len(path)]
        x, y = np.concatenate([path.vertices for path in paths]).T
        assert (x.min(), x.max(), y.min(), y.max()) == (7.5, 23.5, 7.5, 15.5)  # between the pixels in and out
    assert not figure.axes[0].patches
