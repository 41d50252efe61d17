"""Parts and results files seen alike: lists of films, failures and blocks of arrays that can be put together."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from cxrx.errors import ResultsError
from cxrx.results.parts import Key, block_header, read_records
from cxrx.results.private import PrivateRow, film_row, private_path, read_private
from cxrx.results.ragged import RAGGED
from cxrx.results.records import FailureRecord, ImageRecord, Status
from cxrx.results.schema import PART_FORMAT, RESULTS_FORMAT, get_attrs, open_checked, reading, texts
from cxrx.results.truth import TruthTable, read_truth


@dataclass(frozen=True, eq=False)
class Block:
    """Predictions or maps in one file.

    Attributes
    ----------
    path, group
        Where the arrays lie.
    present
        ``(n,)`` for predictions, ``(n, K)`` for maps.
    extras
        Name to trailing shape and type of what lies in ``extras``; maps only.
    """

    path: Path
    group: str
    image_ids: tuple[str, ...]
    findings: tuple[str, ...]
    attrs: dict[str, Any]
    present: NDArray[np.bool_]
    grid: tuple[int, ...] = ()
    extras: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = field(default_factory=dict)


@dataclass
class Source:
    """One file's content without its arrays.

    Attributes
    ----------
    groups
        image_id to the smallest image_id of its patient, as a results file knows it.
    ragged
        Imported maps: attributes and the path they lie in.
    """

    path: Path
    is_part: bool
    images: list[ImageRecord]
    failures: list[FailureRecord]
    private: list[PrivateRow]
    blocks: dict[Key, Block] = field(default_factory=dict)
    ragged: dict[Key, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    truth: TruthTable | None = None
    runs: list[dict[str, Any]] = field(default_factory=list)


class Files:
    """Files open for reading, the latest few dozen of them; a context manager."""

    LIMIT = 32

    def __init__(self) -> None:
        self._open: OrderedDict[Path, h5py.File] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def get(self, path: Path) -> h5py.File:
        """Return `path`, opened."""
        if path not in self._open:
            if len(self._open) >= self.LIMIT:
                self._open.popitem(last=False)[1].close()
            self._open[path] = h5py.File(path, "r", locking="best-effort")
        self._open.move_to_end(path)
        return self._open[path]


# ---------------------------------------------------------------------------------------------------------------------
# Loading


def load_part(path: Path) -> Source:
    """Return what the part at `path` holds.

    Raises
    ------
    ResultsError
        If it is damaged.
    """
    with open_checked(path, PART_FORMAT) as file, reading(path.name):
        images, failures = read_records(file)
        source = Source(path, True, images, failures, [film_row(record) for record in images])
        for model, group in file["predictions"].items():
            attrs, findings, image_ids = block_header(group)
            present = np.ones(len(image_ids), dtype=np.bool_)
            source.blocks[model, ""] = Block(path, group.name, image_ids, findings, attrs, present)
        for model, methods in file["maps"].items():
            for method, group in methods.items():
                attrs, findings, image_ids = block_header(group)
                source.blocks[model, method] = _maps_block(path, group, image_ids, findings, attrs)
        return source


def load_results(path: Path) -> Source:
    """Return what the results file at `path` and its link table hold.

    Raises
    ------
    ResultsError
        If it is damaged, foreign or unfinished.
    """
    with open_checked(path, RESULTS_FORMAT) as file, reading(path.name):
        private = read_private(private_path(path))
        image_ids = tuple(texts(file["image_id"]))
        images, groups = _read_images(file, image_ids, private)
        failures = _read_failures(file, private)
        source = Source(path, False, images, failures, private, groups=groups, findings=tuple(texts(file["finding"])))
        for model, group in file["predictions"].items():
            present = group["present"][...].astype(np.bool_)
            findings = tuple(texts(group["finding"]))
            source.blocks[model, ""] = Block(path, group.name, image_ids, findings, get_attrs(group), present)
        for model, methods in file["maps"].items():
            for method, group in methods.items():
                attrs = get_attrs(group)
                if attrs.get("layout") == RAGGED:
                    source.ragged[model, method] = attrs
                else:
                    findings = tuple(texts(group["finding"]))
                    source.blocks[model, method] = _maps_block(path, group, image_ids, findings, attrs)
        if "truth" in file:
            source.truth = read_truth(file["truth"], image_ids, source.findings)
        source.runs = [get_attrs(group) for group in file["runs"].values()]
        return source


def _maps_block(
    path: Path, group: h5py.Group, image_ids: tuple[str, ...], findings: tuple[str, ...], attrs: dict[str, Any]
) -> Block:
    present = group["present"][...].astype(np.bool_)
    if present.shape != (len(image_ids), len(findings)) or group["values"].shape[:2] != present.shape:
        raise ResultsError(f"{path.name} is damaged: {group.name} has arrays that do not fit together.")
    extras = {
        name: (dataset.shape[2:], dataset.dtype)
        for name, dataset in group["extras"].items()
        if dataset.shape[:2] == present.shape  # else a bare dimension
    }
    return Block(path, group.name, image_ids, findings, attrs, present, group["values"].shape[2:], extras)


def _read_images(
    file: h5py.File, image_ids: tuple[str, ...], private: list[PrivateRow]
) -> tuple[list[ImageRecord], dict[str, str]]:
    group = file["images"]
    columns = [texts(group[name]) for name in ("sha256", "view", "decoder", "message", "patient")]
    numbers = [group[name][...].tolist() for name in ("rows", "columns", "status", "synthetic")]
    links = {row.image_id: row for row in reversed(private) if row.kind == "film"}
    images, groups = [], {}
    for image_id, sha256, view, decoder, message, smallest, rows, width, status, synthetic in zip(
        image_ids, *columns, *numbers, strict=True
    ):
        link = links.get(image_id, PrivateRow("film", image_id))
        groups[image_id] = smallest
        images.append(
            ImageRecord(
                image_id, sha256, view, rows, width, decoder, Status(status), message, bool(synthetic), link.relative,
                link.path, link.member, link.uid, link.patient, link.size, link.mtime_ns,
            )
        )  # fmt: skip
    return images, groups


def _read_failures(file: h5py.File, private: list[PrivateRow]) -> list[FailureRecord]:
    relative = {row.image_id: row.relative for row in reversed(private) if row.kind != "model"}
    group = file["failures"]
    columns = [texts(group[name]) for name in ("id", "stage", "code", "message", "model", "method")]
    return [
        FailureRecord(image_id, stage, code, message, relative.get(image_id, ""), model, method)
        for image_id, stage, code, message, model, method in zip(*columns, strict=True)
    ]
