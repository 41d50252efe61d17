"""Whatever a plugin does wrong, it is reported in one sentence and everything else works."""

from __future__ import annotations

import json

import pytest

SOUND = """
    @hookimpl
    def register_models(register):
        register(ModelSpec("sound-model", lambda labels: None, ("A",), InputSpec()))
"""

BROKEN = {
    "import-error": (
        "import no_such_module",
        "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "syntax-error": ("def (:", "cannot be loaded: SyntaxError"),
    "exits": ("import sys; sys.exit(3)", "cannot be loaded: SystemExit: 3"),
    "panics": ("class Panic(BaseException): ...\nraise Panic('boom')", "cannot be loaded: Panic: boom"),
    "no-hook": ("x = 1", "implements no hook of cxrx"),
    "wrong-signature": ("@hookimpl\ndef register_models(reg): ...", "does not fit its hook"),
    "unknown-hook": (
        "@hookimpl\ndef register_model(register): ...",
        "unknown hook 'register_model', did you mean 'register_models'?",
    ),
    "raises-midway": (
        """
        @hookimpl
        def register_models(register):
            register(ModelSpec("half", lambda labels: None, ("A",), InputSpec()))
            raise ValueError("no weights here")
        """,
        "register_models raised ValueError: no weights here",
    ),
    "exits-midway": (
        "@hookimpl\ndef register_explainers(register): raise SystemExit('enough')",
        "register_explainers raised SystemExit: enough",
    ),
    "wrong-type": (
        "@hookimpl\ndef register_models(register): register('densenet')",
        "register_models: register() takes a ModelSpec, not str",
    ),
    "wrong-kind": (
        """
        @hookimpl
        def register_explainers(register):
            register(ModelSpec("m", lambda labels: None, ("A",), InputSpec()))
        """,
        "register_explainers: register() takes a ExplainerSpec, not ModelSpec",
    ),
    "no-name": (
        "@hookimpl\ndef register_models(register): register(ModelSpec(7, print, (), InputSpec()))",
        "register_models: 7 is no name",
    ),
    "slash-in-name": (
        "@hookimpl\ndef register_models(register): register(ModelSpec('a/b', print, (), InputSpec()))",
        "register_models: 'a/b' is no name",
    ),
    "aliases-text": (
        "@hookimpl\ndef register_models(register): register(ModelSpec('m', print, (), InputSpec(), aliases='abc'))",
        "register_models: aliases of 'm' must be a tuple, not str",
    ),
    "options-no-dataclass": (
        "@hookimpl\ndef register_explainers(register): register(ExplainerSpec('e', print, dict))",
        "register_explainers: options of 'e' must be a dataclass type",
    ),
    "exporter-options-no-dataclass": (
        """
        from cxrx import ExporterSpec

        @hookimpl
        def register_exporters(register): register(ExporterSpec("e", ".e", print, options=dict))
        """,
        "register_exporters: options of 'e' must be a dataclass type",
    ),
    "options-without-default": (
        """
        from dataclasses import dataclass

        @dataclass(frozen=True)
        class Options:
            steps: int

        @hookimpl
        def register_explainers(register): register(ExplainerSpec('e', print, Options))
        """,
        "register_explainers: options of 'e' cannot be used: TypeError",
    ),
    "needs-list": (
        """
        from dataclasses import dataclass

        @dataclass(frozen=True)
        class Options: ...

        @hookimpl
        def register_explainers(register): register(ExplainerSpec('e', print, Options, needs=["cam"]))
        """,
        "register_explainers: needs of 'e' must be a frozenset, not list",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_and_nothing_else_is_touched(name, add_plugin, load_registry):
    source, message = BROKEN[name]
    before = load_registry()
    add_plugin(name, source)
    add_plugin("zz-sound", SOUND)
    registry = load_registry()
    plugin = registry.plugin(name)
    assert len(plugin.errors) == 1
    assert plugin.errors[0].startswith(message)
    assert "\n" not in plugin.errors[0]
    assert registry.broken() == [plugin]
    assert plugin.distribution == f"cxrx-{name}"
    assert plugin.version == "1.2"
    assert set(registry.models) == {*before.models, "zz-sound/sound-model"}
    assert set(registry.explainers) == set(before.explainers)


def test_what_a_plugin_registers_soundly_stays_where_another_of_its_things_is_unsound(add_plugin, load_registry):
    add_plugin("mixed", SOUND + "        register(7)\n")
    registry = load_registry()
    assert "mixed/sound-model" in registry.models
    assert registry.plugin("mixed").errors == ["register_models: register() takes a ModelSpec, not int"]


def test_a_taken_short_name_stays_with_who_had_it_first(add_plugin, load_registry):
    source = """
        @hookimpl
        def register_models(register):
            register(ModelSpec("densenet121", lambda labels: None, ("A",), InputSpec(), aliases=("mine", "vgg16")))
    """
    add_plugin("rival", source)
    registry = load_registry()
    assert registry.models.full_name("densenet121") == "cxrx/densenet121"
    assert registry.models.full_name("vgg16") == "cxrx/vgg16"
    assert registry.models.full_name("mine") == "rival/densenet121"
    assert registry.models.find("rival/densenet121").labels == ("A",)
    assert registry.plugin("rival").errors == [
        f"model {name!r} collides with 'cxrx/{name}'; use the full name 'rival/densenet121'"
        for name in ("densenet121", "vgg16")
    ]


def test_one_name_registered_twice_by_one_plugin(add_plugin, load_registry):
    add_plugin("twice", SOUND + '        register(ModelSpec("sound-model", print, ("B",), InputSpec()))\n')
    registry = load_registry()
    assert registry.models.find("sound-model").labels == ("A",)
    assert registry.plugin("twice").errors == ["model 'twice/sound-model' is registered twice; the first is kept"]


@pytest.mark.parametrize("first", [SOUND, "import no_such_module"], ids=["sound", "broken"])
def test_of_two_plugins_with_one_name_the_second_is_reported(first, add_plugin, load_registry):
    add_plugin("same", first, module="fake_first", distribution="cxrx-a")
    add_plugin("same", SOUND.replace("sound-model", "other-model"), module="fake_second", distribution="cxrx-b")
    registry = load_registry()
    second = next(plugin for plugin in registry.plugins if plugin.distribution == "cxrx-b")
    assert second.errors == ["another plugin is already called 'same'"]
    assert ("same/sound-model" in registry.models) == (first == SOUND)
    assert "same/other-model" not in registry.models


def test_a_plugin_cannot_take_the_owner_of_the_built_ins(add_plugin, load_registry):
    add_plugin("cxrx", SOUND, distribution="cxrx-impostor")
    registry = load_registry()
    assert "cxrx/sound-model" not in registry.models
    assert registry.broken()[0].errors == ["another plugin is already called 'cxrx'"]


def test_metadata_left_by_half_an_uninstall_stops_nobody(add_plugin, load_registry):
    info = add_plugin("halfgone", SOUND)
    (info / "METADATA").unlink()
    add_plugin("malformed", SOUND)
    (info.with_name("cxrx_malformed-1.2.dist-info") / "entry_points.txt").write_text("[cxrx]\nmalformed = a b ; c\n")
    registry = load_registry()
    assert "halfgone/sound-model" in registry.models
    assert [plugin.name for plugin in registry.broken()] == ["malformed"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, {"one", "two"}),
        ("", set()),
        ("two", {"two"}),
        (" one , two ", {"one", "two"}),
        ("cxrx-one", {"one"}),
        ("neither", set()),
    ],
)
def test_the_environment_chooses_plugins(chosen, expected, add_plugin, load_registry, monkeypatch):
    for name in ("one", "two"):
        add_plugin(name, SOUND.replace("sound", name))
    if chosen is not None:
        monkeypatch.setenv("CXRX_PLUGINS", chosen)
    registry = load_registry()
    found = {plugin.name for plugin in registry.plugins} & {"cxrx", "one", "two"}  # others may be installed
    assert found == {"cxrx", *expected}
    assert "cxrx/densenet121" in registry.models
    assert "cxrx/gradcam" in registry.explainers


def test_a_plugin_that_is_not_chosen_is_not_even_imported(add_plugin, load_registry, monkeypatch):
    add_plugin("bomb", "raise KeyboardInterrupt")
    monkeypatch.setenv("CXRX_PLUGINS", "")
    load_registry()
    monkeypatch.delenv("CXRX_PLUGINS")
    with pytest.raises(KeyboardInterrupt):  # the user's Ctrl-C is the one thing that is never swallowed
        load_registry()


def test_the_command_line_lists_every_plugin_and_warns_in_one_line(add_plugin, run_cxrx):
    broken = ("import-error", "wrong-signature", "unknown-hook", "raises-midway", "exits")
    for name in broken:
        add_plugin(name, BROKEN[name][0])
    add_plugin("zz-sound", SOUND)
    listed = run_cxrx("plugins")
    assert listed.returncode == 0
    for name in broken:
        assert any(line.split()[:3] == [name, "1.2", "broken"] for line in listed.stdout.splitlines())
        assert BROKEN[name][1] in listed.stderr
    assert any(line.split()[:3] == ["zz-sound", "1.2", "ok"] for line in listed.stdout.splitlines())
    assert "Traceback" not in listed.stderr
    helped = run_cxrx("--help")
    assert helped.returncode == 0
    assert "predict" in helped.stdout
    assert sorted(line.split("'")[1] for line in helped.stderr.splitlines()) == sorted(broken)
    as_json = json.loads(run_cxrx("plugins", "--json").stdout)
    assert {entry["name"] for entry in as_json if entry["errors"]} == set(broken)
    checked = run_cxrx("plugins", "check", "unknown-hook")
    assert checked.returncode == 1
    assert checked.stdout.splitlines()[0].startswith("FAIL plugin unknown-hook: loading: unknown hook 'register_model'")
    unchosen = run_cxrx("--help", CXRX_PLUGINS="")
    assert unchosen.stderr == ""
