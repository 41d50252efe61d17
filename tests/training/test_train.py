"""Whole trainings of tiny networks: what they learn, write, survive and refuse."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from cxrx.errors import CxrxError, InterruptedRunError, LockedError, NothingReadableError, UsageError, exit_code_of
from cxrx.models.checkpoints import read_checkpoint
from cxrx.models.load import load_model
from cxrx.training import classifier, loop, state
from cxrx.training import run as run_module
from cxrx.training import train as train_module
from cxrx.training.loader import TrainingFilms

PLAIN = {"rotate": 0, "shift": 0, "zoom": 0, "brightness": 0, "contrast": 0}
FILES = {"last.pt", "model.safetensors", "metrics.csv", "curve.png", "card.md", "report.json", "train.json", ".lock"}


@pytest.fixture(scope="module")
def learned(easy, tmp_path_factory, film_cache):
    """A training of eight epochs on the easy films."""
    from cxrx.training.recipes import make_recipe
    from cxrx.training.run import TrainingConfig
    from cxrx.training.train import train

    out = tmp_path_factory.mktemp("learned") / "run"
    recipe = make_recipe("default", {"epochs": 8, "batch": 8, "lr": 3e-3, "rotate": 0, "shift": 0, "zoom": 0})
    lines = []
    where = {"data": easy, "model": "timm/test_resnet", "out": out, "cache": film_cache}
    config = TrainingConfig(**where, recipe=recipe, input_size=64, device="cpu", workers=0)
    return train(config, log=lines.append), lines


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------------------------------------------------------
# What it learns and writes


def test_it_learns_what_can_be_seen(learned):
    outcome, lines = learned
    effusion = outcome.test.rows[outcome.findings.index("Effusion")]
    assert effusion["auroc"] > 0.85
    assert {p.name for p in outcome.out.iterdir()} == FILES
    assert any("not mirrored" in line for line in lines)
    history = rows_of(outcome.out / "metrics.csv")
    assert [int(row["epoch"]) for row in history if row["finding"] == "all"] == list(range(1, 9))
    losses = [float(row["train_loss"]) for row in history if row["finding"] == "all"]
    assert losses[-1] < 0.7 * losses[0]
    best = max((float(row["auroc"]), -int(row["epoch"])) for row in history if row["finding"] == "all")
    assert outcome.progress.best_epoch == -best[1]
    assert (outcome.out / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_the_weights_tell_all_that_is_needed_and_give_the_same_logits(learned, easy):
    outcome, _ = learned
    path = outcome.out / "model.safetensors"
    told = read_checkpoint(path).others
    assert json.loads(told["labels"]) == list(outcome.findings) == ["Effusion", "Mass"]
    assert json.loads(told["thresholds"]) == outcome.thresholds
    assert (told["arch"], told["activation"], told["output"]) == ("timm/test_resnet", "sigmoid", "logits")
    model = load_model("timm/test_resnet", path, device="cpu")
    assert model.labels == outcome.findings
    assert model.input.size == (64, 64)
    plain = timm.create_model("test_resnet", num_classes=2).eval()
    plain.load_state_dict(load_file(path))
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model.logits(x), plain(x), atol=1e-5, rtol=1e-5)


def test_a_run_is_a_model_by_its_folder_or_its_file(learned):
    outcome, _ = learned
    file = outcome.out / "model.safetensors"
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = load_model("timm/test_resnet", file, device="cpu")
    for name in (str(outcome.out), str(file)):
        model = load_model(name, device="cpu")
        assert (model.labels, model.input, model.slug) == (expected.labels, expected.input, expected.slug)
        assert torch.equal(model.logits(x), expected.logits(x))
        assert model.source == expected.source
    with pytest.raises(UsageError, match="brings its own weights"):
        load_model(str(outcome.out), file, device="cpu")
    with pytest.raises(UsageError, match=r"holds no model\.safetensors"):
        load_model(str(outcome.out.parent), device="cpu")


def test_the_test_numbers_are_those_of_reading_the_films_anew(learned, easy):
    """Independent of cache, split bookkeeping and metrics: through the reader, load_model and scikit-learn."""
    from cxrx.datasets import open_dataset
    from cxrx.reading.find import find
    from cxrx.reading.options import ReadOptions
    from cxrx.reading.prepare import prepare_item

    outcome, _ = learned
    dataset = open_dataset(easy)
    model = load_model("timm/test_resnet", outcome.out / "model.safetensors", device="cpu")
    labels, scores = [], []
    for item in find([easy / "films"]):
        path = f"films/{item.relative}"
        if dataset.split(path, 0) == "test":
            pixels = prepare_item(item, model.input, ReadOptions())[0].pixels
            scores.append(float(model.logits(model.prepare(torch.from_numpy(pixels)[None]))[0, 0]))
            labels.append(dataset.truth(path).labels["Effusion"])
    row = outcome.test.rows[0]
    assert row["n"] == len(labels)
    assert row["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=0.02)  # 8 bits may turn a close pair
    cut = outcome.thresholds["Effusion"]
    found = 1 / (1 + np.exp(-np.array(scores))) >= cut
    assert row["tp"] == pytest.approx((found & (np.array(labels) == 1)).sum(), abs=1)


def test_card_and_report_say_what_was_done(learned):
    outcome, _ = learned
    card = (outcome.out / "card.md").read_text()
    for phrase in ("Not a medical device", "timm/test_resnet", "372,", "Effusion, Mass", "situs inversus",
                   "patient-wise", "looked at once", f"epoch {outcome.progress.best_epoch}"):  # fmt: skip
        assert phrase in card
    report = json.loads((outcome.out / "report.json").read_text())
    assert report["test"]["rows"][0]["auroc"] == outcome.test.rows[0]["auroc"]
    assert report["thresholds"] == outcome.thresholds
    assert sum(report["films"].values()) == 70
    assert json.loads((outcome.out / "train.json").read_text())["made_by"]["torch"] == torch.__version__


def test_resumable_state_holds_tensors_and_plain_data_only(learned):
    outcome, _ = learned
    content = torch.load(outcome.out / "last.pt", weights_only=True)
    assert content["progress"]["epoch"] == 8


def test_classes_that_exclude_each_other(tmp_path, config_of, run, write_films):
    import shutil

    source = write_films(tmp_path / "source", 45)
    classes = ("COVID19", "NORMAL", "PNEUMONIA")
    for i, path in enumerate(sorted((source / "films").iterdir())):
        folder = tmp_path / "data" / classes[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    outcome = run(config_of(tmp_path / "data", epochs=1, batch=8))
    assert outcome.findings == ("COVID-19", "No Finding", "Pneumonia")
    confusion = np.array(outcome.test.confusion)
    assert confusion.sum() == outcome.test.rows[0]["n"]
    assert outcome.test.overall["accuracy"] == pytest.approx(np.trace(confusion) / confusion.sum())
    assert outcome.test.rows[1]["tp"] == confusion[1, 1]
    assert load_model("timm/test_resnet", outcome.out / "model.safetensors", device="cpu").activation == "softmax"
    card = (outcome.out / "card.md").read_text()
    assert "true class" in card
    assert "the class of highest probability" in card


@pytest.mark.parametrize(
    "given",
    [{"preset": "chexnet", "labels": ["Effusion"]}, {"balance": "sampler", "optimiser": "sgd"},
     {"balance": "pos-weight", "threshold": "youden", "uncertain": "positive"},
     {"model": "timm/test_vit", "preset": "medical-mae"}],
    ids=lambda g: next(iter(g.values())),
)  # fmt: skip
def test_recipes_run(easy, config_of, run, given):
    outcome = run(config_of(easy, **(given | {"epochs": 1})))
    assert np.isfinite(outcome.progress.history[0]["train_loss"])


def test_a_network_of_ones_own_learns(easy, config_of, run, net):
    outcome = run(replace(config_of(easy, model=net, epochs=1), input_size=None))
    path = outcome.out / "model.safetensors"
    assert read_checkpoint(path).others["arch"] == "net.py:build"  # not where it lies
    model = load_model(net, path, device="cpu")
    assert model.labels == outcome.findings
    assert model.input.channels == 1
    with pytest.raises(UsageError, match="one input"):
        run(config_of(easy, out="other", model=net))


def test_a_network_of_ones_own_that_ends_in_a_sigmoid_is_refused(easy, config_of, run, net, tmp_path):
    file = Path(net.rpartition(":")[0])
    squashing = tmp_path / "squashing.py"
    squashing.write_text(
        file.read_text()
        + "\n\nfrom torch import nn as _nn\n\n\ndef squashed(labels):\n"
        + "    return _nn.Sequential(build(labels), _nn.Sigmoid())\n"
    )
    with pytest.raises(UsageError, match="must end in logits") as refused:
        run(replace(config_of(easy, out="squashed", model=f"{squashing}:squashed", epochs=1), input_size=None))
    assert "leave out its last sigmoid" in refused.value.hint


@pytest.mark.slow
def test_bf16_runs(easy, config_of, run):
    outcome = run(config_of(easy, epochs=1, dtype="bf16"))
    assert np.isfinite(outcome.progress.history[0]["train_loss"])


def test_fewer_films_are_nested(easy):
    from cxrx.training.data import fewer, read_labels
    from cxrx.training.recipes import make_recipe

    films = read_labels(easy, make_recipe("default", {}), None)
    few, some = (fewer(films, count, seed=0) for count in (20, 30))
    train = [set(np.array(part.paths)[part.rows("train")]) for part in (few, some, films)]
    assert [len(part) for part in train[:2]] == [20, 30]
    assert train[0] < train[1] < train[2]
    assert list(few.rows("test")) != []
    assert set(np.array(few.paths)[few.rows("test")]) == set(np.array(films.paths)[films.rows("test")])


# ---------------------------------------------------------------------------------------------------------------------
# Fairness


def test_the_test_films_are_looked_at_once_and_training_films_alone_are_augmented(easy, config_of, run, monkeypatch):
    looked, augmented = [], set()
    predict, fetch = classifier.predict, TrainingFilms.__getitems__

    def watched(model, store, rows):
        looked.append(tuple(rows))
        return predict(model, store, rows)

    def fetched(self, picks):
        augmented.update(row for _, row in picks)
        return fetch(self, picks)

    monkeypatch.setattr(classifier, "predict", watched)
    monkeypatch.setattr(TrainingFilms, "__getitems__", fetched)
    run(config_of(easy, epochs=3))
    films = train_module.read_labels(easy, config_of(easy).recipe, None)
    train, valid, test = (tuple(films.rows(split)) for split in ("train", "valid", "test"))
    assert looked == [valid] * 4 + [test]
    assert augmented <= set(train)
    patients = [{films.patients[i] for i in rows} for rows in (train, valid, test)]
    assert len(set.union(*patients)) == sum(map(len, patients))


def test_a_finished_run_is_not_tested_again(easy, config_of, run, monkeypatch):
    first = run(config_of(easy, epochs=1))
    monkeypatch.setattr(run_module, "decode", lambda *_, **__: pytest.fail("it looked again"))
    again = run(config_of(easy, epochs=1))
    assert again.test.rows[0]["auroc"] == first.test.rows[0]["auroc"]
    assert again.thresholds == first.thresholds


def test_early_stopping_counts_epochs_without_a_better_score(easy, config_of, run, monkeypatch):
    def no_better(self):
        found, loss, thresholds = validate(self)
        found.rows[-1]["auroc"] = 0.6
        return found, loss, thresholds

    validate = classifier.ClassifierTraining.validate
    monkeypatch.setattr(classifier.ClassifierTraining, "validate", no_better)
    outcome = run(config_of(easy, epochs=9, patience=2))
    assert (outcome.progress.epoch, outcome.progress.best_epoch) == (3, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Kills and other surprises

STOCHASTIC = {
    "model": "timm/test_vit", "epochs": 4, "drop_path": 0.2, "rotate": 10, "brightness": 0.2, "balance": "sampler",
    "schedule": "plateau", "plateau_patience": 0, "layer_decay": 0.8, "warmup": 1,
}  # fmt: skip


def same_weights(a, b):
    one, other = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    last = [torch.load(folder / "last.pt", weights_only=True)["modules"]["network"] for folder in (a, b)]
    assert one.keys() == other.keys()
    return all(torch.equal(one[k], other[k]) for k in one) and all(torch.equal(last[0][k], last[1][k]) for k in last[0])


def numbers(folder):
    timing = {"seconds", "waited", "films_per_second"}
    return [{k: v for k, v in row.items() if k not in timing} for row in rows_of(folder / "metrics.csv")]


class Killed(BaseException):
    """Stands for a kill: nothing may handle it."""


@pytest.mark.parametrize(
    "step",
    [*(pytest.param(step, marks=pytest.mark.slow) for step in ("write_model", "write_metrics")), "save_state"],
)
def test_resuming_after_a_kill_gives_the_same_bits(easy, config_of, run, monkeypatch, step):
    whole = run(config_of(easy, out="whole", **STOCHASTIC))
    calls, module = [], loop if step == "save_state" else classifier
    original = getattr(module, step)

    def dies(*args):
        calls.append(step)
        if len(calls) == (1 if step == "write_model" else 2):  # a second epoch need not be better
            raise Killed
        original(*args)

    monkeypatch.setattr(module, step, dies)
    with pytest.raises(Killed):
        run(config_of(easy, out="killed", **STOCHASTIC))
    monkeypatch.setattr(module, step, original)
    resumed = run(config_of(easy, out="killed", **STOCHASTIC))
    assert same_weights(whole.out, resumed.out)
    assert numbers(whole.out) == numbers(resumed.out)
    assert whole.thresholds == resumed.thresholds


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_bits(easy, tmp_path, config_of, run, film_cache):
    given = {"epochs": 12, "batch": 8, "drop_path": 0.2, "rotate": 10, "lr": 1e-3}
    words = [sys.executable, "-m", "cxrx", "train", str(easy), "-m", "timm/test_vit", "--input-size", "64", "--workers",
             "0", "--device", "cpu", "--cache", str(film_cache), "--labels", "Effusion", "-o", str(tmp_path / "killed"),
             *(word for k, v in (PLAIN | given).items() for word in ("-O", f"{k}={v}"))]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CXRX_PLUGINS": ""}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240  # only a bound: on a busy machine the program takes long to start
    while process.poll() is None and time.monotonic() < deadline and not (tmp_path / "killed" / "last.pt").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was too quick to be killed"
    assert 1 <= torch.load(tmp_path / "killed" / "last.pt", weights_only=True)["progress"]["epoch"] < 12
    given |= {"model": "timm/test_vit", "labels": ["Effusion"]}
    resumed, whole = (run(config_of(easy, out=out, **given)) for out in ("killed", "whole"))
    assert same_weights(resumed.out, whole.out)


def test_an_interrupt_keeps_whole_epochs(easy, config_of, run):
    def log(line):
        if line.startswith("epoch 2"):
            os.kill(os.getpid(), signal.SIGTERM)

    config = config_of(easy, epochs=4)
    with pytest.raises(InterruptedRunError) as caught:
        run(config, log=log)
    assert exit_code_of(caught.value) == 143
    assert torch.load(config.out / "last.pt", weights_only=True)["progress"]["epoch"] == 2
    assert run(config).progress.epoch == 4


def test_another_training_is_not_overwritten(easy, config_of, run):
    run(config_of(easy, epochs=1))
    with pytest.raises(LockedError, match="recipe") as caught:
        run(config_of(easy, epochs=1, lr=1e-3))
    assert caught.value.exit_code == 5
    assert run(config_of(easy, epochs=1, lr=1e-3, resume=False)).progress.epoch == 1
    foreign = config_of(easy, out="foreign")
    foreign.out.mkdir()
    (foreign.out / "model.safetensors").write_text("mine")
    with pytest.raises(LockedError, match="another program"):
        run(foreign)
    assert (foreign.out / "model.safetensors").read_text() == "mine"


def test_a_damaged_state_is_told(easy, config_of, run):
    config = config_of(easy, epochs=1)
    run(config)
    (config.out / "report.json").unlink()
    (config.out / "last.pt").write_bytes(b"junk")
    with pytest.raises(CxrxError, match=r"last\.pt"):
        run(config)


def test_a_loss_that_is_no_number_ends_the_training_with_nothing_half_written(easy, config_of, run):
    config = config_of(easy, epochs=3, lr=1e30, optimiser="sgd", clip=0, warmup=0, cache=None)
    with pytest.raises(CxrxError, match="no number") as caught:
        run(config)
    assert caught.value.exit_code == 1
    assert "lr=" in caught.value.hint
    left = {p.name for p in config.out.iterdir()}
    assert not left & {"model.safetensors", "last.pt", "metrics.csv", "report.json"}
    assert run(config_of(easy, epochs=1)).progress.epoch == 1  # another rate may take the folder over


def test_weights_that_the_last_step_ruined_are_not_kept(easy, config_of, run):
    """The loss of the only step is a number; that of the weights it leaves is none."""
    config = config_of(easy, model="timm/test_vit", epochs=1, batch=99, lr=1e30, optimiser="sgd", clip=0, warmup=0)
    with pytest.raises(CxrxError, match="no number") as caught:
        run(config)
    assert "--no-resume" not in caught.value.hint
    assert not {"model.safetensors", "last.pt"} & {p.name for p in config.out.iterdir()}
    with pytest.raises(CxrxError) as caught:
        loop.Training.check_loss(SimpleNamespace(recipe=config.recipe, remedies=("clip=1",)), float("nan"), 2, 5)
    assert "--no-resume" in caught.value.hint  # whole epochs with other values lie there


def test_state_is_written_whole_or_not_at_all(easy, config_of, run, monkeypatch):
    config = config_of(easy, epochs=2)
    run(config)
    before = (config.out / "last.pt").read_bytes()

    def breaks(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    (config.out / "report.json").unlink()
    monkeypatch.setattr(state.atomic, "write_at", breaks)  # torch.save itself would say something else of a full disk
    network = torch.nn.Linear(1, 1)
    learner = SimpleNamespace(key="n", network=network, optimiser=torch.optim.SGD(network.parameters(), lr=1.0))
    with pytest.raises(CxrxError) as caught:
        state.save_state(config.out, state.Progress(), learner)
    assert caught.value.exit_code == 28
    assert (config.out / "last.pt").read_bytes() == before


# ---------------------------------------------------------------------------------------------------------------------
# Films that cannot be read


def test_unreadable_films_are_listed_and_left_out(tmp_path, config_of, run, write_films):
    data = write_films(tmp_path / "data", 40)
    (data / "films" / "007.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    (data / "films" / "021.png").unlink()
    outcome = run(config_of(data, epochs=1, batch=8))
    listed = {row["path"]: row["code"] for row in rows_of(outcome.out / "failures.csv")}
    assert set(listed) == {"films/007.png"}  # the folder decides which films there are: 021 is not among them
    assert (outcome.out / "failures.csv").stat().st_mode & 0o077 == 0
    report = json.loads((outcome.out / "report.json").read_text())
    assert (len(report["unread"]), sum(report["films"].values())) == (1, 38)


def test_films_that_a_table_calls_lateral_are_not_learned(tmp_path, config_of, run, write_films):
    views = ["LATERAL" if i % 4 == 0 else "PA" for i in range(40)]
    outcome = run(config_of(write_films(tmp_path / "data", 40, extra=[("view", views)]), epochs=1, batch=8))
    assert sorted(u.path for u in outcome.unread) == [f"films/{i:03d}.png" for i in range(0, 40, 4)]
    assert {u.code for u in outcome.unread} == {"view"}
    assert sum(json.loads((outcome.out / "report.json").read_text())["films"].values()) == 30


def test_copies_are_not_learned_and_tested(tmp_path, config_of, run, write_films):
    """Tables without patients, and the same film under two names."""
    from cxrx.datasets import open_dataset
    from cxrx.training.films import decode

    data = write_films(tmp_path / "data", 40)
    split = open_dataset(data).split
    names = [f"films/{i:03d}.png" for i in range(40)]
    learned, tested = (next(n for n in names if split(n) == where) for where in ("train", "test"))
    (data / learned).write_bytes((data / tested).read_bytes())
    config = config_of(data)
    films = train_module.read_labels(data, config.recipe, None)
    decoded = decode(data, films.paths, load_model("demo-vit", device="cpu").input, tmp_path / "own", workers=0)
    kept = films.without_copies(decoded.ids)
    place = dict(zip(kept.paths, kept.splits, strict=True))
    assert (place[learned], place[tested]) == ("", "test")
    assert sum(word == "" for word in kept.splits) == 1
    assert "1 films are copies" in kept.notes[-1]


def test_too_many_unreadable_films_end_the_run_and_leave_nothing(tmp_path, config_of, run, write_films):
    data = write_films(tmp_path / "data", 40)
    for i in range(10):
        (data / "films" / f"{i:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    config = config_of(data, cache=None)
    with pytest.raises(CxrxError, match="10 of 40 films cannot be read") as caught:
        run(config)
    assert caught.value.exit_code == 1
    assert {p.name for p in config.out.iterdir()} == {".lock"}
    for path in (data / "films").iterdir():
        path.write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(NothingReadableError):
        run(config_of(data, cache=None))


@pytest.mark.slow
def test_films_are_decoded_once(easy, config_of, run, monkeypatch, tmp_path):
    from cxrx.training import films as films_module

    read = []
    prepare = films_module.prepare_item

    def counted(item, **options):
        read.append(item.relative)
        return prepare(item, **options)

    monkeypatch.setattr(films_module, "prepare_item", counted)
    run(config_of(easy, out="one", epochs=3, cache=tmp_path / "own"))
    assert len(read) == len(set(read)) == 70
    run(config_of(easy, out="two", epochs=1, cache=tmp_path / "own"))
    assert len(read) == 70


# ---------------------------------------------------------------------------------------------------------------------
# Initial weights


def test_a_checkpoint_with_another_head_starts_a_network(learned, easy, config_of, run):
    outcome, _ = learned
    lines = []
    again = run(config_of(easy, init=str(outcome.out), epochs=1, labels=["Effusion"], lr=1e-12), log=lines.append)
    assert any("its head is new" in line for line in lines)
    before, after = (load_file(folder / "model.safetensors") for folder in (outcome.out, again.out))
    assert torch.allclose(before["conv1.0.weight"], after["conv1.0.weight"])
    assert after["fc.weight"].shape[0] == 1


def test_a_checkpoint_of_another_network_is_refused_by_name(learned, easy, config_of, run):
    outcome, _ = learned
    with pytest.raises(UsageError, match="does not fit") as caught:
        run(config_of(easy, init=str(outcome.out / "model.safetensors"), model="timm/test_vit"))
    assert "blocks.0.attn.proj.bias" in str(caught.value)
    assert "bn1.bias" in str(caught.value)


@pytest.mark.parametrize(
    ("init", "model", "words"),
    [("supervised", "timm/test_vit", "CXRX_OFFLINE"), ("mae", "timm/test_resnet", "no mae weights"),
     ("nowhere.pth", "timm/test_vit", "no file")],
)  # fmt: skip
def test_initial_weights_that_are_not_to_be_had(easy, config_of, run, monkeypatch, init, model, words):
    monkeypatch.setenv("CXRX_OFFLINE", "1")
    config = config_of(easy, init=init, model=model)
    with pytest.raises(UsageError) as caught:
        run(config)
    assert words in str(caught.value)
    assert not config.out.exists()


def test_a_folder_that_is_called_like_an_initialisation_is_told(easy, config_of, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random").mkdir()
    lines = []
    run(config_of(easy, epochs=1), log=lines.append)
    assert any("./random" in line for line in lines)
    (tmp_path / "mae").mkdir()
    with pytest.raises(UsageError) as caught:
        run(config_of(easy, out="other", init="mae"))
    assert "./mae" in caught.value.hint


def test_published_weights_are_loaded_but_for_the_head(easy, config_of, monkeypatch):
    """Where timm would download, a network of known weights stands in."""
    from cxrx.training.network import make_network

    published = timm.create_model("test_vit", num_classes=0, img_size=64)
    torch.nn.init.constant_(published.blocks[0].mlp.fc1.weight, 0.25)
    create = timm.create_model

    def offered(name, pretrained=False, **options):
        return published if pretrained else create(name, pretrained=pretrained, **options)

    monkeypatch.delenv("CXRX_OFFLINE", raising=False)
    monkeypatch.setattr(timm, "create_model", offered)
    config = config_of(easy, model="timm/test_vit")
    model = make_network(config, ("a", "b"), "multi-label", config.recipe, "supervised")
    assert (model.module.blocks[0].mlp.fc1.weight == 0.25).all()
    assert model.module.head.weight.shape[0] == 2
    assert "head is new" in model.notes[0]


@pytest.mark.slow
def test_the_demo_network_starts_at_random(easy, config_of, run):
    config = config_of(easy, model="demo-densenet", epochs=1)
    outcome = run(replace(config, input_size=None))
    own = load_file(Path(load_model.__code__.co_filename).parent / "weights" / "demo-densenet.safetensors")
    learned_weights = load_file(outcome.out / "model.safetensors")["features.conv0.weight"]
    assert not torch.allclose(own["features.conv0.weight"].float(), learned_weights, atol=0.02)
