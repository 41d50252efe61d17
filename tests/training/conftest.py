"""Small labelled folders: phantoms with a white lower lung that a tiny network learns to see."""

from __future__ import annotations

import csv
import io
from functools import cache

import numpy as np
import pytest
from PIL import Image

from cxrx.phantom import make_film
from cxrx.training import classifier
from cxrx.training.recipes import make_recipe
from cxrx.training.run import TrainingConfig
from cxrx.training.train import train

SIZE = (72, 64)
PLAIN = {"rotate": 0, "shift": 0, "zoom": 0, "brightness": 0, "contrast": 0}


@cache
def _film(i):
    """Return the PNG of the `i`-th film; each takes a twentieth of a second, and every folder begins with the same."""
    pixels = make_film(11, i, size=SIZE).pixels.copy()
    if i % 2 == 0:
        pixels[36:, :32] = np.clip(pixels[36:, :32] + 0.4, 0, 1)
    if i % 5 == 0:
        pixels[:18, 24:40] = 1
    out = io.BytesIO()
    Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def _write_films(folder, n, *, extra=()):
    """Write `n` PNG films; an even film has an "Effusion" (its lower left quarter is white), a fifth has a "Mass".

    Every third film says nothing of Mass. `extra` are columns to add: (name, values).
    """
    (folder / "films").mkdir(parents=True)
    rows = []
    for i in range(n):
        path = f"films/{i:03d}.png"
        (folder / path).write_bytes(_film(i))
        mass = "" if i % 3 == 0 else int(i % 5 == 0)
        rows.append([path, f"p{i // 2 if i < 20 else i}", int(i % 2 == 0), mass, *(values[i] for _, values in extra)])
    header = ["path", "patient", "Effusion", "Mass", *(name for name, _ in extra)]
    _write_table(folder / "truth.csv", [header, *rows])
    return folder


def _write_table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="session")
def write_films():
    """Write a folder of films: ``write_films(folder, n)``."""
    return _write_films


@pytest.fixture(scope="session")
def write_table():
    """Write a CSV: ``write_table(path, rows)``."""
    return _write_table


@pytest.fixture(scope="session")
def easy(tmp_path_factory):
    """Seventy films with patients and two findings; not to be changed."""
    return _write_films(tmp_path_factory.mktemp("easy") / "data", 70)


@pytest.fixture(scope="session")
def film_cache(tmp_path_factory):
    """Decoded films of all tests."""
    return tmp_path_factory.mktemp("film_cache")


@pytest.fixture(scope="session", autouse=True)
def few_resamples():
    """Draw 200 resamples where a training draws a thousand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "N_BOOT", 200)
        yield


@pytest.fixture
def config_of(tmp_path, film_cache):
    """Configure a tiny network; keywords of the recipe and of the run alike."""

    def make(data, out="run", model="timm/test_resnet", **given):
        of_run = {"init", "labels", "films", "split", "resume", "cache", "workers"}
        options = PLAIN | {"epochs": 2, "batch": 16, "lr": 3e-3} | {k: v for k, v in given.items() if k not in of_run}
        recipe = make_recipe(options.pop("preset", "default"), options)
        rest = {"workers": 0, "cache": film_cache} | {k: v for k, v in given.items() if k in of_run}
        where = {"data": data, "model": model, "out": tmp_path / out}
        return TrainingConfig(**where, recipe=recipe, input_size=64, device="cpu", **rest)

    return make


@pytest.fixture
def run():
    """Train, as ``run(config)``."""
    return train
