"""What a results file records of a model, read from the attributes of its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxrx.datasets import canonical


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
    return {canonical(name): float(value) for name, value in stored.items()} if isinstance(stored, Mapping) else {}


def threshold_rule(attrs: Mapping[str, Any]) -> str:
    """Return the rule by which it chose them, one of :data:`cxrx.metrics.thresholds.RULES`: F1 in old files."""
    return str(attrs.get("threshold_rule", "f1-max"))
