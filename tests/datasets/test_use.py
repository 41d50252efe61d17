"""Predict, explain and compare find the truth of a data set by themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import cxrx
from cxrx.cli import app
from cxrx.datasets import open_dataset
from cxrx.datasets.survey import survey
from cxrx.errors import EXIT_USAGE

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "nih_cxr14"


def cli(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output + done.stderr
    return done


SIIM = {"dicom-images-train/ill.png": (1024, 1024), "dicom-images-train/well.png": (1024, 1024)}
TABLE = {"train-rle.csv": "ImageId, EncodedPixels\nill, 0 4096\nwell, -1\n"}
"""A mask of four columns at the left edge."""


@pytest.mark.slow
@pytest.mark.parametrize("beside", [True, False], ids=["beside the films", "given to compare"])
def test_masks_of_a_table_are_compared_with(lay, net, tmp_path, beside):
    films, table = lay(SIIM | (TABLE if beside else {}), "films"), lay(TABLE, "table")
    out = tmp_path / "out" / "r.h5"
    out.parent.mkdir()
    shared = ("-m", net, "--labels", "Pneumothorax,Mass", "-o", out, "--device", "cpu", "--workers", "0")
    cli("explain", films, "--method", "gradcam", "--targets", "all", *shared)
    with cxrx.open_results(out) as results:
        masks = results.masks()
        assert [mask.finding for mask in masks] == ["Pneumothorax"] * beside
        expected = np.zeros((1024, 1024), bool)
        expected[:, :4] = True
        assert all((mask.decode() == expected).all() for mask in masks)
    cli("compare", out, "--n-boot", "20", "--metrics", "localisation", *(() if beside else ("--truth", table)))
    pairs = pd.read_csv(next(out.parent.rglob("*per_pair.csv")))
    assert set(pairs["finding"]) == {"Pneumothorax"}
    assert pairs["area"].tolist() == pytest.approx([4 / 1024] * len(pairs))


def test_lateral_films_are_passed_over_where_only_the_table_tells(lay, net, tmp_path):
    table = "Path,Frontal/Lateral,AP/PA,Enlarged Cardiomediastinum,Lung Opacity,Support Devices\n"
    study = "train/patient1/study1"
    rows = f"C/{study}/view1_frontal.jpg,Frontal,PA,,1.0,\nC/{study}/view2_lateral.jpg,Lateral,,,1.0,\n"
    top = lay(
        {"train.csv": table + rows, f"{study}/view1_frontal.jpg": (32, 40), f"{study}/view2_lateral.jpg": (40, 32)}
    )
    shared = ("-m", net, "--labels", "Lung Opacity,Mass", "--device", "cpu", "--workers", "0")
    for out, views, expected in (("a.h5", (), ["ok", "skipped"]), ("b.h5", ("--views", "all"), ["ok", "ok"])):
        cli("predict", top, "-o", tmp_path / out, *views, *shared)
        with cxrx.open_results(tmp_path / out) as results:
            images = results.images()
            assert sorted(images["status"]) == expected
            assert set(images["view"]) <= {"PA", "LATERAL", ""}
            assert images["message"][images["status"] == "skipped"].str.contains("view is lateral").all()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real films are not here")
def test_real_films_from_folder_to_comparison(tmp_path):
    """The twelve boxed films by name alone, with the demo model."""
    (tmp_path / "nih").mkdir()
    for table in REAL.glob("*.csv"):
        (tmp_path / "nih" / table.name).write_bytes(table.read_bytes())
    boxed = {line.split(",")[0] for line in next(REAL.glob("BBox*")).read_text().splitlines()[1:]}
    (tmp_path / "nih" / "images").mkdir()
    for name in boxed:
        (tmp_path / "nih" / "images" / name).symlink_to(REAL / "images" / name)
    out = tmp_path / "results.h5"
    cli("predict", tmp_path / "nih", "-o", out, "--device", "cpu", "--workers", "0")
    cli("explain", out, "--method", "gradcam", "--targets", "truth", "--device", "cpu", "--workers", "0")
    done = cli("compare", out, "--n-boot", "20", "--metrics", "fast")
    with cxrx.open_results(out) as results:
        assert len(results.boxes()) == 12
        assert (results.labels() >= 0).to_numpy().sum() == 12 * 14
        assert results.images()["patient"].nunique() == 12
    assert "gradcam" in done.output


def test_a_table_without_its_columns_stops_the_run_before_it_begins(lay, net, tmp_path):
    top = lay({"films/a.png": (32, 40), "boxes.csv": "path,finding,x,y,w\na.png,Mass,1,2,3\n"})
    out = tmp_path / "out" / "r.h5"
    out.parent.mkdir()
    words = ("predict", top / "films", "--truth", top / "boxes.csv", "-m", net, "--labels", "Mass", "-o", out)
    done = CliRunner().invoke(app, [*map(str, words), "--device", "cpu", "--workers", "0"])
    assert done.exit_code == EXIT_USAGE
    assert "boxes.csv lacks the columns 'h' of a table of boxes" in done.stderr
    assert not [path.name for path in out.parent.iterdir() if path.suffix != ".lock"]


def test_a_table_without_its_columns_beside_the_films_is_told(lay, net, tmp_path):
    top = lay({"a.png": (32, 40), "boxes.csv": "path,finding,x,y,w\na.png,Mass,1,2,3\n"})
    words = (
        "predict",
        top,
        "-m",
        net,
        "--labels",
        "Mass",
        "-o",
        tmp_path / "r.h5",
        "--device",
        "cpu",
        "--workers",
        "0",
    )
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0
    assert "truth: boxes.csv lacks the columns 'h'" in done.stderr


def test_predict_says_of_the_tables_what_show_says(lay, net, tmp_path):
    rows = {"t.csv": "path,Mass,patient\na.png,1,A\nb.png,0,B\n", "u.csv": "path,Mass\na.png,0\n"}
    strange = {"odd.csv": "ImageNo,Mass\n1,1\n", "list.xlsx": b"PK\x03\x04", "dates.csv": "path,Mass\na.png,?\n"}
    boxes = {"boxes.csv": "path,finding,x,y,w,h\na.png,Mass,0.5,0.25,0.5,0.25\nb.png,Mass,1,2,3,4\n", "b.csv": HALF}
    top = lay(rows | strange | boxes | {"a.png": (32, 40), "b.png": (40, 32)})
    expected = survey(open_dataset(top))["problems"]
    assert len(expected) == 7
    out = tmp_path / "r.h5"
    done = cli("predict", top, "-m", net, "--labels", "Mass", "-o", out, "--device", "cpu", "--workers", "0")
    told = " ".join(done.stderr.split())
    assert [text for text in expected if f"truth: {text}" not in told] == []
    with cxrx.open_results(out) as results:
        boxes = results.boxes().sort_values("x")[["x", "y", "width", "height"]].to_numpy()
    assert boxes.tolist() == [[1, 2, 3, 4], [20, 8, 20, 8]]


HALF = "path,finding,x,y,w,h\na.png,Mass,0.5,0.25,0.5,0.25\n"
"""On 32 rows and 40 columns: 20, 8, 20, 8."""
