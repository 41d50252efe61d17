"""Folders named by class: ``{train,test}/{COVID19,NORMAL,PNEUMONIA}/...``, or just ``{NORMAL,PNEUMONIA}/...``.

Every class is a finding, "normal" is ``No Finding``; a film has one of them. Recognised by the names: two classes must
be known findings, or two classes lie in every split, so that a folder a patient is not taken for a folder a class.
``<class>/images/`` is looked through, ``masks`` folders are passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cxrx.datasets.listing import Listing
from cxrx.datasets.names import canonical, is_known
from cxrx.datasets.sheet import Table, split_word
from cxrx.datasets.specs import CLASS_FOLDERS
from cxrx.specs import FilmTruth

MOST_CLASSES = 100
_STRAYS = 0.1  # share of the films that may lie outside the classes

Place = tuple[str, str, str]  # root, name of the split's folder (empty: none), name of the class's folder


def place_of(folders: Sequence[str]) -> Place | None:
    """Return where films in a folder (as its parts) would belong; None at the top."""
    if folders and folders[-1].casefold() == "images":
        folders = folders[:-1]
    if not folders or split_word(folders[-1]):
        return None
    above = folders[:-1]
    if above and split_word(above[-1]):
        return "/".join(above[:-1]), above[-1], folders[-1]
    return "/".join(above), "", folders[-1]


def read_folders(folder: Path, listing: Listing) -> Table | None:
    """Return the films by their class; None if the folder is not laid out so."""
    homes = {home: place_of(home.split("/")) for home in {name.rpartition("/")[0] for name in listing.films} if home}
    counts = Counter(homes.get(name.rpartition("/")[0]) for name in listing.films)
    roots: dict[str, dict[str, set[str]]] = {}  # root -> split -> classes
    for place in counts:
        if place is not None:
            roots.setdefault(place[0], {}).setdefault(place[1], set()).add(place[2])
    sound = {root for root, splits in roots.items() if _is_layout(splits)}
    strays = sum(n for place, n in counts.items() if place is None or place[0] not in sound)
    if not sound or strays > _STRAYS * len(listing.films):
        return None
    classes = sorted({name for root in sound for names in roots[root].values() for name in names})
    findings = tuple(dict.fromkeys(canonical(name) for name in classes))
    films = {}
    for name in listing.films:
        place = homes.get(name.rpartition("/")[0])
        if place is not None and place[0] in sound:
            labels = dict.fromkeys(findings, 0) | {canonical(place[2]): 1}
            films[name] = FilmTruth(labels, split=split_word(place[1]))
    return Table(folder, CLASS_FOLDERS, films, findings, _empty(listing, sound, roots))


def _is_layout(splits: dict[str, set[str]]) -> bool:
    """Tell whether folders below one root are classes."""
    classes = set().union(*splits.values())
    if not 2 <= len(classes) <= MOST_CLASSES:
        return False
    if len({canonical(name) for name in classes if is_known(name)}) >= 2:
        return True
    split = [names for name, names in splits.items() if name]
    shared = set.intersection(*split) if len(split) > 1 else set()
    return len(shared) >= 2 and "" not in splits


def _empty(listing: Listing, sound: set[str], roots: dict[str, dict[str, set[str]]]) -> list[str]:
    """Return a sentence on each class folder without a film."""
    problems = []
    for home in listing.folders:
        place = place_of(home.split("/")) if home and not home.casefold().endswith("/images") else None
        if place is None or place[0] not in sound or place[1] not in roots[place[0]]:
            continue
        if place[2] not in roots[place[0]][place[1]] and (is_known(place[2]) or place[1]):
            where = f" of {place[1]}" if place[1] else ""
            problems.append(f"the class {place[2]!r}{where} has no film")
    return problems
