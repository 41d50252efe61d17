"""Folders and files of other people: nothing that lies in them is run, and nothing they say reaches out of them."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import cxrx
from cxrx.cli import app
from cxrx.results.private import private_path, read_private, write_private

ROOT = Path(cxrx.__file__).parents[1]
OPTIONAL = {
    "gdcm",
    "libjpeg",
    "openjpeg",
    "jpeg_ls",
    "rle",
    "pylibjpeg",
    "sitecustomize",
    "usercustomize",
    "simplejpeg",
}


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
    (poisoned.parent / "bare.py").write_text("import sys\nprint(*sys.modules)\n")
    for name in start(poisoned.parent, sys.executable, "-m", "bare").stdout.split():
        (poisoned / f"{name}.py").unlink(missing_ok=True)  # Python itself imports it before any code of ours runs
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


@pytest.mark.slow
def test_a_checkout_that_is_not_installed_runs_from_its_root(poisoned, tmp_path):
    """The folder that holds cxrx is the working folder, and stays on the path, but behind all others."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "cxrx").symlink_to(ROOT / "cxrx")
    (poisoned / "random.py").rename(root / "random.py")
    words = ("predict", str(poisoned / "0.png"), "--workers", "1")
    done = start(root, sys.executable, "-m", "cxrx", *words, PYTHONPATH="")
    assert (done.returncode, ran(poisoned)) == (0, ""), done.stderr


def test_workers_get_the_path_without_the_folders_of_the_work(tmp_path):
    """The script's and the working folder, and an empty entry of PYTHONPATH (as in $PYTHONPATH:/x), which means it."""
    (tmp_path / "named").mkdir()
    (tmp_path / "named/probe.py").write_text("import sys\ndef path_of(item):\n    return sys.path\n")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom probe import path_of\nfrom cxrx.reading.item import Item\n"
        "from cxrx.reading.pool import DecodePool\n"
        "with DecodePool(1) as pool:\n"
        "    ((_, path),) = pool.map(path_of, [Item(Path('a'), 'a', 0, 0, '')])\n"
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
        f"    store = FilmStore(Path({str(tmp_path / 'films.npy')!r}))\n"
        "    films = TrainingFilms(store, list('abcd'), Recipe(), (32, 32))\n"
        "    loader = Loader(films, 1, torch.device('cpu'))\n"
        "    print(sum(len(rows) for _, rows in loader.epoch(0, [np.arange(2), np.arange(2, 4)])))\n"
    )
    done = start(poisoned, sys.executable, str(script))
    assert (done.stdout.strip(), ran(poisoned)) == ("4", ""), done.stderr


# ---------------------------------------------------------------------------------------------------------------------
# Names of code in files

EVIL = "open('ran', 'a').write('x')\nraise SystemExit\n"


@pytest.fixture
def explained(cli, films, net, tmp_path):
    """Predict and explain with a network of one's own, in a folder that holds an evil one too."""
    (tmp_path / "evil.py").write_text(EVIL)
    words = ("-m", net, "--labels", "a,b", "--input-size", 48, "--workers", 0)
    cli("explain", films, *words, "--method", "saliency")


def name_the_evil(where):
    """Let the results name the evil network, in the link table or in the attribute behind it."""
    table = private_path(Path("results.h5"))
    links = read_private(table)
    if where == "link table":
        links = [replace(link, relative="./evil.py:build") if link.kind == "model" else link for link in links]
    else:
        links = [link for link in links if link.kind != "model"]
        with h5py.File("results.h5", "r+") as file:
            (group,) = file["predictions"].values()
            group.attrs["model_name"] = "./evil.py:build"
    write_private(table, links)


@pytest.mark.parametrize("where", ["link table", "attribute"])
def test_code_that_a_results_file_names_is_not_run(where, cli, explained, tmp_path):
    name_the_evil(where)
    refused = cli("explain", "results.h5", "--method", "gradcam", "--workers", 0, code=2).stderr
    assert "code that only a file names is not run" in refused
    assert "-m FILE.py:FUNCTION" in refused
    shown = cli("compare", "results.h5", "--metrics", "deletion", "--n-boot", 10)
    assert "code that only a file names is not run" in shown.output + shown.stderr
    assert not (tmp_path / "ran").exists()


def test_code_that_the_user_names_is_run_with_all_else_as_the_file_tells(cli, explained, net, tmp_path):
    """Labels and size of the input are not asked for again."""
    name_the_evil("link table")
    shown = cli("explain", "results.h5", "-m", net, "--method", "gradcam", "--workers", 0)
    assert "running your code in net.py" in shown.stderr
    with cxrx.open_results("results.h5") as results:
        (slug,) = results.models()
        assert results.attrs(slug, "gradcam")["settings"]["input"]["size"] == [48, 48]
    words = ("--metrics", "deletion", "--max-pairs", 1, "--n-boot", 10, "--json")
    assert cli("compare", "results.h5", "-m", net, *words).stdout.count('"deletion"')
    other = tmp_path / "other.py"
    other.write_text((tmp_path / "net.py").read_text())
    assert (
        "holds no predictions of other.py"
        in cli("explain", "results.h5", "-m", f"{other}:build", "--method", "gradcam", code=2).stderr
    )
    assert not (tmp_path / "ran").exists()


def test_code_that_a_training_names_is_not_run(cli, films, tmp_path):
    """Metadata of safetensors are anybody's text."""
    import torch
    from safetensors.torch import save_file

    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "run").mkdir()
    save_file({"head.weight": torch.zeros(2, 3)}, tmp_path / "run" / "model.safetensors", {"arch": "./evil.py:build"})
    for words in (("-m", "run"), ("--weights", "run/model.safetensors")):
        assert "name it with -m" in cli("predict", films, *words, "--workers", 0, code=2).stderr
    cli("weights", "show", "run/model.safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["SystemExit", "SystemExit(0)", "Panic", "GeneratorExit"])
@pytest.mark.parametrize("place", ["file", "build", "forward"])
def test_a_network_that_ends_the_program_is_an_error(place, kind, cli, films, tmp_path):
    ends = {name: f"raise {kind}" if name == place else "pass" for name in ("file", "build", "forward")}
    (tmp_path / "net.py").write_text(
        f"from torch import nn\nclass Panic(BaseException):\n    pass\n{ends['file']}\n"
        f"class Net(nn.Linear):\n    def forward(self, x):\n        {ends['forward']}\n"
        "        return super().forward(x.flatten(1))\n"
        f"def build():\n    {ends['build']}\n    return Net(1024, 2)\n"
    )
    words = ("-m", "./net.py:build", "--input-size", 32, "--in-chans", 1, "--labels", "a,b", "--workers", 0)
    shown = cli("predict", films, *words, code=2).stderr
    assert kind.removesuffix("(0)") in shown
    assert "internal error" not in shown


def test_a_network_that_ends_the_program_later_is_an_error_too(cli, films, tmp_path):
    """Not in the look at it, but with the films; and where a method calls its layers by themselves."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv, self.head, self.calls = nn.Conv2d(1, 2, 3), nn.Linear(2, 2), 0\n"
        "    def forward(self, x):\n        self.calls += 1\n        if self.calls > 2:\n            raise SystemExit\n"
        "        return self.head(self.conv(x).mean((2, 3)))\n"
        "def build():\n    return Net()\n"
    )
    words = ("-m", "./net.py:build", "--input-size", 32, "--labels", "a,b", "--workers", 0)
    assert "the network raised SystemExit" in cli("predict", films, *words, code=2).stderr


def test_a_command_of_a_group_that_is_ended_is_an_error_too(cli, tmp_path, monkeypatch):
    def ended(path):
        raise SystemExit(0)

    monkeypatch.setattr("cxrx.models.checkpoints.read_checkpoint", ended)
    (tmp_path / "w.pth").write_bytes(b"weights")
    assert "asked to exit" in cli("weights", "show", "w.pth", code=1).stderr


# ---------------------------------------------------------------------------------------------------------------------
# cxrx.toml that lies in the folder

REACHES = {
    'model = "./evil.py:build"': "is code",
    '[explain]\nmodel = "evil.py:build"': "is code",
    '[train]\nmodel = "net:build"': "is code",
    '[predict]\n"-m" = "net.so:build"': "is code",
    'out = "../elsewhere.h5"': "lies outside this folder",
    'out = "/elsewhere.h5"': "lies outside this folder",
    'out = "~/elsewhere.h5"': "lies outside this folder",
    'out = "link/results.h5"': "lies outside this folder",
    'weights = "/elsewhere/w.pth"': "lies outside this folder",
    'truth = "../truth.csv"': "lies outside this folder",
    '[export]\noption = ["to=x", "/elsewhere"]': "lies outside this folder",
    '[train]\ncache = "../cache"': "lies outside this folder",
    '[train]\ninit = "../run"': "lies outside this folder",
    'out = "a\\u0000b"': "lies outside this folder",
}


@pytest.mark.parametrize(("content", "reason"), REACHES.items(), ids=REACHES)
def test_a_configuration_that_is_only_found_reaches_nothing_outside(content, reason, cli, films, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "link").symlink_to(tmp_path.parent)
    (tmp_path / "cxrx.toml").write_text(content)
    for words in (("predict", films), ("explain", films, "--method", "gradcam"), ("info",)):
        refused = cli(*words, code=2).stderr
        assert reason in refused
        assert "CXRX_CONFIG=cxrx.toml" in refused
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path.parent / "elsewhere.h5").exists()


def test_a_configuration_that_is_found_sets_what_stays_inside(cli, films, net, tmp_path):
    (tmp_path / "cxrx.toml").write_text(
        'out = "sub/r.h5"\nlabels = "a,b"\nworkers = 0\ndevice = "cpu"\n[explain]\nmethod = ["saliency"]\n'
    )
    cli("explain", films, "-m", net)
    assert (tmp_path / "sub" / "r.h5").exists()


def test_a_configuration_that_the_user_names_may_say_all(cli, films, net, tmp_path, monkeypatch):
    out = tmp_path.parent / f"{tmp_path.name}-elsewhere.h5"
    (tmp_path / "mine.toml").write_text(f'model = "{net}"\nout = "{out}"\nlabels = "a,b"\nworkers = 0\n')
    monkeypatch.setenv("CXRX_CONFIG", "mine.toml")
    cli("predict", films)
    assert out.exists()


@pytest.mark.parametrize(
    "content",
    [
        "[predict.deeper]\nlimit = 1\n", "[predict]\nlimit = {a = 1}\n", "limit = [[1]]\n", "limit = [{a = 1}]\n",
        "limit = 2020-01-01\n", "seed = inf\n", "seed = nan\n", f"seed = {'9' * 5000}\n", "workers = 99999999999\n",
        "workers = [1, 2]\n", 'workers = "x"\n', "views = 1\nout = 3\n", f"limit = {'[' * 3000}\n", "out = []\n",
        'method = "gradcam"\n[explain]\nmethod = "gradcam"\n', "limit = true\n[explain]\nmethod = [1]\n", "\x00",
        "add = 3\n",
        "polarity = 1\n", "[[predict]]\nlimit = 1\n", "predict = 1\n", 'activation = ["a"]\n', "resume = []\n",
    ],
    ids=lambda content: content[:30].strip().replace("\n", " "),
)  # fmt: skip
def test_no_configuration_breaks_the_program(content, cli, tmp_path, films):
    (tmp_path / "cxrx.toml").write_text(content)
    result = CliRunner().invoke(app, ["explain", str(films), "--limit", "1", "--method", "nothing"])
    assert result.exit_code == 2, (result.output, result.exception)
    assert "internal error" not in result.output + result.stderr


# ---------------------------------------------------------------------------------------------------------------------
# Pictures

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def test_postscript_that_is_called_png_is_not_run(cli, tmp_path, monkeypatch):
    """Pillow would start Ghostscript on it."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript is started"))
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "film__Mass.npy", np.eye(8))
    (tmp_path / "maps" / "film__Mass.png").write_bytes(POSTSCRIPT)
    shown = cli("import-maps", "maps")
    assert "cannot be read as pictures" in shown.stderr
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.png").write_bytes(POSTSCRIPT)
    cli("predict", "films", "--workers", 0, "-o", "films.h5", code=4)


def test_no_picture_is_opened_in_whatever_format_it_claims():
    """Every call of Image.open in the package says which formats it takes."""
    for path in (ROOT / "cxrx").rglob("*.py"):
        for call in re.findall(r"Image\.open\(.*", path.read_text(encoding="utf-8")):
            assert "formats=" in call, f"{path.name}: {call}"


def test_a_matplotlibrc_that_is_found_changes_no_figure(tmp_path):
    """``text.usetex`` would have TeX run on what the file says."""
    import matplotlib as mpl

    from cxrx.export.overlay import Case, draw_cases, png
    from cxrx.report.figures import Dot, forest
    from cxrx.training.weights import write_curve

    def drawn():
        rows = [{"epoch": i, "finding": "all", "auroc": 0.5, "auroc_low": 0.4, "auroc_high": 0.6, "train_loss": 1.0,
                 "valid_loss": 1.0} for i in (1, 2)]  # fmt: skip
        write_curve(tmp_path, rows, 1)
        case = Case("Mass", np.zeros((8, 8)), {"gradcam": np.eye(8)}, facts=["probability 0.5"])
        pictures = png(draw_cases([case])), (tmp_path / "curve.png").read_bytes()
        return *pictures, str(forest([Dot("gradcam", 0.5, 0.4, 0.6, n=9)], alt="A forest"))

    expected = drawn()
    with mpl.rc_context({"text.usetex": True, "font.size": 40, "text.latex.preamble": r"\input{/etc/passwd}"}):
        assert drawn() == expected
