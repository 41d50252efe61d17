"""Maps made elsewhere as they lie in a folder: ``IMAGE__FINDING.npy``, or a folder of such a method."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cxrx.errors import UsageError
from cxrx.reading.item import printable
from cxrx.results.records import FloatArray, check_key

Shape = tuple[int, int]
Name = tuple[str, str]
"""``(image, finding)``, as a file name has them."""

MOST_PIXELS = 1 << 26
"""Of a map or a mask; what a damaged or hostile file asks for is not allocated."""

_SHOWN = 3
_HEAD = 1 << 14  # bytes, more than the header of any array of numbers has
_PICKLES = {".pkl", ".pickle"}
HINT = "a map is a two-dimensional array IMAGE__FINDING.npy, here or in a folder named by its method"


class Problems:
    """Sentences on what was left out or is odd, each reported once with some of the names that it is about."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._names: dict[str, list[str]] = {}

    def warn(self, sentence: str) -> None:
        """Note a sentence as it is."""
        self._sentences.append(sentence)

    def add(self, sentence: str, name: str) -> None:
        """Note that `sentence`, with a place ``{n}`` for how many, is about `name`."""
        self._names.setdefault(sentence, []).append(name)

    def sentences(self) -> list[str]:
        """Return the sentences."""
        counted = [f"{text.format(n=len(names))} ({listed(names)})" for text, names in self._names.items()]
        return [*self._sentences, *counted]


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class MapFile:
    """One map on disk; `shape` without axes of length one around it."""

    path: Path
    image: str
    finding: str
    shape: Shape

    def read(self, problems: Problems) -> FloatArray:
        """Return the map in single precision, and note what makes it useless."""
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is reported
            values: FloatArray = np.load(self.path, allow_pickle=False).astype(np.float32).reshape(self.shape)
        if not np.isfinite(values).all():
            problems.add("{n} maps hold NaN or infinity, and will count as misses", self.path.name)
        elif values.min() == values.max():
            problems.add("{n} maps are constant and point nowhere, and will count as misses", self.path.name)
        return values


@dataclass
class MapFolder:
    """All maps of a folder, by method, in order of pictures and findings."""

    methods: dict[str, list[MapFile]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[MapFile]:
        return (item for items in self.methods.values() for item in items)

    def __len__(self) -> int:
        return sum(map(len, self.methods.values()))

    @property
    def largest(self) -> dict[str, Shape]:
        """The shape of the largest map of every picture."""
        shapes: dict[str, Shape] = {}
        for item in self:
            shapes[item.image] = max(shapes.get(item.image, (0, 0)), item.shape, key=lambda shape: shape[0] * shape[1])
        return shapes


def sha256_of(image: str) -> str:
    """Return what stands for the digest of a picture that is not at hand: that of its name."""
    return hashlib.sha256(image.encode("utf-8", "surrogateescape")).hexdigest()


def id_of(image: str) -> str:
    """Return the image_id of a picture by its name."""
    return sha256_of(image)[:16]


def split_name(path: Path) -> Name | None:
    """Return picture and finding of ``IMAGE__FINDING.suffix``; None for other names. The last ``__`` counts."""
    image, separator, finding = printable(path.stem).rpartition("__")
    return (image, finding) if separator and image and finding else None


def find_maps(folder: Path, method: str | None, problems: Problems) -> MapFolder:
    """Find the maps in a folder, and in the folders of methods in it.

    Parameters
    ----------
    method
        What maps that lie in `folder` itself are called; None: ``"imported"``.

    Raises
    ------
    UsageError
        If it is no folder, holds no map, or the name of a method is none.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder.name} is not a folder of maps", HINT)
    below = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    own = _maps_in(folder, problems)
    found = {name: maps for name, path in below.items() if (maps := _maps_in(path, problems))}
    if method is not None and found and not own:
        raise UsageError(
            f"the folders in {folder.name} name the methods ({listed(list(found))})",
            "leave --method out, or give the folder of one method",
        )
    if own:
        name = method or "imported"
        if name in found:
            raise UsageError(
                f"{folder.name} holds maps and a folder {name} of maps", "name the maps outside it with --method NAME"
            )
        found = {name: own, **found}
    if not found:
        raise UsageError(": ".join([f"{folder.name} holds no maps", *problems.sentences()[:1]]), HINT)
    for name in found:
        check_key(name, "method")
    return MapFolder(found)


def _maps_in(folder: Path, problems: Problems) -> list[MapFile]:
    maps = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if path.suffix.lower() in _PICKLES:
            problems.add("{n} pickles were not read, as they can run any code; save arrays as .npy", path.name)
        if path.suffix.lower() == ".npz":
            problems.add("{n} archives of arrays were not read; save each map as .npy", path.name)
        if path.suffix.lower() != ".npy":
            continue
        name, shape = split_name(path), _shape_of(path)
        if name is None:
            problems.add("{n} arrays are not named IMAGE__FINDING.npy and were passed over", path.name)
        elif shape is None:
            problems.add("{n} files are no two-dimensional arrays of real numbers and were left out", path.name)
        else:
            maps.append(MapFile(path, *name, shape))
    return sorted(maps, key=lambda item: (item.image, item.finding))


def _shape_of(path: Path) -> Shape | None:
    """Return the shape of a map; None if the file holds none. Axes of length one around it do not matter.

    Only the header is read, and no more than the file holds is ever allocated for the map.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with path.open("rb") as file:
            head, length = io.BytesIO(file.read(_HEAD)), file.seek(0, io.SEEK_END)
        whole, _, dtype = readers[np.lib.format.read_magic(head)](head)
        room = (length - head.tell()) // dtype.itemsize
    except Exception:  # noqa: BLE001 - numpy raises nearly anything on a header of junk; the file is counted and left out
        return None
    pixels = math.prod(whole)
    if dtype.kind not in "fiub" or not 0 < pixels <= min(room, MOST_PIXELS) or min(whole, default=0) < 1:
        return None
    shape = whole if len(whole) == 2 else tuple(side for side in whole if side > 1)
    return (int(shape[0]), int(shape[1])) if len(shape) == 2 else None


def names_of(items: Iterable[MapFile]) -> list[str]:
    """Return the pictures of some maps, each once, in order."""
    return list(dict.fromkeys(item.image for item in items))
