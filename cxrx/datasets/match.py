"""Which row of a table speaks of a film: tables and folders rarely spell a path in the same way."""

from __future__ import annotations

import filecmp
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from cxrx.datasets.sheet import Table
from cxrx.reading.find import ARCHIVE_SUFFIXES, OTHER_PICTURES
from cxrx.reading.readers import DICOM_SUFFIXES, IMAGE_SUFFIXES

# How well a film's path matches a table's entry: a better match in one table goes before a worse one in another of
# its role.
EXACT, PATH, BASE, STEM = 4, 3, 2, 1

# Only these are cut off: a DICOM UID is full of dots.
_SUFFIXES = IMAGE_SUFFIXES | DICOM_SUFFIXES | OTHER_PICTURES | {".gz", ".npy"}
_AMBIGUOUS = ""  # in place of an entry: there are several


class Place(NamedTuple):
    """Where a film lies.

    Attributes
    ----------
    relative
        Its path from the input that it was found under; or any other name.
    path
        The whole path, where it is known; of a member, with its archive. Else as `relative`.
    """

    relative: str
    path: str


class _Match(NamedTuple):
    """An entry that speaks of a film.

    Attributes
    ----------
    rank
        How well its last part fits; 0 where it does not speak of the film: its folders are others, or
        (entry ``""``) there are several.
    own
        It is where the table says; for entries are relative to their table.
    depth
        How many of the last parts agree.
    """

    rank: int
    entry: str
    own: bool = False
    depth: int = 0


_NONE = _Match(0, "", depth=-1)


@dataclass
class Index:
    """One table with its entries by their last parts."""

    table: Table
    _whole: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _by_tail: list[dict[str, str]] = field(default_factory=list, init=False, repr=False)
    _deepest: int = field(default=0, init=False, repr=False)
    _owners: dict[str, frozenset[str]] = field(default_factory=dict, init=False, repr=False)
    _settled: dict[str, tuple[int, str] | None] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Build the lookups: by the last part, where several entries share that by the last two, and so on."""
        for entry in self.table.films:
            key = _stem(_inside(entry))
            known = self._whole.setdefault(key, entry)
            if known != entry:
                self._whole[key] = _AMBIGUOUS
        level = list(self._whole)
        self._deepest = max((stem.count("/") + 1 for stem in level), default=0)
        depth = 1
        while level:
            step: dict[str, str] = {}
            for stem in level:
                key = last_parts(stem, depth)
                step[key] = _AMBIGUOUS if key in step else self._whole[stem]
            self._by_tail.append(step)
            level = [stem for stem in level if step[last_parts(stem, depth)] == _AMBIGUOUS and stem.count("/") >= depth]
            depth += 1
        folder = self.table.path if self.table.path.is_dir() else self.table.path.parent
        self._folder = os.path.abspath(folder).rstrip("/") + "/"  # noqa: PTH100  links are not followed

    def __len__(self) -> int:
        return len(self.table.films)

    def names(self) -> set[str]:
        """Return a short name for every entry: its last part where that is its own, else more of them."""
        return {self._key(stem) for stem in self._whole}

    def _key(self, stem: str) -> str:
        keys = (last_parts(stem, depth) for depth in range(1, stem.count("/") + 2))
        return next((key for key, step in zip(keys, self._by_tail, strict=False) if step.get(key)), stem)

    def find(self, film: Place) -> tuple[int, str] | None:
        """Return how well, and under which entry, a film is in the table.

        An entry may name only the last parts of a path, or begin with folders that the film's input does not show; but
        where both name a folder it must be the same.
        """
        if film.path in self._settled:
            return self._settled[film.path]
        return self._kept(film.path, self._match(film))

    def _match(self, film: Place) -> _Match:
        table = self.table
        own = film.path[len(self._folder) :] if film.path.startswith(self._folder) else ""
        if own and own in table.films:
            return _Match(EXACT, own, own=True, depth=own.count("/") + 1)
        name_of = table.name_of or str
        path, frame = name_of(film.path), name_of(max(film.relative, own, key=lambda name: name.count("/")))
        stem, parts = _stem(path), frame.count("/") + 1
        for depth in range(min(path.count("/") + 1, self._deepest), 0, -1):  # an entry that is the end of the path
            tail = last_parts(path, depth)
            entry = tail if tail in table.films else self._whole.get(last_parts(stem, depth))
            if entry:
                if depth < min(table.min_parts, entry.count("/") + 1):
                    return _NONE
                return _Match(
                    _rank(depth, entry, path), entry, own=bool(own) and depth == own.count("/") + 1, depth=depth
                )
        for depth, step in enumerate(self._by_tail[: path.count("/") + 1], 1):
            entry = step.get(last_parts(stem, depth))
            if entry is None:
                return _NONE if depth <= max(parts, table.min_parts) else _Match(0, _AMBIGUOUS)
            if entry != _AMBIGUOUS:
                agree = _agreeing(stem, _stem(_inside(entry)))
                if table.min_parts > 1:
                    fits = agree >= table.min_parts
                else:
                    fits = agree >= parts and not _is_of_another(entry, film.path)
                return _Match(_rank(agree, entry, path) if fits else 0, entry, depth=agree)
        return _Match(0, _AMBIGUOUS) if self._by_tail else _NONE

    def settle(self, films: Iterable[Place]) -> list[str]:
        """Give every entry to the one film that it fits best, and return sentences on those that fit none so.

        Parameters
        ----------
        films
            All there are.
        """
        films = list(films)
        matches = {film.path: self._match(film) for film in films}
        if any(match.own for match in matches.values()):  # rows are of the table's folder, and of no film outside it
            for path, match in matches.items():
                if not path.startswith(self._folder):
                    matches[path] = match._replace(rank=0)
        claims: dict[str, list[tuple[str, _Match]]] = {}
        for path, match in matches.items():
            if match.rank:
                claims.setdefault(match.entry, []).append((path, match))
        several = 0
        for entry, claimants in claims.items():
            if len(claimants) > 1 and not self.table.shared:
                self._owners[entry] = _owners(entry, claimants)
                several += not self._owners[entry]
        self._settled = {film: self._kept(film, match) for film, match in matches.items()}
        elsewhere = {match.entry for match in matches.values() if not match.rank and match.entry} - claims.keys()
        unclear = sum(match == (0, _AMBIGUOUS, False, 0) for match in matches.values())
        whole = {film.path for film in films if film.path != film.relative}
        renamed = sum(self._is_renamed(matches[path]) for path in whole)
        found = {
            "rows that fit several films by the end of their path were left out; give whole paths": several,
            "rows whose folders are not those of the films of that name were left out": len(elsewhere),
            "films that several rows fit by the end of their path were left without; give whole paths": unclear,
            "films were taken by the end of their path, above which the table names other folders": renamed,
        }
        if matches and not any(found.values()) and not claims and self.table.role != "split":
            found["films that it names, of which none is here"] = len(self)
        return [f"{self.table.path.name}: {text} ({n})" for text, n in found.items() if n]

    def _kept(self, film: str, match: _Match) -> tuple[int, str] | None:
        owners = self._owners.get(match.entry)
        return (match.rank, match.entry) if match.rank and (owners is None or film in owners) else None

    def _is_renamed(self, match: _Match) -> bool:
        told = match.rank > 0 and self.table.min_parts == 1 and not self.table.shared
        return told and not match.own and match.depth <= _inside(match.entry).count("/")


def _is_of_another(entry: str, path: str) -> bool:
    """Tell whether the file that an entry names lies beside the film at `path`, below folders of other names."""
    above = path
    for _ in range(entry.count("/") + 1):
        above = above.rpartition("/")[0]
    return bool(above) and os.path.exists(f"{above}/{entry}")  # noqa: PTH110  a Path for every film takes seconds


def _owners(entry: str, claimants: list[tuple[str, _Match]]) -> frozenset[str]:
    """Return whose an entry is: the film's where the table says it lies, else that of most parts, else of its suffix.

    Several films of the same bytes are one film.
    """
    scores = {path: (match.own, match.depth, match.rank == EXACT, _likeness(entry, path)) for path, match in claimants}
    best = max(scores.values())
    first, *others = (path for path, score in scores.items() if score == best)
    return frozenset([first, *others]) if all(_same_bytes(first, path) for path in others) else frozenset()


def _likeness(entry: str, path: str) -> int:
    """Return how alike two names are: letter by letter, but for case, or but for their suffixes."""
    a, b = entry.rpartition("/")[2], path.rpartition("/")[2]
    return 2 if a == b else int(folded(a) == folded(b))


def _same_bytes(a: str, b: str) -> bool:
    try:
        return filecmp.cmp(a, b, shallow=False)
    except OSError:  # a member of an archive
        return False


def _rank(depth: int, entry: str, path: str) -> int:
    if depth > 1:
        return PATH
    return BASE if folded(entry.rpartition("/")[2]) == folded(path.rpartition("/")[2]) else STEM


def _inside(entry: str) -> str:
    """Return an entry without its root and the ways up it begins with."""
    while entry.startswith(("../", "/")):
        entry = entry.partition("/")[2]
    return entry


def folded(name: str) -> str:
    """Return a name in the one form of its case and of its accents."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _stem(path: str) -> str:
    """Return the key of a path: folded, without the suffix of a picture, and an archive as the folder it stands for."""
    path = folded(path)
    for suffix in ARCHIVE_SUFFIXES:
        path = path.replace(f"{suffix}/", "/")
    return stem_of(path)


def stem_of(path: str) -> str:
    """Return a path without the suffix of a picture."""
    head, dot, suffix = path.rpartition(".")
    return head if dot and f".{suffix.lower()}" in _SUFFIXES else path


def last_parts(path: str, n: int) -> str:
    """Return the last `n` parts of a path."""
    at = len(path)
    for _ in range(n):
        at = path.rfind("/", 0, at)
        if at < 0:
            return path
    return path[at + 1 :]


def _agreeing(a: str, b: str) -> int:
    n = 0
    for one, other in zip(reversed(a.split("/")), reversed(b.split("/")), strict=False):
        if one != other:
            break
        n += 1
    return n
