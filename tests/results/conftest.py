"""Small made-up runs: films numbered from 0, whose every number follows from a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from cxrx.results.parts import PartStore
from cxrx.results.records import FailureRecord, ImageRecord, MapBlock, Part, PredictionBlock, Status
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
        "image_id": image_id(i),
        "sha256": sha(i),
        "view": "PA",
        "rows": 100 + i,
        "columns": 90,
        "decoder": "pillow 1.0",
        "status": status,
        "message": message,
        "synthetic": True,
        "relative": f"secret-folder/{i:03d}.dcm",
        "path": f"/home/secret-user/secret-folder/{i:03d}.dcm",
        "member": "",
        "uid": f"1.2.840.99999.{i}",
        "patient": f"secret-patient-{i // 2}",
        "size": 1000 + i,
        "mtime_ns": 1_700_000_000_000_000_000 + i,
    }
    return ImageRecord(**(known | changes))


def numbers(i: int, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of film `i` that do not depend on the part it is in."""
    seed = int.from_bytes(hashlib.sha256(f"{i} {what}".encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def predictions(films: Sequence[int], model: str = MODEL, settings: dict[str, Any] | None = None) -> PredictionBlock:
    K = len(FINDINGS)
    logit = np.stack([numbers(i, f"{model} logit", (K,)) for i in films])
    affine = np.stack([numbers(i, "affine", (2, 3)) for i in films]).astype(np.float64)
    attrs = {"settings": settings or {"dtype": "float32", "weights": "0123abcd"}, "versions": {"torch": "2"}}
    ids = tuple(image_id(i) for i in films)
    return PredictionBlock(model, FINDINGS, ids, logit, 1 / (1 + np.exp(-logit)), affine, attrs)


def maps(
    films: Sequence[int],
    method: str = "gradcam",
    model: str = MODEL,
    settings: dict[str, Any] | None = None,
    space: str = "native",
    with_extras: bool = True,
) -> MapBlock:
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
    return MapBlock(
        model,
        method,
        FINDINGS,
        tuple(image_id(i) for i in films),
        values,
        present,
        score,
        extras if with_extras else {},
        attrs,
    )


def part(films: Sequence[int], *, methods: Sequence[str] = ("gradcam",), spaces: Sequence[str] = ("native",)) -> Part:
    """A part as `predict` and `explain` in one go write it."""
    blocks = [maps(films, method, space=space) for method, space in zip(methods, spaces, strict=True)]
    return Part([film(i) for i in films], [], [predictions(films)], blocks)


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


def same_part(a: Part, b: Part) -> None:
    """Assert that two parts say the same; absent maps and what is beside them do not count."""
    assert (a.images, a.failures) == (b.images, b.failures)
    assert [block.model for block in a.predictions] == [block.model for block in b.predictions]
    for x, y in zip(a.predictions, b.predictions, strict=True):
        assert (x.findings, x.image_ids) == (y.findings, y.image_ids)
        for name in ("logit", "probability", "affine"):
            np.testing.assert_array_equal(getattr(x, name), getattr(y, name))
        assert x.attrs.items() <= y.attrs.items()
    assert [(block.model, block.method) for block in a.maps] == [(block.model, block.method) for block in b.maps]
    for m, n in zip(a.maps, b.maps, strict=True):
        assert (m.findings, m.image_ids) == (n.findings, n.image_ids)
        np.testing.assert_array_equal(m.present, n.present)
        np.testing.assert_array_equal(np.where(m.present, m.score, np.nan), n.score)
        assert m.extras.keys() == n.extras.keys()
        for name in m.extras:
            np.testing.assert_array_equal(m.extras[name][m.present], n.extras[name][m.present])
        assert m.attrs.items() <= n.attrs.items()


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
    )


@pytest.fixture
def store(tmp_path: Path) -> PartStore:
    return PartStore(tmp_path / "results.h5")
