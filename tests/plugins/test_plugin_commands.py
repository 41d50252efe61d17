"""Commands that plugins add."""

from __future__ import annotations

import pytest
from typer import Typer
from typer.testing import CliRunner

COMMANDS = {
    "good": """
        @hookimpl
        def register_commands(app):
            @app.command()
            def hello(name: str = "you"):
                print(f"hello {name}")
    """,
    # Typer finds out about such a parameter only when it builds the command line, for every command at once
    "unbuildable": """
        @hookimpl
        def register_commands(app):
            @app.command()
            def hello(n: int | str): ...
    """,
    "thief": """
        @hookimpl
        def register_commands(app):
            @app.command()
            def plugins(): print("mine now")
    """,
    "raising": """
        @hookimpl
        def register_commands(app):
            @app.command()
            def hello(): ...
            raise OSError("no display")
    """,
}


@pytest.fixture
def app():
    """Return a program with two commands of its own."""
    program = Typer()
    program.command("plugins")(lambda: print("built in"))
    program.command("predict")(lambda: None)
    return program


def test_a_command_of_a_plugin_runs_beside_the_built_in_ones(add_plugin, load_registry, app):
    add_plugin("good", COMMANDS["good"])
    registry = load_registry()
    registry.add_commands(app)
    assert registry.broken() == []
    assert CliRunner().invoke(app, ["hello", "--name", "film"]).output == "hello film\n"
    assert CliRunner().invoke(app, ["plugins"]).output == "built in\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unbuildable", "register_commands: AssertionError: Typer currently doesn't support Union"),
        ("thief", "command 'plugins' is cxrx's already"),
        ("raising", "register_commands raised OSError: no display"),
    ],
)
def test_commands_that_cannot_work_or_are_taken_stay_out(name, message, add_plugin, load_registry, app):
    add_plugin(name, COMMANDS[name])
    registry = load_registry()
    registry.add_commands(app)
    assert registry.plugin(name).errors[0].startswith(message)
    assert CliRunner().invoke(app, ["plugins"]).output == "built in\n"
    assert CliRunner().invoke(app, ["hello"]).exit_code == 2  # no such command


def test_of_two_plugins_with_one_command_the_first_has_it(add_plugin, load_registry, app):
    add_plugin("good", COMMANDS["good"])
    add_plugin("later", COMMANDS["good"].replace("hello {", "good day {"))
    registry = load_registry()
    registry.add_commands(app)
    assert registry.plugin("later").errors == ["command 'hello' is good's already"]
    assert CliRunner().invoke(app, ["hello"]).output == "hello you\n"


def test_the_command_line_survives_all_of_them(add_plugin, run_cxrx):
    for name, source in COMMANDS.items():
        add_plugin(name, source)
    helped = run_cxrx("--help")
    assert helped.returncode == 0
    assert "hello" in helped.stdout
    assert [line.split("'")[1] for line in helped.stderr.splitlines()] == ["raising", "thief", "unbuildable"]
    assert "built" not in run_cxrx("plugins").stdout
