"""plugins/cxrx-xrv, built into a wheel and installed into a folder of its own, as a user would have it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "cxrx-xrv"


def run(argv, folder, *on_path, code=0):
    environment = {name: value for name, value in os.environ.items() if name != "CXRX_PLUGINS"}
    path = [str(ROOT), *map(str, on_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", "CXRX_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, *argv], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel from a copy (needs no network) and unpack it: a pure wheel is installed by unpacking."""
    pytest.importorskip("hatchling", reason="building the plugin's wheel needs hatchling")
    folder = tmp_path_factory.mktemp("xrv")
    shutil.copytree(PLUGIN, folder / "source", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    run(["-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"], folder / "source")
    (wheel,) = (folder / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_its_models_are_listed_by_short_and_full_name(installed, tmp_path):
    models = json.loads(run(["-m", "cxrx", "models", "--json"], tmp_path, installed))
    own = {model["name"]: model for model in models if model["full_name"].startswith("xrv/")}
    assert len(own) == 8
    assert own["densenet121-res224-rsna"]["labels"] == ["Pneumonia", "Lung Opacity"]
    assert own["densenet121-res224-all"]["weights"] == "fetched"
    assert "convert" in run(["-m", "cxrx", "xrv", "--help"], tmp_path, installed)


@pytest.mark.slow
def test_its_own_tests_pass(installed, tmp_path):
    """Those that need torchxrayvision are skipped where it is not installed; the converter's never are."""
    shutil.copytree(PLUGIN / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    printed = run(["-m", "pytest", "tests", "-q", "-p", "no:cacheprovider", "-W", "error"], tmp_path, installed)
    assert "passed" in printed
