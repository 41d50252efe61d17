"""Which protocol scores which maps, at which size, and how it is said."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from cxrx.cli import app
from cxrx.compare.corpus import open_corpus
from cxrx.compare.localisation.table import FAST_GRID, Scoring, Truth, shrink
from cxrx.compare.notes import Notes
from cxrx.compare.run import compare
from cxrx.errors import UsageError
from cxrx.importing.maps import import_maps


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "shown"), [("native", "rank"), ("chexlocalize", "iou"), ("arun", "auprc")])
def test_the_screen_shows_what_the_protocol_has(tiny, tmp_path, protocol, shown):
    words = ("compare", str(tiny.results), "--protocol", protocol, "--metrics", "fast", "--n-boot", "10")
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    header = done.stdout.split("localisation: mean over findings")[1].splitlines()[1]
    assert shown in header.split()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["chexlocalize", "arun"])
def test_a_published_protocol_scores_at_native_size_also_when_fast(tiny, protocol):
    fast = compare(tiny.results, metrics="fast", protocol=protocol, n_boot=0)
    assert fast.settings["grid"] is None
    slow = compare(tiny.results, metrics="localisation", protocol=protocol, n_boot=0)
    assert fast.per_pair.equals(slow.per_pair)


def test_a_box_on_the_fast_grid_lies_where_it_lies_on_the_film(tmp_path):
    """A box that is scaled covers the same cells as the box's pixels do when they are shrunk."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "maps"
    folder.mkdir()
    lines = ["path,finding,x,y,w,h,rows,columns"]
    for i in range(12):
        np.save(folder / f"film{i}__Mass.npy", rng.standard_normal((5, 4)).astype(np.float32))
        x, y, w, h = rng.integers([20, 20, 80, 80], [500, 600, 250, 300]).tolist()
        lines.append(f"film{i},Mass,{x},{y},{w},{h},1000,800")
    (folder / "boxes.csv").write_text("\n".join(lines))
    results = import_maps(folder, truth=folder / "boxes.csv", out=tmp_path / "results.h5")
    with open_corpus([results]) as corpus:
        native, fast = (Truth(corpus, Scoring(grid=grid), Notes()) for grid in (None, FAST_GRID))
        assert len(fast.pairs) == 12
        for pair in fast.pairs:
            cells, shrunk = fast.mask(pair), shrink(native.mask(pair), (224, 179))
            assert (cells & shrunk).sum() / (cells | shrunk).sum() > 0.97
            for axis in (0, 1):
                assert np.nonzero(cells)[axis].mean() == pytest.approx(np.nonzero(shrunk)[axis].mean(), abs=0.51)


@pytest.mark.slow
def test_a_protocol_by_name_is_the_one_of_the_full_suite(tiny):
    """Also of a CAM: the protocol takes the raw map, not the one after the ReLU."""
    full = compare(tiny.results, metrics="full", n_boot=0)
    named = compare(tiny.results, metrics="localisation,chexlocalize", n_boot=0)
    alone = compare(tiny.results, metrics="localisation", protocol="chexlocalize", n_boot=0)
    keys = ["method", "finding", "image_id"]
    columns = [table.per_pair.sort_values(keys, ignore_index=True) for table in (full, named, alone)]
    assert {"edge", "prior", "gradcam"} <= set(columns[0]["method"])
    for metric in ("iou", "hit"):
        column = columns[0][f"chexlocalize_{metric}"]
        assert column.notna().all()
        assert column.equals(columns[1][f"chexlocalize_{metric}"])
        assert column.equals(columns[2][metric])
    raw = columns[0][columns[0]["method"] == "gradcam"]
    assert (raw["chexlocalize_iou"] != raw["iou"]).any()


@pytest.mark.slow
def test_conventions_tell_the_form_and_only_what_was_measured(tiny):
    told = compare(tiny.results, metrics="localisation,agreement", n_boot=0).conventions
    assert "published form" in told["localisation: protocol"]
    told = compare(tiny.results, metrics="localisation,agreement", n_boot=0, signed=True).conventions
    assert "as they are stored" in told["localisation: protocol"]
    assert "as they are stored" in told["agreement: maps"]
    full = compare(tiny.results, metrics="full", protocol="chexlocalize", n_boot=0)
    named = {name.removeprefix("localisation: ") for name in full.conventions if name.startswith("localisation: ")}
    assert {"iou", "hit", "arun_auprc"} <= named & set(full.per_pair.columns)
    others = ("protocol", "protocol arun", "interval", "controls", "skill", "confusion")
    assert not named - set(full.per_pair.columns) - set(others)
    assert not any("{" in text for text in full.conventions.values())


def test_a_constant_map_does_not_win_by_trapezoids(make_tiny):
    own = make_tiny()
    with h5py.File(own.results, "r+") as file:
        file["maps/tiny@01234567/gradcam/values"][...] = -1.0  # the ReLU leaves nothing
    found = compare(own.results, metrics="localisation", protocol="arun", n_boot=50)
    means = found.summary.query("finding == 'all' and metric == 'auprc'").set_index("method")["value"]
    assert means.idxmax() == "gradcam"  # (1 + share) / 2
    assert found.verdict[0].startswith("smoothgrad overlaps the finding best: average precision")
    assert not any("gradcam is better" in said for said in found.verdict)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"n_boot": -1}, "at least 10"), ({"n_boot": 1}, "at least 10"), ({"metrics": ""}, "no metric is named"),
     ({"metrics": []}, "no metric is named")],
)  # fmt: skip
def test_too_little_to_do_is_refused(tiny, options, told):
    with pytest.raises(UsageError, match=told):
        compare(tiny.results, **options)
