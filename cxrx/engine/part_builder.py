"""Collect the work on a few films until it is worth a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.results.records import FailureRecord, ImageRecord, MapBlock, Part, PredictionBlock


@dataclass
class MapRow:
    """The maps of one film by one method: ``values (T, h, w)`` for the findings at ``targets``, a list of T indices."""

    image_id: str
    targets: list[int]
    values: NDArray[np.float32]
    score: NDArray[np.float32]
    extras: Mapping[str, NDArray[Any]]


@dataclass
class PredictionRow:
    """The prediction of one film: ``logit (K,)``, ``probability (K,)``, ``affine (2, 3)``."""

    image_id: str
    logit: NDArray[np.float32]
    probability: NDArray[np.float32]
    affine: NDArray[np.float64]


@dataclass
class PartBuilder:
    """Rows of one model, waiting to be written as a part."""

    model: str
    findings: tuple[str, ...]
    prediction_attrs: dict[str, Any]
    map_attrs: dict[str, dict[str, Any]]
    images: list[ImageRecord] = field(default_factory=list)
    failures: list[FailureRecord] = field(default_factory=list)
    predictions: list[PredictionRow] = field(default_factory=list)
    maps: dict[str, list[MapRow]] = field(default_factory=dict)

    @property
    def films(self) -> int:
        """How many films are waiting, whatever became of them."""
        ids = {r.image_id for r in self.images} | {p.image_id for p in self.predictions}
        return len(ids | {row.image_id for rows in self.maps.values() for row in rows}) + len(self.failures)

    def take(self) -> Part:
        """Return everything as a part and start afresh."""
        part = Part(
            images=self.images,
            failures=self.failures,
            predictions=[self._prediction_block()] if self.predictions else [],
            maps=[self._map_block(method, rows) for method, rows in self.maps.items() if rows],
        )
        self.images, self.failures, self.predictions, self.maps = [], [], [], {}
        return part

    def _prediction_block(self) -> PredictionBlock:
        rows = self.predictions
        return PredictionBlock(
            self.model,
            self.findings,
            tuple(row.image_id for row in rows),
            np.stack([row.logit for row in rows]),
            np.stack([row.probability for row in rows]),
            np.stack([row.affine for row in rows]),
            self.prediction_attrs,
        )

    def _map_block(self, method: str, rows: Sequence[MapRow]) -> MapBlock:
        n, K = len(rows), len(self.findings)
        present = np.zeros((n, K), dtype=np.bool_)
        score = np.full((n, K), np.nan, dtype=np.float32)
        values = np.full((n, K, *rows[0].values.shape[1:]), np.nan, dtype=np.float32)
        extras = {name: _absent((n, K, *array.shape[1:]), array.dtype) for name, array in rows[0].extras.items()}
        for i, row in enumerate(rows):
            present[i, row.targets] = True
            score[i, row.targets] = row.score
            values[i, row.targets] = row.values
            for name, array in row.extras.items():
                extras[name][i, row.targets] = array
        ids = tuple(row.image_id for row in rows)
        attrs = self.map_attrs[method]
        return MapBlock(self.model, method, self.findings, ids, values, present, score, extras, attrs)


def _absent(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.full(shape, np.nan if dtype.kind == "f" else 0, dtype=dtype)
