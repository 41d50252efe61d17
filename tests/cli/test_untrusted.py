"""Folders and files of other people: nothing that lies in them is run, and nothing they say reaches out of them."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import cxrx
from cxrx.results.private import private_path, read_private, write_private

ROOT = Path(cxrx.__file__).parents[1]
OPTIONAL = {"gdcm", "libjpeg", "openjpeg", "jpeg_ls", "rle", "pylibjpeg", "sitecustomize", "usercustomize", "simplejpeg"}


@pytest.fixture
def poisoned(tmp_path):
    """Return a folder with two films, and with a module for every name that Python, cxrx or a package could import."""
    folder = tmp_path / "poisoned"
    folder.mkdir()
    for i in range(2):
        grey = np.random.default_rng(i).integers(0, 255, (64, 64), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"{i}.png")
    code = f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__ + ' ')\nraise ImportError(__name__)\n"
    names = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions(), *OPTIONAL, *sys.modules}
    for name in {name.partition(".")[0] for name in names if "/" not in name} - {"cxrx"}:
        (folder / f"{name}.py").write_text(code)
    return folder


def ran(folder):
    path = folder.parent / "ran"
    return path.read_text() if path.exists() else ""


def start(folder, *command, **environment):
    env = os.environ | {"PYTHONPATH": str(ROOT), "CXRX_PLUGINS": ""} | environment
    env.pop("PYTHONSAFEPATH", None)
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=240)


def test_the_poison_works(poisoned):
    """Else the tests below would see nothing: Python does import from the working folder."""
    assert "No module" not in start(poisoned, sys.executable, "-c", "import antigravity").stderr
    assert "antigravity" in ran(poisoned)


def test_predict_runs_nothing_of_the_folder_it_stands_in(poisoned):
    (poisoned / "importlib.py").unlink()  # which `python -m` itself imports, before any code of ours
    done = start(poisoned, sys.executable, "-m", "cxrx", "predict", ".", "--workers", "1")
    assert (done.returncode, ran(poisoned)) == (0, ""), done.stderr
    assert "2 ok" in done.stdout


@pytest.mark.slow
def test_nor_does_the_program_that_pip_installs(poisoned, tmp_path):
    program = tmp_path / "cxrx-program"
    program.write_text("import sys\nfrom cxrx.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    done = start(poisoned, sys.executable, str(program), "predict", ".", "--workers", "1")
    assert (done.returncode, ran(poisoned)) == (0, ""), done.stderr
    assert "2 ok" in done.stdout


def test_workers_get_the_path_without_the_folders_of_the_work(tmp_path):
    """The script's and the working folder, and an empty entry of PYTHONPATH (as in $PYTHONPATH:/x), which means it."""
    (tmp_path / "named").mkdir()
    script = tmp_path / "script.py"
    script.write_text(
        "from functools import partial\nfrom cxrx.reading.pool import DecodePool\n"
        "with DecodePool(1) as pool:\n"
        "    ((_, path),) = pool.map(partial(eval, '__import__(\"sys\").path'), [{}])\n"
        "    print(*path, sep='\\n')\n"
    )
    path = os.pathsep.join(["", str(tmp_path / "named"), str(ROOT)])
    done = start(tmp_path, sys.executable, str(script), PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [str(tmp_path / "named"), str(ROOT)]
    assert not {"", str(tmp_path)} & set(done.stdout.splitlines())


@pytest.mark.slow
def test_loaders_of_a_training_run_nothing_of_the_working_folder(poisoned, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nimport numpy as np, torch\nfrom cxrx.training.loader import Loader, TrainingFilms\n"
        "from cxrx.training.films import FilmStore\nfrom cxrx.training.recipes import Recipe\n"
        "if __name__ == '__main__':\n"
        f"    np.save({str(tmp_path / 'films.npy')!r}, np.zeros((4, 32, 32), np.uint8))\n"
        f"    films = TrainingFilms(FilmStore(Path({str(tmp_path / 'films.npy')!r})), list('abcd'), Recipe(), (32, 32))\n"
        "    loader = Loader(films, 1, torch.device('cpu'))\n"
        "    print(sum(len(rows) for _, rows in loader.epoch(0, [np.arange(2), np.arange(2, 4)])))\n"
    )
    done = start(poisoned, sys.executable, str(script))
    assert (done.stdout.strip(), ran(poisoned)) == ("4", ""), done.stderr
