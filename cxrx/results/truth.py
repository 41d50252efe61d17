"""What is known of the films: labels, boxes and masks, as tables bring them and as results.h5 keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cxrx.datasets.rle import row_major
from cxrx.errors import UsageError
from cxrx.results.schema import label, put, scale, texts
from cxrx.specs import Mask as FilmMask

UNKNOWN = -2
"""Label of a film and finding that no table speaks of; 1 present, 0 absent, -1 uncertain."""

BoxRow = tuple[str, str, float, float, float, float]


@dataclass(frozen=True, eq=False)
class Mask:
    """A pixel mask of one film and finding, run-length encoded.

    Attributes
    ----------
    shape
        ``(rows, columns)`` of the mask.
    runs
        Lengths of the runs in row-major order, by turns absent and present, beginning with absent (which may be 0).
    """

    image_id: str
    finding: str
    shape: tuple[int, int]
    runs: NDArray[np.uint32]

    @classmethod
    def encode(cls, image_id: str, finding: str, mask: NDArray[np.bool_]) -> Mask:
        """Encode ``mask`` ``(rows, columns)``."""
        flat = np.concatenate([[False], mask.ravel()])
        edges = np.flatnonzero(flat[1:] != flat[:-1])
        runs = np.diff(np.concatenate([[0], edges, [mask.size]])).astype(np.uint32)
        return cls(image_id, finding, (int(mask.shape[0]), int(mask.shape[1])), runs)

    @classmethod
    def of_film(cls, image_id: str, mask: FilmMask) -> Mask:
        """Rewrite what a data set says of a film, whose runs go down the columns."""
        return cls(image_id, mask.finding, mask.shape, row_major(mask.counts, mask.shape))

    def decode(self) -> NDArray[np.bool_]:
        """Return the ``(rows, columns)`` mask."""
        return np.repeat(np.arange(len(self.runs)) % 2 == 1, self.runs).reshape(self.shape)

    def same(self, other: Mask) -> bool:
        """Whether both say the same."""
        return self.shape == other.shape and np.array_equal(self.runs, other.runs)


@dataclass
class TruthTable:
    """Labels, boxes and masks by image_id.

    Attributes
    ----------
    labels
        image_id to finding to 1 (present), 0 (absent) or -1 (uncertain); what is no key is unknown.
    boxes
        ``(image_id, finding, x, y, width, height)`` in source pixels; x, y is the upper left corner.
    """

    findings: tuple[str, ...] = ()
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    boxes: list[BoxRow] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)

    def all_findings(self) -> list[str]:
        """Return every finding named anywhere in the table, in order of first appearance."""
        names = [*self.findings, *(name for row in self.labels.values() for name in row)]
        return list(dict.fromkeys([*names, *(box[1] for box in self.boxes), *(mask.finding for mask in self.masks)]))

    def normalised(self, image_ids: Iterable[str]) -> TruthTable:
        """Return what concerns these films, in one order, so that equal tables compare equal."""
        films = {image_id: i for i, image_id in enumerate(image_ids)}
        findings = tuple(self.all_findings())
        labels = {
            image_id: {name: self.labels[image_id][name] for name in findings if name in self.labels[image_id]}
            for image_id in films
            if self.labels.get(image_id)
        }
        boxes = sorted({box for box in self.boxes if box[0] in films}, key=lambda box: (films[box[0]], *box[1:]))
        masks = {(mask.image_id, mask.finding): mask for mask in self.masks if mask.image_id in films}
        in_order = sorted(masks.values(), key=lambda mask: (films[mask.image_id], mask.finding))
        return TruthTable(findings, labels, boxes, in_order)

    def updated(self, new: TruthTable) -> TruthTable:
        """Return this table with what `new` says of a label, or of a film's boxes and masks, in place of its own."""
        labels = {image_id: dict(row) for image_id, row in self.labels.items()}
        for image_id, row in new.labels.items():
            labels.setdefault(image_id, {}).update(row)
        boxed, masked = {box[0] for box in new.boxes}, {mask.image_id for mask in new.masks}
        return TruthTable(
            tuple(dict.fromkeys((*self.findings, *new.findings))),
            labels,
            [box for box in self.boxes if box[0] not in boxed] + list(new.boxes),
            [mask for mask in self.masks if mask.image_id not in masked] + list(new.masks),
        )

    def same(self, other: TruthTable) -> bool:
        """Whether both (normalised) tables say the same."""
        return (
            (set(self.findings), self.labels, self.boxes) == (set(other.findings), other.labels, other.boxes)
            and [(mask.image_id, mask.finding) for mask in self.masks]
            == [(mask.image_id, mask.finding) for mask in other.masks]
            and all(a.same(b) for a, b in zip(self.masks, other.masks, strict=True))
        )


def check_truth(truth: TruthTable) -> None:
    """Raise UsageError for a label that is none, or a box without area."""
    values = {value for row in truth.labels.values() for value in row.values()}
    if values - {1, 0, -1, UNKNOWN}:
        raise UsageError("a label is 1 (present), 0 (absent) or -1 (uncertain)")
    if not all(np.isfinite(box[2:]).all() and box[4] > 0 and box[5] > 0 for box in truth.boxes):
        raise UsageError("a box needs finite x, y and a width and height above 0")


# ---------------------------------------------------------------------------------------------------------------------
# In the file


def write_truth(
    group: h5py.Group, truth: TruthTable, image_ids: h5py.Dataset, findings: h5py.Dataset, rows: Mapping[str, int]
) -> None:
    """Write what is known of the films into ``/truth``.

    Parameters
    ----------
    group
        ``/truth``, empty.
    truth
        Normalised.
    image_ids, findings
        The scales of films and findings.
    rows
        image_id to row.
    """
    columns = {name: k for k, name in enumerate(texts(findings))}
    labels = np.full((len(rows), len(columns)), UNKNOWN, dtype=np.int8)
    for image_id, row in truth.labels.items():
        for name, value in row.items():
            labels[rows[image_id], columns[name]] = value
    meaning = "label of the film: 1 present, 0 absent, -1 uncertain, -2 unknown"
    put(group, "labels", labels, (image_ids, findings), meaning)
    _write_boxes(group.create_group("boxes"), truth.boxes)
    _write_masks(group.create_group("masks"), truth.masks)


def _write_boxes(group: h5py.Group, boxes: Sequence[BoxRow]) -> None:
    box = scale(group, "box", len(boxes), "one box after the other")
    side = scale(group, "side", ("x", "y", "width", "height"), "parts of a box; x, y is the upper left corner")
    put(group, "image", [row[0] for row in boxes], (box,), "image_id of the film the box lies in")
    put(group, "finding", [row[1] for row in boxes], (box,), "finding the box encloses")
    xywh = np.array([row[2:] for row in boxes], dtype=np.float64).reshape(-1, 4)
    put(group, "xywh", xywh, (box, side), "box in source pixels", units="pixel")


def _write_masks(group: h5py.Group, masks: Sequence[Mask]) -> None:
    mask = scale(group, "mask", len(masks), "one mask after the other")
    extent = scale(group, "extent", ("rows", "columns"), "parts of a shape")
    lengths = [len(row.runs) for row in masks]
    run = scale(group, "run", sum(lengths), "runs of all masks, one mask after the other")
    put(group, "image", [row.image_id for row in masks], (mask,), "image_id of the film the mask lies on")
    put(group, "finding", [row.finding for row in masks], (mask,), "finding the mask covers")
    shapes = np.array([row.shape for row in masks], dtype=np.int32).reshape(-1, 2)
    put(group, "shape", shapes, (mask, extent), "size of the mask, source pixels", units="pixel")
    put(group, "count", np.array(lengths, dtype=np.int64), (mask,), "number of runs of the mask")
    runs = np.concatenate([row.runs for row in masks]) if masks else np.zeros(0, np.uint32)
    dataset = group.create_dataset("runs", data=runs.astype(np.uint32), track_times=False)
    label(dataset, (run,), "lengths of runs in row-major order, by turns absent and present, absent first", "pixel")


def read_truth(group: h5py.Group, image_ids: Sequence[str], findings: Sequence[str]) -> TruthTable:
    """Read ``/truth`` back."""
    matrix: NDArray[np.int8] = group["labels"][...]
    labels: dict[str, dict[str, int]] = {}
    for i, k in np.argwhere(matrix != UNKNOWN):
        labels.setdefault(image_ids[i], {})[findings[k]] = int(matrix[i, k])
    return TruthTable(tuple(findings), labels, read_boxes(group), read_masks(group))


def read_boxes(group: h5py.Group) -> list[BoxRow]:
    """Read ``/truth/boxes``."""
    boxes = group["boxes"]
    xywh: Any = boxes["xywh"][...].tolist()
    return [
        (image, name, *row)
        for image, name, row in zip(texts(boxes["image"]), texts(boxes["finding"]), xywh, strict=True)
    ]


def read_masks(group: h5py.Group) -> list[Mask]:
    """Read ``/truth/masks``."""
    masks = group["masks"]
    ends = np.cumsum(masks["count"][...])
    runs = np.split(masks["runs"][...], ends[:-1]) if len(ends) else []
    shapes = [(int(rows), int(columns)) for rows, columns in masks["shape"][...]]
    columns = zip(texts(masks["image"]), texts(masks["finding"]), shapes, runs, strict=True)
    return [Mask(image, name, shape, run) for image, name, shape, run in columns]
