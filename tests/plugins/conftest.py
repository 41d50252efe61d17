"""Fake distributions: a module and a dist-info folder, which is all that an installed plugin is."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from cxrx.plugins import load_plugins
from cxrx.registry import Registries

HEADER = "from cxrx import ExplainerSpec, InputSpec, ModelSpec, hookimpl\n"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Return an empty folder on sys.path; modules imported from it are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("CXRX_PLUGINS", raising=False)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def add_plugin(site):
    """Write a distribution with one module and one entry point; return its dist-info folder."""

    def add(name, source, *, module=None, distribution=None):
        module = module or f"fake_{name.replace('-', '_')}"
        distribution = distribution or f"cxrx-{name}"
        (site / f"{module}.py").write_text(HEADER + dedent(source))
        info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[cxrx]\n{name} = {module}\n")
        return info

    return add


@pytest.fixture
def load_registry(site):
    """Load the registry afresh, as a new process would."""

    def load():
        importlib.invalidate_caches()
        return Registries(*load_plugins())

    return load


@pytest.fixture
def run_cxrx(site, tmp_path_factory):
    """Run ``python -m cxrx`` with the plugins of `site`, in a folder of its own."""
    folder = tmp_path_factory.mktemp("cwd")

    def run(*argv, **environment):
        return subprocess.run(
            [sys.executable, "-m", "cxrx", *argv],
            cwd=folder,
            check=False,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}"} | environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run
