"""Small made-up runs: films numbered from 0, whose every number follows from a seed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from cxrx.reading.record import ImageRecord, Link, Status
from cxrx.results.contents import Contents, Files
from cxrx.results.parts import PartStore
from cxrx.results.private import private_path
from cxrx.results.records import EXTRAS, Block, FailureRecord, keyed
from cxrx.results.truth import Mask, TruthTable

MODEL = "tiny@0123abcd"
FINDINGS = ("Effusion", "Nodule", "Mass")
GRIDS = {"native": (4, 5), "input": (24, 20)}


def sha(i: int) -> str:
    return hashlib.sha256(f"film {i}".encode()).hexdigest()


def image_id(i: int) -> str:
    return sha(i)[:16]


def film(i: int, status: Status = Status.OK, message: str = "", **changes: Any) -> ImageRecord:
    """A film; two films in a row belong to one patient."""
    known = {
        "sha256": sha(i),
        "view": "PA",
        "rows": 100 + i,
        "columns": 90,
        "decoder": "pillow 1.0",
        "status": status,
        "message": message,
        "synthetic": True,
    }
    private = {
        "relative": f"secret-folder/{i:03d}.dcm",
        "path": f"/home/secret-user/secret-folder/{i:03d}.dcm",
        "member": "",
        "uid": f"1.2.840.99999.{i}",
        "patient": f"secret-patient-{i // 2}",
        "size": 1000 + i,
        "mtime_ns": 1_700_000_000_000_000_000 + i,
    }
    known |= {name: changes.pop(name) for name in list(changes) if name in known}
    return ImageRecord(**known, link=Link("film", known["sha256"][:16], **(private | changes)))


def numbers(i: int, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of film `i` that do not depend on the part it is in."""
    seed = int.from_bytes(hashlib.sha256(f"{i} {what}".encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def predictions(films: Sequence[int], model: str = MODEL, settings: dict[str, Any] | None = None) -> Block:
    K = len(FINDINGS)
    logit = np.stack([numbers(i, f"{model} logit", (K,)) for i in films])
    affine = np.stack([numbers(i, "affine", (2, 3)) for i in films]).astype(np.float64)
    attrs = {"settings": settings or {"dtype": "float32", "weights": "0123abcd"}, "versions": {"torch": "2"}}
    ids = tuple(image_id(i) for i in films)
    arrays = {"logit": logit, "probability": 1 / (1 + np.exp(-logit)), "affine": affine}
    return Block(model, "", FINDINGS, ids, attrs, np.ones(len(ids), bool), arrays)


def maps(
    films: Sequence[int],
    method: str = "gradcam",
    model: str = MODEL,
    settings: dict[str, Any] | None = None,
    space: str = "native",
    with_extras: bool = True,
) -> Block:
    K, grid = len(FINDINGS), GRIDS[space]
    values = np.stack([numbers(i, f"{model} {method}", (K, *grid)) for i in films])
    present = np.stack([numbers(i, f"{method} present", (K,)) > -0.5 for i in films])
    values[~present] = np.nan
    score = np.where(present, np.stack([numbers(i, f"{model} logit", (K,)) for i in films]), np.float32(np.nan))
    extras: dict[str, np.ndarray] = {
        "area": np.stack([numbers(i, "area", (K, 2)) for i in films]).astype(np.float64),
        "mask": np.stack([numbers(i, "mask", (K, 40, 32)) > 0 for i in films]),
        "steps": np.stack([np.full(K, i, dtype=np.int32) for i in films]),
    }
    attrs = {"settings": settings or {"method": method, "seed": 0}, "space": space, "signed": False}
    arrays = {"values": values, "score": score}
    if with_extras:
        arrays |= {EXTRAS + name: array for name, array in extras.items()}
    return Block(model, method, FINDINGS, tuple(image_id(i) for i in films), attrs, present, arrays)


def part(
    films: Sequence[int], *, methods: Sequence[str] = ("gradcam",), spaces: Sequence[str] = ("native",)
) -> Contents:
    """A part as `predict` and `explain` in one go write it."""
    blocks = [maps(films, method, space=space) for method, space in zip(methods, spaces, strict=True)]
    return Contents([film(i) for i in films], [], keyed(predictions(films), *blocks))


def failure(i: int | None, stage: str = "read", code: str = "truncated", **changes: Any) -> FailureRecord:
    relative = "secret-folder/unreadable.dcm" if i is None else f"secret-folder/{i:03d}.dcm"
    known = {"relative": relative, "model": "", "method": ""} | changes
    return FailureRecord("" if i is None else image_id(i), stage, code, f"It is {code}.", **known)


def truth(films: Sequence[int]) -> TruthTable:
    table = TruthTable(("Effusion", "Fracture"))
    for i in films:
        table.labels[image_id(i)] = {"Effusion": i % 2, "Fracture": -1}
        table.boxes.append((image_id(i), "Effusion", 1.5 * i, 2.0, 10.25, 20.0))
        table.masks.append(Mask.encode(image_id(i), "Effusion", numbers(i, "truth", (9, 7)) > 0))
    return table


def contents(path: Path, skip: Sequence[str] = ()) -> dict[str, Any]:
    """Every attribute and every array of an HDF5 file as bytes, so that two files compare bitwise."""
    found: dict[str, Any] = {}

    def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.startswith(tuple(skip)):
            return
        for key, value in item.attrs.items():
            if key not in {"DIMENSION_LIST", "REFERENCE_LIST"}:
                found[f"{name}@{key}"] = np.asarray(value).tolist()
        if isinstance(item, h5py.Dataset):
            values = item[...]
            raw = values.tolist() if values.dtype.kind == "O" else values.tobytes()
            found[name] = (item.shape, str(item.dtype), raw)

    with h5py.File(path, "r") as file:
        file.visititems(take)
    return found


def same_part(a: Contents, b: Contents) -> None:
    """Assert that two parts with their arrays say the same; absent maps and what is beside them do not count."""
    assert (a.images, a.failures) == (b.images, b.failures)
    assert a.blocks.keys() == b.blocks.keys()
    for key, x in a.blocks.items():
        y = b.blocks[key]
        assert (x.findings, x.image_ids) == (y.findings, y.image_ids)
        np.testing.assert_array_equal(x.present, y.present)
        assert x.arrays.keys() == y.arrays.keys()
        assert x.attrs.items() <= y.attrs.items()
        for name in x.arrays.keys() - {"values"}:
            there = x.present if x.method else slice(None)
            np.testing.assert_array_equal(x.arrays[name][there], y.arrays[name][there])


def with_arrays(part: Contents) -> Contents:
    """A part on disk with its arrays in memory."""
    with Files() as files:
        for block in part.blocks.values():
            names = [*block.stored, "score"] if block.method else ["logit", "probability", "affine"]
            block.arrays = {name: files.array(block, name) for name in names}
    return part


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The makers above, under one name."""
    return SimpleNamespace(
        MODEL=MODEL,
        FINDINGS=FINDINGS,
        sha=sha,
        image_id=image_id,
        film=film,
        numbers=numbers,
        predictions=predictions,
        maps=maps,
        part=part,
        failure=failure,
        truth=truth,
        contents=contents,
        same_part=same_part,
        with_arrays=with_arrays,
        keyed=keyed,
    )


@pytest.fixture
def store(tmp_path: Path) -> PartStore:
    return PartStore(tmp_path / "results.h5")


@pytest.fixture
def out(sound, tmp_path):
    """A copy, to be hurt, of the file that a module calls `sound`."""
    for path in (sound, private_path(sound)):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / sound.name
