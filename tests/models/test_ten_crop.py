"""Ten crops: the right ten, the mean of their probabilities, and no explanation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2
from typer.testing import CliRunner

import cxrx
from cxrx.cli import app
from cxrx.engine.api import explain_results, run
from cxrx.errors import EXIT_USAGE, UsageError
from cxrx.models.model import Model
from cxrx.models.ten_crop import ten_crop
from cxrx.specs import InputSpec

SPEC = InputSpec(size=(32, 32), resize=40, channels=1, mean=(0.4,), std=(0.3,))


def network(outputs=3, scale=1.0):
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(1, 6, 5, stride=3), nn.Tanh(), nn.Flatten(), nn.Linear(600, outputs))
    module[3].weight.data.mul_(scale)
    return module


def model(outputs=3, labels=("a", "b", "c"), scale=1.0, **options):
    return Model(network(outputs, scale), labels, SPEC, name="small", **options)


@pytest.fixture
def folder(tmp_path):
    """Three films of different sizes."""
    films = tmp_path / "films"
    films.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("wide", (45, 61)), ("tall", (70, 52)), ("square", (48, 48))):
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(films / f"{name}.png")
    return films


def crops_by_torchvision(path):
    """Resize and crop as CheXNet's scripts do, on an 8-bit picture's float pixels."""
    pixels = np.asarray(Image.open(path), np.float32) / 255
    rows, columns = pixels.shape
    short = min(rows, columns)
    size = int(40 * columns / short), int(40 * rows / short)
    whole = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)
    return torch.stack(v2.TenCrop(32)(torch.from_numpy(whole)[None]))  # (10, 1, 32, 32)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_stored_probabilities_are_means_over_the_crops_of_torchvision(activation, folder, tmp_path):
    plain = model(activation=activation)
    out = tmp_path / "r.h5"
    run(ten_crop(plain), folder, (), out, workers=0, batch_size=2)
    with cxrx.open_results(out) as results:
        (slug,) = results.models()
        table = results.predictions()
        names = {link.image_id: link.relative for link in results.links()}
        settings = results.attrs(slug)["settings"]
    assert slug.startswith("small-ten-crop@")
    assert settings["input"]["crops"] == 10
    assert len(table) == 9
    for image_id, rows in table.groupby("image_id"):
        z = plain.module((crops_by_torchvision(folder / names[image_id]) - 0.4) / 0.3).detach().double()
        p = (z.sigmoid() if activation == "sigmoid" else z.softmax(1)).mean(0)
        expected = p.logit() if activation == "sigmoid" else p.log()
        order = [plain.labels.index(finding) for finding in rows["finding"]]
        np.testing.assert_allclose(rows["probability"], p[order], atol=1e-5)
        np.testing.assert_allclose(rows["logit"], expected[order], atol=1e-5)


def test_the_usual_predictions_fit_into_the_same_file_and_only_they_are_explained(folder, tmp_path):
    plain, out = model(), tmp_path / "r.h5"
    run(plain, folder, (), out, workers=0)
    run(ten_crop(plain), folder, (), out, workers=0)
    with pytest.raises(UsageError, match="means over ten crops") as error:
        explain_results(out, ["saliency"])
    assert "-m" in error.value.hint
    explain_results(out, ["saliency"], [plain], workers=0)
    with cxrx.open_results(out) as results:
        assert {slug: results.methods(slug) for slug in results.models()} == {
            plain.slug: ["saliency"],
            ten_crop(plain).slug: [],
        }


def test_explaining_in_one_go_is_refused_before_any_work(folder, tmp_path):
    with pytest.raises(UsageError, match="a mean of ten pictures has no one map"):
        run(ten_crop(model()), folder, ["saliency"], tmp_path / "r.h5")
    assert not (tmp_path / "r.h5").exists()


def test_asked_for_when_explaining_it_is_refused_with_a_sentence(folder, tmp_path):
    words = ["explain", str(folder), "--ten-crop", "--method", "saliency", "-o", str(tmp_path / "r.h5")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == EXIT_USAGE
    assert "a mean over ten crops has no one map" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["films"]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_network_that_is_quite_certain_gives_its_own_logits_and_no_infinity(activation):
    certain = ten_crop(model(scale=1e4, activation=activation))
    same = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).expand(-1, 10, -1, -1)
    x = certain.prepare(same)
    z = certain.module(x[:, 0]).detach()
    assert z.abs().max() > 500
    assert torch.allclose(certain.logits(x), z if activation == "sigmoid" else z.log_softmax(1), rtol=1e-5, atol=1e-3)


def test_two_classes_of_one_finding_and_outputs_that_are_probabilities():
    pair = ten_crop(model(2, ("a",), activation="softmax"))
    x = pair.prepare(torch.rand(2, 10, 32, 32, generator=torch.Generator().manual_seed(0)))
    z = pair.module(x.flatten(0, 1)).detach().unflatten(0, (2, 10))
    assert torch.allclose(pair.logits(x).sigmoid()[:, 0], z.softmax(2)[..., 1].mean(1), atol=1e-6)
    squashed = Model(nn.Sequential(network(), nn.Sigmoid()), "abc", SPEC, name="s", output="probabilities")
    assert torch.allclose(ten_crop(squashed).logits(x), ten_crop(model()).logits(x), atol=1e-4)


@pytest.mark.parametrize("spec", [InputSpec(), InputSpec(fit="pad"), InputSpec(resize=224), InputSpec(resize=200)])
def test_a_model_that_sees_the_whole_film_has_nothing_to_crop(spec):
    with pytest.raises(UsageError, match="nothing to crop ten times"):
        ten_crop(Model(nn.Identity(), ["a"], spec, name="x"))
