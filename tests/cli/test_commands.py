from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import cxrx
from cxrx.cli import app
from cxrx.files.lock import RunLock
from cxrx.results.parts import PartStore

LABELS = "Nodule,Effusion,Mass"


@pytest.fixture
def predicted(cli, films, net):
    """Return the words that name the tiny network, after predicting ten films with it."""
    cli("predict", films, "-m", net, "--labels", LABELS, "--workers", 0, "--device", "cpu")
    return ("-m", net, "--labels", LABELS)


def test_the_whole_way(cli, predicted, films, net, tmp_path):
    rows = ["path,Nodule,Effusion,Mass"] + [f"film{i:03d}.png,{i % 2},{i // 5},{int(i < 3)}" for i in range(10)]
    boxes = ["path,finding,x,y,w,h"] + [f"film{i:03d}.png,Nodule,5,6,12,14" for i in range(1, 10, 2)]
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    (tmp_path / "boxes.csv").write_text("\n".join(boxes))
    cli("explain", "-m", net, "--method", "gradcam", "--method", "random", "--workers", 0, "--targets", "all")
    shown = cli("compare", "results.h5", "--truth", "boxes.csv", "--n-boot", 20)
    for word in ("gradcam", "centre", "random", "prior", "Spearman"):
        assert word in shown.stdout
    assert (tmp_path / "report.html").stat().st_size > 1000
    summary = (tmp_path / "summary.csv").read_text()
    assert {"gradcam", "centre", "random", "prior"} <= {line.split(",")[1] for line in summary.splitlines()[1:]}
    shown = cli("compare", "results.h5", "--truth", "truth.csv", "--json", "--n-boot", 20, "--out", "labels")
    assert json.loads(shown.stdout)["films"] == 10
    assert (tmp_path / "labels" / "report.html").exists()


def test_info_verify_export_and_merge(cli, predicted, tmp_path, films, net):
    cli("explain", "-m", net, "--method", "gradcam", "--workers", 0)
    info = json.loads(cli("info", "results.h5", "--json").stdout)
    assert info["films"] == {"ok": 10}
    assert [m["method"] for m in info["models"][0]["methods"]] == ["gradcam"]
    assert "gradcam" in cli("info").stdout
    assert "whole" in cli("verify", "results.h5").stdout
    cli("export", "results.h5", "--csv", "-o", "long.csv")
    assert len((tmp_path / "long.csv").read_text().splitlines()) == 31
    cli("export", "results.h5", "--chexnet-csv", "-o", "wide.csv")
    assert (tmp_path / "wide.csv").read_text().startswith("Image Index,prob_Nodule,prob_Effusion,prob_Mass")
    cli("predict", films, "-m", net, "--labels", LABELS, "--workers", 0, "--limit", 3, "-o", "three.h5")
    cli("merge", "results.h5", "three.h5", "-o", "both.h5")
    with cxrx.open_results(tmp_path / "both.h5") as both:
        assert len(both.images()) == 10
    damaged = bytearray((tmp_path / "results.h5").read_bytes())
    damaged[len(damaged) // 2 :] = b"\0" * (len(damaged) - len(damaged) // 2)
    (tmp_path / "damaged.h5").write_bytes(damaged)
    assert "problem" in cli("verify", "damaged.h5", code=1).stdout


def test_some_films_failed_is_three_and_they_are_listed(cli, films, net, tmp_path):
    (films / "film003.png").write_bytes((films / "film003.png").read_bytes()[:60])
    words = ("predict", films, "-m", net, "--labels", LABELS, "--workers", 0)
    result = cli(*words, code=3)
    assert "failures.csv" in result.stderr
    assert "film003.png" in (tmp_path / "failures.csv").read_text()
    cli(*words, "--retry-failed", "--allow-failures")
    cli(*words, "--retry-failed", code=3)


def test_nothing_readable_is_four(cli, tmp_path, net):
    (tmp_path / "none").mkdir()
    cli("predict", "none", "-m", net, "--labels", LABELS, "--workers", 0, code=4)


def test_a_locked_file_is_five(cli, films, net, tmp_path):
    with RunLock(PartStore(tmp_path / "results.h5").lock_path):
        cli("predict", films, "-m", net, "--labels", LABELS, "--workers", 0, code=5)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("predict",), "cxrx predict DIR"),
        (("predict", "nowhere"), "nowhere"),
        (("predict", "films", "-m", "densnet121"), "did you mean densenet121"),
        (("predict", "films", "-m", "densenet121", "--weights", "no.pth"), "no.pth"),
        (("predict", "films", "--weights", "no.pth"), "no.pth"),
        (("predict", "films", "--batch-size", "many"), "--batch-size"),
        (("predict", "films", "--views", "sideways"), "sideways"),
        (("explain",), "--method"),
        (("explain", "--method", "gradcm"), "did you mean gradcam"),
        (("explain", "--method", "gradcam"), "results.h5"),
        (("explain", "films", "--method", "gradcam", "-O", "nonsense"), "key=value"),
        (("compare", "none.h5"), "none.h5"),
        (("info", "none.h5"), "none.h5"),
        (("verify", "none.h5"), "none.h5"),
        (("merge", "one.h5", "-o", "two.h5"), "two results files"),
        (("export", "results.h5"), "one format"),
        (("export", "tiny.h5", "--csv", "--grid"), "csv has no options, so 'grid' cannot be set"),
        (("export", "tiny.h5", "--csv", "-O", "x=1"), "csv has no options, so 'x' cannot be set"),
        (("export", "tiny.h5", "--csv", "--images", "."), "csv reads no films"),
        (("export", "tiny.h5", "--png", "-O", "methods=lime", "--method", "rise"), "methods is given twice"),
        (("export", "tiny.h5", "--png", "-O", "size=9"), "png has no option 'size'; it has model, methods"),
        (("models", "show", "densnet121"), "did you mean densenet121"),
        (("explainers", "show", "smothgrad"), "did you mean smoothgrad"),
        (("phantom", "films"), "not empty"),
    ],
)
def test_usage_errors_are_two_with_a_sentence(cli, films, words, told, tiny, tmp_path):
    shutil.copy(tiny.results, tmp_path / "tiny.h5")
    result = cli(*words, code=2)
    assert told in result.stderr
    assert result.stderr.startswith("cxrx: ")


def test_the_debug_switch_shows_the_traceback(cli, monkeypatch):
    monkeypatch.setenv("CXRX_DEBUG", "1")
    result = CliRunner().invoke(app, ["explain", "--method", "gradcm"])
    assert isinstance(result.exception, cxrx.errors.UsageError)


def test_flags_before_environment_before_file(cli, films, net, tmp_path, monkeypatch):
    (tmp_path / "cxrx.toml").write_text('workers = 0\nout = "file.h5"\n[predict]\nlabels = "Nodule,Effusion,Mass"\n')
    cli("predict", films, "-m", net, "--limit", 2)
    assert (tmp_path / "file.h5").exists()
    monkeypatch.setenv("CXRX_OUT", "environment.h5")
    cli("predict", films, "-m", net, "--limit", 2)
    assert (tmp_path / "environment.h5").exists()
    cli("predict", films, "-m", net, "--limit", 2, "-o", "flag.h5")
    assert (tmp_path / "flag.h5").exists()


def test_a_mistyped_key_in_the_file_is_told(cli, tmp_path):
    (tmp_path / "cxrx.toml").write_text("[predict]\nbatch-sise = 3\n")
    assert "did you mean 'batch-size'" in cli("models", code=2).stderr


@pytest.mark.parametrize("words", [("models",), ("explainers",), ("plugins",), ("models", "show", "densenet121"),
                                   ("explainers", "show", "extremal")])  # fmt: skip
def test_listings_have_json(cli, words):
    assert json.loads(cli(*words, "--json").stdout)
    assert cli(*words).stdout


def test_nothing_private_is_in_the_results(cli, predicted, films, tmp_path):
    content = (tmp_path / "results.h5").read_bytes()
    assert b"film00" not in content
    assert str(tmp_path).encode() not in content
    private = tmp_path / "results.private.csv"
    assert "film000.png" in private.read_text()
    assert private.stat().st_mode & 0o777 == 0o600


def test_xarray_opens_predictions_and_maps(cli, predicted, net, tmp_path):
    import xarray

    cli("explain", "-m", net, "--method", "gradcam", "--workers", 0)
    with cxrx.open_results(tmp_path / "results.h5") as results:
        (slug,) = results.models()
        expected = results.logits(slug)
    with xarray.open_dataset(tmp_path / "results.h5", group=f"predictions/{slug}", engine="h5netcdf") as opened:
        assert (opened["logit"].to_numpy() == expected).all()
    with xarray.open_dataset(tmp_path / "results.h5", group=f"maps/{slug}/gradcam", engine="h5netcdf") as opened:
        assert opened["values"].sizes["finding"] == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_twenty_eight_and_the_run_can_be_resumed(films, net, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    words = [sys.executable, "-m", "cxrx", "explain", films, "-m", net, "--labels", LABELS, "--method", "smoothgrad"]
    words += ["-O", "n=2", "--targets", "all", "--workers", "0", "--device", "cpu", "-o", small / "r.h5"]
    try:
        (small / "ballast").write_bytes(b"\0" * 4_100_000)
        full = subprocess.run(words, capture_output=True, text=True, check=False)
        assert full.returncode == 28, full.stderr
        assert "disk" in full.stderr.lower()
        (small / "ballast").unlink()
        again = subprocess.run(words, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
        with cxrx.open_results(small / "r.h5") as results:
            assert results.present(None, "smoothgrad").all()
    finally:
        subprocess.run(["umount", small], check=True)
