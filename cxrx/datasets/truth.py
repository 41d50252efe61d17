"""Find the tables that belong to a folder of films, and ask them about one film."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cxrx.datasets import class_folders, mimic, rle
from cxrx.datasets.listing import Listing, list_folder
from cxrx.datasets.match import Index, Location
from cxrx.datasets.names import is_known, nearest
from cxrx.datasets.sheet import Role, Table, split_word
from cxrx.datasets.specs import BUILTIN_DATASETS, CLASS_FOLDERS, TABLES
from cxrx.datasets.tables import DATASET_OF, kind_of_file, read_table
from cxrx.errors import UsageError
from cxrx.registry import load
from cxrx.specs import Box, Dataset, DatasetSpec, FilmTruth, Mask, Split

_CLASS_DEPTH = 3  # levels that a folder named by class, split or "images" may lie below its data set
_TABLE_DEPTH = 2  # levels below a folder in which its tables are looked for to recognise it


@dataclass(frozen=True)
class _PluginDataset:
    """A data set of a plugin, and where its folder lies."""

    dataset: Dataset
    location: Location

    def truth(self, path: str) -> FilmTruth | None:
        own = self.location.from_table(path)
        return None if own is None else self.dataset.truth(own)


class FolderTruth:
    """Labels, boxes, masks, patients and splits from tables, from folders named by class, or from a plugin.

    Attributes
    ----------
    name
        That of the data set; ``"tables"`` for anybody's own ones, empty where nothing is known.
    findings
        Union of what the tables speak of, in their order, label tables first.
    tables
        The files that were read.
    problems
        Sentences on what was left out, without cells.
    sides
        Data set to the grid in pixels that its boxes or masks were drawn on, where it has one for all films.
    """

    def __init__(
        self,
        indices: Sequence[Index] = (),
        problems: Sequence[str] = (),
        plugins: Sequence[_PluginDataset] = (),
        prefixes: Sequence[str] = (),
    ) -> None:
        self._indices, self._plugins, self._prefixes = list(indices), list(plugins), list(prefixes)
        tables = [index.table for index in indices]
        self.tables = [table.path for table in tables]
        in_order = [*(t for t in tables if t.role == "labels"), *(t for t in tables if t.role == "marks")]
        sources = [*(plugin.dataset.findings for plugin in plugins), *(table.findings for table in in_order)]
        self.findings = tuple(dict.fromkeys(name for findings in sources for name in findings))
        self.problems = [*problems, *(f"{table.path.name}: {text}" for table in tables for text in table.problems)]
        self.problems += [
            f"{name!r} is no known finding; {close} is" for name in self.findings if (close := nearest(name))
        ]
        self.sides = {DATASET_OF[table.kind]: table.side for table in tables if table.side}
        self.name = _name([plugin.dataset.name for plugin in plugins], tables)

    def __len__(self) -> int:
        """Count the films that the tables name; a name in two tables counts once."""
        return len({key for index in self._indices for key in index.names()})

    def truth(self, relative_path: str) -> FilmTruth | None:
        """Return what is known of a film, or None.

        Parameters
        ----------
        relative_path
            Posix, relative to the input it was found under; or a bare file name; or any other name the tables use. It
            is matched by path, else by base name, else by stem, as far as these are unique.
        """
        for plugin in self._plugins:
            known = plugin.truth(relative_path)
            if known is not None:
                return known
        matches = [
            (index.table, *match) for index in self._indices if (match := index.find(relative_path, self._prefixes))
        ]
        if not any(table.role != "split" for table, _, _ in matches):
            return None  # a list of films alone says nothing of a film
        best: dict[Role, int] = {}
        for table, rank, _ in matches:
            best[table.role] = max(rank, best.get(table.role, 0))
        return _merged([table.films[entry] for table, rank, entry in matches if rank == best[table.role]])

    def entries(self) -> dict[str, FilmTruth]:
        """Return what the tables say by the names that they use, where there are no films to ask about."""
        names = {entry: None for index in self._indices if index.table.role != "split" for entry in index.table.films}
        return {name: known for name in names if (known := self.truth(name)) is not None}

    def unmatched(self, names: Iterable[str]) -> int:
        """Count the tables' entries that none of `names` (film paths) meets; lists of films do not count."""
        indices = [index for index in self._indices if index.table.role != "split"]
        entries = {(i, entry) for i, index in enumerate(indices) for entry in index.table.films}
        for name in names:
            entries -= {(i, match[1]) for i, index in enumerate(indices) if (match := self._find(index, name))}
        return len(entries)

    def absent(self, names: Sequence[str]) -> int:
        """Count the films that a table of labels or boxes names and that are not among `names`.

        Of several tables the one that misses most counts; one that meets none of them is of other films, if another
        does.
        """
        missing: dict[bool, int] = {}
        for index in self._indices:
            if index.table.role != "split":
                met = {match[1] for name in names if (match := self._find(index, name))}
                missing[bool(met)] = max(missing.get(bool(met), 0), len(index) - len(met))
        return missing.get(True, missing.get(False, 0))

    def _find(self, index: Index, name: str) -> tuple[int, str] | None:
        return index.find(name, self._prefixes)


def _name(plugins: Sequence[str], tables: Sequence[Table]) -> str:
    tables = [table for table in tables if table.role != "split"]
    given = next((name for name in [*plugins, *(DATASET_OF.get(table.kind, "") for table in tables)] if name), "")
    if given or not tables:
        return given
    return CLASS_FOLDERS if all(table.kind == CLASS_FOLDERS for table in tables) else TABLES


def _merged(films: Sequence[FilmTruth]) -> FilmTruth:
    """Join what several tables say of one film: a stated label wins over one that only follows from a box or mask."""
    if len(films) == 1:
        return films[0]
    stated = [film.labels for film in sorted(films, key=lambda f: bool(f.boxes or f.masks)) if film.labels]
    labels = stated[0] if len(stated) == 1 else {name: film[name] for film in reversed(stated) for name in film}
    boxes: dict[Box, None] = {}
    masks: dict[tuple[str, tuple[int, int]], list[Mask]] = {}
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
# Finding it


def discover(inputs: Sequence[Path]) -> FolderTruth:
    """Find what is known of the films in `inputs`.

    A plugin's data set that recognises an input (or the folder above it) goes before everything else. Then the tables
    count that lie in and below a folder, beside a film, and one level above either. Where there is no table of labels,
    folders named by class are.

    Parameters
    ----------
    inputs
        Folders, single films and archives, as given to ``cxrx predict``.
    """
    search = _Search()
    for given in inputs:
        top = Path(os.path.abspath(given))  # noqa: PTH100  resolve() would follow links away from the tables
        folder = top if top.is_dir() else top.parent
        search.prefixes.append("/".join(folder.parts[-_CLASS_DEPTH:]).lstrip("/"))
        if search.try_plugins(folder, Location()) or search.try_plugins(folder.parent, Location(above=folder.name)):
            continue
        listing = list_folder(folder) if top.is_dir() else list_folder(folder, depth=0)
        search.add_tables(folder, listing.tables)
        search.add_tables(folder.parent, list_folder(folder.parent, depth=0).tables, Location(above=folder.name))
        if not search.labels_any(listing.films if top.is_dir() else [top.name]):
            search.add_classes(folder, listing if top.is_dir() else None)
    return search.result()


def read_truth(path: Path) -> FolderTruth:
    """Read one table, or whatever is known in and below a folder.

    Raises
    ------
    UsageError
        If there is no such file, or nothing in it that is understood.
    """
    if not path.exists():
        raise UsageError(f"there is no {path.name}", hint="give a CSV of labels or boxes, or a folder that holds some")
    search = _Search(located=False)
    if not path.is_dir():
        search.add_tables(path.parent, [path.name])
    elif not search.try_plugins(path, Location()):
        listing = list_folder(path)
        search.add_tables(path, listing.tables)
        if not search.labels_any(listing.films):
            search.add_classes(path, listing)
    truth = search.result()
    if not truth.name:
        lacks = [text for text in search.problems if "lacks" in text]
        raise UsageError(
            lacks[0] if lacks else f"{path.name} holds no table of labels or boxes",
            hint="a header like path,<finding>,... or path,finding,x,y,w,h, or a layout that `cxrx datasets` lists",
        )
    return truth


class _Search:
    """Gathers tables, each once, and where they lie."""

    def __init__(self, *, located: bool = True) -> None:
        self.problems: list[str] = []
        self.prefixes: list[str] = []
        self._located = located  # whether films are looked up by where they lie
        self._tables: dict[Path, Table] = {}
        self._locations: dict[Path, list[Location]] = {}
        self._plugins: list[_PluginDataset] = []

    def labels_any(self, films: Sequence[str]) -> bool:
        """Tell whether a table of labels, which boxes are not, speaks of any of these films."""
        tables = [(path, table) for path, table in self._tables.items() if table.role == "labels"]
        indices = [Index(table, self._locations.get(path, [])) for path, table in tables]
        return any(index.find(name, self.prefixes) for name in films for index in indices)

    def try_plugins(self, folder: Path, location: Location) -> bool:
        """Let the data sets of plugins look at a folder; return whether one recognised it."""
        for name, spec in load().datasets.items():
            if spec in BUILTIN_DATASETS:
                continue  # their tables are read together, whichever of them lie there
            dataset = self._opened(name, spec, folder)
            if dataset is not None:
                self._plugins.append(_PluginDataset(dataset, location))
                self.problems += [str(text) for text in getattr(dataset, "problems", ())]
                return True
        return False

    def _opened(self, name: str, spec: DatasetSpec, folder: Path) -> Dataset | None:
        try:
            return spec.open(folder) if spec.sniff(folder) else None
        except UsageError:
            raise  # a sentence for the user
        except Exception as error:  # noqa: BLE001 - a broken plugin is reported and must not end the run
            self.problems.append(f"data set {name} is left out: {type(error).__name__}")
            return None

    def add_tables(self, folder: Path, names: Sequence[str], location: Location | None = None) -> None:
        """Read the tables of a folder, by their paths in it."""
        for name in names:
            path = folder / name
            if path not in self._tables:
                table = self._read(path)
                if table is None:
                    continue
                self._tables[path] = table
            if self._located:
                below = str(PurePosixPath(name).parent)
                self._locations.setdefault(path, []).append(location or Location("" if below == "." else below))

    def _read(self, path: Path) -> Table | None:
        try:
            return read_table(path, self.problems)
        except OSError as error:
            self.problems.append(f"{path.name} could not be read: {error.strerror or 'it is damaged'}")
            return None

    def add_classes(self, folder: Path, listing: Listing | None) -> None:
        """Add folders named by class: in `folder`, or above it where its own name is one of theirs."""
        below = listing
        above = [""]
        for _ in range(_CLASS_DEPTH + 1):
            table = class_folders.read_folders(folder, below) if below is not None else None
            if table is not None:
                self._tables[folder] = table
                self._locations[folder] = [Location(above="/".join(above).strip("/"))] if self._located else []
                return
            is_ours = is_known(folder.name) or split_word(folder.name) or folder.name.casefold() == "images"
            if not is_ours:
                return
            above.insert(0, folder.name)
            folder = folder.parent
            below = list_folder(folder, depth=_CLASS_DEPTH)

    def result(self) -> FolderTruth:
        """Join what belongs together and make it one."""
        by_folder: dict[Path, list[Table]] = {}
        for path, table in self._tables.items():
            by_folder.setdefault(path.parent, []).append(table)
        tables = [table for group in by_folder.values() for table in mimic.joined(group)]
        indices = [Index(table, self._locations.get(table.path, [])) for table in tables]
        return FolderTruth(indices, self.problems, self._plugins, self.prefixes)


# ---------------------------------------------------------------------------------------------------------------------
# Recognising a folder


def recognised(folder: Path, name: str) -> bool:
    """Tell whether `folder` is laid out as the built-in data set `name`.

    Tables are recognised by their first lines, in the folder or not far below; plain ones only in the folder itself,
    and by their cells.
    """
    if name == CLASS_FOLDERS:
        return class_folders.read_folders(folder, list_folder(folder, depth=_CLASS_DEPTH)) is not None
    if name == TABLES:
        search = _Search()
        search.add_tables(folder, list_folder(folder, depth=0).tables)
        return search.result().name == TABLES
    kinds = (kind_of_file(folder / path) for path in list_folder(folder, depth=_TABLE_DEPTH).tables)
    return name in {DATASET_OF.get(kind) for kind in kinds if kind is not None and kind != "list"}
