from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import cxrx
from cxrx.compare.run import compare


@pytest.fixture
def maps(tmp_path):
    """Maps of two methods on twelve pictures that are not square, and boxes."""
    rng, lines = np.random.default_rng(0), ["path,finding,x,y,w,h,rows,columns"]
    for i in range(12):
        truth = np.zeros((60, 90))
        y, x = rng.integers(0, 40), rng.integers(0, 60)
        truth[y : y + 20, x : x + 24] = 1
        lines.append(f"film{i}.png,Mass,{x},{y},24,20,60,90")
        for method, values in (("good", truth[::2, ::3]), ("blind", rng.random((8, 8)))):
            (tmp_path / "maps" / method).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "maps" / method / f"film{i}__Mass.npy", values)
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    return tmp_path / "maps"


def test_imported_maps_are_compared(cli, maps, tmp_path):
    shown = cli("import-maps", "maps", "--truth", "boxes.csv", "--model", "theirs")
    assert shown.stdout == "results.h5: 24 maps (blind 12, good 12) of 12 pictures, 12 of them with boxes or masks\n"
    assert shown.stderr == ""
    assert "whole" in cli("verify", "results.h5").stdout
    comparison = compare(tmp_path / "results.h5", metrics="localisation", n_boot=50)
    table = comparison.summary.set_index(["method", "finding", "metric"])["value"]
    assert table["good", "all", "hit"] == 1
    assert table["good", "all", "iou"] > 0.8
    assert table["blind", "all", "iou"] < 0.4
    assert set(comparison.per_pair["model"]) == {"theirs"}
    assert "holds no predictions" in cli("explain", "results.h5", "--method", "edge", code=2).stderr


def test_problems_are_warnings_on_stderr(cli, maps, tmp_path):
    np.save(maps / "good" / "film0__Mass.npy", np.full((5, 5), np.nan))
    np.save(maps / "good" / "other__Mass.npy", np.eye(5))
    np.save(maps / "good" / "film1__Mass.npy", np.zeros((5, 5)))
    shown = cli("import-maps", "maps", "--truth", "boxes.csv", "-o", "named.h5")
    told = shown.stderr.splitlines()
    assert all(line.startswith("warning: ") for line in told)
    for sentence in (
        "1 mapped pictures are unknown to boxes.csv, so their maps cannot be scored (other)",
        "1 maps hold NaN or infinity, and will count as misses (film0__Mass.npy)",
        "1 maps are constant and point nowhere, and will count as misses (film1__Mass.npy)",
    ):
        assert f"warning: {sentence}" in told
    assert shown.stdout.startswith("named.h5: 25 maps")


def test_masks_beside_the_maps(cli, tmp_path):
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "a__Mass.npy", np.eye(5))
    Image.fromarray(np.eye(40, 30).astype(np.uint8)).save(tmp_path / "maps" / "a__Mass.png")
    assert "1 maps (mine 1) of 1 pictures, 1 of them" in cli("import-maps", "maps", "--method", "mine").stdout
    assert "--force" in cli("import-maps", "maps", code=2).stderr
    cli("import-maps", "maps", "--force")
    with cxrx.open_results(tmp_path / "results.h5") as results:
        assert results.methods() == ["imported"]
        assert results.images()[["rows", "columns"]].values.tolist() == [[40, 30]]
    shown = cli("info", "results.h5").stdout
    assert "imported: 0 predictions of Mass" in shown
    assert "1 masks" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nowhere",), "nowhere is not a folder of maps"),
        (("maps", "--truth", "bokses.csv"), "there is no bokses.csv"),
        (("maps", "--truth", "boxes.csv", "--method", "mine"), "name the methods (blind, good)"),
        (("maps", "--truth", "boxes.csv", "--model", "my model"), "cannot name a model"),
        (("maps/good", "--truth", "maps"), "holds no table"),
    ],
)
def test_usage_errors_are_two_with_a_sentence(cli, maps, words, told):
    result = cli("import-maps", *words, code=2)
    assert told in result.stderr
    assert result.stderr.startswith("cxrx: ")
