"""What a run did, for the user."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cxrx.results.records import FailureRecord


@dataclass
class RunReport:
    """What a run did.

    Attributes
    ----------
    out
        The results file.
    counts
        Films of this run by status, and ``"kept"`` for those done before.
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

    out: Path
    model: str
    methods: tuple[str, ...] = ()
    polarity: str = "header"
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[FailureRecord] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    negatives: list[str] = field(default_factory=list)
    conflicts: int = 0
    foreign: int = 0
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """How many things failed."""
        return len(self.failures)

    def why_nothing(self) -> str:
        """Return the most frequent reasons why there was nothing to process."""
        reasons = Counter(f.message for f in self.failures) + Counter(reason for _, reason in self.skipped)
        told = "; ".join(f"{n} x {reason}" for reason, n in reasons.most_common(3))
        return told or "no DICOM, PNG or JPEG was found there"
