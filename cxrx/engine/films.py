"""Which films a run goes through, in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from cxrx.engine.ledger import Ledger
from cxrx.engine.options import RunOptions
from cxrx.errors import UsageError
from cxrx.reading.find import find
from cxrx.reading.item import Item, Rejected
from cxrx.reading.readers import film_digests
from cxrx.results.locate import stored_items
from cxrx.results.reader import open_results


@dataclass
class FilmList:
    """The films of a run.

    Attributes
    ----------
    items
        Candidates, in the order of their relative paths.
    streamed
        Some items lie in compressed archives, whose members can only be read in passing.
    rejected
        What can be seen to be no film without reading it.
    passed_over
        Other files by suffix (tables, texts): how many.
    expected
        ``(path, member)`` to image_ids, for films of an existing results file.
    """

    items: list[Item]
    streamed: bool = False
    rejected: list[Rejected] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    expected: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        """Add an item, without bytes that were read in passing."""
        self.streamed |= item.data is not None
        self.items.append(replace(item, data=None))


def list_films(inputs: Sequence[Path] | None, ledger: Ledger, out: Path, options: RunOptions) -> FilmList:
    """List the films of `inputs`, or those of the results file `out` where `inputs` is None.

    Parameters
    ----------
    inputs
        Folders, films, archives, lists; or None.
    ledger
        What is done already.
    out
        The results file.
    options
        Of the run.

    Raises
    ------
    UsageError
        An input does not exist; films cannot be found again; or films are not in the existing file and ``add`` is off.
    """
    if inputs is None:
        return _films_of_results(out, options)
    for path in inputs:
        if not path.exists():
            raise UsageError(f"there is no file or folder {str(path)!r}")
    films = FilmList([])
    read = options.read
    found = find(inputs, force_dicom=read.force_dicom, passed_over=films.passed_over, memory=read.memory)
    for entry in islice(found, options.limit):
        if isinstance(entry, Rejected):
            films.rejected.append(entry)
        else:
            films.add(entry)
    if ledger.holds_films and not options.add:
        _refuse_others(films, ledger, out, read.memory)
    return films


def _refuse_others(films: FilmList, ledger: Ledger, out: Path, memory: int) -> None:
    """Refuse films that the existing file does not hold, before anything is computed."""
    others = [item for item in films.items if _is_new(item, ledger, memory)]
    if others:
        raise UsageError(
            f"{out.name} exists and does not hold {len(others)} of these {len(films.items)} films",
            "add them with --add, or name another file with -o",
        )


def _is_new(item: Item, ledger: Ledger, memory: int) -> bool:
    """Whether a file holds films that the ledger does not know; members of archives are known by their place only."""
    known = ledger.known(item)
    if item.member or (known and all(ledger.status(image_id) is not None for image_id in known)):
        return False
    return any(ledger.status(digest[:16]) is None for digest, _ in film_digests(item, memory))


def _films_of_results(out: Path, options: RunOptions) -> FilmList:
    with open_results(out) as results:
        images = results.images()
        wanted = [str(i) for i in images.loc[images["status"].isin(["ok", "flagged"]), "image_id"]]
        places = results.paths(options.images)
    films = FilmList([])
    lost = set(wanted) - places.keys()
    for item, ids in stored_items(places, wanted[: options.limit], force_dicom=options.read.force_dicom):
        films.add(item)
        films.expected[str(item.path), item.member] = ids
    found = {image_id for ids in films.expected.values() for image_id in ids}
    lost |= set(wanted[: options.limit]) - found
    if lost:
        raise UsageError(
            f"{len(lost)} of the {len(wanted)} films of {out.name} cannot be found",
            "name the folder they are in with --images DIR; they are recognised by their content",
        )
    return films


def with_data(
    todo: Sequence[Item], films: FilmList, inputs: Sequence[Path] | None, options: RunOptions
) -> Iterator[Item]:
    """Yield `todo`; members of compressed archives are read in passing, one at a time, so that memory stays small.

    Parameters
    ----------
    todo
        Items without the bytes of such members.
    films
        The list they are of.
    inputs
        Where they were found; None: their own files.
    options
        Of the run.
    """
    if not films.streamed:
        yield from todo
        return
    wanted = {(item.path, item.member) for item in todo}
    paths = inputs if inputs is not None else list(dict.fromkeys(item.path for item in todo))
    for entry in find(paths, force_dicom=options.read.force_dicom, memory=options.read.memory):
        if isinstance(entry, Item) and (entry.path, entry.member) in wanted:
            yield entry
