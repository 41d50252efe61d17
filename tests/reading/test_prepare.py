"""Geometry: what lands on the input grid, and the way back to source pixels."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxrx.reading import readers
from cxrx.reading.find import find
from cxrx.reading.item import Item
from cxrx.reading.options import ReadOptions
from cxrx.reading.prepare import Prepared, place, prepare, prepare_item
from cxrx.reading.readers import read_films
from cxrx.specs import Film, InputSpec, ReaderSpec, Unreadable

sides = st.integers(8, 96)
specs = st.builds(
    InputSpec,
    size=st.tuples(st.integers(8, 48), st.integers(8, 48)),
    resize=st.one_of(st.none(), st.integers(6, 64)),
    fit=st.sampled_from(["crop", "pad", "stretch"]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)


def to_source(prepared: Prepared, x: float, y: float) -> np.ndarray:
    return prepared.affine @ [x, y, 1]


ITEM = Item(Path("/film"), "film", 0, 0, "cxrx/image")


def film(pixels: np.ndarray) -> Film:
    return Film(pixels.astype(np.float32), "0" * 64)


@settings(max_examples=300, deadline=None)
@given(rows=sides, columns=sides, spec=specs, data=st.data())
def test_a_blob_maps_back_to_where_it_was(rows, columns, spec, data):
    """The centroid on the grid, taken through the affine, is the centroid in the source (antialiasing keeps means)."""
    placement = place(rows, columns, spec)
    inverse = np.linalg.inv(np.vstack([placement.affine(), [0, 0, 1]]))
    x = data.draw(st.integers(2, columns - 3))
    y = data.draw(st.integers(2, rows - 3))
    u, v, _ = inverse @ [x, y, 1]
    reach = 3 * max(1, 1 / placement.sx, 1 / placement.sy) + 2
    if not (placement.left + reach < u < placement.right - 1 - reach):
        return
    if not (placement.top + reach < v < placement.bottom - 1 - reach):
        return
    source = np.zeros((rows, columns))
    source[y - 1 : y + 2, x - 1 : x + 2] = 1
    grid = prepare(ITEM, film(source), spec)
    mass = grid.pixels.astype(float)
    assert mass.sum() > 0
    rows_of, columns_of = np.mgrid[: spec.size[0], : spec.size[1]]
    centre = to_source(grid, (mass * columns_of).sum() / mass.sum(), (mass * rows_of).sum() / mass.sum())
    # within half a grid cell of the source: sampling a three-pixel blob moves its centroid by less
    assert abs(centre[0] - x) < 0.5 * max(placement.sx, 1)
    assert abs(centre[1] - y) < 0.5 * max(placement.sy, 1)


@settings(max_examples=200, deadline=None)
@given(rows=sides, columns=sides, spec=specs)
def test_a_ramp_reads_its_own_coordinates(rows, columns, spec):
    """Resizing keeps linear functions, so away from the border each grid pixel holds its own source coordinate."""
    source_y, source_x = np.mgrid[:rows, :columns]
    for ramp, axis, length in ((source_x, 0, columns), (source_y, 1, rows)):
        grid = prepare(ITEM, film(ramp / length), spec)
        ys, xs = np.mgrid[: spec.size[0], : spec.size[1]]
        where = np.stack([to_source(grid, x, y) for x, y in zip(xs.ravel(), ys.ravel(), strict=True)], 1)
        margin = 3 * max(grid.affine[0, 0], grid.affine[1, 1], 1)
        inside = (where[0] > margin) & (where[0] < columns - 1 - margin)
        inside &= (where[1] > margin) & (where[1] < rows - 1 - margin)
        placement = place(rows, columns, spec)
        shown = (xs >= placement.left) & (xs < placement.right) & (ys >= placement.top) & (ys < placement.bottom)
        inside &= shown.ravel()
        np.testing.assert_allclose(grid.pixels.ravel()[inside] * length, where[axis][inside], atol=0.35)


@settings(max_examples=300, deadline=None)
@given(rows=sides, columns=sides, spec=specs)
def test_the_grid_covers_what_its_fit_promises(rows, columns, spec):
    height, width = spec.size
    grid = prepare(ITEM, film(np.ones((rows, columns))), spec)
    assert grid.pixels.shape == spec.size
    assert grid.pixels.dtype == np.float32
    assert (grid.record.rows, grid.record.columns) == (rows, columns)
    sx, sy = grid.affine[0, 0], grid.affine[1, 1]
    left, top = to_source(grid, -0.5, -0.5) + 0.5
    right, bottom = to_source(grid, width - 0.5, height - 0.5) + 0.5
    if spec.fit == "stretch":
        np.testing.assert_allclose([left, top, right, bottom], [0, 0, columns, rows], atol=1e-9)
    elif spec.fit == "pad":
        assert left <= sx
        assert top <= sy
        assert right >= columns - sx
        assert bottom >= rows - sy
    elif spec.resize is None:
        assert sx == sy
        assert min(left, top) >= -1e-9
        assert right <= columns + 1e-9
        assert bottom <= rows + 1e-9
        assert min(left, top) < 1e-9  # nothing is cut on one axis
    np.testing.assert_allclose([left + right, top + bottom], [columns, rows], atol=max(sx, sy) + 1e-9)  # centred
    lit = grid.pixels > 0.5
    if spec.fit != "pad" and (spec.resize is None or spec.resize >= max(spec.size) or spec.fit == "stretch"):
        assert lit.all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (150, 150)])
def test_equal_to_antialiased_pillow_and_torch(interpolation, shape):
    """Resize(64), CenterCrop(56), as torchvision does it on tensors and on pictures."""
    rng = np.random.default_rng(0)
    smooth = F.interpolate(torch.tensor(rng.random((1, 1, 40, 40))), shape, mode="bicubic", align_corners=False)
    source = smooth.clamp(0, 1)[0, 0].numpy().astype(np.float32)
    grid = prepare(ITEM, film(source), InputSpec((56, 56), resize=64, interpolation=interpolation))
    short = min(shape)
    new = (int(64 * shape[0] / short), int(64 * shape[1] / short))
    top, left = round((new[0] - 56) / 2), round((new[1] - 56) / 2)
    crop = np.s_[top : top + 56, left : left + 56]
    theirs = F.interpolate(torch.tensor(source)[None, None], new, mode=interpolation, antialias=True)[0, 0].numpy()
    np.testing.assert_allclose(grid.pixels, theirs.clip(0, 1)[crop], atol=2e-3 if interpolation == "bicubic" else 1e-4)
    resampling = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    pillow = np.asarray(Image.fromarray(source).resize((new[1], new[0]), resampling))
    np.testing.assert_allclose(grid.pixels, pillow.clip(0, 1)[crop], atol=1e-5)


def test_without_a_resize_the_crop_fills_the_grid():
    source = np.random.default_rng(0).random((120, 100), np.float32)
    grid = prepare(ITEM, film(source), InputSpec((50, 50)))
    pillow = np.asarray(Image.fromarray(source).resize((50, 50), Image.Resampling.BILINEAR, box=(0, 10, 100, 110)))
    np.testing.assert_allclose(grid.pixels, pillow, atol=1e-6)


def test_the_same_size_is_the_same_picture():
    source = np.random.default_rng(0).random((32, 32), np.float32)
    for fit in ("crop", "pad", "stretch"):
        grid = prepare(ITEM, film(source), InputSpec((32, 32), fit=fit))
        np.testing.assert_allclose(grid.pixels, source, atol=1e-6)
        np.testing.assert_array_equal(grid.affine, [[1, 0, 0], [0, 1, 0]])


def test_padding_is_black():
    grid = prepare(ITEM, film(np.ones((100, 50))), InputSpec((64, 64), fit="pad"))
    assert not grid.pixels[:, :16].any()
    assert not grid.pixels[:, 48:].any()
    assert (grid.pixels[:, 16:48] > 0.99).all()


def test_prepare_item_on_real_films(realdata):
    items = [i for i in find([realdata / "nih_cxr14" / "images"]) if isinstance(i, Item)]
    assert len(items) == 60
    (grid,) = prepare_item(items[0], InputSpec((64, 64)), ReadOptions())
    assert isinstance(grid, Prepared)
    assert (grid.image_id, grid.record.rows, grid.record.columns) == (grid.record.sha256[:16], 1024, 1024)
    np.testing.assert_allclose(grid.affine, [[16, 0, 7.5], [0, 16, 7.5]])
    again = pickle.loads(pickle.dumps(grid))
    np.testing.assert_array_equal(again.pixels, grid.pixels)


def test_unreadables_pass_through(make, tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(make.film()[:-100])
    (item,) = find([path])
    (result,) = prepare_item(item, InputSpec(), ReadOptions())
    assert isinstance(result, Unreadable)


def test_a_negative_is_marked(make, tmp_path):
    pixels = np.full((100, 100), 200, np.uint8)
    pixels[40:80, 46:58] = 20
    item = Item(Path("/x"), "x", 0, 0, "cxrx/image", data=make.png(pixels))
    for mode in ("header", "report", "auto"):
        (grid,) = prepare_item(item, InputSpec((20, 20)), ReadOptions(polarity=mode))
        assert grid.negative
        assert bool(grid.record.message) == (mode != "header")


# ---------------------------------------------------------------------------------------------------------------------
# Third-party readers


def third_party(monkeypatch, tmp_path, open_):
    registries = SimpleNamespace(readers={"me/raw": ReaderSpec("raw", lambda p, h: True, open_)})
    monkeypatch.setattr(readers, "load_registry", lambda: registries)
    path = tmp_path / "a.raw"
    path.write_bytes(b"raw")
    return list(read_films(Item(path, "a.raw", 3, 0, "me/raw"), ReadOptions()))


def test_films_of_a_plugin(monkeypatch, tmp_path):
    pixels = np.linspace(0, 1, 200, dtype=np.float64).reshape(10, 20)
    first, second = third_party(
        monkeypatch, tmp_path, lambda path: iter([Film(pixels, ""), Unreadable("failed", "odd", "odd")])
    )
    assert len(first.sha256) == 64
    assert first.pixels.dtype == np.float32
    assert (second.code, len(second.sha256)) == ("odd", 64)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2, 3)), np.full((2, 2), 2.0), np.full((2, 2), np.nan), np.zeros((0, 5))], ids=str
)
def test_pixels_out_of_contract_fail(monkeypatch, tmp_path, pixels):
    (result,) = third_party(monkeypatch, tmp_path, lambda path: iter([Film(pixels, "")]))
    assert (result.kind, result.code) == ("failed", "reader")


def test_a_plugin_that_raises_fails_its_file_and_keeps_what_came_before(monkeypatch, tmp_path):
    good = Film(np.eye(5, dtype=np.float32), "")
    results = third_party(monkeypatch, tmp_path, lambda path: itertools.chain([good], (1 / 0 for _ in range(1))))
    assert isinstance(results[0], Film)
    assert (results[1].code, results[1].message) == ("reader", "reader me/raw failed (ZeroDivisionError)")
    assert results[0].sha256 != results[1].sha256  # else it would count as the same film once more
