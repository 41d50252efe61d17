"""An option that a command cannot honour is refused with its reason; defaults from elsewhere are not."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

import cxrx
from cxrx.cli.flags import ReadFlags, RunFlags
from cxrx.cli.runs import engine_options
from cxrx.engine.options import RunOptions
from cxrx.reading.options import ReadOptions
from tests.cli.test_bad_input import as_bytes, film

FIXED = "is fixed by the predictions in results.h5"
CAM = ("--method", "gradcam")
STORED = ("explain", "results.h5", *CAM)
FILMS = ("explain", "films", *CAM)
REFUSED = [
    ((*STORED, "--polarity", "auto"), f"--polarity {FIXED}"),
    ((*STORED, "--views", "all"), f"--views {FIXED}"),
    ((*STORED, "--dtype", "bf16"), f"--dtype {FIXED}"),
    ((*STORED, "--dtype", "fp32"), f"--dtype {FIXED}"),  # given is given, whatever the default
    ((*STORED, "--voi-index", "3"), f"--voi-index {FIXED}"),
    ((*STORED, "--frame", "0"), f"--frame {FIXED}"),
    ((*STORED, "--in-chans", "1"), f"--in-chans {FIXED}"),
    ((*STORED, "--input-size", "512"), f"--input-size {FIXED}"),
    ((*STORED, "--activation", "softmax"), f"--activation {FIXED}"),
    ((*STORED, "--labels", "a,b"), f"--labels {FIXED}"),
    ((*STORED, "--add"), "--add adds films"),
    ((*STORED, "-o", "other.h5"), "--out is for films: the maps are added to results.h5"),
    (("explain", *CAM, "--polarity", "auto"), f"--polarity {FIXED}"),
    ((*STORED, "--layer", "a", "-O", "layer=b"), "layer is given twice"),
    ((*STORED, "-O", "steps=1", "-O", "steps=2"), "steps is given twice"),
    ((*FILMS, "--images", "films"), "--images finds the films of a results file again"),
    ((*FILMS, "--ten-crop"), "ten crops"),
    (("compare", "--metrics", "fast", "--max-pairs", "5"), "--max-pairs is for faithfulness or sanity"),
    (("compare", "--metrics", "fast", "--device", "cpu"), "--device is for faithfulness or sanity"),
    (("compare", "--metrics", "localisation", "-m", "densenet121"), "--model is for faithfulness or sanity"),
    (("compare", "--metrics", "localisation", "--weights", "w.pth"), "--weights is for faithfulness or sanity"),
    (("compare", "--metrics", "agreement", "--protocol", "arun"), "--protocol is for localisation"),
    (("compare", "--metrics", "classification", "--stratify", "size"), "--stratify is for agreement or localisation"),
    (("compare", "--metrics", "sanity", "--signed"), "--signed is for agreement or faithfulness or localisation"),
    (("compare", "--labels", "a,b"), "--labels belongs to a model that is named"),
    (("compare", "--device", "cuda:99"), "'cuda:99' is not available here"),
    (("compare", "--metrics", "deletion", "-m", "demo-vit"), "--model gives demo-vit@"),
    (("export", "--csv", "--images", "films"), "csv reads no films"),
    (("explain", "results.h5", "--method", "gradcam", "--non-chest"), "--non-chest let films into results.h5"),
    (("export", "--csv", "--grid"), "csv has no options"),
    (("train", "--show-recipe", "--split", "patient"), "--split is no part of a recipe"),
    (("train", "--show-recipe", "--films", "9"), "--films is no part of a recipe"),
    (("train", "--show-recipe", "--cache", "here"), "--cache is no part of a recipe"),
    (("train", "films", "--show-recipe"), "data is no part of a recipe"),
    (("train", "films", "-m", "vit_small", "--seed", "1", "-O", "seed=2"), "--seed is given by -O as well"),
    (("train", "--recipe", "rsna", "-O", "preset=chexnet", "--show-recipe"), "--recipe is given by -O preset"),
    (("pretrain", "films", "-m", "vit_small", "--mask-ratio", "0.5", "-O", "mask_ratio=0.6"), "--mask-ratio is given"),
    (("models", "--json", "show", "densenet121"), "--json here is an option of the list"),
    (("models", "--search", "vit", "show", "densenet121"), "--search here is an option of the list"),
    (("explainers", "--json", "show", "gradcam"), "--json here is an option of the list"),
    (("plugins", "--json", "check", "cxrx"), "--json here is an option of the list"),
    (("datasets", "--json", "show", "films"), "--json here is an option of the list"),
    (("import-maps", "maps", "--method", "mine", "-o", "new.h5"), "name the methods"),
    # of one value, given twice
    (("predict", "films", "-m", "a", "-m", "b"), "--model may be given once, and is given 2 times"),
    (("predict", "films", "-m", "a", "--model=a"), "--model may be given once, and is given 2 times"),
    (("compare", "--seed", "1", "--seed", "2", "--seed", "3"), "--seed may be given once, and is given 3 times"),
    (("predict", "films", "--resume", "--no-resume"), "--resume may be given once"),
    (("models", "--search", "a", "--search", "b"), "--search may be given once"),
    (("weights", "convert", "a", "b", "-m", "x", "-m", "y"), "--model may be given once"),
    (("--version", "--version"), "--version may be given once"),
]


@pytest.fixture
def place(tiny, films, tmp_path):
    """Lay a results file and maps of two methods where the commands run."""
    (tmp_path / "results.h5").write_bytes(tiny.results.read_bytes())
    (tmp_path / "maps" / "one").mkdir(parents=True)
    np.save(tmp_path / "maps" / "one" / "film__Mass.npy", np.ones((4, 4)))
    return tmp_path


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=lambda value: " ".join(value) if value else "")
def test_what_cannot_be_honoured_is_refused(cli, place, words, sentence):
    before = sorted(place.rglob("*"))
    refused = cli(*words, code=2)
    assert refused.stderr.startswith(("cxrx: ", "DEMO", "note: "))
    assert sentence in refused.stderr
    assert not refused.stdout
    assert sorted(place.rglob("*")) == before


def test_what_may_be_repeated_still_is(cli, place):
    words = ("explain", "results.h5", *CAM, "--method", "gradcm", "-O", "a=1", "-O", "b=2")
    assert "did you mean gradcam" in cli(*words, code=2).stderr


def test_defaults_from_elsewhere_give_way(cli, films, net, tmp_path, monkeypatch):
    words = ("-m", net, "--labels", "a,b", "--workers", 0)
    cli("predict", films, *words)
    (tmp_path / "cxrx.toml").write_text('polarity = "auto"\ndtype = "bf16"\ninput-size = 64\n[explain]\nadd = true\n')
    monkeypatch.setenv("CXRX_VIEWS", "lateral")
    monkeypatch.setenv("CXRX_OUT", "other.h5")
    cli("explain", "results.h5", "-m", net, *CAM, "--workers", 0)
    with cxrx.open_results("results.h5") as results:
        (slug,) = results.models()
        settings = results.attrs(slug, "gradcam")["settings"]
    assert (settings["polarity"], settings["dtype"], settings["views"]) == ("header", "fp32", ["frontal", "unknown"])
    assert not (tmp_path / "other.h5").exists()


def test_what_a_model_that_is_named_looks_like_is_heard(cli, films, net):
    words = ("-m", net, "--labels", "a,b", "--input-size", 48, "--workers", 0)
    cli("predict", films, *words)
    cli("explain", "results.h5", *CAM, *words)
    assert "input.size" in cli("explain", "results.h5", *CAM, *words[:-3], 64, "--workers", 0, code=2).stderr


def test_device_is_handed_to_the_model_that_compare_runs(cli, films, net, monkeypatch):
    import cxrx.compare.rerun

    cli("explain", films, "-m", net, "--labels", "a,b", "--workers", 0, *CAM)
    seen = []
    load = cxrx.compare.rerun.reload_model
    monkeypatch.setattr(
        cxrx.compare.rerun, "reload_model", lambda results, slug, device: seen.append(device) or load(results, slug)
    )
    cli("compare", "--metrics", "deletion", "--device", "cpu", "--max-pairs", 1, "--n-boot", 10)
    assert seen == ["cpu"]


def test_a_model_set_elsewhere_gives_way_to_the_results_file_and_that_is_said(cli, films, net, tmp_path, monkeypatch):
    cli("predict", films, "-m", net, "--labels", "a,b", "--workers", 0)
    (tmp_path / "mine.toml").write_text('weights = "w.pth"\n')
    monkeypatch.setenv("CXRX_CONFIG", "mine.toml")
    monkeypatch.setenv("CXRX_MODEL", net)
    weights = "note: weights of mine.toml: for films; a results file has its own"
    said = cli("explain", "results.h5", *CAM, code=2).stderr
    assert "note: model of CXRX_MODEL: for films; a results file has its own" in said
    assert weights in said
    assert weights in cli("compare", "--metrics", "deletion").stderr


def test_every_model_of_code_that_is_named_is_run(cli, films, tmp_path):
    """One network with several weights, in one results file or two."""
    import torch
    from torch import nn

    build = "nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))"
    (tmp_path / "own.py").write_text(f"from torch import nn\ndef build():\n    return {build}\n")
    for i, out in enumerate(("r.h5", "r.h5", "s.h5")):
        torch.manual_seed(i)
        network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
        torch.save(network.state_dict(), tmp_path / f"{i}.pth")
        words = ("-m", "./own.py:build", "--weights", f"{i}.pth", "--labels", "a,b", "--input-size", 32, "-o", out)
        cli("predict", films, *words, "--workers", 0)
    for out, models in (("r.h5", 2), ("s.h5", 1)):
        shown = cli("explain", out, "-m", "./own.py:build", "--method", "saliency", "--targets", "all", "--workers", 0)
        assert shown.stdout.count("saliency of own@") == models
    words = ("--metrics", "deletion", "--max-pairs", 1, "--n-boot", 10, "--json")
    shown = cli("compare", "r.h5", "s.h5", "-m", "./own.py:build", *words)
    told = json.loads(shown.stdout)
    assert len({row["model"] for row in told["faithfulness"]}) == 3, told["skipped"]


def test_films_for_processing_can_be_asked_for_and_explained_later(cli, net, tmp_path):
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "raw.dcm").write_bytes(as_bytes(film(PresentationIntentType="FOR PROCESSING")))
    words = ("-m", net, "--labels", "a,b", "--workers", 0)
    (tmp_path / "dicom" / "hand.dcm").write_bytes(as_bytes(film(BodyPartExamined="HAND")))
    assert "--for-processing takes it" in cli("predict", "dicom", *words, code=4).stderr
    cli("predict", "dicom", *words, "--for-processing")
    cli("predict", "dicom", *words, "--non-chest")
    cli("explain", "results.h5", "-m", net, *CAM, "--workers", 0)
    with cxrx.open_results("results.h5") as results:
        assert results.images()["status"].tolist() == ["flagged", "ok"]
        assert results.present(None, "gradcam").any(axis=1).all()


def test_the_command_without_words_shows_its_help(cli):
    shown = cli(code=2).stdout
    assert shown.startswith("Usage: cxrx")
    assert "explain" in shown
    assert "convert" in cli("weights", code=2).stdout


def test_options_are_those_of_the_engine():
    options = engine_options(ReadFlags(), RunFlags())
    known = ReadOptions(), RunOptions()
    own = {field.name: getattr(of, field.name) for of in known for field in fields(of)}
    assert options.pop("argv") is not None
    assert {name: own[name] for name in options} == options
