"""The pictures that maps made elsewhere are of, where they are at hand: they have sizes and identities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cxrx.datasets.chexpert import unfolded
from cxrx.datasets.match import Index, Place
from cxrx.datasets.sheet import Table
from cxrx.importing.folder import Problems, sha256_of
from cxrx.reading.find import find
from cxrx.reading.item import Item
from cxrx.reading.options import ReadOptions
from cxrx.reading.readers import read_films
from cxrx.reading.record import ImageRecord, Link, Status, record_of
from cxrx.specs import Film, FilmTruth

_OPTIONS = ReadOptions(views=("all",), non_chest=True)  # there are maps of them, so they are wanted


def find_pictures(folder: Path, images: Sequence[str], problems: Problems) -> dict[str, ImageRecord]:
    """Find and read the pictures of `images` in and below `folder`.

    Returns
    -------
    records
        Image to its row. Names are matched by path, base name or stem, as far as these are unique; what is not found
        or cannot be read is reported and has no row.

    Raises
    ------
    UsageError
        If there is no such folder.
    """
    items = {item.relative: item for item in find([folder]) if isinstance(item, Item)}
    table = Table(folder, "pictures", {name: FilmTruth() for name in items}, (), [], name_of=unfolded)
    index, records, seen = Index(table), {}, set()
    for image in images:
        match = index.find(Place(image, image))
        if match is None:
            problems.add("{n} mapped pictures were not found among the pictures", image)
            continue
        record = next(_records(items[match[1]], problems), None)
        if record is not None and record.image_id in seen:
            problems.add("{n} pictures have the same bytes as another, and are told apart by their names", image)
        elif record is not None:
            seen.add(record.image_id)
            records[image] = record
    return records


def _records(item: Item, problems: Problems) -> Iterator[ImageRecord]:
    for found in read_films(item, _OPTIONS):
        if not isinstance(found, Film):
            problems.add(f"{{n}} pictures could not be read: {found.message}", item.relative)
            continue
        yield record_of(item, found)


def stand_in(image: str, rows: int, columns: int) -> ImageRecord:
    """Return the row of a picture that is not at hand; the digest of its name is its identity."""
    digest = sha256_of(image)
    link = Link("film", digest[:16], relative=image)
    return ImageRecord(digest, "", rows, columns, "", Status.OK, "", synthetic=False, link=link)
