"""What a run hands to storage: plain records, one part at a time, and the fingerprint of the settings behind them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_IMAGE_ID = re.compile(r"[0-9a-f]{16}")
_KEY = re.compile(r"[^\s/\x00-\x1f]+")
STAGES = ("find", "read", "predict", "explain")


class Status(IntEnum):
    """What became of a film; the numbers are stored in ``/images/status``."""

    OK = 0
    FLAGGED = 1
    FAILED = 2
    SKIPPED = 3

    @property
    def processed(self) -> bool:
        """Whether the film went through the model."""
        return self in {Status.OK, Status.FLAGGED}


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One film. The last seven fields are private: they go to the link table, never into results.h5.

    Attributes
    ----------
    image_id
        First 16 hex digits of `sha256`.
    rows, columns
        Of the source picture, pixels; 0 where it could not be read.
    patient
        Key that films of one patient share; empty where unknown.
    """

    image_id: str
    sha256: str
    view: str
    rows: int
    columns: int
    decoder: str
    status: Status
    message: str
    synthetic: bool
    relative: str
    path: str
    member: str
    uid: str
    patient: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """One thing that went wrong with one film.

    Attributes
    ----------
    image_id
        Empty where the bytes could not even be read.
    stage
        ``"find"``, ``"read"``, ``"predict"`` or ``"explain"``.
    code, message
        A short stable word and a sentence, both without patient data.
    relative
        The film's relative path: private, goes to failures.csv and the link table only.
    model, method
        Slugs of what failed, for the last two stages; a later success of just that removes the failure.
    """

    image_id: str
    stage: str
    code: str
    message: str
    relative: str
    model: str = ""
    method: str = ""


@dataclass
class PredictionBlock:
    """Predictions of one model for `n` films.

    Attributes
    ----------
    logit, probability
        ``(n, K)`` float32.
    affine
        ``(n, 2, 3)`` float64: (x, y) of the input grid to (x, y) of source pixels.
    attrs
        JSON-able; the mapping under ``"settings"`` decides the fingerprint.
    """

    model: str
    findings: tuple[str, ...]
    image_ids: tuple[str, ...]
    logit: FloatArray
    probability: FloatArray
    affine: NDArray[np.float64]
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass
class MapBlock:
    """Maps of one method on one model for `n` films.

    Attributes
    ----------
    values
        ``(n, K, h, w)`` float32, NaN where absent.
    present
        ``(n, K)`` bool.
    score
        ``(n, K)`` float32: the logit that was explained.
    extras
        Arrays of shape ``(n, K, ...)``.
    attrs
        JSON-able; ``"settings"`` decides the fingerprint, ``"space"`` (``"native"`` or ``"input"``) the encoding.
    """

    model: str
    method: str
    findings: tuple[str, ...]
    image_ids: tuple[str, ...]
    values: FloatArray
    present: NDArray[np.bool_]
    score: FloatArray
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Part:
    """The work on a few films, written at once."""

    images: list[ImageRecord] = field(default_factory=list)
    failures: list[FailureRecord] = field(default_factory=list)
    predictions: list[PredictionBlock] = field(default_factory=list)
    maps: list[MapBlock] = field(default_factory=list)


# ---------------------------------------------------------------------------------------------------------------------
# Settings and their fingerprint


def plain(value: Any) -> Any:
    """Return `value` as what JSON knows: tuples become lists, NumPy scalars numbers, sets sorted lists.

    Raises
    ------
    TypeError
        If `value` holds something JSON has no word for.
    """
    match value:
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted(plain(item) for item in value)
        case list() | tuple():
            return [plain(item) for item in value]
        case np.ndarray():
            return plain(value.tolist())
        case np.generic():
            return value.item()
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a {type(value).__name__} cannot be stored as an attribute")


def canonical(settings: Mapping[str, Any]) -> str:
    """Return `settings` as JSON in one spelling: sorted keys, no blanks, ASCII."""
    return json.dumps(plain(settings), sort_keys=True, separators=(",", ":"))


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the sha256 of the canonical JSON of `settings`."""
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name the settings that differ: ``["options.steps: 200 there, 800 now", ...]``; nested mappings by dotted keys."""
    flat_old, flat_new = _flatten(plain(old)), _flatten(plain(new))
    return [
        f"{key}: {_shown(flat_old, key)} there, {_shown(flat_new, key)} now"
        for key in sorted(flat_old.keys() | flat_new.keys())
        if _shown(flat_old, key) != _shown(flat_new, key)
    ]


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key], ensure_ascii=False) if key in flat else "unset"


# ---------------------------------------------------------------------------------------------------------------------
# Checks at the door


def require(condition: object, message: str) -> None:
    """Raise ValueError with `message` unless `condition`: a part that breaks the contract is a bug, not bad input."""
    if not condition:
        raise ValueError(message)


def check_part(part: Part) -> None:
    """Raise ValueError where `part` breaks the contract: shapes, ids, unique keys."""
    _check_ids([record.image_id for record in part.images], unique=False)
    for record in part.images:
        require(record.sha256.startswith(record.image_id), "an image_id is not the beginning of its sha256")
    for failure in part.failures:
        require(failure.stage in STAGES, f"{failure.stage!r} is no stage; stages are {', '.join(STAGES)}")
        _check_ids([failure.image_id] if failure.image_id else [])
    require(len({block.model for block in part.predictions}) == len(part.predictions), "a model came twice in a part")
    require(
        len({(block.model, block.method) for block in part.maps}) == len(part.maps), "a method came twice in a part"
    )
    for predictions in part.predictions:
        _check_predictions(predictions)
    for maps in part.maps:
        _check_maps(maps)


def is_image_id(text: str) -> bool:
    """Whether `text` has the form of an image_id: 16 hex digits."""
    return _IMAGE_ID.fullmatch(text) is not None


def _check_ids(image_ids: Iterable[str], *, unique: bool = True) -> None:
    listed = list(image_ids)
    require(all(is_image_id(image_id) for image_id in listed), "an image_id is not 16 hex digits")
    require(not unique or len(set(listed)) == len(listed), "an image_id came twice in a block")


def _check_block(block: PredictionBlock | MapBlock, *keys: str) -> tuple[int, int]:
    for key in keys:
        require(_KEY.fullmatch(key) and key not in {".", ".."}, f"{key!r} cannot name a group")
    _check_ids(block.image_ids)
    require(block.image_ids and block.findings, f"{keys[0]} has no films or no findings")
    require(len(set(block.findings)) == len(block.findings), f"{keys[0]} names a finding twice")
    return len(block.image_ids), len(block.findings)


def _check_predictions(block: PredictionBlock) -> None:
    n, K = _check_block(block, block.model)
    require(block.logit.shape == (n, K), f"logit is {block.logit.shape}, not {(n, K)}")
    require(block.probability.shape == (n, K), f"probability is {block.probability.shape}, not {(n, K)}")
    require(block.affine.shape == (n, 2, 3), f"affine is {block.affine.shape}, not {(n, 2, 3)}")


def _check_maps(block: MapBlock) -> None:
    n, K = _check_block(block, block.model, block.method)
    require(block.values.ndim == 4 and block.values.shape[:2] == (n, K), f"values is {block.values.shape}")
    require(block.values.size, "values has an empty grid")
    require(block.present.shape == (n, K), f"present is {block.present.shape}, not {(n, K)}")
    require(block.score.shape == (n, K), f"score is {block.score.shape}, not {(n, K)}")
    require(block.attrs.get("space", "native") in {"native", "input"}, "space is native or input")
    for name, extra in block.extras.items():
        require(_KEY.fullmatch(name), f"{name!r} cannot name an extra")
        require(extra.shape[:2] == (n, K), f"extra {name} is {extra.shape}, not {(n, K)} and more")
        require(extra.size, f"extra {name} has an empty axis")
        require(extra.dtype.kind in "fiub", f"extra {name} is of type {extra.dtype}")
