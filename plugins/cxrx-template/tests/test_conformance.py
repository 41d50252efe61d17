"""The kit of cxrx checks what the plugin brings, and one test of each thing says what it is for."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import cxrx
from cxrx.cli.main import app
from cxrx.testing import ExplainerConformance, ModelConformance, check_named


class TestTiles(ExplainerConformance):
    name = "template/tiles"


class TestSmall(ModelConformance):
    name = "template/small"


def test_the_tile_that_the_model_reads_is_found():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 1, bias=False))
    weight = torch.zeros(64, 64)
    weight[16:24, 40:48] = 1.0
    network[1].weight = nn.Parameter(weight.reshape(1, -1))
    x = torch.zeros(1, 1, 64, 64)
    x[:, :, 16:24, 40:48] = 1.0
    values = cxrx.explain(cxrx.wrap_model(network, ["patch"], 64), x, "tiles").values[0, 0]
    # the patch holds 64 ones, and the mean of 64 / 4096 takes their place
    assert values[2, 5] == 64 - 1
    assert abs(values).sum() == values[2, 5]


def patch_model():
    """Return a model whose logit is the sum of a patch of 8 x 8 pixels, and a picture where that patch is bright."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 1, bias=False))
    weight = torch.zeros(64, 64)
    weight[16:24, 40:48] = 1.0
    network[1].weight = nn.Parameter(weight.reshape(1, -1))
    return cxrx.wrap_model(network, ["patch"], 64), weight.reshape(1, 1, 64, 64).clone()


def test_the_logit_falls_without_what_the_model_reads_and_not_without_the_rest():
    from cxrx_template.tenth import fall_without_tenth

    model, x = patch_model()
    maps = torch.cat([x, 1 - x, x], dim=1)  # (1, 3, 64, 64)
    falls = fall_without_tenth(model, x, maps, torch.tensor([[0, 0, -1]]))["fall_without_tenth"]
    np.testing.assert_allclose(falls, [[64 - 1, 0, np.nan]], atol=1e-4)  # the mean of 64 / 4096 takes their place


@pytest.fixture
def ward(tmp_path):
    """A file of three films, a label that is none, and an array that is damaged."""
    rng = np.random.default_rng(0)
    films = {name: rng.integers(0, 256, (80, 96), dtype=np.uint8) for name in ("bed1", "bed2")}
    films["bed3"] = rng.integers(0, 65536, (96, 80), dtype=np.uint16)
    path = tmp_path / "ward.npz"
    np.savez(path, **films, label=np.array([1, 0, 1]), name=np.array(["x"], dtype=object))
    return path


def test_every_array_of_grey_values_is_a_film(ward):
    from cxrx_template.arrays import open_npz

    read = list(open_npz(ward))
    films = [film for film in read if isinstance(film, cxrx.Film)]
    assert [film.member for film in films] == ["bed1.npy", "bed2.npy", "bed3.npy"]
    assert len({film.sha256 for film in films}) == 3
    assert [(r.member, r.kind, r.code) for r in read if isinstance(r, cxrx.Unreadable)] == [
        ("label.npy", "skipped", "no-picture"),
        ("name.npy", "failed", "corrupt"),
    ]


@pytest.mark.parametrize("name", ["template/tenth", "template/lines", "template/arrays"])
def test_what_else_it_brings_keeps_the_contract(name, ward):
    outcomes = check_named(name, ward if name == "template/arrays" else None)
    assert outcomes
    assert [outcome for outcome in outcomes if not outcome.passed] == []


def run(*argv):
    result = CliRunner().invoke(app, [str(argument) for argument in argv])
    assert result.exit_code == 0, result.output
    return result.output


def test_from_films_to_lines(ward, tmp_path):
    results, lines = tmp_path / "results.h5", tmp_path / "findings.jsonl"
    run("predict", ward, "-m", "small", "-o", results, "--device", "cpu", "--allow-failures")
    run("explain", results, "--method", "tiles", "-O", "tiles=4", "--targets", "all", "--device", "cpu")
    with cxrx.open_results(results) as opened:
        assert (opened.images().status == "ok").sum() == 3
        image = opened.predictions().image_id[0]
        assert opened.maps("tiles", image=image, finding="Nodule").shape == (4, 4)
    run("compare", results, "--metrics", "tenth", "--device", "cpu")
    assert "Fall without tenth" in (tmp_path / "report.html").read_text()
    run("export", results, "--format", "lines", "-o", lines)
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(written) == 3
    assert all(set(line["findings"]) == {"Effusion", "Nodule"} for line in written)
