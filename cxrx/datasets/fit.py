"""Whether boxes and masks fit their film, and what several tables say of it together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from cxrx.datasets import rle
from cxrx.datasets.sheet import Shape
from cxrx.reading.header import DEFLATED, library_settings
from cxrx.specs import Box, FilmTruth, Mask, Split

FRACTIONS: Shape = (1, 1)
"""Stands for the size of what boxes in fractions of their picture were drawn on."""

SLACK = 1.0
"""Pixels by which a box may reach beyond its film: tables round."""

_SAME_SHAPE = 0.01  # by which the ratio of the sides may differ after a resize
_PERCENT, _LARGE = 100, 500  # pixels


def on_film(boxes: tuple[Box, ...], grid: Shape | None, size: Shape | None) -> tuple[tuple[Box, ...], list[str]]:
    """Turn boxes into pixels of their film.

    Parameters
    ----------
    boxes
        As the table has them.
    grid
        Rows and columns of what they were drawn on; None: the film.
    size
        Rows and columns of the film; None where it is unknown.

    Returns
    -------
    boxes, notes
        The boxes, none where this cannot be done, and a sentence on that.
    """
    if not boxes or grid is None or grid == size:
        return boxes, []
    if size is None:
        lost = grid == FRACTIONS
        return (() if lost else boxes), ["films without their boxes, in fractions of a size that is unknown"] * lost
    down, across = size[0] / grid[0], size[1] / grid[1]
    if grid != FRACTIONS and abs(down / across - 1) > _SAME_SHAPE + 1 / min(size):
        return (), ["films without their boxes, which were drawn on a picture of another shape"]
    scaled = tuple(
        replace(box, x=box.x * across, y=box.y * down, width=box.width * across, height=box.height * down)
        for box in boxes
    )
    note = "films of another size than what their boxes were drawn on; the boxes were scaled"
    return scaled, [note] if grid != FRACTIONS else []


def misfits(film: FilmTruth, size: Shape | None) -> Iterator[str]:
    """Yield a sentence on every way in which boxes or masks do not fit a film of this size."""
    if size is None:
        return
    rows, columns = size
    if any(
        min(box.x, box.y) < -SLACK or box.x + box.width > columns + SLACK or box.y + box.height > rows + SLACK
        for box in film.boxes
    ):
        yield "films with boxes that reach beyond them"
    far = max((max(box.x + box.width, box.y + box.height) for box in film.boxes), default=_LARGE)
    if far <= _PERCENT and min(size) >= _LARGE:
        yield "films with all boxes in their first 100 pixels, as boxes in per cent would be"
    if any(mask.shape != size for mask in film.masks):
        yield "films with masks of another size"


# ---------------------------------------------------------------------------------------------------------------------
# Several tables


def contradictions(films: Sequence[FilmTruth]) -> Iterator[str]:
    """Yield a sentence on everything in which tables contradict each other on one film."""
    if len(films) < 2:
        return
    stated = [film.labels for film in films if not film.boxes and not film.masks]
    known = {name: {labels[name] for labels in stated if name in labels} for labels in stated for name in labels}
    if any(len(values) > 1 for values in known.values()):
        yield "films whose labels in two tables contradict each other; one table counts"
    marked = {box.finding for film in films for box in film.boxes}
    marked |= {mask.finding for film in films for mask in film.masks}
    if any(known.get(name) == {0} for name in marked):
        yield "films with a box or mask of a finding that another table calls absent"
    if len({film.patient.lstrip("0") for film in films if film.patient}) > 1:
        yield "films of which two tables name different patients; one table counts"
    if len({film.view for film in films if film.view}) > 1:
        yield "films of which two tables name different views; one table counts"
    splits = {film.split for film in films if film.split}
    if len(splits) > 1 and not ("train+valid" in splits and "test" not in splits):
        yield "films of which two tables name different splits; one table counts"


def merged_truth(films: Sequence[FilmTruth]) -> FilmTruth:
    """Join what several tables say of one film: a stated label wins over one that only follows from a box or mask."""
    if len(films) == 1:
        return films[0]
    stated = [film.labels for film in sorted(films, key=lambda f: bool(f.boxes or f.masks)) if film.labels]
    labels = stated[0] if len(stated) == 1 else {name: film[name] for film in reversed(stated) for name in film}
    boxes: dict[Box, None] = {}
    masks: dict[tuple[str, Shape], list[Mask]] = {}
    for film in films:
        boxes |= dict.fromkeys(film.boxes)
        for mask in film.masks:
            masks.setdefault((mask.finding, mask.shape), []).append(mask)
    joined = [
        found[0] if len(found) == 1 else Mask(finding, shape, rle.union([mask.counts for mask in found], shape))
        for (finding, shape), found in masks.items()
    ]
    patient = next((film.patient for film in films if film.patient), "")
    view = next((film.view for film in films if film.view), "")
    splits: list[Split] = [film.split for film in films if film.split]
    return FilmTruth(labels, tuple(boxes), patient, view, tuple(joined), splits[0] if splits else "")


# ---------------------------------------------------------------------------------------------------------------------
# Sizes of films


def size_of(path: Path) -> Shape | None:
    """Return rows and columns of a film from its header, without decoding a pixel; None where it has none."""
    try:
        with path.open("rb") as stream, library_settings():
            head = stream.read(132)
            stream.seek(0)
            return _dicom_size(stream) if head[128:] == b"DICM" else _picture_size(stream)
    except OSError:
        return None


def _picture_size(stream: BinaryIO) -> Shape | None:
    from PIL import Image

    try:
        with Image.open(stream, formats=("PNG", "JPEG")) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, SyntaxError):
        return None


def _dicom_size(stream: BinaryIO) -> Shape | None:
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info

    try:
        if read_file_meta_info(stream.name).TransferSyntaxUID == DEFLATED:
            return None  # its header is packed with the pixels, and unpacking has no limit
        dataset = dcmread(stream, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
        return int(dataset.Rows), int(dataset.Columns)
    except Exception:  # noqa: BLE001 - pydicom raises nearly anything on junk; the caller counts what has no size
        return None
