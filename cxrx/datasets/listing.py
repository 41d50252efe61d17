"""What lies in a folder: tables and films, by their names alone."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from cxrx.reading.find import SKIPPED_FOLDERS
from cxrx.reading.readers import DICOM_SUFFIXES, IMAGE_SUFFIXES

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".parquet", ".feather", ".sav", ".dta", ".rds")
TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".csv.gz", ".tsv.gz", ".txt", ".json", *SPREADSHEETS)
"""Spreadsheets are not read, and told."""

_FILM_SUFFIXES = IMAGE_SUFFIXES | DICOM_SUFFIXES
_BARE = re.compile(r"(\.\d*)?")  # no suffix, or the last number of a UID


@dataclass
class Listing:
    """Files in and below a folder, posix paths relative to it, in order.

    Attributes
    ----------
    films
        Files whose suffix says that they are pictures or DICOM.
    bare
        Files without a suffix, or with a number for one: DICOM perhaps.
    folders
        Every folder that was looked into, the top one as ``""``.
    """

    tables: list[str] = field(default_factory=list)
    films: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def list_folder(top: Path, depth: int | None = None) -> Listing:
    """List `top` down to `depth` levels below it (None: all), without hidden files and the folders of masks.

    Links are followed, none twice; what cannot be listed is passed over, as the search for films says so already.
    """
    listing = Listing()
    stack, seen = [("", 0)], set()
    while stack:
        prefix, level = stack.pop()
        try:
            state = os.stat(top / prefix)  # noqa: PTH116  Path.stat is the same and slower
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(top / prefix) as entries:
                found = [(entry.name, _is_folder(entry)) for entry in entries]
        except OSError:
            continue
        listing.folders.append(prefix)
        for name, is_folder in found:
            path = f"{prefix}/{name}" if prefix else name
            if name.startswith("."):
                continue
            if not is_folder:
                _add(listing, path, name.lower())
            elif (
                name.lower() not in SKIPPED_FOLDERS and not name.endswith(".parts") and (depth is None or level < depth)
            ):
                stack.append((path, level + 1))
    for names in (listing.tables, listing.films, listing.bare, listing.folders):
        names.sort()
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder; a link that leads to itself is none, and must not hide what lies beside it."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _add(listing: Listing, path: str, name: str) -> None:
    suffix = os.path.splitext(name)[1]  # noqa: PTH122  a Path for each of 100,000 names takes seconds
    if suffix in _FILM_SUFFIXES:
        listing.films.append(path)
    elif name.endswith(TABLE_SUFFIXES):
        listing.tables.append(path)
    elif _BARE.fullmatch(suffix):
        listing.bare.append(path)
