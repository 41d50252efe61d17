"""Names on the command line: nearest ones where there is none, and listings that programs can read."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cxrx.cli import app
from cxrx.errors import UsageError
from cxrx.registry import load


@pytest.mark.parametrize(
    ("kind", "typed", "near"),
    [
        ("models", "densnet121", "densenet121"),
        ("models", "cxrx/vgg61", "cxrx/vgg16"),
        ("explainers", "gradcamm", "gradcam"),
        ("explainers", "smoothgard", "smoothgrad"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(kind, typed, near):
    with pytest.raises(UsageError, match=f"named '{typed}'") as error:
        getattr(load(), kind).find(typed)
    assert error.value.hint.startswith("did you mean ")
    assert near in error.value.hint


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(UsageError) as error:
        load().explainers.find("@@@@")
    assert all(spec.name in error.value.hint for spec in load().explainers.values())


def test_full_names_short_names_and_aliases_find_the_same():
    explainers = load().explainers
    assert explainers.find("ig") is explainers.find("integrated-gradients") is explainers["cxrx/integrated-gradients"]


@pytest.mark.parametrize("command", ["plugins", "models", "explainers"])
def test_every_listing_is_json_on_demand(command):
    run = CliRunner().invoke(app, [command, "--json"])
    assert run.exit_code == 0
    entries = json.loads(run.stdout)
    assert all(isinstance(entry["name"], str) for entry in entries)
    if command != "plugins":
        assert [entry["full_name"] for entry in entries] == list(getattr(load(), command))


@pytest.mark.parametrize(("command", "name"), [("models", "densenet121"), ("explainers", "extremal")])
def test_show_tells_one_as_the_listing_does(command, name):
    shown = json.loads(CliRunner().invoke(app, [command, "show", name, "--json"]).stdout)
    listed = json.loads(CliRunner().invoke(app, [command, "--json"]).stdout)
    assert shown in listed
    assert name in CliRunner().invoke(app, [command, "show", name]).stdout


@pytest.mark.parametrize("argv", [["models", "show", "densnet121"], ["explainers", "show", "gradcamm"]])
def test_show_exits_2_with_the_nearest_name(argv):
    run = CliRunner().invoke(app, argv)
    assert run.exit_code == 2
    assert "did you mean" in run.stderr
    assert run.stdout == ""


def test_check_exits_2_for_an_unknown_name():
    run = CliRunner().invoke(app, ["plugins", "check", "gradcamm"])
    assert run.exit_code == 2
    assert "did you mean" in run.stderr
