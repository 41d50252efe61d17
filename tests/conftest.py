"""Small real things that many tests need: films on disk, a network with fixed weights, a results file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

# Before torch is imported: tiny networks gain nothing from threads and lose much where the machine is busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CXRX_PLUGINS"] = ""  # what else is installed must not decide a test

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from cxrx.metrics.geometry import resize, to_source
from cxrx.reading.record import ImageRecord, Link, Status
from cxrx.results.contents import Contents
from cxrx.results.pack import pack
from cxrx.results.parts import PartStore
from cxrx.results.records import Block, keyed
from cxrx.results.truth import TruthTable

# No clock decides a test, and everybody tries the same examples; what is run by hand or by CI may draw new ones.
settings.register_profile("new", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.register_profile("same", settings.get_profile("new"), derandomize=True)
settings.load_profile("same")

FINDINGS = ("Mass", "Pleural Effusion", "Nodule")
SHAPE = (120, 96)  # rows, columns: not square
INPUT = (32, 32)
SIDE = 96 / 32  # source pixels an input pixel, after the centre crop of the long side
AFFINE = np.array([[SIDE, 0, (SIDE - 1) / 2], [0, SIDE, 12 + (SIDE - 1) / 2]])


@dataclass
class Tiny:
    """What was put in: `results` the file, `films` the folder, and per film the box of the blob."""

    results: Path
    films: Path
    ids: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    boxes: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)
    maps: dict[str, np.ndarray] = field(default_factory=dict)


def film_with_blob(rng):
    """Draw a film with a bright square and return it with the square's box (x, y, w, h)."""
    pixels = resize(rng.random((10, 8)), SHAPE) * 120
    x, y = int(rng.integers(8, 64)), int(rng.integers(16, 76))
    pixels[y : y + 24, x : x + 24] = 230
    return pixels.astype(np.uint8), (float(x), float(y), 24.0, 24.0)


def blob_map(box, cells, rng, noise=0.05):
    """Return what a perfect CAM of `cells` x `cells` would show: the share of every cell that the box fills."""
    mask = np.zeros(SHAPE)
    x, y, w, h = (int(v) for v in box)
    mask[y : y + h, x : x + w] = 1
    seen = mask[12:108]  # the crop
    return (resize(seen, (cells, cells)) + noise * rng.standard_normal((cells, cells))).astype(np.float32)


def build_tiny(
    folder, n=14, *, seed=0, boxed=True, labelled=True, demo=False, methods=("gradcam", "smoothgrad"), extra=()
):
    """Write `n` films and a results file; two films a patient for the first four."""
    rng = np.random.default_rng(seed)
    films = folder / "films"
    films.mkdir(parents=True)
    tiny = Tiny(folder / "results.h5", films)
    records = []
    for i in range(n):
        pixels, box = film_with_blob(rng)
        path = films / f"film{i:02d}.png"
        Image.fromarray(pixels).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        state = path.stat()
        patient = f"p{i // 2 if i < 4 else i}"
        records.append(
            ImageRecord(
                digest, "PA", *SHAPE, "pillow", Status.OK, "", False,
                Link("film", digest[:16], path.name, str(path), "", "", patient, state.st_size, state.st_mtime_ns),
            )
        )  # fmt: skip
        tiny.ids.append(digest[:16])
        tiny.names.append(path.name)
        tiny.boxes[digest[:16]] = box
    present = np.zeros((n, 3), dtype=bool)
    present[:, 0] = True
    present[::2, 1] = True
    positive = np.array([[1, i % 2 == 0, i % 3 == 0] for i in range(n)])
    logit = (np.where(positive, 1.0, -1.0) + rng.standard_normal((n, 3))).astype(np.float32)
    settings = {"model": "tiny", "input": {"size": list(INPUT)}, "seed": seed}
    arrays = {"logit": logit, "probability": 1 / (1 + np.exp(-logit)), "affine": np.tile(AFFINE, (n, 1, 1))}
    attrs = {"settings": settings, "demo": int(demo)}
    blocks = [Block("tiny@01234567", "", FINDINGS, tuple(tiny.ids), attrs, np.ones(n, bool), arrays)]
    for method in (*methods, *extra):
        cells = 8 if method == "gradcam" else 32
        values = np.full((n, 3, cells, cells), np.nan, dtype=np.float32)
        for i, k in np.argwhere(present):
            box = tiny.boxes[tiny.ids[i]]
            values[i, k] = blob_map(box, cells, rng) if method != "smoothgrad" else rng.random((cells, cells))
        space = "native" if method == "gradcam" else "input"
        attrs = {
            "settings": settings | {"method": method},
            "space": space,
            "relu": int(method == "gradcam"),
            "signed": 0,
        }
        arrays = {"values": values, "score": logit}
        blocks.append(Block("tiny@01234567", method, FINDINGS, tuple(tiny.ids), attrs, present, arrays))
        tiny.maps[method] = values
    store = PartStore(tiny.results)
    store.write(Contents(records, [], keyed(*blocks)), 0)
    truth = TruthTable()
    if labelled:
        truth.labels = {
            image: {"Mass": 1, "Pleural Effusion": int(row[1]), "Nodule": int(row[2])}
            for image, row in zip(tiny.ids, positive, strict=True)
        }
    if boxed:
        truth.boxes = [(image, "Mass", *box) for image, box in tiny.boxes.items()]
        truth.boxes += [(image, "Effusion", *tiny.boxes[image]) for image in tiny.ids[::2]]
    pack(store, tiny.results, truth=truth, run={})
    return tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Fourteen films of twelve patients, a good and a blind method, boxes and labels."""
    return build_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def make_tiny(tmp_path):
    """Build a results file of one's own."""

    def make(name="own", **options):
        return build_tiny(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def on_source():
    """Carry a map of the tiny model to source pixels."""
    return lambda grid: to_source(grid, AFFINE, INPUT, SHAPE)


# ---------------------------------------------------------------------------------------------------------------------
# Films and a network, for whole runs


NET = """
import torch
from torch import nn
from cxrx import InputSpec

INPUT = InputSpec(size=(32, 32), fit="stretch", channels=1, mean=(0.5,), std=(0.25,))


def build(labels):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, len(labels)),
    )
"""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Return a folder of ten small grey PNGs with smooth random content, all different."""
    folder = tmp_path / "films"
    folder.mkdir()
    for index in range(10):
        coarse = np.random.default_rng(index).random((6, 5)) * 200 + 20
        picture = Image.fromarray(coarse.astype(np.uint8)).resize((40, 48), Image.Resampling.BICUBIC)
        picture.save(folder / f"film{index:03d}.png")
    return folder


@pytest.fixture
def net(tmp_path: Path) -> str:
    """Return ``file.py:build`` of a tiny CNN with fixed weights."""
    path = tmp_path / "net.py"
    path.write_text(NET)
    return f"{path}:build"
