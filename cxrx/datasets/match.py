"""Which row of a table speaks of a film: tables and folders rarely spell a path in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cxrx.datasets.sheet import Table
from cxrx.reading.find import OTHER_PICTURES
from cxrx.reading.readers import DICOM_SUFFIXES, IMAGE_SUFFIXES

# How well a film's path matches a table's entry: a better match in one table goes before a worse one in another of
# its role.
EXACT, PATH, BASE, STEM = 4, 3, 2, 1

# Only these are cut off: a DICOM UID is full of dots.
_SUFFIXES = IMAGE_SUFFIXES | DICOM_SUFFIXES | OTHER_PICTURES | {".gz", ".npy"}
_AMBIGUOUS = ""  # in place of an entry: there are several


@dataclass(frozen=True)
class Location:
    """Where a table lies, seen from an input: below it in `below`, or above it, which is there called `above`."""

    below: str = ""
    above: str = ""

    def from_table(self, path: str) -> str | None:
        """Rewrite a path relative to the input as relative to the table; None where it is not below the table."""
        if self.above:
            return f"{self.above}/{path}"
        if not self.below:
            return path
        return path[len(self.below) + 1 :] if path.startswith(f"{self.below}/") else None


@dataclass
class Index:
    """One table with its entries by their last parts.

    Attributes
    ----------
    locations
        Where it lies, for every input that it belongs to.
    """

    table: Table
    locations: list[Location] = field(default_factory=list)
    _whole: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _by_tail: list[dict[str, str]] = field(default_factory=list, init=False, repr=False)
    _deepest: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Build the lookups: by the last part, where several entries share that by the last two, and so on."""
        self._whole = {}
        for entry in self.table.films:
            known = self._whole.setdefault(stem_of(_inside(entry)), entry)
            if known != entry:
                self._whole[stem_of(_inside(entry))] = _AMBIGUOUS
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

    def __len__(self) -> int:
        return len(self.table.films)

    def names(self) -> set[str]:
        """Return a short name for every entry: its last part where that is its own, else more of them."""
        return {self._key(stem) for stem in self._whole}

    def _key(self, stem: str) -> str:
        keys = (last_parts(stem, depth) for depth in range(1, stem.count("/") + 2))
        return next((key for key, step in zip(keys, self._by_tail, strict=False) if step.get(key)), stem)

    def find(self, path: str, prefixes: Sequence[str] = ()) -> tuple[int, str] | None:
        """Return how well, and under which entry, the film at `path` is in the table.

        Parameters
        ----------
        prefixes
            What stands before the path on disk, to be tried where the path alone is too short.
        """
        films = self.table.films
        for location in self.locations:
            own = location.from_table(path)
            if own is not None and own in films:
                return EXACT, own
        name = self.table.name_of(path) if self.table.name_of is not None else path
        found = self._by_parts(name)
        for prefix in prefixes if found is None and self.table.min_parts > 1 else ():
            found = found or self._by_parts(f"{prefix}/{name}")
        return found

    def _by_parts(self, path: str) -> tuple[int, str] | None:
        stem = stem_of(path)
        parts = stem.count("/") + 1
        for depth in range(min(parts, self._deepest), 0, -1):  # an entry that is as a whole the end of the path
            tail = last_parts(path, depth)
            entry = tail if tail in self.table.films else self._whole.get(last_parts(stem, depth))
            if entry:
                needed = min(self.table.min_parts, entry.count("/") + 1)
                return (_rank(depth, entry, path), entry) if depth >= needed else None
        for depth, step in enumerate(self._by_tail[:parts], 1):
            entry = step.get(last_parts(stem, depth))
            if entry is None:
                return None
            if entry != _AMBIGUOUS:
                agree = _agreeing(stem, stem_of(_inside(entry)))
                return (_rank(agree, entry, path), entry) if agree >= self.table.min_parts else None
        return None


def _rank(depth: int, entry: str, path: str) -> int:
    if depth > 1:
        return PATH
    return BASE if entry.rpartition("/")[2] == path.rpartition("/")[2] else STEM


def _inside(entry: str) -> str:
    """Return an entry without its root and the ways up it begins with."""
    while entry.startswith(("../", "/")):
        entry = entry.partition("/")[2]
    return entry


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
