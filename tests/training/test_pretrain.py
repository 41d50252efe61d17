"""The masked autoencoder against loops and counts, and pre-training from films to ``--init``."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from cxrx.datasets import open_dataset
from cxrx.errors import UsageError
from cxrx.models.checkpoints import read_checkpoint
from cxrx.models.demo import build_vit
from cxrx.training import loop
from cxrx.training.data import draw_or_take
from cxrx.training.mae import (
    MaskedAutoencoder,
    Masking,
    masked_loss,
    normalised,
    patchify,
    random_masking,
    sincos,
    unpatchify,
)
from cxrx.training.pretrain import PretrainingConfig, films_to_learn_from, make_options, pretrain

SMALL = {"epochs": 3, "batch": 16, "warmup": 1, "width": 32, "depth": 1, "heads": 4, "lr_batch": 16, "lr": 1e-3}


def noise(films, patches, seed=0):
    return torch.rand(films, patches, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("patches", "ratio", "seen"), [(196, 0.9, 19), (196, 0.75, 49), (100, 0.9, 10), (16, 0.99, 1)])
def test_exactly_the_asked_share_is_hidden(patches, ratio, seen):
    masking = random_masking(noise(5, patches), ratio)
    assert masking.seen.shape == (5, seen)
    assert (masking.hidden.sum(1) == patches - seen).all()
    for b in range(5):
        assert (masking.hidden[b, masking.seen[b]] == 0).all()
        in_order = torch.cat([masking.seen[b], torch.full((patches - seen,), -1)])
        back = in_order[masking.back[b]]
        assert torch.equal(back[masking.hidden[b] == 0], torch.where(masking.hidden[b] == 0)[0])
        assert (back[masking.hidden[b] == 1] == -1).all()
    if seen > 1:
        assert not torch.equal(masking.hidden[0], masking.hidden[1])


def test_patches_are_cut_row_by_row():
    x = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).reshape(2, 3, 8, 12)
    patches = patchify(x, 4)
    assert patches.shape == (2, 6, 48)
    expected = x[1, :, 4:8, 8:12].permute(1, 2, 0).flatten()  # row 1, column 2
    assert torch.equal(patches[1, 5], expected)
    assert torch.equal(unpatchify(patches, 4, (2, 3)), x)


def test_the_loss_is_the_loop_over_hidden_patches():
    generator = torch.Generator().manual_seed(1)
    predicted, pixels = (torch.randn(2, 4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    hidden = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0]])
    total = 0.0
    for b in range(2):
        for n in range(4):
            if hidden[b, n]:
                patch = pixels[b, n].tolist()
                mean = sum(patch) / 6
                deviation = math.sqrt(sum((v - mean) ** 2 for v in patch) / 5 + 1e-6)
                target = [(v - mean) / deviation for v in patch]
                total += sum((p - t) ** 2 for p, t in zip(predicted[b, n].tolist(), target, strict=True)) / 6
    assert float(masked_loss(predicted, normalised(pixels), hidden)) == pytest.approx(total / 4)


def test_positions_are_sines_and_cosines_of_both_axes():
    positions = sincos((2, 3), 8)[0]
    assert positions.shape == (7, 8)
    assert (positions[0] == 0).all()
    row, column = 1, 2
    expected = [math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100),
                math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)]  # fmt: skip
    assert positions[1 + row * 3 + column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    vit = timm.create_model("test_vit", img_size=64, num_classes=1, in_chans=1)
    return MaskedAutoencoder(vit, (64, 64), width=32, depth=1, heads=4).eval()


def test_hidden_patches_are_never_seen(autoencoder):
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    masking = random_masking(noise(2, 16), 0.75)
    other = patchify(x, 16)
    other[masking.hidden == 1] = 9.0
    with torch.inference_mode():
        seen, changed = autoencoder(x, masking), autoencoder(unpatchify(other, 16, (4, 4)), masking)
        assert torch.equal(seen, changed)
        other[masking.hidden == 0] += 1
        assert not torch.equal(seen, autoencoder(unpatchify(other, 16, (4, 4)), masking))


def test_with_nothing_hidden_the_encoder_is_the_network_itself(autoencoder):
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    masking = Masking(torch.arange(16)[None], torch.arange(16)[None], torch.zeros(1, 16))
    with torch.inference_mode():
        encoded = autoencoder._encode(x, masking)
        torch.testing.assert_close(encoded, autoencoder.encoder.forward_features(x))


def test_weights_start_by_xaviers_rule(autoencoder):
    first = autoencoder.encoder.blocks[0].mlp.fc1
    bound = math.sqrt(6 / sum(first.weight.shape))
    assert 0.9 * bound < float(first.weight.detach().abs().max()) <= bound
    assert not first.bias.any()
    patches = autoencoder.encoder.patch_embed.proj.weight.detach()
    assert float(patches.abs().max()) <= math.sqrt(6 / (len(patches) + patches[0].numel()))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit_relpos"])
def test_other_networks_are_refused(name):
    with pytest.raises(UsageError, match="plain vision transformer"):
        MaskedAutoencoder(timm.create_model(name, num_classes=1), (64, 64), 32, 1, 4)


def test_patches_that_see_their_neighbours_are_refused():
    """The stem of demo-vit, and a kernel larger than its stride: what is seen would tell of what is hidden."""
    wide = timm.create_model("vit_tiny_patch16_224", num_classes=1, depth=1)
    wide.patch_embed.proj = torch.nn.Conv2d(3, 192, 32, 16)
    for network in (build_vit(["a"]), wide):
        with pytest.raises(UsageError, match="patches do not overlap"):
            MaskedAutoencoder(network, (224, 224), 32, 1, 4)


# ---------------------------------------------------------------------------------------------------------------------
# Whole pre-trainings


def learned_from(data, out, given=(), **rest):
    """Return the films that a pre-training on `data` would learn from."""
    config = PretrainingConfig(data=data, model="timm/test_vit", out=out, options=make_options(dict(given)), **rest)
    return films_to_learn_from(config)


@pytest.fixture
def pretraining_of(easy, tmp_path, film_cache):
    def make(out="pre", resume=True, **given):
        options = make_options(SMALL | given)
        rest = {"input_size": 64, "device": "cpu", "workers": 0, "cache": film_cache, "resume": resume}
        return PretrainingConfig(data=easy, model="timm/test_vit", out=tmp_path / out, options=options, **rest)

    return make


@pytest.mark.slow
def test_pretraining_learns_and_feeds_init(pretraining_of, config_of, easy, run):
    outcome = pretrain(pretraining_of(epochs=6))
    history = [float(line.split(",")[1]) for line in (outcome.out / "metrics.csv").read_text().splitlines()[1:]]
    assert history[-1] < history[0]
    assert (outcome.out / "reconstruction.png").read_bytes()[:4] == b"\x89PNG"
    encoder = load_file(outcome.out / "encoder.safetensors")
    plain = timm.create_model("test_vit", img_size=64, num_classes=2)
    assert encoder.keys() == {key for key in plain.state_dict() if not key.startswith("head.")}
    checkpoint = read_checkpoint(outcome.out / "encoder.safetensors")
    assert checkpoint.input.size == (64, 64)
    assert checkpoint.outputs is None
    lines = []
    frozen = config_of(easy, model="timm/test_vit", init=str(outcome.out), epochs=1, frozen=6)
    tuned = run(frozen, log=lines.append)
    assert any("its head is new" in line for line in lines)
    after = load_file(tuned.out / "model.safetensors")
    assert all(torch.equal(after[key], encoder[key]) for key in encoder if not key.startswith("norm."))
    assert "head.weight" in after


@pytest.mark.slow
def test_pretraining_resumes_to_the_same_bits(pretraining_of, monkeypatch):
    class Killed(BaseException):
        pass

    whole = pretrain(pretraining_of("whole"))
    save, calls = loop.save_state, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        save(*args)

    monkeypatch.setattr(loop, "save_state", dies)
    with pytest.raises(Killed):
        pretrain(pretraining_of("killed"))
    monkeypatch.setattr(loop, "save_state", save)
    resumed = pretrain(pretraining_of("killed"))
    one, other = (load_file(part.out / "encoder.safetensors") for part in (whole, resumed))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert whole.loss == resumed.loss
    assert pretrain(pretraining_of("killed")).loss == resumed.loss  # finished: nothing to do


def test_films_of_validation_and_test_are_not_looked_at(easy, tmp_path):
    def films_of(data=easy, count=None, split="auto", **options):
        return learned_from(data, tmp_path, options, films=count, split=split)

    dataset = open_dataset(easy)
    learned = set(films_of())
    assert learned == {path for path, _ in dataset.films() if dataset.split(path, 0) == "train"}
    few = films_of(count=10)
    assert len(few) == 10
    assert set(few) < set(films_of(count=20)) < learned
    assert set(films_of(seed=5)) == learned  # what a training with any seed is tested on stays unseen
    assert set(films_of(split_seed=5)) == {path for path, _ in dataset.films() if dataset.split(path, 5) == "train"}
    (tmp_path / "bare").mkdir()
    for path in list(learned)[:3]:
        (tmp_path / "bare" / path[-7:]).write_bytes((easy / path).read_bytes())
    assert len(films_of(tmp_path / "bare")) == 3  # without any table


def test_pretraining_leaves_out_what_a_training_of_the_same_split_tests(tmp_path, write_films):
    """Published splits that share patients, and splits drawn in spite of published ones."""
    places = ["train"] * 19 + ["test"] + ["valid"] * 4 + ["test"] * 6  # 18 and 19 are of one patient
    data = write_films(tmp_path / "data", 30, extra=[("split", places)])
    with (data / "truth.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    for rule in ("auto", "patient"):
        placed = draw_or_take(open_dataset(data), rule, 0).of
        paths = [path for path, _ in open_dataset(data).films()]
        judged = {rows[path]["patient"] for path, split in zip(paths, placed, strict=True) if split != "train"}
        learned = {rows[path]["patient"] for path in learned_from(data, tmp_path, split=rule)}
        assert len(learned) > 5
        assert not learned & judged


def test_pretraining_leaves_out_what_tables_call_lateral(tmp_path, write_films):
    data = write_films(tmp_path / "data", 30, extra=[("view", ["PA", "LATERAL", ""] * 10)])
    learned = learned_from(data, tmp_path)
    assert {int(path[6:9]) % 3 for path in learned} == {0, 2}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"mask_ratio": "1"}, "mask_ratio"),
        ({"width": "30"}, "width"),
        ({"lrr": "1"}, "lr"),
        ({"epochs": "0"}, "epochs"),
    ],
)
def test_wrong_values_are_refused(given, word):
    with pytest.raises(UsageError, match=word):
        make_options(given)


def test_defaults_are_those_of_films():
    options = make_options({})
    assert options.mask_ratio == 0.9
    assert np.isclose(options.lr * 4096 / options.lr_batch, 2.4e-3)
