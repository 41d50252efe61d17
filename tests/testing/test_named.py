"""Checking by name: a plugin with all it brings, a model, or an explainer."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from cxrx.errors import UsageError
from cxrx.plugins import Plugin
from cxrx.registry import Registry, load
from cxrx.specs import ExplainerSpec, MetricSpec, ModelSpec
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
        "readers": Registry("reader", object),
        "datasets": Registry("data set", object),
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
    with pytest.raises(UsageError, match="no plugin, model or explainer named 'beta-methud'") as error:
        check_named("beta-methud")
    assert "beta-method" in error.value.hint
    with pytest.raises(UsageError) as error:
        check_named("@@@")
    assert "cxrx explainers" in error.value.hint


def test_the_built_ins_load_without_anything_heavy():
    builtin = load().plugin("cxrx")
    assert named._cheap(builtin) is None
    assert check_plugin(Plugin("ghost")) == [named.Outcome("plugin ghost", "loading", passed=True)]
