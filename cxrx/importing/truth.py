"""The truth beside maps made elsewhere, and how large their pictures are: from masks and tables, else from the maps."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray

from cxrx.datasets.chexpert import unfolded
from cxrx.datasets.names import canonical
from cxrx.datasets.nih import patient_of
from cxrx.datasets.truth import FolderTruth, read_truth
from cxrx.errors import UsageError
from cxrx.importing.folder import MOST_PIXELS, MapFolder, Name, Problems, Shape, id_of, listed, names_of, split_name
from cxrx.reading.record import ImageRecord
from cxrx.results.truth import Mask, TruthTable
from cxrx.specs import Box, FilmTruth

_TOO_MANY = 0.1  # share of boxes beyond their maps from which on the maps cannot be in source pixels
_SLACK = 1  # pixels by which rounding may move a box


@dataclass
class PictureTruth:
    """What is known of the pictures by their names.

    Attributes
    ----------
    ids
        The image_id of every mapped picture.
    sizes
        ``(rows, columns)`` of a picture where something but its maps says it.
    patients
        Key of a picture's patient; empty where it is unknown.
    """

    ids: dict[str, str]
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    masks: dict[str, list[Mask]] = field(default_factory=dict)
    sizes: dict[str, Shape] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)

    def findings(self) -> set[str]:
        """Return the findings that a box or a mask marks, in their usual spelling."""
        boxed = {canonical(box.finding) for boxes in self.boxes.values() for box in boxes}
        return boxed | {canonical(mask.finding) for masks in self.masks.values() for mask in masks}

    def table(self) -> TruthTable | None:
        """Return it by image_id; None where nothing is known."""
        if not (self.labels or self.boxes or self.masks):
            return None
        return TruthTable(
            labels={self.ids[image]: labels for image, labels in self.labels.items()},
            boxes=[
                (self.ids[image], box.finding, box.x, box.y, box.width, box.height)
                for image, boxes in self.boxes.items()
                for box in boxes
            ],
            masks=[mask for masks in self.masks.values() for mask in masks],
        )


def read_picture_truth(
    truth: Path | None, folder: Path, maps: MapFolder, pictures: Mapping[str, ImageRecord], problems: Problems
) -> PictureTruth:
    """Read what is known of the mapped pictures.

    Parameters
    ----------
    truth
        A folder of masks or tables, or a table; None: what lies beside the maps in `folder`, if anything does.
    folder, maps
        The folder of the maps, and what was found in it.
    pictures
        Those that are at hand.
    problems
        Collects what is left out or odd.

    Raises
    ------
    UsageError
        If `truth` holds none, speaks of none of the pictures, or its boxes show that maps are not in source pixels.
    """
    images = names_of(maps)
    known = PictureTruth({image: pictures[image].image_id if image in pictures else id_of(image) for image in images})
    known.sizes = {image: (record.rows, record.columns) for image, record in pictures.items()}
    place = truth if truth is not None else folder
    strangers = _add_masks(known, place, set(images), problems) if place.is_dir() else []
    required = truth is not None and not known.masks and not known.labels
    table = _table(place, strangers, images, required=required)
    if table is not None:
        _add_table(known, table, place, maps.largest, problems)
    if required and not known.labels:
        raise _of_others(place, list(table.entries()) if table is not None else [], images)
    if not known.labels:
        problems.warn(
            "no truth lies beside the maps, so they can only be compared with each other; give it with --truth"
        )
    _fit_boxes(known, maps.largest, problems)
    _warn_gaps(known, place, maps, problems)
    for image in images:
        own = pictures[image].link.patient if image in pictures else ""
        known.patients[image] = own or known.patients.get(image, "") or _patient_in(image)
    return known


def _patient_in(image: str) -> str:
    """Return the patient that the name of a picture of ChestX-ray14 or CheXpert holds; empty for other names."""
    first_part = unfolded(image).partition("/")[0]
    if first_part.startswith("patient") and first_part[7:].isdigit():
        return first_part
    return patient_of(image if image.endswith(".png") else f"{image}.png")


# ---------------------------------------------------------------------------------------------------------------------
# Masks


def _add_masks(known: PictureTruth, folder: Path, images: set[str], problems: Problems) -> list[str]:
    """Take the masks ``IMAGE__FINDING.png`` of mapped pictures; return the names of those of other pictures."""
    strangers = []
    for path in sorted(folder.glob("*.png")):
        name = split_name(path)
        if name is not None and name[0] in images:
            _add_mask(known, path, name, problems)
        elif name is not None:
            strangers.append(path.name)
            problems.add("{n} masks are of pictures without a map and were left out", path.name)
    return strangers


def _add_mask(known: PictureTruth, path: Path, name: Name, problems: Problems) -> None:
    image, finding = name
    mask = read_mask(path)
    if mask is None:
        problems.add("{n} masks cannot be read as pictures and were left out", path.name)
        return
    shape = (int(mask.shape[0]), int(mask.shape[1]))
    if not _has_size(known, image, shape, path.name, problems):
        return
    known.labels.setdefault(image, {})[finding] = int(mask.any())
    if mask.any():
        known.masks.setdefault(image, []).append(Mask.encode(known.ids[image], finding, mask))


def _has_size(known: PictureTruth, image: str, shape: Shape, name: str, problems: Problems) -> bool:
    """Whether a mask has the size of its picture, which the first mask gives where nothing else does."""
    if known.sizes.setdefault(image, shape) == shape:
        return True
    problems.add("{n} masks have another size than their picture (or its other masks) and were left out", name)
    return False


def read_mask(path: Path) -> NDArray[np.bool_] | None:
    """Return where a PNG is not black, ``(rows, columns)``; None where it cannot be read or is too large."""
    from PIL import Image

    try:
        with catch_warnings(action="ignore"), Image.open(path, formats=("PNG",)) as picture:  # no PostScript
            if picture.width * picture.height > MOST_PIXELS:
                return None
            array = np.asarray(picture if picture.mode != "P" else picture.convert("RGB"))
    except Exception:  # noqa: BLE001 - Pillow raises nearly anything on junk; the mask is counted and left out
        return None
    if array.ndim == 3:  # the opacity of a transparent PNG is no mask
        array = array[..., : 1 if array.shape[2] == 2 else 3].max(axis=2)
    present: NDArray[np.bool_] = array > 0
    return present


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def _table(place: Path, strangers: Sequence[str], images: Sequence[str], *, required: bool) -> FolderTruth | None:
    """Read the tables at `place`; None where there are none and other things are known."""
    try:
        return read_truth(place)
    except UsageError as error:
        if not required:
            return None
        if strangers:
            raise _of_others(place, strangers, images) from error
        if place.suffix.lower() == ".json":
            raise UsageError(
                f"{place.name} is not read as the truth",
                "the truth of CheXlocalize is called gt_segmentations*.json or gt_annotations*.json; other files of "
                "this form are predictions",
            ) from error
        raise


def _of_others(place: Path, names: Sequence[str], images: Sequence[str]) -> UsageError:
    """Return the error that no picture of the truth has a map, with the names that come nearest."""
    near = difflib.get_close_matches(images[0], names, n=1, cutoff=0.3) or names[:1]
    return UsageError(
        f"{place.name} speaks of none of the {len(images)} mapped pictures",
        f"the maps are of {listed(images)}; {place.name} has {near[0] if near else 'none at all'}, for example; "
        "map and mask of a picture have the same name before the last __",
    )


def _add_table(
    known: PictureTruth, table: FolderTruth, place: Path, largest: Mapping[str, Shape], problems: Problems
) -> None:
    """Take what tables say of the mapped pictures.

    Parameters
    ----------
    known
        Changed in place.
    table, place
        What was read, and from where.
    largest
        Picture to the shape of its largest map, in order.
    problems
        Collects what is odd.
    """
    images = list(largest)
    table.settle(table.place(image) for image in images)
    for sentence in table.problems:
        problems.warn(sentence if place.name in sentence else f"{place.name}: {sentence}")
    for image in images:
        if (stated := table.stated_size(image)) is not None:
            known.sizes.setdefault(image, stated)
        film = table.truth(image, size=known.sizes.get(image, largest[image]))
        if film is None:
            continue
        known.labels[image] = dict(film.labels) | known.labels.get(image, {})  # a mask goes before a label
        known.patients[image] = film.patient
        _add_film_masks(known, image, film, problems)
        if film.boxes:
            known.boxes[image] = list(film.boxes)
    for note in table.notes():
        problems.warn(note)


def _add_film_masks(known: PictureTruth, image: str, film: FilmTruth, problems: Problems) -> None:
    for mask in film.masks:
        if _has_size(known, image, mask.shape, image, problems):
            known.masks.setdefault(image, []).append(Mask.of_film(known.ids[image], mask))


# ---------------------------------------------------------------------------------------------------------------------
# What does not fit


def _fit_boxes(known: PictureTruth, largest: Mapping[str, Shape], problems: Problems) -> None:
    """Leave out boxes that lie outside their picture; where only the map gives its size, all that reach beyond."""
    guessed = [image for image in known.boxes if image not in known.sizes]
    beyond = [image for image in guessed for box in known.boxes[image] if not _within(box, largest[image])]
    boxes = sum(len(known.boxes[image]) for image in guessed)
    if len(beyond) > _TOO_MANY * boxes:
        raise UsageError(
            f"{len(beyond)} of {boxes} boxes reach beyond their map ({listed(beyond)}), so the maps are not in source "
            "pixels and the size of the pictures is unknown",
            "give the pictures with --images DIR, or add columns rows,columns to the table of boxes",
        )
    for image, own in known.boxes.items():
        shape = known.sizes.get(image, largest[image])
        kept = []
        for box in own:
            if image in guessed and not _within(box, shape):
                problems.add(
                    "{n} boxes reach beyond their map, the only one to give their picture's size; left out", image
                )
            elif box.x >= shape[1] or box.y >= shape[0] or box.x + box.width <= 0 or box.y + box.height <= 0:
                problems.add("{n} boxes lie outside their picture and were left out", image)
            else:
                kept.append(box)
                if not _within(box, shape):
                    problems.add("{n} boxes reach beyond their picture; what lies outside does not count", image)
        known.boxes[image] = kept


def _within(box: Box, shape: Shape) -> bool:
    return (
        box.x >= -_SLACK
        and box.y >= -_SLACK
        and box.x + box.width <= shape[1] + _SLACK
        and box.y + box.height <= shape[0] + _SLACK
    )


def _warn_gaps(known: PictureTruth, place: Path, maps: MapFolder, problems: Problems) -> None:
    """Report maps that no truth speaks of: pictures, and findings that may be misspelt."""
    if not known.labels:
        return
    name = place.name.replace("{", "{{").replace("}", "}}")
    for image in names_of(maps):
        if image not in known.labels:
            problems.add(f"{{n}} mapped pictures are unknown to {name}, so their maps cannot be scored", image)
    marked = known.findings()
    for finding in dict.fromkeys(item.finding for item in maps) if marked else ():
        if canonical(finding) not in marked:
            near = difflib.get_close_matches(canonical(finding), marked, n=1)
            shown = f"{finding}; did you mean {near[0]}?" if near else finding
            problems.add(f"{{n}} findings of the maps are marked nowhere in {name}", shown)
