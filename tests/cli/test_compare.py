"""``cxrx compare`` as a user types it."""

from __future__ import annotations

import json
import shutil

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
def test_two_files_in_one_folder_leave_each_other_alone(cli, make_tiny, tmp_path):
    results = make_tiny("one", n=6).results
    for name in ("a.h5", "b.h5"):
        shutil.copy(results, results.with_name(name))
    folder, written = results.parent, {}
    for name, prefix in (("results.h5", ""), ("a.h5", "a."), ("b.h5", "b."), ("a.h5 b.h5", "a+b.")):
        files = [folder / file for file in name.split()]
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        shown = cli("compare", *files, "--metrics", "localisation", "--stratify", "none", "--n-boot", 10)
        assert all(path.read_bytes() == content for path, content in before.items())
        told = shown.stdout.splitlines()[-1].removeprefix("written: ").split(", ")
        written[prefix] = {path.name for path in folder.iterdir() if path.is_file()} - {path.name for path in before}
        assert written[prefix] == set(told)
        assert {f"{prefix}report.html", f"{prefix}summary.csv", f"{prefix}compare.json"} <= written[prefix]


@pytest.mark.slow
def test_no_table_of_an_earlier_comparison_stays_and_nothing_else_goes(cli, make_tiny):
    tiny = make_tiny("one", n=6)
    folder, words = tiny.results.parent, ("compare", tiny.results, "--n-boot", 10, "--metrics")
    cli(*words, "localisation,agreement")
    tables = ("strata.csv", "agreement.csv", "summary.csv")
    assert all((folder / name).exists() for name in tables)
    (folder / "strata.csv").write_text("a table of the user's own")
    (folder / "curves.csv").write_text("another one")
    cli(*words, "localisation", "--stratify", "none")
    assert not (folder / "agreement.csv").exists()
    assert (folder / "strata.csv").read_text() == "a table of the user's own"
    assert (folder / "curves.csv").read_text() == "another one"
    (folder / "compare.json").write_text('{"written": "nothing"}')  # not ours: nothing is removed for it
    cli(*words, "agreement", "--stratify", "none")
    assert (folder / "agreement.csv").exists()
    assert (folder / "strata.csv").exists()


@pytest.mark.slow
def test_share_leaves_names_out(cli, tiny, tmp_path):
    cli("compare", tiny.results, "--metrics", "localisation", "--share", "--n-boot", 10, "--out", tmp_path)
    written = "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())
    assert not [name for name in tiny.names if name in written]


def test_few_patients_are_called_few_on_the_screen(cli, make_tiny, tmp_path):
    shown = cli("compare", make_tiny(n=6).results, "--metrics", "localisation", "--n-boot", 10, "--out", tmp_path)
    assert "a number without an interval is of fewer than 10 patients, who say nothing" in shown.stdout
    assert "9 truth pairs of 4 patients; fewer than 10 patients say nothing" in shown.stdout
