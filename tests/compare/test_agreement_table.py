from __future__ import annotations

import numpy as np
import pytest

from cxrx.compare.agreement import _framed, _right, agreement
from cxrx.compare.corpus import FilmInfo, ModelData, open_corpus
from cxrx.compare.notes import Notes
from cxrx.compare.run import compare
from cxrx.compare.single import SingleMetrics
from cxrx.metrics.agreement import GRID, common_grid
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.specs import MetricSpec

FILM = FilmInfo("a", "a", 400, 300, False)


def model(size, affine):
    own = ModelData("m", ("Mass",), size, False, {})
    own.affine["a"] = np.array(affine)
    return own


def smooth(rows, columns):
    """Return a picture of 400 x 300 as a function, sampled at the centres of the cells of a grid over a part of it."""
    return np.sin(np.asarray(rows) / 60)[:, None] + np.cos(np.asarray(columns) / 45)[None, :]


def test_models_that_saw_other_parts_of_a_film_are_compared_at_the_same_places():
    """One saw the whole film, stretched; the other the 300 pixels in its middle."""
    whole = model((32, 32), [[300 / 32, 0, (300 / 32 - 1) / 2], [0, 400 / 32, (400 / 32 - 1) / 2]])
    middle = model((60, 60), [[5.0, 0, 2.0], [0, 5.0, 52.0]])
    cells = np.arange(50) + 0.5
    of_whole = smooth(cells * 8 - 0.5, cells * 6 - 0.5)  # the same picture, each in its own frame
    of_middle = smooth(cells * 6 - 0.5 + 50, cells * 6 - 0.5)
    same = _framed(of_whole, whole, middle, FILM)
    np.testing.assert_allclose(same[2:-2, 2:-2], common_grid(of_middle)[2:-2, 2:-2], atol=0.02)
    assert np.abs(common_grid(of_whole) - common_grid(of_middle)).max() > 0.5
    back = _framed(of_middle, middle, whole, FILM)
    assert (back[:7] == 0).all()  # the top 50 pixels, which it never saw
    np.testing.assert_allclose(back[10:-10, 2:-2], common_grid(of_whole)[10:-10, 2:-2], atol=0.02)


def test_equal_frames_and_imported_maps_are_not_resampled():
    one, imported = model((32, 32), [[2.0, 0, 0.5], [0, 2.0, 0.5]]), ModelData("i", (), None, False, {})
    grid = np.random.default_rng(0).random((7, 7))
    np.testing.assert_array_equal(_framed(grid, one, one, FILM), common_grid(grid))
    np.testing.assert_array_equal(_framed(grid, imported, imported, FILM), common_grid(grid))
    assert _framed(grid, imported, one, FILM).shape == (GRID, GRID)


def test_models_are_compared_where_none_is_wrong(tiny):
    """A wrong answer may well come from another place of the film; an unknown label excludes nothing."""
    with open_corpus([tiny.results]) as corpus:
        own = corpus.models["tiny@01234567"]
        everything = {pair for pair in own.pairs() if own.source("gradcam", pair) is not None}
        wrong = {pair for pair in everything if own.outcome(pair, corpus.labels[pair[0]].get(pair[1])) in {"FP", "FN"}}
        assert wrong
        assert _right(corpus, own, "gradcam") == everything - wrong
        corpus.labels.clear()
        assert _right(corpus, own, "gradcam") == everything


def test_signed_maps_are_compared_as_they_are_stored(tiny):
    raw, published = (
        compare(tiny.results, metrics="agreement", n_boot=0, signed=signed).agreement for signed in (True, False)
    )
    both = raw.merge(published, on=["method_a", "method_b", "finding", "metric"])
    cam = both["method_a"] == "gradcam"  # the only one with a ReLU
    assert (both["value_x"] != both["value_y"])[cam].any()
    assert both["value_x"][~cam].equals(both["value_y"][~cam])


def test_metrics_of_plugins_stand_beside_ours(tiny):
    def compute(a, b):
        if int(abs(a.sum() + b.sum()) * 1e3) % 3 == 0:
            raise KeyError("{'odd': 1}")
        return {"distance": float(np.abs(a - b).mean())}

    notes = Notes()
    with open_corpus([tiny.results]) as corpus:
        bootstrap = PatientBootstrap([film.patient for film in corpus.films.values()], 0, 0)
        spec = MetricSpec("own/distance", "agreement", compute)
        single = SingleMetrics({spec.name: spec}, {}, notes)
        table = agreement(corpus, bootstrap, 0, ("spearman",), notes, single=single).methods
        pair = ("tiny@01234567", (tiny.ids[3], "Mass"))
        values = {
            name: common_grid(corpus.read(corpus.models[pair[0]], name, [pair[1]])[pair[1]]).astype(np.float32)
            for name in ("gradcam", "smoothgrad")
        }
    rows = table[(table["metric"] == "distance") & (table["finding"] == "all")]
    assert len(rows) == 6
    assert rows["random_pair"].notna().all()
    row = rows[(rows["method_a"] == "gradcam") & (rows["method_b"] == "smoothgrad")].iloc[0]
    assert 0 < row["n"] < 21
    assert row["value"] == pytest.approx(np.abs(values["gradcam"] - values["smoothgrad"]).mean(), rel=0.3)
    notes.flush()
    assert any("own/distance failed on" in said and "KeyError" in said for said in notes.warnings)


def test_a_note_may_hold_braces():
    notes = Notes()
    for _ in range(2):
        notes.count("a metric failed on {n} maps ({'odd': 1} and {0})")
    notes.flush()
    assert notes.warnings == ["a metric failed on 2 maps ({'odd': 1} and {0})"]
    notes.skip("edge", "gone")
    notes.skip("edge", "gone")
    assert notes.skipped == [("edge", "gone")]
