"""Get the films' pictures again, for overlays and reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.reading.find import Item, find
from cxrx.reading.options import ReadOptions
from cxrx.reading.prepare import read_films
from cxrx.registry import load
from cxrx.specs import Film

_VIEWS = ("frontal", "lateral", "oblique", "unknown")


def read_options(settings: Mapping[str, Any] | None = None) -> ReadOptions:
    """Return options that read whatever was read before, in the way a model's `settings` say."""
    known = {field.name for field in fields(ReadOptions)} & {"polarity", "voi_index", "frame"}
    chosen = {name: settings[name] for name in known if settings and settings.get(name) is not None}
    return ReadOptions(**chosen, views=_VIEWS, force_dicom=True, non_chest=True, for_processing=True)


def read_pictures(
    paths: Mapping[str, tuple[Path, str]], wanted: Iterable[str], options: ReadOptions
) -> tuple[dict[str, NDArray[np.float32]], int]:
    """Decode films at full size.

    Parameters
    ----------
    paths
        image_id to (file, member), as :meth:`Results.paths` returns.
    wanted
        image_ids.

    Returns
    -------
    pictures, missing
        image_id to ``(rows, columns)`` in [0, 1]; and how many could not be found or read, or are other films now.
    """
    by_file: dict[Path, dict[str, str]] = {}
    total = 0
    for image_id in dict.fromkeys(wanted):
        total += 1
        if image_id in paths:
            path, member = paths[image_id]
            by_file.setdefault(path, {})[member] = image_id
    pictures = {}
    for path, members in by_file.items():
        for image_id, film in _films(path, members, options):
            if film.sha256.startswith(image_id):
                pictures[image_id] = film.pixels
    return pictures, total - len(pictures)


def _films(path: Path, members: Mapping[str, str], options: ReadOptions) -> Iterable[tuple[str, Film]]:
    readers = [spec for name, spec in load().readers.items() if not name.startswith("cxrx/")]
    if not path.exists():
        return
    for item in find([path], readers, force_dicom=options.force_dicom):
        if isinstance(item, Item) and item.member in members:
            for film in read_films(item, options):
                if isinstance(film, Film):
                    yield members[item.member], film
