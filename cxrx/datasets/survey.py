"""What there is in a data set and what is wrong with it, as ``cxrx datasets show`` prints it: counts, never cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cxrx.datasets.fit import size_of
from cxrx.datasets.folder import LabelledFolder
from cxrx.datasets.splits import SPLITS, Splits
from cxrx.specs import FilmTruth


@dataclass(frozen=True)
class FindingCount:
    """On how many films a finding is present, absent, uncertain and unknown, and how often it is marked.

    Attributes
    ----------
    prevalence
        Share of the films on which it is present among those on which it is present or absent; None without any.
    """

    finding: str
    positive: int
    negative: int
    uncertain: int
    unknown: int
    prevalence: float | None
    boxes: int
    masks: int


def survey(dataset: LabelledFolder, seed: int = 0) -> dict[str, Any]:
    """Return what a data set holds, as plain data.

    Where the folder holds none of the films that its tables name (they may lie elsewhere), the films of the tables are
    counted and ``films`` is 0.
    """
    films = dataset.films()
    present = bool(films)
    if not present:
        films = list(dataset.source.entries().items())
    truths = [truth for _, truth in films]
    counts = count_findings(dataset.findings, truths)
    known = {truth.patient for truth in truths if truth.patient}
    splits = dataset.splits(seed)
    patients = dataset.patients
    return {
        "name": dataset.name,
        "tables": [path.name for path in dataset.source.tables],
        "films": len(dataset.paths),
        "labelled": len(films),
        "patients": len(known) if known else None,
        "views": dict(sorted(Counter(truth.view or "unknown" for truth in truths).items())),
        "findings": [vars(count) for count in counts],
        "boxes": sum(len(truth.boxes) for truth in truths),
        "boxed_films": sum(bool(truth.boxes) for truth in truths),
        "masks": sum(len(truth.masks) for truth in truths),
        "masked_films": sum(bool(truth.masks) for truth in truths),
        "splits": _described(splits, patients) if present else None,
        "problems": [*dataset.source.problems, *find_problems(dataset, counts, splits)],
    }


def _described(splits: Splits, patients: Sequence[str]) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": splits.kind}
    for name in (*SPLITS, ""):
        members = [patient for patient, word in zip(patients, splits.of, strict=True) if word == name]
        if members or name:
            described[name or "left out"] = {"films": len(members), "patients": len(set(members))}
    return described


def count_findings(findings: Sequence[str], truths: Sequence[FilmTruth]) -> list[FindingCount]:
    """Count labels, boxes and masks a finding."""
    shared: Counter[int] = Counter(id(truth.labels) for truth in truths)  # many films share one set of labels
    labels = {id(truth.labels): truth.labels for truth in truths}
    boxes = Counter(box.finding for truth in truths for box in truth.boxes)
    masks = Counter(mask.finding for truth in truths for mask in truth.masks)
    counts = []
    for finding in findings:
        values: Counter[int | None] = Counter()
        for key, n in shared.items():
            values[labels[key].get(finding)] += n
        positive, negative = values[1], values[0]
        decided = positive + negative
        unknown = len(truths) - decided - values[-1]
        counts.append(
            FindingCount(
                finding, positive, negative, values[-1], unknown, positive / decided if decided else None,
                boxes[finding], masks[finding],
            )
        )  # fmt: skip
    return counts


# ---------------------------------------------------------------------------------------------------------------------
# What is wrong


def find_problems(dataset: LabelledFolder, counts: Sequence[FindingCount], splits: Splits) -> list[str]:
    """Return what is wrong with the data set as a whole, a sentence each."""
    problems = []
    films = dataset.films()
    absent = dataset.source.absent([path for path, _ in films])
    if not films:
        problems.append(f"none of the {absent} films that the tables name is in the folder: their rows are counted")
    elif absent:
        problems.append(f"films that the tables name and that are not in the folder: {absent}")
    if films and dataset.unlabelled:
        problems.append(f"films of the folder that are in no table: {len(dataset.unlabelled)}")
    if splits.shared_patients:
        problems.append(
            f"patients with films in more than one published split: {splits.shared_patients}; they stay in test, else "
            "in valid, and are left out elsewhere"
        )
    if films and not any(truth.patient for _, truth in films):
        problems.append("no table names the patients: every film counts as a patient of its own")
    empty = [count.finding for count in counts if not count.positive]
    if empty:
        problems.append(f"no film is positive for {', '.join(empty)}")
    return problems + check_marks(dataset)


def check_marks(dataset: LabelledFolder) -> list[str]:
    """Compare boxes and masks with the sizes of their films, which the headers of the files give."""
    unread = 0
    for path, truth in dataset.films():
        if truth.boxes or truth.masks:
            size = size_of(dataset.folder / path)
            unread += size is None
            dataset.source.truth(path, str(dataset.folder / path), size)  # which notes what does not fit
    return ([f"boxed or masked films whose size cannot be read: {unread}"] if unread else []) + dataset.source.notes()
