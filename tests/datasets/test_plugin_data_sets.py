"""A data set that a plugin brings goes before the built-in layouts."""

from __future__ import annotations

import pytest

from cxrx.datasets import discover, open_dataset, read_truth
from cxrx.registry import load
from cxrx.specs import Box, DatasetSpec, FilmTruth

FILES = {"mine.txt": "", "labels.csv": "path,Mass\nimages/a.png,0\nimages/b.png,0\n", "images/a.png": (9, 9)}


class Mine:
    name = "mine"
    findings = ("Mass", "Gallstone")
    problems = ("one reader was asleep",)

    def truth(self, relative_path):
        if relative_path != "images/a.png":
            return None
        return FilmTruth({"Mass": 1, "Gallstone": -1}, (Box("Mass", 1, 2, 3, 4),), "p1", "PA", split="train")


@pytest.fixture
def register(monkeypatch):
    """Let a plugin `other` bring a data set."""
    registry = load().datasets

    def add(spec):
        monkeypatch.setitem(registry._specs, f"other/{spec.name}", spec)

    return add


@pytest.fixture
def mine(register):
    register(DatasetSpec("mine", lambda folder: (folder / "mine.txt").exists(), lambda folder: Mine()))


@pytest.mark.parametrize(("given", "path"), [("", "images/a.png"), ("images", "a.png"), ("images/a.png", "a.png")])
def test_it_is_asked_first_wherever_the_input_lies(lay, mine, given, path):
    truth = discover([lay(FILES) / given])
    assert truth.name == "mine"
    assert truth.findings == ("Mass", "Gallstone")
    assert truth.truth(path) == Mine().truth("images/a.png")
    assert truth.problems == ["one reader was asleep"]
    assert truth.truth(path.replace("a.png", "b.png")) is None


def test_it_opens_like_any_other(lay, mine):
    top = lay(FILES)
    dataset = open_dataset(top)
    assert dataset.name == "mine"
    assert dataset.label_matrix().tolist() == [[1, -1]]
    assert dataset.patients == ["p1"]
    assert read_truth(top).truth("images/a.png").labels["Mass"] == 1


def test_other_folders_are_none_of_its_business(lay, mine):
    top = lay({name: content for name, content in FILES.items() if name != "mine.txt"})
    assert open_dataset(top).name == "tables"


def test_one_that_breaks_is_told_and_left_out(lay, register):
    register(DatasetSpec("broken", lambda folder: True, lambda folder: 1 / 0))
    truth = discover([lay(FILES)])
    assert truth.name == "tables"
    assert truth.problems[0] == "data set other/broken is left out: ZeroDivisionError"
