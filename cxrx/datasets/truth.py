"""Find the tables that belong to a folder of films, and ask them about one film."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cxrx.datasets.tables import Table, read_table
from cxrx.errors import UsageError
from cxrx.specs import Box, FilmTruth

_TABLE_SUFFIXES = {".csv", ".tsv"}
# Only these are cut off for the match by stem: a DICOM UID is full of dots.
_PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".dic", ".tif", ".tiff", ".bmp", ".gz", ".npy"}

# How well a film's path met a table's entry; a better one in one table silences a worse one in another of its kind.
_PLACE, _PATH, _BASE, _STEM = 4, 3, 2, 1


@dataclass
class _Index:
    """One table with its entries by place, base name and stem."""

    table: Table
    places: dict[str, str]  # path relative to an input -> entry
    bases: dict[str, list[str]] = field(default_factory=dict)
    stems: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in self.table.films:
            base = PurePosixPath(entry).name
            self.bases.setdefault(base, []).append(entry)
            self.stems.setdefault(_stem(base), []).append(entry)

    def find(self, relative: str) -> tuple[int, str] | None:
        """Return how well, and under which entry, the film at `relative` is in the table."""
        if relative in self.places:
            return _PLACE, self.places[relative]
        base = PurePosixPath(relative).name
        same = self.bases.get(base, [])
        tails = [entry for entry in same if _is_tail(entry, relative)]
        if tails:
            longest = max(tails, key=len)
            return (_PATH if "/" in longest else _BASE), longest
        if len(same) == 1:
            return _BASE, same[0]
        alike = self.stems.get(_stem(base), []) if not same else []
        return (_STEM, alike[0]) if len(alike) == 1 else None


def _stem(base: str) -> str:
    path = PurePosixPath(base)
    return path.stem if path.suffix.lower() in _PICTURE_SUFFIXES else base


def _is_tail(tail: str, path: str) -> bool:
    parts, tail_parts = PurePosixPath(path).parts, PurePosixPath(tail).parts
    return parts[len(parts) - len(tail_parts) :] == tail_parts


class FolderTruth:
    """Labels, boxes and patients from tables.

    Attributes
    ----------
    name
        ``"nih-chestxray14"``, ``"rsna-pneumonia"``, ``"vindr-cxr"`` or ``"tables"``; empty where there are none.
    findings
        Union of the tables' findings, in their order, those of label tables first.
    tables
        The files that were read.
    problems
        Sentences on what was left out, without cells.
    """

    def __init__(self, indices: Sequence[_Index] = (), problems: Sequence[str] = ()) -> None:
        self._indices = list(indices)
        self.tables = [index.table.path for index in indices]
        in_order = sorted((index.table for index in indices), key=lambda table: table.kind == "boxes")
        self.findings = tuple(dict.fromkeys(name for table in in_order for name in table.findings))
        self.problems = [*problems, *(f"{i.table.path.name}: {text}" for i in indices for text in i.table.problems)]
        kinds = {index.table.kind for index in indices}
        names = {"nih-labels": "nih-chestxray14", "rsna": "rsna-pneumonia", "vindr": "vindr-cxr"}
        self.name = next((names[kind] for kind in ("nih-labels", "rsna", "vindr") if kind in kinds), "")
        self.name = self.name or ("tables" if indices else "")

    def __len__(self) -> int:
        """Count the films that the tables name (by stem)."""
        return len({stem for index in self._indices for stem in index.stems})

    def truth(self, relative_path: str) -> FilmTruth | None:
        """Return what is known of a film, or None.

        Parameters
        ----------
        relative_path
            Posix, relative to the input it was found under; or a bare file name; or any other name the tables use. It
            is matched by path, else by base name, else by stem, the last two only where they are unique.
        """
        matches = [(index.table, *match) for index in self._indices if (match := index.find(relative_path))]
        best: dict[bool, int] = {}
        for table, rank, _ in matches:
            boxes = table.kind == "boxes"
            best[boxes] = max(rank, best.get(boxes, 0))
        films = [table.films[entry] for table, rank, entry in matches if rank == best[table.kind == "boxes"]]
        return _merged(films) if films else None

    def unmatched(self, names: Iterable[str]) -> int:
        """Count the tables' entries that none of `names` (film paths) meets."""
        entries = {(i, entry) for i, index in enumerate(self._indices) for entry in index.table.films}
        for name in names:
            entries -= {(i, match[1]) for i, index in enumerate(self._indices) if (match := index.find(name))}
        return len(entries)


def _merged(films: list[FilmTruth]) -> FilmTruth:
    """Join what several tables say of one film: a stated label wins over one that only follows from a box."""
    labels: dict[str, int] = {}
    boxes: dict[Box, None] = {}
    for film in sorted(films, key=lambda film: bool(film.boxes)):
        labels = {**film.labels, **labels}
        boxes |= dict.fromkeys(film.boxes)
    patient = next((film.patient for film in films if film.patient), "")
    view = next((film.view for film in films if film.view), "")
    return FilmTruth(labels, tuple(boxes), patient, view)


def discover(inputs: Sequence[Path]) -> FolderTruth:
    """Find the tables that belong to `inputs`: in and below a folder, beside a film, and one level above either.

    Parameters
    ----------
    inputs
        Folders, single films and archives, as given to ``cxrx predict``.
    """
    indices: dict[Path, _Index] = {}
    problems: list[str] = []
    for given in inputs:
        top = Path(os.path.abspath(given))  # noqa: PTH100  resolve() would follow links away from the tables
        folder = top if top.is_dir() else top.parent
        found = [*(_tables_below(folder) if top.is_dir() else _tables_in(folder)), *_tables_in(folder.parent)]
        for path in found:
            table = indices[path].table if path in indices else _read(path, problems)
            if table is None:
                continue
            places = {place: entry for entry in table.films if (place := _place(path.parent, entry, folder))}
            if path in indices:
                indices[path].places.update(places)
            else:
                indices[path] = _Index(table, places)
    return FolderTruth(list(indices.values()), problems)


def read_truth(path: Path) -> FolderTruth:
    """Read one table, or all tables in and below a folder.

    Raises
    ------
    UsageError
        If there is no such file, or no table in it that is understood.
    """
    if not path.exists():
        raise UsageError(f"there is no {path.name}", hint="give a CSV of labels or boxes, or a folder that holds some")
    problems: list[str] = []
    paths = _tables_below(path) if path.is_dir() else [path]
    tables = [table for item in paths if (table := _read(item, problems))]
    if not tables:
        raise UsageError(
            f"{path.name} holds no table of labels or boxes",
            hint="a header like path,<finding>,... or path,finding,x,y,w,h, or the tables of NIH, RSNA or VinDr",
        )
    return FolderTruth([_Index(table, {}) for table in tables], problems)


def has_tables(folder: Path) -> bool:
    """Tell whether `folder` itself holds a table that is understood."""
    return any(_read(path, []) is not None for path in _tables_in(folder))


def _read(path: Path, problems: list[str]) -> Table | None:
    try:
        return read_table(path)
    except OSError as error:
        problems.append(f"{path.name} could not be read: {error.strerror}")
        return None


def _place(table_folder: Path, entry: str, folder: Path) -> str:
    """Return where `entry` lies relative to the input `folder`; empty where it is outside."""
    path = os.path.normpath(table_folder / entry)
    relative = os.path.relpath(path, folder)
    return "" if relative.startswith("..") else PurePosixPath(Path(relative)).as_posix()


def _tables_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in _TABLE_SUFFIXES and path.is_file())
    except OSError:
        return []  # no right to list it: then there is nothing to find


def _tables_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".parts"))
        found += [Path(here, name) for name in names if Path(name).suffix.lower() in _TABLE_SUFFIXES]
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))
