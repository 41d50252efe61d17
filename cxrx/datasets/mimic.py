"""MIMIC-CXR-JPG (Johnson et al. 2019): labels by study, films and splits by ``dicom_id``.

``mimic-cxr-2.0.0-chexpert.csv`` labels studies, ``-metadata.csv`` tells the study, patient and view of a film, and
``-split.csv`` its split; each may be gzipped. Films lie at ``files/p10/p10000032/s50414267/<dicom_id>.jpg``. The labels
of the other labeller (``-negbio.csv``) count only where those of CheXpert are not there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cxrx.datasets.plain import finding_columns
from cxrx.datasets.sheet import Format, Sheet, Table, cell, labels_in, split_word, view_of
from cxrx.datasets.specs import MIMIC
from cxrx.specs import FilmTruth

_STUDY = re.compile(r"(?:^|/)s(\d+)(?=/|$)")


@dataclass
class FilmTable(Table):
    """The metadata or the split table: its films, with the study that each belongs to."""

    study: dict[str, str] = field(default_factory=dict)


def read_studies(sheet: Sheet) -> Table:
    """Read the labels, a row a study; entries are study numbers."""
    study, patient, found = sheet.required("study id"), sheet.required("subject id"), finding_columns(sheet, blank=True)
    shared: dict[tuple[str, ...], dict[str, int]] = {}
    films: dict[str, FilmTruth] = {}
    for row in sheet.rows:
        labels = labels_in(row, found, shared)
        number = cell(row, study)
        sheet.problems["rows of a study that had one before"] += number in films
        sheet.problems["rows that contradict an earlier one were left out"] += (
            number in films and films[number].labels != labels
        )
        films.setdefault(number, FilmTruth(labels, patient=cell(row, patient)))
    kind = "mimic-negbio" if "negbio" in sheet.path.name.lower() else "mimic-studies"
    findings = tuple(dict.fromkeys(found.values()))
    return Table(sheet.path, kind, films, findings, sheet.sentences(), name_of=study_of, shared=True)


def study_of(path: str) -> str:
    """Return the study's number that a path holds; the deepest folder counts."""
    found: list[str] = _STUDY.findall(path)
    return found[-1] if found else path


def read_films(sheet: Sheet) -> Table:
    """Read the metadata or the split table, a row a film."""
    film, study, patient = sheet.required("dicom id"), sheet.required("study id"), sheet.required("subject id")
    view, split = sheet.index("viewposition"), sheet.index("split")
    table = FilmTable(sheet.path, "mimic-films", {}, (), [], "split")
    for row in sheet.rows:
        name, at = cell(row, film), view_of(cell(row, view))
        known, of = FilmTruth({}, (), cell(row, patient), at, (), split_word(cell(row, split))), cell(row, study)
        same = table.films.setdefault(name, known) == known and table.study.setdefault(name, of) == of
        sheet.problems["rows that contradict an earlier one were left out"] += not same
    table.problems = sheet.sentences()
    return table


def joined(tables: list[Table]) -> list[Table]:
    """Return the tables, those of MIMIC made one that is keyed by film.

    Without a table of films its entries are studies, which the paths of films hold.
    """
    studies = [table for table in tables if table.kind in {"mimic-studies", "mimic-negbio"}]
    if not studies:
        return tables
    labels = min(studies, key=lambda table: table.kind == "mimic-negbio")
    films = [table for table in tables if isinstance(table, FilmTable) and table.path.parent == labels.path.parent]
    rest = [table for table in tables if table not in studies and table not in films]
    if not films:
        labels.problems.append("no -metadata.csv or -split.csv beside it: films are joined by the study in their path")
        return [*rest, labels]
    unlabelled = 0
    entries: dict[str, FilmTruth] = {}
    for table in films:
        for name, film in table.films.items():
            before = entries.get(name)
            if before is not None:
                view, split = before.view or film.view, before.split or film.split
                entries[name] = FilmTruth(before.labels, (), before.patient, view, (), split)
                continue
            study = labels.films.get(table.study[name])
            unlabelled += study is None
            entries[name] = FilmTruth(study.labels if study else {}, (), film.patient, film.view, (), film.split)
    problems = [*labels.problems, *(text for table in films for text in table.problems)]
    if unlabelled:
        problems.append(f"films of a study that it does not label ({unlabelled})")
    return [*rest, Table(labels.path, "mimic", entries, labels.findings, problems)]


_PUBLISHED = r"mimic-cxr-2\.\d\.\d-{}\.csv(\.gz)?"
FORMATS = (
    Format(
        "mimic-films",
        frozenset({"dicom id", "subject id", "study id"}),
        read_films,
        MIMIC,
        re.compile(_PUBLISHED.format("(metadata|split)"), re.IGNORECASE),
    ),
    Format(
        "mimic-studies",
        frozenset({"subject id", "study id", "enlarged cardiomediastinum"}),
        read_studies,
        MIMIC,
        re.compile(_PUBLISHED.format("(chexpert|negbio)"), re.IGNORECASE),
    ),
)
