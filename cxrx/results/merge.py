"""Put finished results files together: the union of their films, models and methods."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from cxrx.errors import UsageError
from cxrx.results.contents import Contents, Files, load_results
from cxrx.results.pack import write_all
from cxrx.results.plan import make_plan, name_of
from cxrx.results.records import Block, Key

TOLERANCE = 1e-4
"""How far two runs of one model may lie apart on one film: what batch sizes and kernels do to float32, and no more."""


def merge(paths: Sequence[Path], out: Path) -> None:
    """Write the union of the results files `paths` to `out`, which must not exist.

    Films keep the order of the first file that lists them. Link tables beside the files are merged too.

    Raises
    ------
    UsageError
        If `out` exists, or two files contradict each other: settings, predictions, maps or labels.
    ResultsError
        If a file is damaged, or of another major schema version.
    """
    if out.exists():
        raise UsageError(f"{out.name} exists already", "name another file with -o")
    if not paths:
        raise UsageError("there is nothing to merge")
    sources = [load_results(path) for path in paths]
    plan = make_plan(sources, None, None)
    with Files() as files:
        for first, second in combinations(sources, 2):
            _check_agree(first, second, files)
    write_all(out, plan, sources)


def _check_agree(first: Contents, second: Contents, files: Files) -> None:
    names = f"{first.path.name} and {second.path.name}"
    for key in sorted(first.blocks.keys() & second.blocks.keys()):
        dataset = "score" if key[1] else "logit"
        differing = _differing(first.blocks[key], second.blocks[key], dataset, files)
        if differing:
            raise UsageError(
                f"{names} contradict each other: {name_of(key)} differ on {differing} films",
                "they were made with the same settings; leave one of the files out",
            )
    for key in first.ragged.keys() & second.ragged.keys():
        _check_no_overlap(key, first, second, files)
    _check_labels(first, second, names)


def _differing(first: Block, second: Block, name: str, files: Files) -> int:
    """Count the films whose arrays called `name` differ where both files have them."""
    rows = {image_id: i for i, image_id in enumerate(first.image_ids)}
    pairs = [(rows[image_id], j) for j, image_id in enumerate(second.image_ids) if image_id in rows]
    common = [finding for finding in first.findings if finding in second.findings]
    if not pairs or not common:
        return 0
    a, b = (_columns(block, name, common, files) for block in (first, second))
    i, j = np.array(pairs).T
    both = np.isfinite(a[i]) & np.isfinite(b[j])
    with np.errstate(invalid="ignore"):  # what is absent on one side is NaN or infinite
        apart = np.abs(a[i] - b[j]) > TOLERANCE * np.maximum(1, np.abs(a[i]))
    return int((apart & both).any(axis=1).sum())


def _columns(block: Block, name: str, findings: Sequence[str], files: Files) -> NDArray[np.float32]:
    values: NDArray[np.float32] = files.array(block, name)
    return values[:, [block.findings.index(finding) for finding in findings]]


def _check_no_overlap(key: Key, first: Contents, second: Contents, files: Files) -> None:
    groups: list[h5py.Group] = [files.get(source.path)[f"maps/{key[0]}/{key[1]}"] for source in (first, second)]
    listed = [set(zip(group["image"][...].tolist(), group["finding"][...].tolist(), strict=True)) for group in groups]
    if listed[0] & listed[1]:
        raise UsageError(f"{first.path.name} and {second.path.name} both hold {name_of(key)} of the same films")


def _check_labels(first: Contents, second: Contents, names: str) -> None:
    if first.truth is None or second.truth is None:
        return
    for image_id, row in first.truth.labels.items():
        other = second.truth.labels.get(image_id, {})
        for finding in row.keys() & other.keys():
            if row[finding] != other[finding]:
                raise UsageError(f"{names} contradict each other: the label {finding} of film {image_id}")
