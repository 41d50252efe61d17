"""What a comparison reports beside its numbers."""

from __future__ import annotations

from collections import Counter


class Notes:
    """Sentences gathered on the way: `skipped` as (what, why), `warnings`; counted ones are said once."""

    def __init__(self) -> None:
        self.skipped: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self._counts: Counter[str] = Counter()

    def skip(self, what: str, why: str) -> None:
        """Note that something was left out, once."""
        if (what, why) not in self.skipped:
            self.skipped.append((what, why))

    def warn(self, sentence: str) -> None:
        """Note what the reader must know."""
        self.warnings.append(sentence)

    def count(self, sentence: str) -> None:
        """Count an event; `sentence` has a place ``{n}`` for how often it happened."""
        self._counts[sentence] += 1

    def flush(self) -> None:
        """Turn the counted events into warnings."""
        # not str.format: what a plugin's error says may hold braces of its own
        self.warnings += [sentence.replace("{n}", str(n)) for sentence, n in self._counts.items()]
        self._counts.clear()
