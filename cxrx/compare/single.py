"""Metrics that are called map by map, or batch by batch: those of plugins, whose faults must not end a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cxrx.compare.notes import Notes
from cxrx.errors import PluginError
from cxrx.metrics.geometry import Float
from cxrx.plugins import describe_error
from cxrx.specs import Measure, MetricSpec


class SingleMetrics:
    """The chosen metrics of one kind, by full name.

    Parameters
    ----------
    specs
        The metrics.
    taken
        Keys that none of them may take, each with whose it is.
    notes
        Takes the warnings.

    Attributes
    ----------
    measures
        Key to what its number is, of all keys that were returned so far.
    """

    def __init__(self, specs: Mapping[str, MetricSpec], taken: Mapping[str, str], notes: Notes) -> None:
        self._specs, self._notes = specs, notes
        self._owners = dict(taken)
        self._faults: dict[tuple[str, str, type], str] = {}
        self.measures: dict[str, Measure] = {}

    def scores(self, what: str, *inputs: Any, shape: tuple[int, ...] = ()) -> dict[str, Float]:
        """Return what all metrics say of `inputs`, each number of `shape`; a metric that fails is left out and warned.

        `what` names the inputs in the warning: ``"maps"``. A key belongs to the metric that had it first.
        """
        found: dict[str, Float] = {}
        for name, spec in self._specs.items():
            try:
                numbers = {str(key): _checked(key, value, shape) for key, value in spec.compute(*inputs).items()}
            except Exception as error:  # noqa: BLE001  a plugin's fault must not end the comparison; it is warned of
                fault = str(error) if isinstance(error, PluginError) else describe_error(error)
                fault = self._faults.setdefault((name, what, type(error)), fault)  # one warning, whatever it says next
                self._notes.count(f"the metric {name} failed on {{n}} {what} ({fault})")
                continue
            for key, value in numbers.items():
                owner = self._owners.setdefault(key, name)
                if owner == name:
                    found[key] = value
                    self.measures.setdefault(key, spec.measure(key))
                else:
                    self._notes.count(f"{key} of the metric {name} was left out: {owner} has a number of that name")
        return found


def _checked(key: str, value: Any, shape: tuple[int, ...]) -> Float:
    numbers: Float = np.asarray(value, np.float64)
    if numbers.shape != shape:
        raise PluginError(f"it returned {key} of shape {numbers.shape}, not {shape}")
    return numbers
