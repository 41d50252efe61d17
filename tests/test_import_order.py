"""The rooms of the house, each importing only from rooms below it; read off the source, inside functions too."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import cxrx

PACKAGE = Path(cxrx.__file__).parent
README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")

ORDER = (
    ("errors",), ("files", "metrics"), ("options",), ("specs",), ("hookspecs",), ("plugins",), ("registry",),
    ("reading", "phantom"), ("datasets",), ("results",), ("models",), ("explainers",),
    ("importing", "engine", "training"), ("compare",), ("export",), ("report",), ("testing",), ("cli",), ("__main__",),
)  # fmt: skip
"""Lowest first; rooms that share a floor do not import each other. `testing` stands below `cli`, which offers it."""

FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}

EXEMPT = ("__init__", "builtin")
"""``cxrx/__init__.py`` is the lazy front door, ``builtin.py`` registers everything through the hooks."""

TORCH_FREE = (
    "files",
    "metrics",
    "reading",
    "phantom",
    "datasets",
    "results",
    "importing",
    "compare",
    "export",
    "report",
)
RUNS_MODELS = tuple(f"cxrx.compare.{name}" for name in ("faithfulness", "regions.removal", "rerun", "sanity"))
"""Modules and packages of torch-free rooms that run the model; what is always needed must not import them."""
TORCH = {"torch", "torchvision", "timm", "captum", "pytorch_grad_cam"}


def imported(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything that the source of `module` imports, at whatever depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in {"import_module", "__import__"}:
                yield node.lineno, _literal_start(node.args[0])


def _literal_start(node: ast.expr) -> str:
    """Return a string literal, or the literal that an f-string begins with."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    return str(node.value) if isinstance(node, ast.Constant) else ""


def room_of(name: str) -> str | None:
    """Return the room that an imported dotted name belongs to; None for what is not cxrx, or cxrx itself."""
    parts = name.split(".")
    if parts[0] != "cxrx" or len(parts) == 1:
        return None
    if parts[1] in cxrx._HOME:  # a public name stands for the module it comes from
        parts = cxrx._HOME[parts[1]].split(".")
    return None if parts[1].startswith("__") else parts[1]


def runs_models(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in RUNS_MODELS)


def violations(source: str, module: str) -> list[str]:
    """Return what in the source of `module` breaks the order, one sentence each."""
    own = module.split(".")[1]
    if own not in FLOOR:
        return [f"{module} stands in no room of the order"]
    broken = []
    for line, name in imported(source, module):
        room = room_of(name)
        if room == "builtin" and own == "plugins":
            continue  # the loader loads the built-ins
        if room is not None and room != own and not (room in FLOOR and FLOOR[room] < FLOOR[own]):
            broken.append(f"{module}:{line} imports {name}: {room} does not stand below {own}")
        if own in TORCH_FREE and not runs_models(module) and name.split(".")[0] in TORCH:
            broken.append(f"{module}:{line} imports {name}: {own} does without torch")
    return broken


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in EXEMPT:
            yield ".".join(("cxrx", *parts)), path


def test_every_room_imports_only_from_below():
    broken = [text for module, path in modules() for text in violations(path.read_text(encoding="utf-8"), module)]
    assert not broken, "\n".join(broken)


def test_the_readme_draws_this_order():
    drawing = README.split("## How it is built")[1].split("```")[1].strip().splitlines()
    floors = [re.split(r" {3,}", line)[0].split() for line in drawing]
    assert floors == [list(rooms) for rooms in reversed(ORDER) if rooms != ("__main__",)]


def test_no_room_has_more_than_a_seventh_of_the_lines():
    """A room that outgrows this is two rooms."""
    lines = Counter()
    for path in PACKAGE.rglob("*"):
        if path.suffix in {".py", ".html", ".css", ".js"}:
            lines[path.relative_to(PACKAGE).parts[0]] += len(path.read_text(encoding="utf-8").splitlines())
    room, most = lines.most_common(1)[0]
    assert most <= 0.14 * lines.total(), f"{room} has {most} of {lines.total()} lines"


def test_all_rooms_are_seen():
    assert {"reading", "results", "models", "explainers", "engine", "compare", "cli"} <= {
        module.split(".")[1] for module, _ in modules()
    }


@pytest.mark.parametrize(
    ("module", "source", "room"),
    [
        ("cxrx.reading.find", "import cxrx.results.pack", "results"),
        ("cxrx.reading.find", "from cxrx.phantom import films", "phantom"),
        ("cxrx.reading.find", "from cxrx import explain", "explainers"),
        ("cxrx.results.pack", "from cxrx import models", "models"),
        ("cxrx.results.pack", "from ..engine.run import run", "engine"),
        ("cxrx.results.pack", "from .. import engine", "engine"),
        ("cxrx.results.__init__", "from .. import engine", "engine"),
        ("cxrx.models.load", "def f():\n    from cxrx.explainers.guard import guard", "explainers"),
        ("cxrx.models.load", "if TYPE_CHECKING:\n    from cxrx.engine import run", "engine"),
        ("cxrx.models.load", "import_module('cxrx.cli.main')", "cli"),
        ("cxrx.models.load", "importlib.import_module(f'cxrx.explainers.{name}')", "explainers"),
        ("cxrx.registry", "from cxrx.builtin import register_models", "builtin"),
        ("cxrx.specs", "from cxrx.registry import load", "registry"),
        ("cxrx.compare.run", "def f():\n    import torch.nn as nn", "without torch"),
        ("cxrx.export.png", "from torch import nn", "without torch"),
        ("cxrx.attic.junk", "", "no room"),
    ],
)
def test_a_violation_is_found(module, source, room):
    (found,) = violations(source, module)
    assert room in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cxrx.reading.find", "from cxrx.reading.options import ReadOptions\nfrom . import voi\nfrom .voi import lut"),
        ("cxrx.reading.find", "from cxrx.errors import UsageError\nfrom cxrx import __version__, Film\nimport cxrx"),
        ("cxrx.plugins", "import_module('cxrx.builtin')"),
        ("cxrx.explainers.cam", "import torch\nfrom cxrx.models.model import Model"),
        ("cxrx.cli.plugins", "def f():\n    from cxrx.testing import check_named"),
    ],
)
def test_what_stands_below_may_be_imported(module, source):
    assert violations(source, module) == []
