"""What a comparison found, and how it is written down: CSV tables and one JSON with every convention."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cxrx import __version__
from cxrx.results.atomic import write_file
from cxrx.results.private import csv_bytes

TABLES = ("summary", "per_pair", "classification", "agreement")


@dataclass
class Comparison:
    """What :func:`cxrx.compare.run.compare` found.

    Attributes
    ----------
    paths, truth
        The results files and the truth table that was given.
    summary
        Localisation, averaged: model, method, finding (``all``: mean over findings), metric, value, n, low, high,
        skill = (value - prior) / (1 - prior).
    per_pair
        One row per film, model, method and finding that has a truth.
    classification, agreement
        See :mod:`cxrx.compare.classification` and :mod:`cxrx.compare.agreement`.
    skipped
        (what, why).
    warnings
        Sentences.
    demo
        Whether a model's weights were trained on synthetic films only.
    verdict
        Sentences, the most important first.
    conventions
        What every number means.
    models
        By slug: findings, fingerprint, demo, and the attributes of every method's maps.
    controls
        The methods that never look at the model.
    names
        image_id to the film's relative path, where the link table is at hand; never written to the tables.
    settings
        Everything needed to redo the comparison.
    """

    paths: tuple[Path, ...]
    truth: Path | None
    films: int
    summary: pd.DataFrame
    per_pair: pd.DataFrame
    classification: pd.DataFrame
    agreement: pd.DataFrame
    skipped: list[tuple[str, str]]
    warnings: list[str]
    demo: bool
    verdict: list[str]
    settings: dict[str, Any]
    conventions: dict[str, str]
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain data: the tables but per_pair, the sentences, the conventions; what is not finite as null."""
        tables = {name: getattr(self, name) for name in TABLES if name != "per_pair"}
        return {
            "format": "cxrx-comparison",
            "version": __version__,
            "files": [path.name for path in self.paths],
            "films": self.films,
            "demo": self.demo,
            "verdict": self.verdict,
            "warnings": self.warnings,
            "skipped": [{"what": what, "why": why} for what, why in self.skipped],
            "settings": self.settings,
            "models": _plain(self.models),
            "conventions": self.conventions,
            **{
                name: [dict(zip(table.columns, row, strict=True)) for row in _rows(table, None)]
                for name, table in tables.items()
            },
        }


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``summary.csv``, ``per_pair.csv``, ``compare.json`` and, where not empty, the other tables.

    Films appear by image_id only. Returns the paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in TABLES:
        table: pd.DataFrame = getattr(comparison, name)
        if len(table) or name in ("summary", "per_pair"):
            written.append(folder / f"{name}.csv")
            write_file(written[-1], csv_bytes(list(table.columns), _rows(table)))
    written.append(folder / "compare.json")
    write_file(written[-1], (json.dumps(comparison.as_json(), indent=1, ensure_ascii=False) + "\n").encode())
    return written


def _rows(table: pd.DataFrame, missing: Any = "") -> list[list[Any]]:
    """Return the cells as plain numbers and texts; what is not finite as `missing`."""
    return [[_plain(value, missing) for value in row] for row in table.itertuples(index=False, name=None)]


def _plain(value: Any, missing: Any = None) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item, missing) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, missing) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return missing if isinstance(value, float) and not math.isfinite(value) else value
