"""plugins/cxrx-template, built into a wheel and installed into a folder of its own, as a user would have it."""

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
TEMPLATE = ROOT / "plugins" / "cxrx-template"


def run(argv, folder, *on_path):
    environment = {name: value for name, value in os.environ.items() if name != "CXRX_PLUGINS"}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *on_path))), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *argv], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel from a copy (needs no network) and unpack it: a pure wheel is installed by unpacking."""
    pytest.importorskip("hatchling", reason="building the template's wheel needs hatchling")
    folder = tmp_path_factory.mktemp("template")
    shutil.copytree(TEMPLATE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    run(["-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"], folder / "source")
    (wheel,) = (folder / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_it_is_as_short_as_it_says():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (TEMPLATE / "src").rglob("*.py")}
    assert {"tiles.py", "tenth.py", "lines.py", "arrays.py", "small.py", "__init__.py"} == set(lengths)
    assert max(lengths.values()) < 60


def test_it_is_listed_and_what_it_brings_is_found(installed, tmp_path):
    plugins = json.loads(run(["-m", "cxrx", "plugins", "--json"], tmp_path, installed))
    (template,) = [plugin for plugin in plugins if plugin["name"] == "template"]
    assert template == {
        "name": "template",
        "distribution": "cxrx-template",
        "version": "0.1.0",
        "hooks": [
            "register_explainers",
            "register_exporters",
            "register_metrics",
            "register_models",
            "register_readers",
        ],
        "errors": [],
    }
    shown = json.loads(run(["-m", "cxrx", "explainers", "show", "tiles", "--json"], tmp_path, installed))
    assert shown["full_name"] == "template/tiles"
    assert [(option["name"], option["default"]) for option in shown["options"]] == [("tiles", 8)]
    assert "template/small" in run(["-m", "cxrx", "models", "show", "small"], tmp_path, installed)


@pytest.mark.slow
def test_it_keeps_the_contract(installed, tmp_path):
    outcomes = json.loads(run(["-m", "cxrx", "plugins", "check", "template", "--json"], tmp_path, installed))
    assert {outcome["subject"] for outcome in outcomes} == {
        "plugin template",
        "model small",
        "explainer tiles",
        "explainer tiles on tiny-cnn",
        "explainer tiles on tiny-vit",
        "explainer tiles on square-cnn",
        "reader arrays",
        "metric tenth",
        "exporter lines",
    }
    assert all(outcome["passed"] for outcome in outcomes)


@pytest.mark.slow
def test_its_own_tests_pass(installed, tmp_path):
    shutil.copytree(TEMPLATE / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    printed = run(["-m", "pytest", "tests", "-q", "-p", "no:cacheprovider", "-W", "error"], tmp_path, installed)
    assert "passed" in printed


@pytest.mark.slow
def test_a_prediction_and_an_explanation_through_it(installed, tmp_path):
    code = """
import cxrx, numpy, torch
model = cxrx.load_model("small", device="cpu")
x = model.prepare(torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0)))
print(*model.labels, *model.logits(x).shape)
a = cxrx.explain(model, x, "tiles", targets="all", tiles=4)
print(*a.values.shape, numpy.isfinite(a.values).all(), a.values.any())
"""
    printed = run(["-c", code], tmp_path, installed).splitlines()
    assert printed == ["Effusion Nodule 2 2", "2 2 4 4 True True"]
