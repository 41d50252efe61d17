"""The README is a contract: what it does not name, nobody finds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import cxrx
from cxrx.cli.main import app
from cxrx.compare.selection import SECTIONS, SUITE_NAMES
from cxrx.metrics.protocols import PROTOCOLS
from cxrx.registry import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    names = [info.name or info.callback.__name__.replace("_", "-") for info in app.registered_commands]
    return [*names, *(group.name for group in app.registered_groups)]


def test_the_commands_are_found():
    assert {"predict", "explain", "compare"} <= set(commands())


@pytest.mark.parametrize("name", commands())
def test_every_command_stands_in_the_readme(name):
    assert re.search(rf"\bcxrx {re.escape(name)}\b", README)


def test_every_method_stands_in_the_readme():
    registry = load().explainers
    names = [spec.name for name, spec in registry.items() if name.startswith("cxrx/")]
    assert len(names) > 20
    assert not [name for name in names if f"`{name}`" not in README]


@pytest.mark.parametrize("name", [*SECTIONS, *SUITE_NAMES, "chexlocalize", "Arun"])
def test_what_compare_can_be_asked_for_stands_in_the_readme(name):
    assert name in README


def test_protocols_are_those_of_the_readme():
    assert set(PROTOCOLS) == {"native", "chexlocalize", "arun"}


def test_every_hook_is_documented():
    tree = ast.parse((ROOT / "cxrx" / "hookspecs.py").read_text(encoding="utf-8"))
    hooks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("register_")]
    assert len(hooks) == 7
    assert all(ast.get_docstring(hook) for hook in hooks)


def test_every_public_name_has_a_docstring():
    assert not [name for name in cxrx.__all__ if not name.startswith("__") and not getattr(cxrx, name).__doc__]


def public_functions(body):
    """Yield the functions of a module and of its classes that others may call."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def test_every_public_function_with_four_arguments_describes_them():
    """Commands are described by their options."""
    bare = []
    for path in sorted((ROOT / "cxrx").rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body if path.parent.name != "cli" else []
        for node in public_functions(body):
            arguments = {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
            arguments -= {"self", "cls"}
            if len(arguments) >= 4 and "Parameters\n" not in (ast.get_docstring(node) or ""):
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not bare
