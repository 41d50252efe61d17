"""Find films again: where the link table says, or by content in a folder; and read them file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from cxrx.errors import UsageError
from cxrx.reading.find import find
from cxrx.reading.item import Item
from cxrx.reading.memory import film_memory
from cxrx.reading.readers import film_digests, holds_several
from cxrx.reading.record import Link

Place = tuple[Path, str]
"""The file of a film, and its name in it where it is an archive or holds several films."""


def locate(sha256: Mapping[str, str], links: Sequence[Link], folder: Path | None) -> dict[str, Place]:
    """Return image_id to the place of the films that can be found.

    Parameters
    ----------
    sha256
        image_id to the digest of the film.
    links
        Rows of the link table; a file that has another size now, or other bytes, is not taken.
    folder
        Where what is still missing is looked for by its content, in files and archives.

    Raises
    ------
    UsageError
        If `folder` is none.
    """
    found: dict[str, Place] = {}
    digests = cache(_digests)  # of a file of several films they take a decoding
    for link in links:
        if link.image_id in sha256 and link.image_id not in found and _is_still(link, sha256[link.image_id], digests):
            found[link.image_id] = (Path(link.path), link.member)
    missing = {digest: image_id for image_id, digest in sha256.items() if image_id not in found}
    if folder is None or not missing:
        return found
    if not folder.is_dir():
        raise UsageError(f"{folder.name} is not a folder")
    for item in _items(folder, everything=True):
        for digest, member in film_digests(item, film_memory()):
            if digest in missing:
                found[missing.pop(digest)] = (item.path, member)
        if not missing:
            break
    return found


def stored_items(
    places: Mapping[str, Place], wanted: Iterable[str], *, force_dicom: bool = True
) -> Iterator[tuple[Item, frozenset[str]]]:
    """Yield the items that hold the films of `wanted`, file by file, each with the image_ids that it holds.

    Parameters
    ----------
    places
        Where films are, as :func:`locate` returns it; what has no place, or is no longer there, is left out.
    wanted
        image_ids.
    force_dicom
        See :func:`cxrx.reading.find.find`.
    """
    by_file: dict[Path, dict[str, set[str]]] = {}
    for image_id in dict.fromkeys(wanted):
        if image_id in places:
            path, member = places[image_id]
            by_file.setdefault(path, {}).setdefault(member, set()).add(image_id)
    for path, members in by_file.items():
        if path.exists():
            for item in _items(path, force_dicom=force_dicom):
                names = members if not item.member and holds_several(item) else [item.member]
                if ids := frozenset().union(*(members.get(name, ()) for name in names)):
                    yield item, ids


def _items(path: Path, *, force_dicom: bool = True, everything: bool = False) -> Iterator[Item]:
    found = find([path], force_dicom=force_dicom, everything=everything)
    return (entry for entry in found if isinstance(entry, Item))


def _digests(path: str) -> set[tuple[str, str]]:
    """Return digest and name of every film in a file."""
    return {film for item in _items(Path(path)) for film in film_digests(item, film_memory())}


def _is_still(link: Link, digest: str, digests: Callable[[str], set[tuple[str, str]]]) -> bool:
    if not link.path:
        return False  # a picture that was never at hand
    try:
        state = Path(link.path).stat()
    except OSError:
        return False
    if state.st_mtime_ns == link.mtime_ns and (link.member or state.st_size == link.size):
        return True  # the size may be that of a member of an archive
    if not link.member and state.st_size != link.size:
        return False
    return (digest, link.member) in digests(link.path)
