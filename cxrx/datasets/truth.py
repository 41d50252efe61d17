"""Find the tables that belong to a folder of films, and ask them about one film."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cxrx.datasets import class_folders, mimic
from cxrx.datasets.fit import contradictions, merged_truth, misfits, on_film, size_of
from cxrx.datasets.listing import Listing, list_folder
from cxrx.datasets.match import Index, Place
from cxrx.datasets.names import is_known, nearest
from cxrx.datasets.sheet import Role, Shape, Table, split_word
from cxrx.datasets.specs import BUILTIN_DATASETS, CLASS_FOLDERS, TABLES
from cxrx.datasets.tables import DATASET_OF, kind_of_file, read_table
from cxrx.errors import UsageError
from cxrx.registry import load
from cxrx.specs import Dataset, DatasetSpec, FilmTruth

_CLASS_DEPTH = 3  # levels that a folder named by class, split or "images" may lie below its data set
_TABLE_DEPTH = 2  # levels below a folder in which its tables are looked for to recognise it


@dataclass(frozen=True)
class _PluginDataset:
    """A data set of a plugin, and its folder."""

    dataset: Dataset
    folder: str

    def truth(self, film: Place) -> FilmTruth | None:
        if film.path == film.relative:  # where it lies is unknown
            return self.dataset.truth(film.relative)
        if not film.path.startswith(f"{self.folder}/"):
            return None
        return self.dataset.truth(film.path.removeprefix(f"{self.folder}/"))


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
        Sentences on what was left out or not understood, without cells.
    """

    def __init__(
        self,
        indices: Sequence[Index] = (),
        problems: Sequence[str] = (),
        plugins: Sequence[_PluginDataset] = (),
        tops: Sequence[str] = (),
    ) -> None:
        self._indices, self._plugins, self._tops = list(indices), list(plugins), list(tops)
        self._notes: dict[str, dict[str, None]] = {}
        tables = [index.table for index in indices]
        self.tables = [table.path for table in tables]
        in_order = [*(t for t in tables if t.role == "labels"), *(t for t in tables if t.role == "marks")]
        sources = [*(plugin.dataset.findings for plugin in plugins), *(table.findings for table in in_order)]
        self.findings = tuple(dict.fromkeys(name for findings in sources for name in findings))
        self.problems = [*problems, *(f"{table.path.name}: {text}" for table in tables for text in table.problems)]
        self.problems += [
            f"{name!r} is no known finding; {close} is" for name in self.findings if (close := nearest(name))
        ]
        self.name = _name([plugin.dataset.name for plugin in plugins], tables)

    def __len__(self) -> int:
        """Count the films that the tables name; a name in two tables counts once."""
        return len({key for index in self._indices for key in index.names()})

    def place(self, relative: str, path: str = "") -> Place:
        """Return where a film lies, from its path relative to an input and, where it is known, its whole path."""
        if path or not self._tops:
            return Place(relative, os.path.abspath(path) if path else relative)  # noqa: PTH100  links are not followed
        places = [f"{top}/{relative}" for top in self._tops]
        known = (place for place in places if len(places) > 1 and os.path.exists(place))  # noqa: PTH110
        return Place(relative, next(known, places[0]))

    def settle(self, films: Iterable[Place]) -> None:
        """Give every row to the one film that it fits best; what fits none so is noted among the problems.

        To be called once, with all films there are, before :meth:`truth` is asked.
        """
        films = list(films)
        for index in self._indices:
            self.problems += index.settle(films)

    def truth(self, relative_path: str, path: str = "", size: Shape | None = None) -> FilmTruth | None:
        """Return what is known of a film, or None.

        Parameters
        ----------
        relative_path
            Posix, relative to the input it was found under; or a bare file name; or any other name the tables use. It
            is matched by path, else by base name, else by stem, as far as these are unique.
        path
            The whole path, of a member of an archive with that; empty: below the inputs.
        size
            Rows and columns of the film. Boxes that were drawn on another grid, or in fractions, are turned into its
            pixels, and what lies outside is noted. None: read from the file where boxes need it.
        """
        film = self.place(relative_path, path)
        for plugin in self._plugins:
            known = plugin.truth(film)
            if known is not None:
                return known
        matches = [(index.table, *match) for index in self._indices if (match := index.find(film))]
        if not any(table.role != "split" for table, _, _ in matches):
            return None  # a list of films alone says nothing of a film
        best: dict[Role, int] = {}
        for table, rank, _ in matches:
            best[table.role] = max(rank, best.get(table.role, 0))
        found = []
        for table, rank, entry in matches:
            if rank == best[table.role]:
                known, grid = table.films[entry], table.grid(entry)
                if known.boxes and grid is not None and size is None and film.path != film.relative:
                    size = size_of(Path(film.path))
                boxes, notes = on_film(known.boxes, grid, size)
                found.append(known if boxes is known.boxes else replace(known, boxes=boxes))
                self._note(film, notes)
        self._note(film, contradictions(found))
        merged = merged_truth(found)
        self._note(film, misfits(merged, size))
        return merged

    def _note(self, film: Place, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            self._notes.setdefault(sentence, {})[film.path] = None

    def notes(self) -> list[str]:
        """Return sentences on the films that were asked for: boxes that do not fit them, tables that contradict."""
        return [f"{text}: {len(films)}" for text, films in self._notes.items()]

    def stated_size(self, relative_path: str) -> Shape | None:
        """Return the size of a picture as tables give it, in columns or as the grid of a data set; else None."""
        film = self.place(relative_path)
        for index in self._indices:
            if match := index.find(film):
                table, entry = index.table, match[1]
                side = table.side if table.films[entry].boxes and table.side > 1 else 0
                if size := table.sizes.get(entry) or ((side, side) if side else None):
                    return size
        return None

    def entries(self) -> dict[str, FilmTruth]:
        """Return what the tables say by the names that they use, where there are no films to ask about."""
        names = {entry: None for index in self._indices if index.table.role != "split" for entry in index.table.films}
        return {name: known for name in names if (known := self.truth(name)) is not None}

    def unmatched(self, names: Iterable[str]) -> int:
        """Count the tables' entries that none of `names` (film paths) meets; lists of films do not count."""
        indices = [index for index in self._indices if index.table.role != "split"]
        entries = {(i, entry) for i, index in enumerate(indices) for entry in index.table.films}
        for name in names:
            entries -= {(i, match[1]) for i, index in enumerate(indices) if (match := index.find(self.place(name)))}
        return len(entries)

    def absent(self, names: Sequence[str]) -> int:
        """Count the films that a table of labels or boxes names and that are not among `names`.

        Of several tables the one that misses most counts; one that meets none of them is of other films, if another
        does.
        """
        missing: dict[bool, int] = {}
        for index in self._indices:
            if index.table.role != "split":
                met = {match[1] for name in names if (match := index.find(self.place(name)))}
                missing[bool(met)] = max(missing.get(bool(met), 0), len(index) - len(met))
        return missing.get(True, missing.get(False, 0))


def _name(plugins: Sequence[str], tables: Sequence[Table]) -> str:
    tables = [table for table in tables if table.role != "split"]
    given = next((name for name in [*plugins, *(DATASET_OF.get(table.kind, "") for table in tables)] if name), "")
    if given or not tables:
        return given
    return CLASS_FOLDERS if all(table.kind == CLASS_FOLDERS for table in tables) else TABLES


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
        search.tops.append(folder.as_posix().rstrip("/"))
        if search.try_plugins(folder) or search.try_plugins(folder.parent):
            continue
        listing = list_folder(folder) if top.is_dir() else list_folder(folder, depth=0)
        search.add_tables(folder, listing.tables)
        search.add_tables(folder.parent, list_folder(folder.parent, depth=0).tables, above=True)
        if not search.labels_any(folder, listing.films if top.is_dir() else [top.name]):
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
    search = _Search()
    if not path.is_dir():
        search.add_tables(path.parent, [path.name])
    elif not search.try_plugins(path):
        listing = list_folder(path)
        search.add_tables(path, listing.tables)
        if not search.labels_any(path, listing.films):
            search.add_classes(path, listing)
    truth = search.result()
    if not truth.name:
        raise nothing_known(
            f"{path.name} holds no table of labels or boxes",
            truth.problems,
            "a header like path,<finding>,... or path,finding,x,y,w,h, or a layout that `cxrx datasets` lists",
        )
    return truth


def nothing_known(sentence: str, problems: Sequence[str], hint: str) -> UsageError:
    """Return the error that nothing was understood, with what is wrong with each table."""
    return UsageError(": ".join([sentence, "; ".join(problems)]) if problems else sentence, hint)


class _Search:
    """Gathers tables, each once."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.tops: list[str] = []
        self._tables: dict[Path, Table | None] = {}
        self._plugins: list[_PluginDataset] = []

    def labels_any(self, folder: Path, films: Sequence[str]) -> bool:
        """Tell whether a table of labels, which boxes are not, speaks of any of these films of a folder."""
        indices = [Index(table) for table in self._tables.values() if table is not None and table.role == "labels"]
        top = os.path.abspath(folder)  # noqa: PTH100  links are not followed
        return any(index.find(Place(name, f"{top}/{name}")) for name in films for index in indices)

    def try_plugins(self, folder: Path) -> bool:
        """Let the data sets of plugins look at a folder; return whether one recognised it."""
        for name, spec in load().datasets.items():
            if spec in BUILTIN_DATASETS:
                continue  # their tables are read together, whichever of them lie there
            dataset = self._opened(name, spec, folder)
            if dataset is not None:
                self._plugins.append(_PluginDataset(dataset, os.path.abspath(folder)))  # noqa: PTH100
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

    def add_tables(self, folder: Path, names: Sequence[str], *, above: bool = False) -> None:
        """Read the tables of a folder, by their paths in it; of those `above` the films only what is truth counts."""
        for name in names:
            if folder / name not in self._tables:
                self._tables[folder / name] = read_table(folder / name, self.problems, strange=not above)

    def add_classes(self, folder: Path, listing: Listing | None) -> None:
        """Add folders named by class: in `folder`, or above it where its own name is one of theirs."""
        below = listing
        for _ in range(_CLASS_DEPTH + 1):
            table = class_folders.read_folders(folder, below) if below is not None else None
            if table is not None:
                self._tables[folder] = table
                return
            is_ours = is_known(folder.name) or split_word(folder.name) or folder.name.casefold() == "images"
            if not is_ours:
                return
            folder = folder.parent
            below = list_folder(folder, depth=_CLASS_DEPTH)

    def result(self) -> FolderTruth:
        """Join what belongs together and make it one."""
        by_folder: dict[Path, list[Table]] = {}
        for path, table in self._tables.items():
            if table is not None:
                by_folder.setdefault(path.parent, []).append(table)
        tables = [table for group in by_folder.values() for table in mimic.joined(group)]
        return FolderTruth([Index(table) for table in tables], self.problems, self._plugins, self.tops)


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
