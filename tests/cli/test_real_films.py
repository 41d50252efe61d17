"""The main job on real films: 60 NIH PNGs and four DICOMs, where they lie beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import cxrx
from cxrx.cli import app

REALDATA = Path(__file__).resolve().parents[3] / "shared" / "realdata"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REALDATA.is_dir(), reason="the real films are not beside this checkout"),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Predict, explain and compare once; return the results file and what was said."""
    out = tmp_path_factory.mktemp("real") / "results.h5"
    said = {}
    boxes = REALDATA / "nih_cxr14" / "BBox_List_2017_subset.csv"
    for words in (
        ("predict", REALDATA, "-o", out, "--polarity", "report", "--device", "cpu"),
        ("explain", out, "--method", "gradcam", "--targets", "all", "--device", "cpu"),
        ("compare", out, "--truth", boxes, "--n-boot", "50", "--json"),
    ):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output + result.stderr
        said[words[0]] = result
    return out, said


def test_every_film_is_processed_and_odd_ones_are_told(done):
    out, said = done
    with cxrx.open_results(out) as results:
        images = results.images().set_index("image_id")
        private = results.private().set_index("image_id")
        images["name"] = private["relative"]
        (slug,) = results.models()
        finite = np.isfinite(results.logits(slug)).all(axis=1)
    processed = images[images["status"].isin(["ok", "flagged"])]
    assert processed["name"].str.endswith(".png").sum() == 60
    assert processed["name"].str.endswith(".dcm").sum() == 3
    assert finite.sum() == 63
    (leg,) = images.index[images["name"].str.contains("RG3")]
    assert images["status"][leg] == "skipped"
    assert "not a chest" in images["message"][leg]
    conflicting = images[images["message"].str.contains("conflict")]
    assert sorted(conflicting["name"].str.contains("Fake_MONOHR1")) == [False, True]
    negatives = images[images["message"].str.contains("polarity")]["name"]
    assert set(negatives[negatives.str.endswith(".png")]) == {
        "nih_cxr14/images/00017625_000.png",
        "nih_cxr14/images/00017999_000.png",
    }
    assert "DEMO" in said["predict"].stderr
    assert "63 of these films were not made by `cxrx phantom`" in said["predict"].stderr


def test_patients_follow_the_table_and_tell_nothing(done):
    out, _ = done
    with cxrx.open_results(out) as results:
        images = results.images()
    assert (images["patient"] <= images["image_id"]).all()
    assert set(images["patient"]) <= set(images["image_id"])


def test_truth_is_found_beside_the_films(done):
    out, _ = done
    with cxrx.open_results(out) as results:
        labels, boxes = results.labels(), results.boxes()
    assert (labels != -2).any(axis=1).sum() == 60
    assert boxes["image_id"].nunique() == 12
    assert "Infiltration" in set(labels.columns)
    assert "Infiltrate" not in set(labels.columns)


def test_the_comparison_has_the_control_rows(done):
    _, said = done
    comparison = json.loads(said["compare"].stdout)
    methods = {row["method"] for row in comparison["summary"]}
    assert {"gradcam", "centre", "random"} <= methods
    assert comparison["demo"]


def test_a_lut_film_and_an_inverted_one_are_the_right_way_up(done):
    """Lungs are darker than the mediastinum on RG1 (MONOCHROME1, JPEG 2000, window)."""
    from cxrx.reading.find import find
    from cxrx.reading.options import ReadOptions
    from cxrx.reading.readers import read_films

    (item,) = find([REALDATA / "dicom" / "RG1_J2KI.dcm"])
    (film,) = read_films(item, ReadOptions())
    rows, columns = film.pixels.shape
    middle = film.pixels[rows // 3 : rows // 2, int(0.45 * columns) : int(0.55 * columns)].mean()
    lung = film.pixels[rows // 3 : rows // 2, int(0.22 * columns) : int(0.35 * columns)].mean()
    assert middle > lung + 0.1
