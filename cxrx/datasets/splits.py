"""Which films train a model, which choose it, and which judge it: by patient, never by film."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cxrx.errors import UsageError
from cxrx.specs import Split

SPLITS = ("train", "valid", "test")
FRACTIONS = (0.7, 0.1, 0.2)
"""Of the patients where no split is published; the shares of ChestX-ray14's."""

_TRAINING = ("train", "train+valid")
_RANK: dict[str, int] = {"train": 0, "train+valid": 0, "valid": 1, "test": 2}


@dataclass(frozen=True)
class Splits:
    """The split of every film, in the order of the films; ``""`` for a film that is left out.

    Attributes
    ----------
    kind
        ``"official"``: the published one; ``"official, valid drawn"``: its training films divided by patient;
        ``"patient-wise"``: drawn.
    shared_patients
        Patients with films in several published splits. Their films stay in the one that must not be seen before (test,
        then valid) and are left out of the others.
    """

    of: tuple[Split, ...]
    kind: Literal["official", "official, valid drawn", "patient-wise"]
    shared_patients: int = 0


def unit_hash(seed: int, patient: str) -> float:
    """Return a number in [0, 1) that only the seed and the patient decide, evenly spread over patients."""
    digest = hashlib.sha256(f"{seed}:{patient}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def draw(patients: Sequence[str], seed: int, fractions: Mapping[str, float]) -> dict[str, Split]:
    """Assign every patient to a split.

    A patient's place depends on nobody else, so that films added later move nobody from test to train. Only where a
    split would stay empty does it take the patient whose hash is nearest to its range from a split with several.

    Parameters
    ----------
    fractions
        Share of each split, in order, adding up to 1.
    """
    hashes = {patient: unit_hash(seed, patient) for patient in sorted(set(patients))}
    ranges: dict[Split, tuple[float, float]] = {}
    low = 0.0
    for name in SPLITS:
        if fractions.get(name, 0) > 0:
            ranges[name] = (low, low + fractions[name])  # type: ignore[index]  # SPLITS are Split
            low += fractions[name]
    last = list(ranges)[-1]
    drawn = {p: next((s for s, (_, high) in ranges.items() if h < high), last) for p, h in hashes.items()}
    for split, (start, stop) in ranges.items():
        sizes = Counter(drawn.values())
        if sizes[split] == 0 and len(hashes) >= len(ranges):
            rich = [patient for patient in hashes if sizes[drawn[patient]] > 1]
            drawn[min(rich, key=lambda p: abs(hashes[p] - (start + stop) / 2))] = split
    return drawn


def make_splits(
    official: Sequence[Split], patients: Sequence[str], seed: int = 0, fractions: Sequence[float] = FRACTIONS
) -> Splits:
    """Split films so that no patient is in two splits.

    Parameters
    ----------
    official
        What the tables say, a word a film. Published splits count if they name at least two of train, valid and test;
        where they have no validation films, these are drawn by patient from the training films, in proportion.
    patients
        A key a film.
    seed
        What patients are drawn with.
    fractions
        Of patients in train, valid and test; to be drawn where nothing is published.

    Raises
    ------
    UsageError
        If the fractions are none.
    """
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UsageError("the shares of train, valid and test must be three numbers that add up to 1")
    if len({_RANK[word] for word in official if word}) < 2:
        drawn = draw(patients, seed, dict(zip(SPLITS, fractions, strict=True)))
        return Splits(tuple(drawn[patient] for patient in patients), "patient-wise")
    kept, shared = _apart(official, patients)
    if "valid" in kept or fractions[1] == 0:
        return Splits(tuple("train" if word == "train+valid" else word for word in kept), "official", shared)
    of_training = fractions[0] / (fractions[0] + fractions[1])
    pairs = list(zip(patients, kept, strict=True))
    training = [patient for patient, word in pairs if word in _TRAINING]
    drawn = draw(training, seed, {"train": of_training, "valid": 1 - of_training})
    chosen = tuple(drawn[patient] if word in _TRAINING else word for patient, word in pairs)
    return Splits(chosen, "official, valid drawn", shared)


def _apart(official: Sequence[Split], patients: Sequence[str]) -> tuple[list[Split], int]:
    """Leave out films of a patient who has others in a split that must not be seen; also count such patients."""
    highest: dict[str, int] = {}
    lowest: dict[str, int] = {}
    for patient, word in zip(patients, official, strict=True):
        if word:
            highest[patient] = max(_RANK[word], highest.get(patient, 0))
            lowest[patient] = min(_RANK[word], lowest.get(patient, 2))
    pairs = zip(patients, official, strict=True)
    kept: list[Split] = [word if word and _RANK[word] == highest[patient] else "" for patient, word in pairs]
    return kept, sum(highest[patient] != lowest[patient] for patient in highest)
