"""Are the numbers of this tree those of another one, bit for bit? For changes that must not move any.

Runs the main job on `sample_data` (predict, explain with a method of every family, compare, export, train, pretrain)
and writes a digest of every array, attribute and table::

    python tests/bench/golden.py make before.json      # in the old tree
    python tests/bench/golden.py check before.json     # in the new one, on the same machine and versions

It is no test: another processor rounds otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import load_file

SAMPLE = Path(__file__).resolve().parents[2] / "sample_data"
CONVOLUTIONAL = {
    "gradcam": {}, "gradcam++": {}, "hirescam": {}, "layercam": {}, "xgradcam": {}, "eigencam": {}, "fullgrad": {},
    "scorecam": {}, "ablationcam": {}, "saliency": {}, "inputxgrad": {}, "smoothgrad": {"n": 3},
    "smoothgrad-squared": {"n": 3}, "vargrad": {"n": 3}, "integrated-gradients": {"steps": 4}, "gradientshap": {"n": 2},
    "deeplift": {}, "extremal": {"steps": 24}, "rise": {"masks": 32}, "occlusion": {"stride": 32},
    "lime": {"samples": 20}, "kernelshap": {"samples": 20}, "random": {}, "edge": {}, "centre": {},
}  # fmt: skip
TRANSFORMER = {"attention": {}, "rollout": {}, "chefer": {}, "chefer-lrp": {}, "gradcam": {}}
VOLATILE = ("created_by", "cxrx", "cost", "seconds", "started", "argv")
"""Attributes that tell when and how fast, and not what."""


def cxrx(folder: Path, *arguments: str) -> None:
    """Run the command line in `folder`, in one thread, without third-party plugins."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CXRX_PLUGINS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "cxrx", *arguments], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"cxrx {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")


def methods(chosen: dict[str, dict[str, int]]) -> list[str]:
    """Return the methods and their options as arguments."""
    asked = [part for name in chosen for part in ("--method", name)]
    return asked + [
        part for name, options in chosen.items() for k, v in options.items() for part in ("-O", f"{name}.{k}={v}")
    ]


def digest(data: bytes) -> str:
    """Return a short hash."""
    return hashlib.sha256(data).hexdigest()[:16]


def of_results(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and digest of everything in a results file but the record of the runs."""
    with h5py.File(path) as file:
        found: list[str] = []
        file.visit(found.append)
        for name in ["/", *found]:
            if name == "runs" or name.startswith("runs/"):
                continue
            thing = file[name]
            for key, value in sorted(thing.attrs.items()):
                if key not in {*VOLATILE, "DIMENSION_LIST", "REFERENCE_LIST"}:
                    yield f"{path.name}:{name}@{key}", digest(repr(value).encode())
            if isinstance(thing, h5py.Dataset):
                values = thing[...]
                text = values.dtype.kind == "O" and not values.dtype.fields
                yield (
                    f"{path.name}:{name}",
                    digest(b"\0".join(values) if text else np.ascontiguousarray(values).tobytes()),
                )


def main_job(folder: Path) -> dict[str, str]:
    """Predict, explain, compare and export in `folder`; return name to digest."""
    found: dict[str, str] = {}
    cxrx(folder, "predict", str(SAMPLE), "-o", "results.h5")
    cxrx(folder, "explain", "results.h5", *methods(CONVOLUTIONAL))
    cxrx(folder, "explain", str(SAMPLE), "-m", "demo-vit", *methods(TRANSFORMER), "-o", "vit.h5")
    found |= dict(of_results(folder / "results.h5")) | dict(of_results(folder / "vit.h5"))
    cxrx(folder, "explain", str(SAMPLE), "--method", "gradcam", "-o", "small.h5", "--limit", "12")
    for name, arguments in {
        "fast": ("small.h5", "vit.h5", "--metrics", "fast"),
        "full": ("small.h5", "--metrics", "full"),
        "chexlocalize": ("results.h5", "--protocol", "chexlocalize", "--metrics", "localisation"),
    }.items():
        cxrx(folder, "compare", *arguments, "--out", name)
        for table in sorted((folder / name).glob("*.csv")):
            if table.name != "costs.csv":
                found[f"{name}/{table.name}"] = digest(table.read_bytes())
    for kind in ("csv", "chexnet-csv"):
        cxrx(folder, "export", "results.h5", f"--{kind}", "--out", f"exported.{kind}")
        found[f"export {kind}"] = digest((folder / f"exported.{kind}").read_bytes())
    return found


def trainings(folder: Path) -> dict[str, str]:
    """Train and pre-train in `folder`; return name to digest."""
    found: dict[str, str] = {}
    cxrx(folder, "train", str(SAMPLE), "-m", "demo-densenet", "-O", "epochs=2", "-O", "batch=4", "-o", "trained")
    cxrx(
        folder,
        "pretrain",
        str(SAMPLE),
        "-m",
        "vit_small",
        "--input-size",
        "64",
        "-O",
        "epochs=1",
        "-O",
        "batch=4",
        "-o",
        "mae",
        "--allow-failures",
    )
    for weights in sorted([*folder.glob("trained/*.safetensors"), *folder.glob("mae/*.safetensors")]):
        for name, tensor in sorted(load_file(weights).items()):
            found[f"{weights.relative_to(folder)}:{name}"] = digest(tensor.tobytes())
    return found


def main() -> None:
    """Make or check a file of digests."""
    task, path = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        found = main_job(Path(folder)) | trainings(Path(folder))
    if task == "make":
        path.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{len(found)} digests")
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    moved = sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name))
    for name in moved:
        print(f"{'gone' if name not in found else 'new' if name not in known else 'moved'}: {name}")
    print(f"{len(known.keys() - set(moved))} of {len(known)} are the same")
    raise SystemExit(bool(moved))


if __name__ == "__main__":
    main()
