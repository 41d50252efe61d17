"""What a run does, written down as it happens: rows for the next part, and what the user is shown at the end."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.reading.record import ImageRecord, Link
from cxrx.results.contents import Contents
from cxrx.results.outcomes import DUPLICATE
from cxrx.results.parts import PartStore
from cxrx.results.records import EXTRAS, Block, FailureRecord, keyed

log = logging.getLogger("cxrx")

FILMS_A_PART = 16
SECONDS_A_PART = 5.0

Arrays = Mapping[str, NDArray[Any]]


@dataclass
class RunReport:
    """What a run did, and until then what it is doing.

    Parts are written as work is done, of at most 16 films or five seconds of work.

    Attributes
    ----------
    model, findings
        The model's slug and its `K` findings.
    attrs
        Attributes of the predictions (key ``""``) and of the maps of each method key.
    polarity
        What was asked to be done about photographic negatives.
    counts
        The inputs of this run by what became of them, now or before, see :mod:`cxrx.results.outcomes`.
    kept
        How many files had nothing left to do.
    failures
        What failed, with private relative paths.
    skipped
        (relative path, reason) of what is no film.
    passed_over
        Other files (tables, texts) by suffix.
    negatives
        Films that look like photographic negatives.
    conflicts
        Films that share a SOPInstanceUID with another one of other bytes.
    foreign
        Films that ``cxrx phantom`` did not make, which a demo model knows nothing of.
    """

    store: PartStore
    model: str
    findings: tuple[str, ...]
    attrs: dict[str, dict[str, Any]]
    polarity: str = "header"
    counts: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    failures: list[FailureRecord] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    negatives: list[str] = field(default_factory=list)
    conflicts: int = 0
    foreign: int = 0
    seconds: float = 0.0
    _part: Contents = field(default_factory=Contents, repr=False)
    _rows: dict[str, list[tuple[str, Sequence[int], Arrays]]] = field(default_factory=dict, repr=False)
    _committed: float = field(default_factory=time.monotonic, repr=False)
    _films: int = 0
    _words: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def out(self) -> Path:
        """The results file."""
        return self.store.out

    @property
    def methods(self) -> tuple[str, ...]:
        """Keys of the methods."""
        return tuple(key for key in self.attrs if key)

    @property
    def failed(self) -> int:
        """How many files failed, now or before."""
        return self.counts["failed"]

    # -----------------------------------------------------------------------------------------------------------------
    # What happens to a film

    def count(self, image_id: str, word: str) -> None:
        """Note what became of a file, by the film in it; once failed, it stays so."""
        known = self._words.get(image_id) if image_id else None
        if known == "failed":
            return
        if known is not None:
            self.counts[known] -= 1
        self._words[image_id] = word
        self.counts[word] += 1

    def image(self, record: ImageRecord) -> None:
        """Note a film, or a file that gave none."""
        self._part.images.append(record)

    def prediction(self, image_id: str, arrays: Arrays) -> None:
        """Note a prediction: ``logit`` and ``probability`` ``(K,)``, ``affine`` ``(2, 3)``."""
        self._rows.setdefault("", []).append((image_id, (), arrays))

    def flag(self, image_ids: Iterable[str]) -> None:
        """Note that there is something to know about films, of which some may be of this run."""
        for image_id in image_ids:
            if self._words.get(image_id) == "ok":
                self.count(image_id, "flagged")

    def maps(self, method: str, image_id: str, targets: Sequence[int], arrays: Arrays) -> None:
        """Note the maps of one film.

        Parameters
        ----------
        method
            Key of the method.
        image_id
            The film.
        targets
            Indices of its `T` explained findings.
        arrays
            ``values`` ``(T, h, w)``, ``score`` ``(T,)`` and ``extras/NAME`` ``(T, ...)``.
        """
        self._rows.setdefault(method, []).append((image_id, targets, arrays))

    def skip(self, relative: str, image_id: str, code: str, message: str) -> None:
        """Note what is no film; what leaves no row in /images gets a line of its own in /failures.

        Parameters
        ----------
        relative
            Path of the file relative to the input.
        image_id
            Empty where the bytes could not be read.
        code, message
            As in :class:`~cxrx.specs.Unreadable`.
        """
        self.count(image_id, "skipped")
        self.skipped.append((relative, f"{code}: {message}"))
        if not image_id:
            self._part.failures.append(FailureRecord(image_id, "find", code, message, relative))

    def duplicate(self, link: Link) -> None:
        """Note a file with the bytes of another one."""
        message = "the same bytes as another file: counted once"
        self.counts[DUPLICATE] += 1
        self.skipped.append((link.relative, f"{DUPLICATE}: {message}"))
        self._part.failures.append(FailureRecord(link.image_id, "find", DUPLICATE, message, link.relative))
        self._part.links.append(replace(link, kind=DUPLICATE))

    def fail(self, relative: str, image_id: str, stage: str, code: str, message: str, method: str = "") -> None:
        """Note what failed.

        Parameters
        ----------
        relative, image_id, code, message
            As for :meth:`skip`.
        stage
            One of :data:`cxrx.results.records.STAGES`.
        method
            Key of the method where the stage is ``"explain"``.
        """
        model = self.model if stage in {"predict", "explain"} else ""
        failure = FailureRecord(image_id, stage, code, message, relative, model, method)
        self._part.failures.append(failure)
        self.failures.append(failure)
        self.count(image_id, "failed")
        log.warning("failed: %s: %s", relative, message)

    def lose(self, relative: str, image_id: str, code: str, message: str) -> None:
        """Note a film of the results file that its file no longer gives, so that no method gets to it.

        Parameters
        ----------
        relative, image_id, code, message
            As for :meth:`skip`.
        """
        for method in self.methods:
            self.fail(relative, image_id, "explain", code, message, method)

    def why_nothing(self) -> str:
        """Return the most frequent reasons why there was nothing to process."""
        reasons = Counter(f.message for f in self.failures) + Counter(reason for _, reason in self.skipped)
        listed = "; ".join(f"{n} x {reason}" for reason, n in reasons.most_common(3))
        return listed or "no DICOM, PNG or JPEG was found there"

    # -----------------------------------------------------------------------------------------------------------------
    # Parts

    def commit_if_due(self) -> None:
        """Write a part if there is enough for one."""
        if self._waiting() >= FILMS_A_PART or time.monotonic() - self._committed > SECONDS_A_PART:
            self.commit()

    def commit(self) -> None:
        """Write what there is as a part."""
        films = self._waiting()
        if films:
            blocks = [self._predictions(rows) if not key else self._maps(key, rows) for key, rows in self._rows.items()]
            self._part.blocks = keyed(*blocks)
            self.store.write(self._part, self._films)
            self._part, self._rows = Contents(), {}
            self._films += films
        self._committed = time.monotonic()

    def _waiting(self) -> int:
        """Count the films of the next part, whatever became of them."""
        ids = {record.image_id for record in self._part.images}
        ids.update(image_id for rows in self._rows.values() for image_id, _, _ in rows)
        return len(ids) + len(self._part.failures)

    def _predictions(self, rows: Sequence[tuple[str, Sequence[int], Arrays]]) -> Block:
        ids = tuple(image_id for image_id, _, _ in rows)
        arrays = {name: np.stack([own[name] for _, _, own in rows]) for name in rows[0][2]}
        return Block(self.model, "", self.findings, ids, self.attrs[""], np.ones(len(rows), np.bool_), arrays)

    def _maps(self, method: str, rows: Sequence[tuple[str, Sequence[int], Arrays]]) -> Block:
        """Lay the maps of each film into the columns of their findings; the others are absent."""
        n, K = len(rows), len(self.findings)
        present = np.zeros((n, K), dtype=np.bool_)
        arrays = {name: _absent((n, K, *own.shape[1:]), own.dtype) for name, own in rows[0][2].items()}
        for i, (_, targets, own) in enumerate(rows):
            present[i, targets] = True
            for name, array in own.items():
                arrays[name][i, targets] = array
        ids = tuple(image_id for image_id, _, _ in rows)
        return Block(self.model, method, self.findings, ids, self.attrs[method], present, arrays)


def _absent(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.full(shape, np.nan if dtype.kind == "f" else 0, dtype=dtype)


def map_arrays(values: NDArray[Any], score: NDArray[Any], extras: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays of some maps by the names they have in a block."""
    return {"values": values, "score": score} | {EXTRAS + name: array for name, array in extras.items()}
