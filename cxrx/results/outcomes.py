"""What becomes of an input file: one set of words, in the last line of a run, in ``cxrx info`` and in failures.csv.

Every input file is in exactly one of them; one that holds several films is counted film by film.

ok
    All that was asked for was made: it was read, and went through the model and the methods.
flagged
    The same, with something to know about it: ``/images/message``.
failed
    It could not be read, or the prediction or a method failed on it.
skipped
    It is no film that was asked for: a report, a lateral view, a hand.
duplicate
    Another input, which counts, has the same bytes. (Members of archives that are no films are not unpacked to see.)
passed over
    No reader takes it for a film by its name and first bytes: a table, a text. Told by the run, and kept nowhere else.

failures.csv has a line for every file that is neither ok nor flagged, with its word under ``status``; for a failed one
a line for each thing that failed. A run speaks of its own inputs, model and methods, be they done now or before (so
many were "kept"), ``cxrx info`` of all that a results file holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

WORDS = ("ok", "flagged", "failed", "skipped", "duplicate")
DUPLICATE = "duplicate"


def word_of(stage: str, code: str) -> str:
    """Return what a line in ``/failures`` makes of its file."""
    if stage == "find":
        return DUPLICATE if code == DUPLICATE else "skipped"
    return "failed"


def tally(status: Mapping[str, str], failures: Iterable[tuple[str, str, str]]) -> dict[str, int]:
    """Count files by word, of which there are some.

    Parameters
    ----------
    status
        image_id to the word in ``/images/status``.
    failures
        id, stage and code of the lines in ``/failures``.
    """
    words, counts = dict(status), Counter[str]()
    for image_id, stage, code in failures:
        word = word_of(stage, code)
        if word == "failed":
            words[image_id] = word
        else:
            counts[word] += 1
    counts.update(words.values())
    return {word: counts[word] for word in WORDS if counts[word]}
