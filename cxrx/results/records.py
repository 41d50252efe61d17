"""What a run hands to storage: failures and blocks of arrays, and the fingerprint of the settings behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.datasets.names import canonical as usual_name
from cxrx.errors import UsageError
from cxrx.specs import Score

FloatArray = NDArray[np.float32]

Key = tuple[str, str]
"""``(model, method)``; ``(model, "")`` stands for the model's predictions."""

MOST_LETTERS = 100
"""Of the name of a model or a method, which is part of file names too."""

STAGES = ("find", "read", "predict", "explain")


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


@dataclass(eq=False)
class Block:
    """What one model, or one method on it, says of `n` films: predictions or maps, a row a film.

    Attributes
    ----------
    method
        Empty for predictions.
    findings, image_ids
        `K` and `n` of them.
    attrs
        JSON-able; the mapping under ``"settings"`` decides the fingerprint, ``"space"`` of maps (``"native"`` or
        ``"input"``) their encoding.
    present
        ``(n,)`` of predictions, ``(n, K)`` of maps: what there is.
    arrays
        Predictions: ``logit`` and ``probability`` ``(n, K)`` float32, ``affine`` ``(n, 2, 3)`` float64, (x, y) of the
        input grid to (x, y) of source pixels. Maps: ``values`` ``(n, K, h, w)`` float32, ``score`` ``(n, K)`` float32,
        the score that was explained, and ``extras/NAME`` ``(n, K, ...)``. Empty where they lie in a file.
    path
        That file.
    stored
        Name to trailing shape and type of the arrays of maps in that file.
    """

    model: str
    method: str
    findings: tuple[str, ...]
    image_ids: tuple[str, ...]
    attrs: dict[str, Any]
    present: NDArray[np.bool_]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    path: Path = Path()
    stored: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What it is called in a file."""
        return self.model, self.method

    @property
    def group(self) -> str:
        """Where it lies in a file."""
        return f"maps/{self.model}/{self.method}" if self.method else f"predictions/{self.model}"

    @property
    def grid(self) -> tuple[int, ...]:
        """``(h, w)`` of stored maps; empty for predictions."""
        return self.stored["values"][0] if self.method else ()

    @property
    def extras(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Name to trailing shape and type of what a method stored beside its maps."""
        return {name: kind for name, kind in self.stored.items() if name.startswith(EXTRAS)}


EXTRAS = "extras/"


def keyed(*blocks: Block) -> dict[Key, Block]:
    """Return blocks by their keys.

    Raises
    ------
    ValueError
        If two have the same.
    """
    by_key = {block.key: block for block in blocks}
    if len(by_key) < len(blocks):
        raise ValueError("a model or method came twice")
    return by_key


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


def explained_score(settings: Mapping[str, Any]) -> Score:
    """Return what maps made with `settings` explain; files that do not say it hold the raw logits of a softmax."""
    labels = settings.get("labels")
    several = settings.get("activation") == "softmax" and isinstance(labels, Sequence) and len(labels) > 1
    return "logit" if settings.get("score", "logit" if several else "") == "logit" else "log-odds"


def _deciding(settings: Any) -> Any:
    """Return what of `settings` decides numbers: a `score` is left out where files that do not say it hold the same."""
    if not isinstance(settings, Mapping):
        return settings
    rest = {key: value for key, value in settings.items() if key != "score"}
    same = settings.get("activation") == "sigmoid" or settings.get("score") == explained_score(rest)
    return rest if same else dict(settings)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the sha256 of the canonical JSON of what decides numbers in `settings`."""
    return hashlib.sha256(canonical(_deciding(settings)).encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name the settings that differ: ``["options.steps: 200 there, 800 now", ...]``; nested mappings by dotted keys."""
    flat_old, flat_new = _flatten(plain(_deciding(old))), _flatten(plain(_deciding(new)))
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


def check_key(name: str, what: str) -> None:
    """Raise UsageError unless `name` can name a model or method in a results file."""
    if name != as_key(name) or name in {"", ".", ".."}:
        shown = name if len(name) <= MOST_LETTERS else f"{name[:20]}..."
        raise UsageError(
            f"{shown!r} cannot name a {what}", f"use at most {MOST_LETTERS} letters, without blanks and slashes"
        )


def as_key(name: str) -> str:
    """Return `name` with nothing in it that a group of a results file cannot be called."""
    sound = (letter if letter.isprintable() and letter not in " /" else "-" for letter in name)
    return "".join(sound)[:MOST_LETTERS]


# ---------------------------------------------------------------------------------------------------------------------
# What the attributes of predictions say of a model


def input_size(attrs: Mapping[str, Any]) -> tuple[int, int] | None:
    """Find the model's input size ``(height, width)`` in a prediction group's attributes."""
    for place in (attrs, attrs.get("settings", {})):
        spec = place.get("input") or place.get("input_spec")
        if isinstance(spec, Mapping) and "size" in spec:
            height, width = spec["size"]
            return int(height), int(width)
    return None


def is_demo(attrs: Mapping[str, Any]) -> bool:
    """Tell whether a model's weights were trained on synthetic films only."""
    return bool(attrs.get("demo", attrs.get("settings", {}).get("demo", False)))


def thresholds(attrs: Mapping[str, Any]) -> dict[str, float]:
    """Return the thresholds that training chose, by canonical finding; none where it chose none."""
    stored = attrs.get("thresholds") or {}
    return {usual_name(name): float(value) for name, value in stored.items()} if isinstance(stored, Mapping) else {}


def threshold_rule(attrs: Mapping[str, Any]) -> str:
    """Return the rule by which it chose them, one of :data:`cxrx.metrics.thresholds.RULES`: F1 in old files."""
    return str(attrs.get("threshold_rule", "f1-max"))
