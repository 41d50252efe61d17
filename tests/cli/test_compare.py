"""``cxrx compare`` as a user types it."""

from __future__ import annotations

import json

import h5py
import pytest


@pytest.mark.slow
def test_fast_runs_no_model_and_says_so(cli, tiny, tmp_path):
    shown = cli("compare", tiny.results, "--metrics", "fast", "--n-boot", 50, "--out", tmp_path)
    assert "skipped faithfulness: --metrics fast does not run the model" in shown.stderr
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["settings"]["grid"] == 224
    assert found["settings"]["metrics"] == ["classification", "localisation", "agreement"]
    assert {"hit", "iou"} <= {row["metric"] for row in found["summary"]}
    assert found["versions"]["scikit-image"]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["chexlocalize", "arun"])
def test_a_protocol_changes_the_table(cli, tiny, tmp_path, protocol):
    cli("compare", tiny.results, "--metrics", "localisation", "--protocol", protocol, "--n-boot", 50, "--out", tmp_path)
    found = json.loads((tmp_path / "compare.json").read_text())
    metrics = {row["metric"] for row in found["summary"]}
    assert metrics == ({"iou", "hit"} if protocol == "chexlocalize" else {"auprc", "average_precision", "auroc"})
    assert protocol in found["conventions"]["localisation: protocol"]


@pytest.mark.slow
def test_strata_can_be_chosen_or_left_out(cli, tiny, tmp_path):
    for given, expected in (("none", set()), ("size,outcome", {"size", "outcome"})):
        words = ("--metrics", "localisation", "--stratify", given, "--n-boot", 10)
        cli("compare", tiny.results, *words, "--out", tmp_path / given)
        found = json.loads((tmp_path / given / "compare.json").read_text())
        assert {row["by"] for row in found["strata"]} == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--metrics", "localizatoin"), "localizatoin"),
        (("--metrics", "fast,hit"), "fast"),
        (("--stratify", "age"), "'age'"),
        (("--protocol", "saporta"), "saporta"),
        (("--max-pairs", "0"), "--max-pairs"),
        (("--model", "densenet122"), "densenet121"),
        (("--truth", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_a_bad_request_is_told_and_writes_nothing(cli, tiny, tmp_path, words, sentence):
    shown = cli("compare", tiny.results, *words, "--out", tmp_path / "out", code=2)
    assert sentence in shown.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_file_is_opened_once(cli, tiny, tmp_path, monkeypatch):
    opened, real = [], h5py.File
    monkeypatch.setattr(h5py, "File", lambda path, *rest, **more: opened.append(path) or real(path, *rest, **more))
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("path,finding,x,y,w,h\n" + "".join(f"{name},Mass,1,30,20,20\n" for name in tiny.names))
    words = ("--truth", boxes, "--metrics", "fast", "--n-boot", 10, "--out", tmp_path)
    cli("compare", tiny.results, tiny.results, *words)
    assert len(opened) == 1
    assert 'height="20.0"' in (tmp_path / "report.html").read_text()  # the truth that was given is drawn


@pytest.mark.slow
def test_share_leaves_names_out(cli, tiny, tmp_path):
    cli("compare", tiny.results, "--metrics", "localisation", "--share", "--n-boot", 10, "--out", tmp_path)
    written = "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())
    assert not [name for name in tiny.names if name in written]
