"""Checking by name: a plugin with all it brings, a model, or an explainer."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from cxrx.errors import UsageError
from cxrx.plugins import Plugin
from cxrx.registry import Registry, load
from cxrx.specs import DatasetSpec, ExplainerSpec, MetricSpec, ModelSpec, ReaderSpec, Unreadable
from cxrx.testing import check_named, check_plugin, named


@dataclass(frozen=True)
class Options:
    pass


@pytest.fixture
def registry(monkeypatch):
    """A registry of made-up plugins; what they bring fails its declaration, which is quick."""
    registries = {
        "models": Registry("model", ModelSpec),
        "explainers": Registry("explainer", ExplainerSpec),
        "readers": Registry("reader", ReaderSpec),
        "datasets": Registry("data set", DatasetSpec),
        "metrics": Registry("metric", MetricSpec),
        "exporters": Registry("exporter", object),
    }
    for owner in ("alpha", "beta"):
        registries["metrics"].add(owner, MetricSpec(f"{owner}-metric", "agreement", lambda a, b: {"x": 1.0}))
        registries["explainers"].add(
            owner, ExplainerSpec(f"{owner}-method", print, Options, needs=frozenset({"telepathy"}))
        )
    plugins = [Plugin("alpha", "cxrx-alpha", "1", ("register_metrics",)), Plugin("broken", errors=["cannot be loaded"])]
    made_up = SimpleNamespace(plugins=plugins, **registries)
    monkeypatch.setattr(named, "load", lambda: made_up)
    return made_up


@pytest.mark.parametrize("name", ["alpha", "cxrx-alpha"])
def test_a_plugin_is_checked_with_all_that_is_its_own(name, registry, monkeypatch):
    monkeypatch.setattr(named, "_cheap", lambda plugin: None)
    outcomes = check_named(name)
    assert [outcome.subject for outcome in outcomes[:2]] == ["plugin alpha"] * 2
    assert {outcome.subject for outcome in outcomes[2:]} == {"metric alpha-metric", "explainer alpha-method"}
    assert [outcome.message for outcome in outcomes if not outcome.passed] == [
        "needs may hold attention, cam, convolutions, gradients, relevance, not telepathy"
    ]


def test_a_broken_plugin_fails_with_its_errors(registry):
    (outcome,) = check_named("broken")
    assert (outcome.passed, outcome.message) == (False, "cannot be loaded")


@pytest.mark.parametrize("name", ["beta-method", "beta/beta-method"])
def test_an_explainer_is_checked_by_its_name(name, registry):
    (outcome,) = check_named(name)
    assert outcome.subject == "explainer beta-method"


def test_a_mistyped_name_is_answered_with_the_nearest(registry):
    with pytest.raises(UsageError, match="there is nothing named 'beta-methud' to check") as error:
        check_named("beta-methud")
    assert "beta-method" in error.value.hint
    with pytest.raises(UsageError) as error:
        check_named("@@@")
    assert "cxrx explainers" in error.value.hint


def test_the_built_ins_load_without_anything_heavy():
    builtin = load().plugin("cxrx")
    assert named._cheap(builtin).endswith(" s")
    assert check_plugin(Plugin("ghost")) == [named.Outcome("plugin ghost", "loading", passed=True)]


def reader(suffix):
    """Return a reader of files with this suffix, none of which it can read."""

    def read(path):
        yield Unreadable("failed", "never", "this is never readable")

    return ReaderSpec(f"read-{suffix[1:]}", lambda path, head: path.suffix == suffix, read)


@pytest.fixture
def readers(registry, monkeypatch):
    monkeypatch.setattr(named, "_cheap", lambda plugin: "")
    for suffix in (".one", ".two"):
        registry.readers.add("alpha", reader(suffix))
    return registry


def tried(outcomes):
    return [o.subject for o in outcomes if o.check == "sample" and not o.message.startswith("not tried")]


def test_a_sample_goes_to_the_reader_that_knows_it(readers, tmp_path):
    (tmp_path / "film.two").write_bytes(b"x")
    assert tried(check_named("alpha", tmp_path / "film.two")) == ["reader read-two"]
    assert tried(check_named("read-two", tmp_path / "film.two")) == ["reader read-two"]
    assert tried(check_named("alpha")) == []


def test_a_sample_that_no_reader_knows_fails_with_all_of_them(readers, tmp_path):
    (tmp_path / "film.three").write_bytes(b"x")
    outcomes = check_named("alpha", tmp_path / "film.three")
    assert tried(outcomes) == ["reader read-one", "reader read-two"]
    assert all("does not know the sample" in o.message for o in outcomes if o.check == "sample")


def test_a_sample_that_nothing_takes_is_refused(readers, tmp_path):
    with pytest.raises(UsageError, match="alpha brings no data set to try a folder on"):
        check_named("alpha", tmp_path)
    (tmp_path / "film.one").write_bytes(b"x")
    with pytest.raises(UsageError, match="beta-method brings no reader to try a file on"):
        check_named("beta-method", tmp_path / "film.one")
    with pytest.raises(UsageError, match="there is no file or folder"):
        check_named("alpha", tmp_path / "nothing")


def test_a_folder_goes_to_a_data_set(readers, tmp_path):
    readers.datasets.add("alpha", DatasetSpec("layout", lambda folder: False, lambda folder: None))
    (found,) = [o for o in check_named("layout", tmp_path) if o.check == "folder"]
    assert found.message == "sniff does not know the folder"
