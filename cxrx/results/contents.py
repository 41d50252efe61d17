"""Parts and results files seen alike: lists of films, failures and blocks of arrays that can be put together."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from cxrx.errors import ResultsError
from cxrx.reading.record import ImageRecord, Link, Status
from cxrx.results.outcomes import DUPLICATE
from cxrx.results.private import private_path, read_private
from cxrx.results.ragged import RAGGED
from cxrx.results.records import EXTRAS, Block, FailureRecord, Key, keyed
from cxrx.results.schema import PART_FORMAT, RESULTS_FORMAT, get_attrs, open_checked, reading, texts
from cxrx.results.truth import TruthTable, read_truth

# Underlined, so that no attribute of a block can be meant.
FINDINGS, IMAGE_IDS = "_findings", "_image_ids"


@dataclass
class Contents:
    """What a part or a results file holds; on disk, all but its arrays.

    Attributes
    ----------
    is_part
        Whether it is work on a few films that waits to be packed; the fields below stand in results files only.
    links
        The link table; of a part, the files of films that count elsewhere.
    groups
        image_id to the smallest image_id of its patient.
    ragged
        Attributes of imported maps.
    """

    images: list[ImageRecord] = field(default_factory=list)
    failures: list[FailureRecord] = field(default_factory=list)
    blocks: dict[Key, Block] = field(default_factory=dict)
    path: Path = Path()
    is_part: bool = True
    links: list[Link] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    ragged: dict[Key, dict[str, Any]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    truth: TruthTable | None = None
    runs: list[dict[str, Any]] = field(default_factory=list)

    def films(self) -> set[str]:
        """Return the films that it says something of."""
        ids = {record.image_id for record in self.images} | {row.image_id for row in self.failures if row.image_id}
        return ids.union(*(block.image_ids for block in self.blocks.values()))


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

    def array(self, block: Block, name: str) -> NDArray[Any]:
        """Return an array of a block that lies in a file."""
        with reading(block.path.name):
            array: NDArray[Any] = self.get(block.path)[block.group][name][...]
            return array


# ---------------------------------------------------------------------------------------------------------------------
# Loading


def load_part(path: Path) -> Contents:
    """Return what the part at `path` holds.

    Raises
    ------
    ResultsError
        If it is damaged.
    """
    with open_checked(path, PART_FORMAT, packing=True) as file, reading(path.name):
        records = json.loads(file["private/records"][:].tobytes())
        images = [
            ImageRecord(**row | {"status": Status(row["status"]), "link": Link(**row["link"])})
            for row in records["images"]
        ]
        groups = [*file["predictions"].values(), *(group for of in file["maps"].values() for group in of.values())]
        return Contents(
            images,
            [FailureRecord(**row) for row in records["failures"]],
            keyed(*(_part_block(path, group) for group in groups)),
            path,
            links=[*(record.link for record in images), *(Link(**row) for row in records.get("links", ()))],
        )


def load_results(path: Path) -> Contents:
    """Return what the results file at `path` and its link table hold.

    Raises
    ------
    ResultsError
        If it is damaged, foreign or unfinished.
    """
    with open_checked(path, RESULTS_FORMAT, packing=True) as file, reading(path.name):
        links = read_private(private_path(path))
        image_ids, names = tuple(texts(file["image_id"])), tuple(texts(file["finding"]))
        images, groups = _read_images(file, image_ids, links)
        blocks = [_results_block(path, group, image_ids) for group in file["predictions"].values()]
        ragged = {}
        for model, methods in file["maps"].items():
            for method, group in methods.items():
                if get_attrs(group).get("layout") == RAGGED:
                    ragged[model, method] = get_attrs(group)
                else:
                    blocks.append(_results_block(path, group, image_ids))
        return Contents(
            images,
            _read_failures(file, links),
            keyed(*blocks),
            path,
            is_part=False,
            links=links,
            groups=groups,
            ragged=ragged,
            findings=names,
            truth=read_truth(file["truth"], image_ids, names) if "truth" in file else None,
            runs=[get_attrs(group) for group in file["runs"].values()],
        )


def _part_block(path: Path, group: h5py.Group) -> Block:
    attrs = get_attrs(group)
    findings, image_ids = tuple(attrs.pop(FINDINGS)), tuple(attrs.pop(IMAGE_IDS))
    return _block(path, group, findings, image_ids, attrs)


def _results_block(path: Path, group: h5py.Group, image_ids: tuple[str, ...]) -> Block:
    return _block(path, group, tuple(texts(group["finding"])), image_ids, get_attrs(group))


def _block(
    path: Path, group: h5py.Group, findings: tuple[str, ...], image_ids: tuple[str, ...], attrs: dict[str, Any]
) -> Block:
    """Return a block of `path` without its arrays; a part has all of its predictions."""
    _, kind, model, *method = group.name.split("/")
    present = group["present"][...].astype(np.bool_) if "present" in group else np.ones(len(image_ids), np.bool_)
    block = Block(model, "".join(method), findings, image_ids, attrs, present, path=path)
    if kind == "predictions":
        return block
    if present.shape != (len(image_ids), len(findings)) or group["values"].shape[:2] != present.shape:
        raise ResultsError(f"{path.name} is damaged: {group.name} has arrays that do not fit together")
    block.stored["values"] = group["values"].shape[2:], group["values"].dtype
    for name, dataset in group["extras"].items():
        if dataset.shape[:2] == present.shape:  # else a bare dimension
            block.stored[EXTRAS + name] = dataset.shape[2:], dataset.dtype
    return block


def _read_images(
    file: h5py.File, image_ids: tuple[str, ...], links: list[Link]
) -> tuple[list[ImageRecord], dict[str, str]]:
    group = file["images"]
    text_columns = [texts(group[name]) for name in ("sha256", "view", "decoder", "message", "patient")]
    numbers = [group[name][...].tolist() for name in ("rows", "columns", "status", "synthetic")]
    of_film = {link.image_id: link for link in reversed(links) if link.kind == "film"}
    images, groups = [], {}
    for image_id, sha256, view, decoder, message, smallest, rows, columns, status, synthetic in zip(
        image_ids, *text_columns, *numbers, strict=True
    ):
        link = of_film.get(image_id) or Link("film", image_id)
        groups[image_id] = smallest
        images.append(ImageRecord(sha256, view, rows, columns, decoder, Status(status), message, bool(synthetic), link))
    return images, groups


def _read_failures(file: h5py.File, links: list[Link]) -> list[FailureRecord]:
    relative = {link.image_id: link.relative for link in reversed(links) if link.kind in {"film", "failure"}}
    copies: dict[str, list[str]] = defaultdict(list)
    for link in links:
        if link.kind == DUPLICATE:
            copies[link.image_id].append(link.relative)

    def name(image_id: str, code: str) -> str:
        if code != DUPLICATE:
            return relative.get(image_id, "")
        return copies[image_id].pop(0) if copies[image_id] else ""  # files from before 1.1 do not tell

    group = file["failures"]
    columns = [texts(group[name]) for name in ("id", "stage", "code", "message", "model", "method")]
    return [
        FailureRecord(image_id, stage, code, message, name(image_id, code), model, method)
        for image_id, stage, code, message, model, method in zip(*columns, strict=True)
    ]
