"""The demo weights are as good as promised, and the script that makes them runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.metrics import roc_auc_score

from cxrx.models.demo import DEMO_DENSENET, DEMO_VIT
from cxrx.phantom import FINDINGS

sys.path.insert(0, str(Path(__file__).parent))  # its worker processes import the script, too

import train_demo as demo

UNSEEN_SEED, UNSEEN = 300, 200  # neither the training script's seed nor that of its test


@pytest.fixture(scope="module")
def unseen():
    return demo.phantoms(UNSEEN_SEED, UNSEEN, demo.TRAIN_SIZE)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "promised"), [(DEMO_DENSENET, 0.95), (DEMO_VIT, 0.90)], ids=lambda v: str(v)[:12])
def test_demo_models_are_as_good_as_promised(unseen, spec, promised):
    labels = unseen.labels
    scores = demo.predict(demo.load_weights(spec, spec.weights), spec, unseen.pixels)
    found = demo.auroc(labels, scores)
    assert np.mean(list(found.values())) >= promised, found
    # the script's own AUROC is scikit-learn's macro average
    assert np.mean(list(found.values())) == pytest.approx(roc_auc_score(labels, scores, average="macro"))


@pytest.mark.slow
def test_phantoms_are_prepared_as_in_inference():
    """Against the reading path itself, and whatever number of processes drew them."""
    from cxrx.phantom import make_film
    from cxrx.reading.item import Item
    from cxrx.reading.prepare import prepare
    from cxrx.specs import Film

    size = (192, 168)
    films = demo.phantoms(5, 6, size)
    assert films.pixels.shape == (6, 128, 128)
    assert films.labels.shape == (6, len(FINDINGS))
    film = make_film(5, 4, size=size)
    expected = prepare(Item(Path("/x"), "x", 0, 0, ""), Film(film.pixels, sha256="0" * 64), DEMO_DENSENET.input).pixels
    np.testing.assert_allclose(films.pixels[4] / 255, expected, atol=0.5 / 255 + 1e-6)
    assert films.labels[4].tolist() == [film.labels[name] for name in FINDINGS]
    shared = demo.phantoms(5, 6, size, workers=2)
    np.testing.assert_array_equal(films.pixels, shared.pixels)
    np.testing.assert_array_equal(films.labels, shared.labels)
    np.testing.assert_array_equal(films.cells, shared.cells)


def test_cells_are_those_that_masks_reach():
    """A film of 256 x 224 is halved and padded by 8 columns: cell (i, j) is 32 film pixels from (32 i, 32 j - 16)."""
    from cxrx.phantom import make_film

    films = demo.phantoms(5, 8, (256, 224))
    assert films.cells.shape == (8, len(FINDINGS), 8, 8)
    np.testing.assert_array_equal(films.cells.any((2, 3)), films.labels == 1)
    for k in range(8):
        for finding, mask in make_film(5, k, size=(256, 224)).masks.items():
            padded = np.pad(mask, ((0, 0), (16, 16)))
            reached = padded.reshape(8, 32, 8, 32).any((1, 3))
            found = films.cells[k, FINDINGS.index(finding)].astype(bool)
            assert not (found & ~reached).any()
            assert (found == reached).mean() > 0.93  # but for corners that hold no whole pixel after resizing


def test_thumbnails_are_block_means():
    pixels = np.arange(2 * 128 * 128, dtype=np.uint32).reshape(2, 128, 128) % 251
    made = demo.thumbnails(pixels.astype(np.uint8))
    assert made.shape == (2, 256)
    assert made[1, 16 * 3 + 5] == pytest.approx(pixels[1, 24:32, 40:48].mean() / 255, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(demo.RECIPES))
def test_the_script_trains_tests_and_writes(name, tmp_path, capsys):
    arguments = ["--model", name, "--out", str(tmp_path), "--films", "64", "--epochs", "1", "--test-films", "40"]
    results = demo.main([*arguments, "--workers", "1"])
    spec = demo.RECIPES[name].spec
    assert set(results) == {spec.name}
    assert set(results[spec.name]) == set(FINDINGS)
    line = json.loads(capsys.readouterr().out)
    assert line["auroc"] == results[spec.name]
    weights = tmp_path / f"{spec.name}.safetensors"
    network = demo.load_weights(spec, weights)
    assert all(p.dtype == torch.float32 for p in network.parameters())
    with safe_open(weights, framework="pt") as file:
        assert file.get_tensor(next(iter(file.keys()))).dtype == torch.float16
    assert "| **macro** |" in weights.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_training_learns_what_is_easy():
    """Films that are black or white by their first label: the network must tell them apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (64, 5)).astype(np.int8)
    pixels = np.broadcast_to(labels[:, :1, None].astype(np.uint8) * 200 + 20, (64, 128, 128)).copy()
    films = demo.Films(pixels, labels, np.zeros((64, 5, 8, 8), np.int8))
    recipe = demo.Recipe(DEMO_DENSENET, films=64, epochs=8, learning_rate=3e-3, weight_decay=0.0)
    network = demo.train(recipe, films)
    logits = demo.predict(network, DEMO_DENSENET, pixels)
    assert roc_auc_score(labels[:, 0], logits[:, 0]) > 0.95
