"""What is done already: in the results file, and in the parts of an interrupted run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.errors import LockedError, UsageError
from cxrx.reading.item import Item
from cxrx.reading.readers import holds_several
from cxrx.reading.record import ImageRecord, Status
from cxrx.results.contents import Contents, Files, load_results
from cxrx.results.parts import PartStore
from cxrx.results.records import Block, differences, fingerprint
from cxrx.results.schema import SETTINGS

File = tuple[str, str, int, int]
"""``(path, member, size, mtime_ns)`` of a file that needs no second reading."""


FINAL = {"not-finite", "not-reproduced", "out-of-memory"}
"""Codes of what fails at a method again; a film whose file is gone, or changed, may come back."""


class Ledger:
    """Answers what is known of a film, and what is still to do.

    Attributes
    ----------
    records
        image_id to what is known of the film.
    links
        The link table of the results file.
    holds_films
        Whether there is a results file with films.
    labels
        image_id to finding to 1, 0 or -1, as the results file has them.
    logit, probability
        image_id to ``(K,)``, for the films with a prediction in the results file.
    """

    def __init__(self, store: PartStore, slug: str, *, retry_failed: bool = False, retry_skipped: bool = False) -> None:
        """Read the results file of `store`, if there is one, and the parts beside it.

        Parameters
        ----------
        store
            The parts, and with them the results file.
        slug
            The model that is asked about.
        retry_failed
            Whether to try again what failed before.
        retry_skipped
            Whether to look again at what was skipped before.
        """
        base = load_results(store.out) if store.out.exists() else None
        self._base, self._parts, self._retry = base, store.contents(), retry_failed
        tries = {Status.FAILED: retry_failed, Status.SKIPPED: retry_skipped}
        self._final = {status for status, again in tries.items() if not again}
        self.slug = slug
        old = [base] if base else []
        everything = old + self._parts
        self.records = records_of(old) | records_of(self._parts)
        self.links = base.links if base else []
        self.holds_films = bool(base and base.images)
        self.labels = base.truth.labels if base and base.truth else {}
        failures = [failure for contents in everything for failure in contents.failures]
        self._failed = {
            (f.image_id, f.method) for f in failures if f.stage == "explain" and f.model == slug and f.code in FINAL
        }
        self._files_of_base = _files(old)
        self._files_of_parts = _files(self._parts)
        self._mapped: dict[str, dict[str, set[str]]] = defaultdict(dict)  # method, image_id: findings with a map
        for contents in everything:
            for (model, method), block in contents.blocks.items():
                if model == slug and method:
                    _add_maps(self._mapped[method], block, every_film=contents.is_part)
        self.logit, self.probability = _predictions(base, slug)
        self._predicted = self.logit.keys() | {
            image_id
            for part in self._parts
            if (slug, "") in part.blocks
            for image_id in part.blocks[slug, ""].image_ids
        }

    def check(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse to mix numbers made with other settings under one name.

        Parameters
        ----------
        settings
            Of the predictions (key ``""``) and of each method key of this run.

        Raises
        ------
        UsageError
            The results file holds the same key with other settings; the differences are named.
        LockedError
            The parts do.
        """
        for key, new in settings.items():
            if self._base and (self.slug, key) in self._base.ragged:
                raise UsageError(
                    f"the results already hold maps of {key!r} on {self.slug} that were imported",
                    "store these under another name with --as NAME",
                )
            old = self._base.blocks.get((self.slug, key)) if self._base else None
            if old is not None and (changed := differences(old.attrs.get(SETTINGS, {}), new)):
                what = f"maps of {key!r}" if key else "predictions"
                raise UsageError(
                    f"the results already hold {what} of {self.slug} made with other settings: {'; '.join(changed)}",
                    "store these under another name with --as NAME" if key else "name another file with -o",
                )
        for part in self._parts:
            for (model, method), block in part.blocks.items():
                new = settings.get(method, {})
                old_settings = block.attrs.get(SETTINGS, {})
                if model == self.slug and method in settings and fingerprint(old_settings) != fingerprint(new):
                    raise LockedError(
                        f"{part.path.parent.name} holds parts of another run: "
                        f"{'; '.join(differences(old_settings, new)[:5])}",
                        "finish that run, name another file with -o, or start afresh with --no-resume",
                    )

    def known(self, item: Item) -> frozenset[str]:
        """Return the image_ids of the films that were read from this very file before."""
        key = (str(item.path), item.member, item.size, item.mtime_ns)
        return self._files_of_parts.get(key, frozenset()) | self._files_of_base.get(key, frozenset())

    def read_whole(self, item: Item) -> bool:
        """Whether all films of `item` are known; of several in one file a run that was stopped may have lost some."""
        key = (str(item.path), item.member, item.size, item.mtime_ns)
        return key in self._files_of_base or (key in self._files_of_parts and not holds_several(item))

    def status(self, image_id: str) -> Status | None:
        """Return what became of a film, or None for one never seen."""
        record = self.records.get(image_id)
        return None if record is None else record.status

    def wants_record(self, image_id: str) -> bool:
        """Whether what is found out about a film now is news."""
        return self.status(image_id) in {None, Status.FAILED, Status.SKIPPED}

    def unusable(self, image_id: str) -> bool:
        """Whether the film failed or was skipped before and is not to be tried again."""
        return self.status(image_id) in self._final

    def predicted(self, image_id: str) -> bool:
        """Whether the film has a prediction of this model."""
        return image_id in self._predicted

    def mapped(self, image_id: str, method: str) -> frozenset[str]:
        """Return the findings of the film that have a map."""
        return frozenset(self._mapped.get(method, {}).get(image_id, ()))

    def map_failed(self, image_id: str, method: str) -> bool:
        """Whether the film failed at this method before and is not to be tried again."""
        return not self._retry and (image_id, method) in self._failed

    def processed(self, image_id: str, method: str) -> bool:
        """Whether the parts hold this film's maps, be they none."""
        return image_id in self._mapped.get(method, {})


def records_of(everything: Iterable[Contents]) -> dict[str, ImageRecord]:
    """Return image_id to the record of each film: that of a success where there are several."""
    records: dict[str, ImageRecord] = {}
    for contents in everything:
        for record in contents.images:
            known = records.get(record.image_id)
            if known is None or (record.status.processed and not known.status.processed):
                records[record.image_id] = record
    return records


def _files(everything: Sequence[Contents]) -> dict[File, frozenset[str]]:
    """Return the films of each file; a film with a name in its file counts for the file as a whole, too."""
    files: dict[File, set[str]] = defaultdict(set)
    for contents in everything:
        for link in contents.links:
            if link.kind in {"film", "duplicate"}:
                for member in {link.member, ""}:
                    files[link.path, member, link.size, link.mtime_ns].add(link.image_id)
    return {key: frozenset(ids) for key, ids in files.items()}


def _add_maps(mapped: dict[str, set[str]], block: Block, *, every_film: bool) -> None:
    """Add the findings of each film that `block` has a map of; of a part also the films that none is asked of."""
    findings = np.array(block.findings, dtype=object)
    for image_id, row in zip(block.image_ids, block.present, strict=True):
        if every_film or row.any():
            mapped.setdefault(image_id, set()).update(findings[row])


def _predictions(
    base: Contents | None, slug: str
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    block = base.blocks.get((slug, "")) if base else None
    if block is None:
        return {}, {}
    with Files() as files:
        logit, probability = files.array(block, "logit"), files.array(block, "probability")
    there = np.flatnonzero(np.isfinite(logit).all(axis=1)).tolist()
    ids = block.image_ids
    return {ids[i]: logit[i] for i in there}, {ids[i]: probability[i] for i in there}
