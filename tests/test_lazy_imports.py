"""What is cheap stays cheap: heavy packages are not imported before they are needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "timm", "captum", "pytorch_grad_cam", "h5py")

WATCHED = (*HEAVY, "pandas", "scipy", "matplotlib")
WATCH = f"""
import atexit, sys
atexit.register(lambda: print("IMPORTED", *(name for name in {WATCHED} if name in sys.modules)))
"""


def imports_of(code, **environment):
    """Run `code` in a fresh interpreter and return which heavy packages it imported."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH + code],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CXRX_PLUGINS": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("IMPORTED")[2].split())


def command(*argv):
    return f"import sys\nsys.argv = ['cxrx', *{argv}]\nfrom cxrx.cli import main\nmain()"


def test_the_watch_sees_a_heavy_import():
    assert imports_of("import h5py") == {"h5py"}


@pytest.mark.parametrize(
    "argv",
    [
        ("--help",),
        ("plugins",),
        ("plugins", "check", "--help"),
        ("models", "--json"),
        ("models", "show", "densenet121"),
        ("explainers", "--json"),
        ("predict", "--help"),
        ("explain", "--help"),
        ("compare", "--help"),
    ],
    ids=" ".join,
)
def test_help_and_listings_import_nothing_heavy(argv):
    assert imports_of(command(*argv)) == set()


@pytest.mark.parametrize("code", ["import cxrx", "from cxrx import ExplainerSpec, hookimpl", "import cxrx.testing"])
def test_importing_the_package_and_what_plugins_need_costs_nothing(code):
    assert imports_of(code) == set()


def test_a_mistyped_method_is_told_before_torch_is_imported():
    code = command("explain", "nowhere", "--method", "gradcamm").replace("main()", "") + (
        "\ntry:\n    main()\nexcept SystemExit as done:\n    assert done.code == 2"
    )
    assert imports_of(code) == set()


def test_rooms_without_torch_import_none_of_it_through_a_room_below():
    rooms = ("reading", "phantom", "datasets", "results", "compare", "export", "report")
    files = [path for room in rooms for path in sorted((ROOT / "cxrx" / room).rglob("*.py"))]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    runs_models = re.compile(r"cxrx\.compare\.(faithfulness|regions\.removal|rerun|sanity)\b")
    modules = [name for name in modules if not runs_models.match(name)]
    assert len(modules) > 20
    code = f"""
import importlib
for module in {modules}:
    importlib.import_module(module)
    assert "torch" not in sys.modules, module
"""
    assert imports_of(code).isdisjoint({"torch", "timm", "captum", "pytorch_grad_cam"})
