"""Which row speaks of which film: never one of another folder, and never silently none."""

from __future__ import annotations

import unicodedata
import zipfile
from pathlib import Path

import pytest

from cxrx.datasets import discover, open_dataset, read_truth
from cxrx.engine.filter import path_of
from cxrx.reading.find import find


def labels(folder):
    return {path: dict(film.labels) for path, film in open_dataset(folder).films()}


def test_a_row_with_folders_is_of_no_film_in_another(lay):
    films = {f"{name}.png": (9, 9) for name in ("site_a/0001", "site_b/0001", "site_b/0002")}
    top = lay({"truth.csv": "path,patient,Effusion\nsite_a/0001.png,P1,1\nsite_b/0002.png,P2,0\n"} | films)
    dataset = open_dataset(top)
    assert {path: (film.labels["Effusion"], film.patient) for path, film in dataset.films()} == {
        "site_a/0001.png": (1, "P1"),
        "site_b/0002.png": (0, "P2"),
    }
    assert dataset.unlabelled == ["site_b/0001.png"]
    assert dataset.problems == []


def test_a_table_among_its_films_is_of_no_film_outside_its_folder(lay):
    films = {"site_a/0001.png": (9, 9), "site_b/0002.png": (9, 9)}
    top = lay({"site_a/truth.csv": "path,Mass\n0001.png,1\n0002.png,0\n"} | films)
    assert labels(top) == {"site_a/0001.png": {"Mass": 1}}
    apart = lay({"labels/truth.csv": "path,Mass\n0001.png,1\n0002.png,0\n"} | films, "apart")
    assert labels(apart) == {"site_a/0001.png": {"Mass": 1}, "site_b/0002.png": {"Mass": 0}}


@pytest.mark.parametrize("given", ["site_b", "site_b/0001.png"])
def test_nor_from_another_input_than_the_whole(lay, given):
    films = {"site_a/0001.png": (9, 9), "site_b/0001.png": (9, 9)}
    top = lay({"truth.csv": "path,Mass\nsite_a/0001.png,1\n"} | films)
    assert discover([top / given]).truth("0001.png") is None
    inside = lay({"site_b/truth.csv": "path,Mass\nsite_a/0001.png,1\n"} | films, "inside")
    assert discover([inside / given]).truth("0001.png") is None  # the row's own film lies beside it
    elsewhere = read_truth(lay({"t.csv": "path,Mass\nsite_a/0001.png,1\n"}, "elsewhere") / "t.csv")
    assert elsewhere.truth("0001.png", str(top / "site_b" / "0001.png")) is None
    assert elsewhere.truth("0001.png", str(top / "site_a" / "0001.png")).labels == {"Mass": 1}


def test_two_inputs_with_films_of_one_name(lay):
    top = lay({f"{site}/0001.png": (9, 9) for site in "ab"} | {"a/truth.csv": "path,Mass\n0001.png,1\n"})
    truth = discover([top / "a", top / "b"])
    truth.settle(truth.place(item.relative, str(item.path)) for item in find([top / "a", top / "b"]))
    assert truth.truth("0001.png", str(top / "a/0001.png")).labels == {"Mass": 1}
    assert truth.truth("0001.png", str(top / "b/0001.png")) is None


@pytest.mark.parametrize(
    ("rows", "films", "expected", "problem"),
    [
        ("0001.png,1", ["a/0001.png", "b/0001.png"], {}, "rows that fit several films by the end of their path"),
        ("x/0001.png,1", ["p/x/0001.png", "q/x/0001.png"], {}, "rows that fit several films"),
        ("x/0001.png,1", ["b/0001.png"], {}, "rows whose folders are not those of the films of that name"),
        ("x/f.png,1\ny/f.png,0", ["f.png"], {}, "films that several rows fit by the end of their path"),
        ("z.png,1", ["f.png"], {}, "films that it names, of which none is here (1)"),
        ("0001.png,1", ["0001.png", "b/0001.png"], {"0001.png": 1}, ""),  # its own path goes before the end of another
        ("0001,1", ["0001.png", "b/0001.png"], {"0001.png": 1}, ""),
        ("f.png,1", ["x/f.png", "x/f.dcm"], {"x/f.png": 1}, ""),
        ("F.PNG,1", ["x/f.png"], {"x/f.png": 1}, ""),
        ("f.png,1\nF.png,0", ["f.png", "F.png"], {"f.png": 1, "F.png": 0}, ""),
        ("old/a.png,1", ["a.png"], {"a.png": 1}, "above which the table names other folders (1)"),
    ],
)
def test_the_end_of_a_path_counts_where_it_is_clear(lay, rows, films, expected, problem):
    top = lay({"t.csv": f"path,Mass\n{rows}\n"} | {name: f"film {name}" for name in films})
    dataset = open_dataset(top)
    assert {path: film.labels["Mass"] for path, film in dataset.films()} == expected
    assert [text for text in dataset.problems if problem in text] == dataset.problems
    assert bool(dataset.problems) == bool(problem)


def test_copies_of_a_film_are_one_film(lay):
    top = lay({"t.csv": "path,Mass\nf.png,1\n", "a/f.png": "the same", "b/f.png": "the same"})
    assert labels(top) == {"a/f.png": {"Mass": 1}, "b/f.png": {"Mass": 1}}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_either_unicode_form_of_a_name(lay, form):
    other = "NFD" if form == "NFC" else "NFC"
    name = unicodedata.normalize(form, "Müller/é.png")
    top = lay({"t.csv": f"path,Mass\n{unicodedata.normalize(other, name)},1\n", name: (9, 9)})
    assert labels(top) == {name: {"Mass": 1}}


def test_films_of_two_archives(lay, tmp_path):
    top = lay({"t.csv": "path,Mass\nsite_a/0001.png,1\n", "f.png": (9, 9)})
    for site in ("site_a", "site_b"):
        with zipfile.ZipFile(top / f"{site}.zip", "w") as archive:
            archive.write(top / "f.png", "0001.png")
    items = [item for item in find([top]) if item.member]
    truth = discover([top])
    truth.settle(truth.place(item.relative, path_of(item.path, item.member)) for item in items)
    found = {item.relative: truth.truth(item.relative, path_of(item.path, item.member)) for item in items}
    assert {name: film is not None for name, film in found.items()} == {
        "site_a.zip/0001.png": True,
        "site_b.zip/0001.png": False,
    }


def test_a_study_has_several_films(lay):
    table = "subject_id,study_id,Enlarged Cardiomediastinum,Edema\n10,50,,1.0\n"
    films = {f"s3/p10/p10/s50/{name}.jpg": (9, 9) for name in "ab"}
    top = lay({"mimic-cxr-2.0.0-chexpert.csv": table} | films)
    assert labels(top) == {path: {"Edema": 1} for path in films}


@pytest.mark.parametrize("folder", ["50", "s50"])
def test_any_table_may_label_studies(lay, folder):
    films = {f"p1/{folder}/{name}.jpg": (9, 9) for name in "ab"}
    top = lay({"t.csv": "study_id,Effusion,patient\n50,1,A\n51,0,B\n"} | films | {"p2/52/a.jpg": (9, 9)})
    assert labels(top) == {path: {"Effusion": 1} for path in films}


def test_a_place_is_below_the_input_that_holds_it(lay):
    top = lay({"a/1.png": (9, 9), "b/2.png": (9, 9)})
    truth = discover([top / "a", top / "b"])
    assert Path(truth.place("2.png").path) == top / "b" / "2.png"
