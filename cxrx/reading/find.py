"""Finding films: a sorted, streaming walk over folders, single files, archives and lists of paths."""

from __future__ import annotations

import os
import stat
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxrx.errors import UsageError
from cxrx.reading.archive import members
from cxrx.reading.item import HEAD_BYTES, Item, Rejected, printable, rejected, safe_relative
from cxrx.reading.memory import film_memory
from cxrx.reading.readers import DICOM, DICOM_SUFFIXES, IMAGE_SUFFIXES, is_builtin, readers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cxrx.specs import ReaderSpec

OTHER_PICTURES = frozenset(
    {".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k", ".jxl", ".nii", ".nrrd", ".mha", ".mhd"}
)
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
NOT_PICTURES = frozenset(
    {
        *(".csv", ".tsv", ".txt", ".md", ".rst", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".xml", ".html", ".htm"),
        *(".css", ".js", ".py", ".pyc", ".ipynb", ".sh", ".r", ".m", ".log", ".cfg", ".ini", ".pdf", ".doc", ".docx"),
        *(".xls", ".xlsx", ".h5", ".hdf5", ".npy", ".npz", ".pt", ".pth", ".ckpt", ".safetensors", ".onnx", ".pkl"),
        *(".parquet", ".feather", ".db", ".sqlite", ".lock", ".gz", ".bz2", ".xz", ".7z", ".part", ".tmp"),
    }
)
VANISHED = (-1, -1)
SKIPPED_FOLDERS = frozenset({"masks", "regions", "__macosx"})
"""Folders whose pictures are not films; passed over unless named as an input."""


def find(
    inputs: Sequence[Path],
    *,
    formats: Mapping[str, ReaderSpec] | None = None,
    force_dicom: bool = False,
    everything: bool = False,
    passed_over: Counter[str] | None = None,
    memory: int | None = None,
) -> Iterator[Item | Rejected]:
    """Stream the candidates below `inputs`, in lexicographic order of their relative paths within each input.

    Members of compressed tars come in the order of the archive, lines of a list in the order of the list.

    Parameters
    ----------
    inputs
        Folders, single files, archives (zip, tar, compressed tar) or ``.txt`` lists with one path a line (absolute,
        or relative to the list or to the working directory).
    formats
        Readers by full name, asked in this order; None: all that are registered, the built-in ones first.
    force_dicom
        Take files without the ``DICM`` mark for DICOM where their name does not say otherwise.
    everything
        Look into hidden folders and files too, into those of masks, and at files whose names are of no picture.
    passed_over
        Counts files that are plainly not pictures, by suffix; they give no row.
    memory
        Bytes that reading a member of an archive may take; None: what the environment says.

    Raises
    ------
    UsageError
        An input does not exist. Everything found later is yielded as :class:`Rejected`.
    """
    paths = [Path(path) for path in inputs]
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist", "name a folder, a film, an archive or a .txt list of paths")
    asked = dict(readers() if formats is None else formats)
    passed_over, memory = Counter() if passed_over is None else passed_over, memory or film_memory()
    finder = _Finder(asked, force_dicom, everything, passed_over, memory)
    return (found for path in paths for found in finder.input(path))


@dataclass
class _Finder:
    formats: dict[str, ReaderSpec]
    force_dicom: bool
    everything: bool
    passed_over: Counter[str]
    memory: int

    @property
    def any_suffix(self) -> bool:
        """Whether a plugin's reader may want files that are plainly no pictures to those of this package."""
        return self.everything or not all(map(is_builtin, self.formats))

    def input(self, path: Path, relative: str = "") -> Iterator[Item | Rejected]:
        """Yield what one input holds; `relative` is how a list named it."""
        path = path.absolute()
        if path.is_dir():
            yield from self.folder(path, relative)
        elif path.suffix.lower() == ".txt" and not relative:
            yield from self.listed(path)
        else:
            yield from self.file(path, relative or printable(path.name), named=True)

    def listed(self, table: Path) -> Iterator[Item | Rejected]:
        with table.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for line in map(str.strip, lines):
                if not line:
                    continue
                path = next((p for p in (table.parent / line, Path(line)) if _exists(p)), None)
                relative = safe_relative(line)
                if path is None:
                    item = Item(table, relative, 0, 0, "")
                    yield rejected(item, "missing", "the list names a file that does not exist", "failed")
                else:
                    yield from self.input(path, relative)

    def folder(self, root: Path, prefix: str) -> Iterator[Item | Rejected]:
        """Walk depth first with a stack of listings, so that only one listing a level is held."""
        stack = [(iter(_listing(root)), prefix)]
        trail = [_identity(root)]  # of the folders on the stack, to notice a symbolic link to one of them
        while stack:
            listing, prefix = stack[-1]
            entry = next(listing, None)
            if entry is None:
                stack.pop()
                trail.pop()
                continue
            if isinstance(entry, OSError):
                yield rejected(Item(root, prefix or ".", 0, 0, ""), "unreadable", "the folder cannot be listed")
                continue
            relative = f"{prefix}/{printable(entry.name)}" if prefix else printable(entry.name)
            if not _is_folder(entry):
                yield from self.entry(entry, relative)
            elif self.is_hidden(entry) or (entry.name.lower() in SKIPPED_FOLDERS and not self.everything):
                self.passed_over[f"{entry.name.lower()}/"] += 1
            elif (identity := _identity(Path(entry.path))) in trail and identity != VANISHED:
                yield rejected(Item(Path(entry.path), relative, 0, 0, ""), "symlink-loop", "a link to its own folder")
            else:
                stack.append((iter(_listing(Path(entry.path))), relative))
                trail.append(identity)

    def is_hidden(self, entry: os.DirEntry[str]) -> bool:
        return entry.name.startswith(".") and not self.everything

    def entry(self, entry: os.DirEntry[str], relative: str) -> Iterator[Item | Rejected]:
        suffix = Path(entry.name).suffix.lower()
        if self.is_hidden(entry):
            self.passed_over["hidden"] += 1
        elif suffix in NOT_PICTURES and not self.any_suffix and not entry.name.lower().endswith(ARCHIVE_SUFFIXES):
            self.passed_over[suffix] += 1
        else:
            yield from self.file(Path(entry.path), relative, named=False)

    def file(self, path: Path, relative: str, *, named: bool) -> Iterator[Item | Rejected]:
        """Yield the item (or the members) of one file; `named`: the user asked for this very file."""
        item = Item(path, relative, 0, 0, "")
        try:
            str(path).encode()
        except UnicodeEncodeError:
            safe = Item(Path(printable(str(path))), relative, 0, 0, "")
            yield rejected(safe, "name", "the file name is not valid UTF-8")
            return
        try:
            state = path.stat()
            item = Item(path, relative, state.st_size, state.st_mtime_ns, "")
            if not stat.S_ISREG(state.st_mode):
                yield rejected(item, "not-a-file", "this is a device, a pipe or a socket")
                return
            if path.name.lower().endswith(ARCHIVE_SUFFIXES):
                for member, head in members(item, self.memory):
                    found = member if isinstance(member, Rejected) else self.sniffed(member, head, named=False)
                    if found is not None:
                        yield found
                return
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
        except OSError as error:
            yield rejected(item, "unreadable", f"the file cannot be opened ({error.strerror or 'I/O error'})")
            return
        found = self.sniffed(item, head, named=named)
        if found is not None:
            yield found

    def sniffed(self, item: Item, head: bytes, *, named: bool) -> Item | Rejected | None:
        """Decide by the first bytes who reads `item`; None: plainly not a picture, and counted."""
        suffix = Path(item.member or item.path.name).suffix.lower()
        reader = self.reader_of(item, head, suffix)
        if reader:
            return replace(item, reader=reader)
        if suffix in DICOM_SUFFIXES:
            return rejected(item, "not-dicom", "this is not DICOM: no DICM mark at byte 128")
        if suffix in IMAGE_SUFFIXES:
            return rejected(item, "not-a-picture", "this is neither PNG nor JPEG")
        if suffix in OTHER_PICTURES or named:
            return rejected(item, "unsupported-format", "this is neither DICOM nor PNG nor JPEG")
        self.passed_over[suffix or "no suffix"] += 1
        return None

    def reader_of(self, item: Item, head: bytes, suffix: str) -> str:
        """Return the full name of the reader, empty where there is none."""
        path = Path(item.member) if item.member else item.path
        for name, spec in list(self.formats.items()):
            if item.member and spec.decode is None:
                continue  # it opens a path, which a member does not have
            try:
                if spec.sniff(path, head):
                    return name
            except Exception as error:  # noqa: BLE001 - a broken plugin must not end the scan
                del self.formats[name]
                warnings.warn(f"reader {name} is left out: {type(error).__name__} in sniff()", stacklevel=2)
        forced = head and self.force_dicom and suffix not in NOT_PICTURES | IMAGE_SUFFIXES | OTHER_PICTURES
        return DICOM if forced else ""


def _listing(folder: Path) -> Sequence[os.DirEntry[str] | OSError]:
    """List a folder so that whole relative paths come out sorted: a folder sorts as its name with a slash."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda e: printable(e.name) + "/" * _sorts_as_folder(e))
    except OSError as error:
        return [error]


def _sorts_as_folder(entry: os.DirEntry[str]) -> bool:
    return _is_folder(entry) or entry.name.lower().endswith(ARCHIVE_SUFFIXES)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops onto itself: opening it as a file gives the reason
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder that cannot be entered
        return False


def _identity(folder: Path) -> tuple[int, int]:
    """Return what tells a folder from all others; a folder that vanished is like no other."""
    try:
        state = folder.stat()
    except OSError:
        return VANISHED
    return state.st_dev, state.st_ino
