"""What a comparison found, and how it is written down: CSV tables and one JSON with every convention."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from cxrx import __version__
from cxrx.compare import costs
from cxrx.compare.localisation.table import PER_PAIR
from cxrx.compare.regions import mass as regions
from cxrx.compare.verdict import NOTHING, Statement, models_of, sentences
from cxrx.metrics import classification, paired, strata, thresholds
from cxrx.metrics.summaries import KEYS, SUMMARY
from cxrx.specs import Measure

#: Tables of a comparison, with their columns; those that are open have a column a metric beside these.
COLUMNS: dict[str, tuple[str, ...]] = {
    "summary": SUMMARY,
    "per_pair": PER_PAIR,
    "classification": classification.COLUMNS,
    "classifier_curves": ("model", *classification.CURVES),
    "thresholds": ("model", *thresholds.COLUMNS),
    "agreement": (
        "model", "method_a", "method_b", "finding", "metric", "value", "n", "low", "high", "random_pair",
    ),
    "model_agreement": (
        "method", "model_a", "model_b", "finding", "metric", "value", "n", "low", "high", "random_pair",
    ),
    "faithfulness": KEYS,
    "faithfulness_pairs": ("image_id", "patient", "model", "method", "finding", "probability"),
    "curves": ("model", "method", "curve", "x", "value", "low", "high", "n"),
    "sanity": ("model", "method", "test", "stage", "metric", "value", "low", "high", "n", "random_pair"),
    "sanity_verdicts": ("model", "method", "test", "passed", "outcome", "reason", "sentence"),
    "strata": strata.COLUMNS,
    "confusion": ("model", "method", "finding_map", "finding_truth", "value", "n"),
    "regions": regions.COLUMNS,
    "paired_tests": paired.COLUMNS,
    "costs": costs.COLUMNS,
}  # fmt: skip
ALWAYS = ("summary", "per_pair", "paired_tests")
"""Tables that are written even when they are empty."""
_LONG = frozenset({"per_pair", "faithfulness_pairs", "classifier_curves"})
"""Tables of many rows, which are left out of the JSON."""


def empty_tables() -> dict[str, pd.DataFrame]:
    """Return every table without a row."""
    return {name: pd.DataFrame(columns=list(columns)) for name, columns in COLUMNS.items()}


@dataclass
class Comparison:
    """What :func:`cxrx.compare.run.compare` found.

    Attributes
    ----------
    paths
        The results files.
    summary, per_pair, ...
        The tables, see :data:`COLUMNS`. ``summary``: localisation, averaged (finding ``all``: mean over findings;
        skill = (value - prior) / (1 - prior)). ``per_pair``: one row per film, model, method and finding that has a
        truth.
    skipped
        (what, why).
    warnings
        Sentences.
    demo
        Whether a model's weights were trained on synthetic films only.
    statements
        The verdict, the most important first; :attr:`verdict` says it in sentences.
    conventions
        What every number means.
    models
        By slug: findings, fingerprint, demo, and the attributes of every method's maps.
    controls
        The methods that never look at the model.
    plugin_metrics
        What the numbers of plugins' metrics are, by kind and key: beside the tables' own they are shown like these.
    settings
        Everything needed to redo the comparison.
    """

    paths: tuple[Path, ...]
    films: int
    summary: pd.DataFrame
    per_pair: pd.DataFrame
    classification: pd.DataFrame
    classifier_curves: pd.DataFrame
    thresholds: pd.DataFrame
    agreement: pd.DataFrame
    model_agreement: pd.DataFrame
    faithfulness: pd.DataFrame
    faithfulness_pairs: pd.DataFrame
    curves: pd.DataFrame
    sanity: pd.DataFrame
    sanity_verdicts: pd.DataFrame
    strata: pd.DataFrame
    confusion: pd.DataFrame
    regions: pd.DataFrame
    paired_tests: pd.DataFrame
    costs: pd.DataFrame
    skipped: list[tuple[str, str]]
    warnings: list[str]
    demo: bool
    statements: list[Statement]
    settings: dict[str, Any]
    conventions: dict[str, str]
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls: set[str] = field(default_factory=set)
    plugin_metrics: dict[str, dict[str, Measure]] = field(default_factory=dict)

    @property
    def verdict(self) -> list[str]:
        """The statements in sentences, each with its model where the tables speak of several."""
        several = len(models_of(self.tables())) > 1
        said = [f"{model}: {text}" if model and several else text for model, text in sentences(self.statements)]
        return said or [NOTHING]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return all tables by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    def as_json(self) -> dict[str, Any]:
        """Return plain data: all but the longest tables, the sentences, the conventions; not finite is null."""
        return {
            "format": "cxrx-comparison",
            "version": __version__,
            "files": [path.name for path in self.paths],
            "films": self.films,
            "demo": self.demo,
            "verdict": self.verdict,
            "statements": [_plain(asdict(statement)) for statement in self.statements],
            "warnings": self.warnings,
            "skipped": [{"what": what, "why": why} for what, why in self.skipped],
            "settings": self.settings,
            "versions": versions(),
            "models": _plain(self.models),
            "conventions": self.conventions,
            **{
                name: [dict(zip(table.columns, row, strict=True)) for row in plain_rows(table, None)]
                for name, table in self.tables().items()
                if name not in _LONG
            },
        }


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the numbers come from."""
    names = ("cxrx", "numpy", "scipy", "pandas", "scikit-learn", "scikit-image", "torch", "captum")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def plain_rows(table: pd.DataFrame, missing: Any = "") -> list[list[Any]]:
    """Return the cells as plain numbers and texts; what is not finite as `missing`."""
    return [[_plain(value, missing) for value in row] for row in table.itertuples(index=False, name=None)]


def _plain(value: Any, missing: Any = None) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item, missing) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, missing) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return missing if isinstance(value, float) and not math.isfinite(value) else value
