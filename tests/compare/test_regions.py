from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from cxrx import load_model, wrap_model
from cxrx.compare.comparison import COLUMNS
from cxrx.compare.corpus import open_corpus
from cxrx.compare.localisation.table import Scoring, shrink
from cxrx.compare.notes import Notes
from cxrx.compare.regions import mass as module
from cxrx.compare.regions.mass import METRICS, _scores
from cxrx.compare.regions.removal import on_input, painted
from cxrx.compare.run import compare
from cxrx.compare.verdict import sentences, verdict
from cxrx.engine.api import run
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.phantom import write_folder


def test_scores_by_hand():
    values = np.zeros((10, 10))
    values[0, 0], values[5, 5] = 3, 1
    mask = np.zeros((10, 10), dtype=bool)
    mask[:2, :2] = True
    assert _scores(values, mask) == {"mass": 0.75, "mass_ratio": pytest.approx(0.75 / 0.04), "hit": 1.0}
    assert np.isnan(list(_scores(np.ones((10, 10)), mask).values())).all()
    assert np.isnan(list(_scores(-values, mask).values())).all()  # nothing speaks for the finding
    assert set(_scores(values, mask)) == set(METRICS)


def test_paint_is_the_mean_of_the_ring():
    picture = torch.zeros(1, 20, 20)
    picture[:, 8:12, 8:12] = 9.0
    place = np.zeros((20, 20), dtype=bool)
    place[8:12, 8:12] = True
    picture[:, :, 12:] = 2.0
    filled = painted(picture, place)
    assert (filled[:, ~torch.from_numpy(place)] == picture[:, ~torch.from_numpy(place)]).all()
    inside = filled[0, 8:12, 8:12]
    assert (inside == inside[0, 0]).all()
    assert 0 < inside[0, 0] < 2  # mixed of the zeros on the left and the twos on the right


def test_a_mask_is_carried_to_the_input():
    mask = np.zeros((100, 80), dtype=bool)
    mask[40:60, 20:30] = True
    affine = np.array([[2.0, 0, 0.5], [0, 2.0, 10.5]])  # input pixel (x, y) -> source (2x + .5, 2y + 10.5)
    place = on_input(mask, affine, (40, 40))
    ys, xs = np.nonzero(place)
    assert (ys.min(), ys.max()) == (14, 25)  # source rows 40..59 are input rows 14.75..24.25, and one more each side
    assert (xs.min(), xs.max()) == (9, 15)


class Cheat(nn.Module):
    """Reads nothing but what is very bright in the lower left corner, where the marker lies."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
        nn.init.constant_(self.features[0].weight, 1.0)
        nn.init.constant_(self.features[0].bias, -BRIGHT)
        self.register_buffer("corner", torch.zeros(1, 1, 64, 64))
        self.corner[:, :, 56:, :10] = 1.0

    def forward(self, x):
        evidence = (self.features(x) * self.corner).sum(dim=(2, 3))
        return torch.cat([evidence, torch.zeros_like(evidence)], dim=1)


BRIGHT = (0.6 - 0.485) / 0.229  # of a prepared pixel


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cheat")
    write_folder(folder / "films", 24, 3, size=(112, 112), shortcut="Nodule", shortcut_strength=1.0, masks=False)
    model = wrap_model(Cheat(), labels=["Nodule", "Effusion"], input_size=64, in_chans=1, cam_layer="features")
    run(model, folder / "films", ("hirescam",), folder / "results.h5", targets="truth", workers=0)
    return compare(folder / "results.h5", metrics="localisation,deletion", model=model, n_boot=100, max_pairs=4)


@pytest.mark.slow
def test_a_model_that_reads_the_marker_is_exposed(comparison):
    table = comparison.regions.set_index(["method", "region", "finding", "metric"])["value"]
    assert table["hirescam", "marker", "Nodule", "mass"] > 0.5
    assert table["hirescam", "lungs", "Nodule", "mass"] < 0.1
    assert table["hirescam", "marker", "Nodule", "mass_ratio"] > 20
    assert table["random", "marker", "Nodule", "mass_ratio"] < 3
    assert table["", "marker", "Nodule", "drop"] > 10 * abs(table["", "marker", "Nodule", "drop_mirror"])
    assert table["", "marker", "Effusion", "drop"] == 0
    assert list(comparison.regions.columns) == list(COLUMNS["regions"])


def test_the_verdict_begins_with_it(comparison):
    assert "of its relevance on the marker" in comparison.verdict[0]
    assert "painting the marker over lowers the logit" in comparison.verdict[1]
    share, loss = comparison.statements[:2]
    assert (share.kind, share.metric, loss.kind, loss.metric) == ("marker", "mass", "removal", "drop")
    assert loss.value > loss.beside[0].value


def test_an_honest_model_is_not_accused():
    rows = [
        ("m", "gradcam", "marker", "Nodule", "mass", 0.01, 0.0, 0.02, 30),
        ("m", "gradcam", "marker", "Nodule", "mass_ratio", 1.1, 0.9, 1.3, 30),
        ("m", "", "marker", "Nodule", "drop", 0.02, -0.1, 0.1, 30),
        ("m", "", "marker", "Nodule", "drop_mirror", 0.01, -0.1, 0.1, 30),
    ]
    tables = {name: pd.DataFrame(columns=list(columns)) for name, columns in COLUMNS.items()}
    tables["regions"] = pd.DataFrame(rows, columns=list(COLUMNS["regions"]))
    said = " ".join(sentence for _, sentence in sentences(verdict(tables, controls=set())))
    assert "1.1 times the marker's share" in said
    assert "reads the marker" not in said


@pytest.mark.slow
def test_the_demo_model_does_not_read_the_marker(tmp_path):
    write_folder(tmp_path / "films", 6, 3, shortcut="Effusion", shortcut_strength=1.0, masks=False)
    model = load_model("demo-densenet")
    run(model, tmp_path / "films", ("gradcam",), tmp_path / "results.h5", targets="Effusion", workers=0)
    table = compare(tmp_path / "results.h5", metrics="localisation", n_boot=0).regions
    row = table[(table["method"] == "gradcam") & (table["region"] == "marker") & (table["metric"] == "mass")]
    assert (row["value"] < 0.1).all()


def test_masks_of_regions_are_read_as_those_of_findings_are(tmp_path):
    """Any color but black counts, in 16 bits too; what is far too large is left out unread."""
    (tmp_path / "regions").mkdir()
    marked = np.zeros((4, 3, 3), np.uint8)
    marked[1, 2, 2] = 1  # blue: its luminance rounds to 0
    Image.fromarray(marked).save(tmp_path / "regions" / "a__lungs.png")
    Image.fromarray(marked.max(axis=2).astype(np.uint16)).save(tmp_path / "regions" / "b__lungs.png")
    Image.new("1", (1 << 13, (1 << 13) + 1)).save(tmp_path / "regions" / "c__lungs.png")
    notes = Notes()
    found = list(module._masks(tmp_path, {f"{name}.png": name for name in "abc"}, notes))
    notes.flush()
    assert [(name, region, np.argwhere(mask).tolist()) for name, region, mask in found] == [
        ("a", "lungs", [[1, 2]]), ("b", "lungs", [[1, 2]]),
    ]  # fmt: skip
    assert notes.warnings == ["1 masks of regions cannot be read and were left out"]


@pytest.mark.slow
def test_odd_regions_are_told_and_the_rest_is_made(tmp_path):
    write_folder(tmp_path / "films", 16, 3, size=(112, 112), shortcut="Nodule", shortcut_strength=1.0, masks=False)
    run(load_model("demo-vit"), tmp_path / "films", ("random",), tmp_path / "results.h5", targets="truth", workers=0)
    table = tmp_path / "films" / "regions.csv"
    lines = table.read_text().splitlines()
    name = lines[1].split(",")[0]
    table.write_text("\n".join([*lines, f"{name},marker,ten,1,2,3", f"{name},marker,1,2", f"{name},marker,1,2,nan,4"]))
    (tmp_path / "films" / "regions").mkdir(exist_ok=True)
    (tmp_path / "films" / "regions" / f"{Path(name).stem}__hilum.png").write_bytes(b"no picture")
    found = compare(tmp_path / "results.h5", metrics="localisation", n_boot=0)
    assert "marker" in set(found.regions["region"])
    assert "3 rows of regions.csv hold no numbers and were left out" in found.warnings
    assert "1 masks of regions cannot be read and were left out" in found.warnings
    assert compare(tmp_path / "results.h5", metrics="agreement", n_boot=0).regions.empty  # nobody asked


def test_many_regions_are_looked_up_by_film(tmp_path, monkeypatch):
    """Each region of a film is brought to the grid once, whatever the number of maps and of other films."""
    write_folder(tmp_path / "films", 4, 3, size=(112, 112), shortcut="Nodule", shortcut_strength=1.0, masks=False)
    model = load_model("demo-densenet")
    run(model, tmp_path / "films", ("random", "gradcam"), tmp_path / "results.h5", targets="all", workers=0)
    calls = []
    monkeypatch.setattr(module, "shrink", lambda mask, shape: calls.append(shape) or shrink(mask, shape))
    with open_corpus([tmp_path / "results.h5"]) as corpus:
        regions = module.read_regions(corpus, Notes())
        bootstrap = PatientBootstrap([film.patient for film in corpus.films.values()], 0, 0)
        table = module.mass_in_regions(corpus, regions, Scoring(), {}, bootstrap)
    assert len(table)
    assert len(calls) == sum(map(len, regions.values()))
