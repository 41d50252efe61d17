"""What is read off a labelled folder, and what is refused: a sentence, the right code, nothing written."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from cxrx.cli.main import app
from cxrx.errors import UsageError
from cxrx.training.data import of_one_class, read_labels
from cxrx.training.recipes import make_recipe

DEFAULT = make_recipe("default", {})


@pytest.fixture
def cli(capsys):
    """Run a command line; return exit code and stderr."""

    def call(*words):
        with pytest.raises(SystemExit) as left:
            app([str(word) for word in words])
        return left.value.code, capsys.readouterr().err

    return call


@pytest.fixture
def table_of(tmp_path, write_films, write_table):
    """Write thirty films with a table of one's own: ``table_of(header, row_of_film)``."""

    def make(header, row):
        data = write_films(tmp_path / "data", 30)
        write_table(data / "truth.csv", [["path", *header], *([f"films/{i:03d}.png", *row(i)] for i in range(30))])
        return data

    return make


def test_labels_patients_and_splits(easy):
    films = read_labels(easy, DEFAULT, None)
    assert (films.task, films.findings, films.split_kind) == ("multi-label", ("Effusion", "Mass"), "patient-wise")
    with (easy / "truth.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    for path, labels, patient in zip(films.paths, films.labels, films.patients, strict=True):
        expected = [-2 if rows[path][name] == "" else int(rows[path][name]) for name in films.findings]
        assert labels.tolist() == expected
        assert patient == rows[path]["patient"]
    for patient in set(films.patients):
        assert len({s for s, p in zip(films.splits, films.patients, strict=True) if p == patient}) == 1


def test_one_finding_is_binary(easy):
    assert read_labels(easy, DEFAULT, ["Effusion"]).task == "binary"
    with pytest.raises(UsageError, match="one finding"):
        read_labels(easy, make_recipe("default", {"task": "binary"}), None)


@pytest.mark.parametrize(("rule", "value"), [("ignore", -2), ("positive", 1), ("negative", 0)])
def test_uncertain_labels_are_what_the_recipe_says(table_of, rule, value):
    data = table_of(["Effusion"], lambda i: [-1 if i % 3 == 0 else i % 2])
    films = read_labels(data, make_recipe("default", {"uncertain": rule}), None)
    uncertain = [int(path[6:9]) % 3 == 0 for path in films.paths]
    if rule == "ignore":  # nothing else is known of them
        assert not any(uncertain)
        assert any("have no label" in note for note in films.notes)
    else:
        assert set(films.labels[np.array(uncertain), 0]) == {value}


def test_another_seed_has_the_same_test_films(easy):
    """Else what was pre-trained with one seed would be tested, with the next, on films it has seen."""
    first, other = (read_labels(easy, make_recipe("default", {"seed": seed}), None) for seed in (0, 1))
    assert first.splits == other.splits
    assert read_labels(easy, make_recipe("default", {"split_seed": 1}), None).splits != first.splits


def test_a_run_among_the_films_is_refused(easy, cli, monkeypatch):
    for command in ("train", "pretrain"):
        code, told = cli(command, easy, "-m", "timm/test_vit", "--input-size", "64", "-o", easy / "run")
        assert (code, "among the films" in told) == (2, True), told
    monkeypatch.chdir(easy)
    assert cli("train", ".", "-m", "timm/test_vit", "--input-size", "64")[0] == 2
    assert not (easy / "run").exists()


def test_published_splits_are_taken(table_of):
    names = ["train"] * 4 + ["valid", "test"]
    films = read_labels(table_of(["Effusion", "split"], lambda i: [(i // 6) % 2, names[i % 6]]), DEFAULT, None)
    assert films.split_kind == "official"
    assert films.splits == tuple(names[int(path[6:9]) % 6] for path in films.paths)


def test_a_patient_in_two_splits_is_refused(table_of, cli, tmp_path):
    names = ["train"] * 4 + ["valid", "test"]
    header = ["patient", "Effusion", "split"]
    data = table_of(header, lambda i: [f"p{0 if i in {0, 5} else i}", (i // 6) % 2, names[i % 6]])
    with pytest.raises(UsageError, match="1 patients have films in more than one"):
        read_labels(data, DEFAULT, None)
    code, told = cli("train", data, "-m", "timm/test_resnet", "-o", tmp_path / "run")
    assert code == 2
    assert "--split patient" in told
    assert not (tmp_path / "run").exists()
    drawn = read_labels(data, DEFAULT, None, "patient")
    place = dict(zip(drawn.paths, drawn.splits, strict=True))
    assert place["films/000.png"] == place["films/005.png"]


@pytest.mark.parametrize(
    ("words", "code", "phrase"),
    [
        (["--labels", "Efusion"], 2, "did you mean Effusion"),
        (["--labels", "Hernia"], 2, "Hernia"),
        (["-O", "lrr=1"], 2, "did you mean lr"),
        (["--recipe", "medical-mae", "-O", "layer_decay=3"], 2, "layer_decay"),
        (["-O", "task=binary"], 2, "one finding"),
        (["--init", "nowhere.pth"], 2, "no file"),
        (["-m", "densnet121"], 2, "densenet121"),
        (["--device", "cuda:9"], 2, "not available"),
        (["--films", "2"], 2, "no positive film"),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, list) else "",
)
def test_bad_requests_write_nothing(easy, cli, tmp_path, words, code, phrase):
    model = [] if "-m" in words else ["-m", "timm/test_resnet"]
    got, told = cli("train", easy, *model, "--input-size", "64", "-o", tmp_path / "run", *words)
    assert (got, phrase in told) == (code, True), told
    assert "internal error" not in told
    assert not (tmp_path / "run").exists()


def test_a_finding_that_is_never_or_always_present_is_refused(table_of):
    data = table_of(["Effusion", "Mass"], lambda i: [i % 2, 0])
    with pytest.raises(UsageError, match="Mass has no positive film") as caught:
        read_labels(data, DEFAULT, None)
    assert caught.value.hint == "leave it out: --labels Effusion"


def test_a_class_without_films_is_told(tmp_path, write_films):
    films = sorted((write_films(tmp_path / "source", 30) / "films").iterdir())
    for i, name in enumerate(["COVID19", "NORMAL", "PNEUMONIA"]):
        (tmp_path / "data" / name).mkdir(parents=True)
        for path in films[i::3] if name != "PNEUMONIA" else []:
            path.rename(tmp_path / "data" / name / path.name)
    films = read_labels(tmp_path / "data", DEFAULT, None)
    assert (films.findings, films.task) == (("COVID-19",), "binary")
    assert any("PNEUMONIA" in note for note in films.notes)
    with pytest.raises(UsageError, match="knows no finding 'Pneumonia'"):
        read_labels(tmp_path / "data", DEFAULT, ["COVID-19", "Pneumonia"])


def test_what_validation_films_cannot_choose_is_told(table_of):
    places = ["train"] * 3 + ["valid", "test"]
    data = table_of(["Effusion", "Mass", "split"], lambda i: [i % 2, int(i % 3 == 0 and i % 5 < 3), places[i % 5]])
    films = read_labels(data, DEFAULT, None)
    assert of_one_class(films) == ["Mass"]


@pytest.mark.parametrize(
    ("header", "row", "phrase"),
    [(["note"], ["x"], "nothing"), (["finding", "x", "y"], ["Effusion", 1, 2], "lacks")],
)
def test_a_table_without_its_columns_is_told(table_of, cli, tmp_path, header, row, phrase):
    data = table_of(header, lambda _: row)
    code, told = cli("train", data, "-m", "timm/test_resnet", "-o", tmp_path / "run")
    assert (code, phrase in told) == (2, True), told
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_asked_for(cli, tmp_path):
    for words, phrase in ((["train"], "a folder of films"), (["train", tmp_path], "name of a network"),
                          (["pretrain"], "a folder"), (["train", tmp_path / "no", "-m", "x"], "no folder"),
                          (["train", tmp_path, "-m", "timm/test_vit"], "nothing")):  # fmt: skip
        code, told = cli(*words)
        assert (code, phrase in told) == (2, True), told


def test_a_run_is_no_network_to_train(easy, cli, tmp_path):
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "model.safetensors").touch()
    code, told = cli("train", easy, "-m", tmp_path / "before", "-o", tmp_path / "run")
    assert (code, "--init" in told) == (2, True), told


def test_unreadable_films_end_in_code_three(tmp_path, write_films, cli):
    data = write_films(tmp_path / "data", 40)
    (data / "films" / "007.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    words = ["train", data, "-m", "timm/test_resnet", "--input-size", "64", "--workers", "0", "-O", "epochs=1"]
    words += ["-O", "batch=8", "--labels", "Effusion", "--device", "cpu"]
    code, told = cli(*words, "-o", tmp_path / "run")
    assert (code, "failures.csv" in told) == (3, True), told
    code, told = cli(*words, "-o", tmp_path / "run", "--allow-failures")  # finished already, and says so
    assert (code, "finished" in told) == (0, True), told


def test_recipes_are_shown(cli, capsys):
    with pytest.raises(SystemExit):
        app(["train", "--recipe", "medical-mae", "-O", "batch=64", "--show-recipe"])
    shown = capsys.readouterr().out
    assert "layer_decay" in shown
    assert "0.55" in shown
    assert "mirrored chest" in shown
