"""Check whatever a name stands for: a plugin with all it brings, or one thing that a plugin brings."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrx.errors import UsageError
from cxrx.reading.processes import module_path
from cxrx.registry import load
from cxrx.testing.explainers import check_explainer
from cxrx.testing.models import check_model
from cxrx.testing.others import check_dataset, check_exporter, check_metric, check_reader
from cxrx.testing.outcome import Breach, Outcome, attempt, require

if TYPE_CHECKING:
    from cxrx.plugins import Plugin

HEAVY = ("torch", "timm", "captum", "pytorch_grad_cam", "h5py")
"""What no plugin may import before it is used: every command would wait for it."""

_SLOW = 1.0
"""Seconds that loading a plugin may take."""

_TRIES = 5

_CHECKS: dict[str, Any] = {
    "models": check_model,
    "explainers": check_explainer,
    "readers": check_reader,
    "datasets": check_dataset,
    "metrics": check_metric,
    "exporters": check_exporter,
}


def check_named(name: str, sample: Path | None = None) -> list[Outcome]:
    """Check the plugin, or the model, explainer, reader, data set, metric or exporter, called `name`.

    Parameters
    ----------
    name
        Full, short, or an alias.
    sample
        A file for readers, or a folder for data sets, to be tried on.

    Raises
    ------
    UsageError
        Nothing has that name (the nearest are listed), or nothing of that name takes the sample.
    """
    registry = load()
    for plugin in registry.plugins:
        if name in (plugin.name, plugin.distribution):
            return check_plugin(plugin, sample)
    known = [plugin.name for plugin in registry.plugins]
    for kind in _CHECKS:
        specs = getattr(registry, kind)
        try:
            spec = specs.find(name)
        except UsageError:
            known += [*specs, *(spec.name for spec in specs.values())]
            continue
        return _check_all([(kind, spec)], name, sample)
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see: cxrx plugins, cxrx models, cxrx explainers"
    raise UsageError(f"there is nothing named {name!r} to check", hint)


def check_plugin(plugin: Plugin, sample: Path | None = None) -> list[Outcome]:
    """Check a plugin: it loads, cheaply, and everything it registered keeps its contract.

    `sample` is a file for its readers or a folder for its data sets, as in :func:`check_named`.
    """
    subject = f"plugin {plugin.name}"
    outcomes = [Outcome(subject, "loading", passed=not plugin.errors, message="; ".join(plugin.errors))]
    if not plugin.hooks:
        return outcomes
    outcomes.append(attempt(subject, "cheap to load", lambda: _cheap(plugin)))
    registry = load()
    own = [
        (kind, spec)
        for kind in _CHECKS
        for full_name, spec in getattr(registry, kind).items()
        if full_name == f"{plugin.name}/{spec.name}"
    ]
    return outcomes + _check_all(own, plugin.name, sample)


def _check_all(specs: Sequence[tuple[str, Any]], name: str, sample: Path | None) -> list[Outcome]:
    """Check specs, each with its kind; the sample goes to those of its kind that know it, to all if none does."""
    if sample is None:
        return [outcome for kind, spec in specs for outcome in _CHECKS[kind](spec)]
    if not sample.exists():
        raise UsageError(f"there is no file or folder {str(sample)!r}")
    wanted, what = (
        ("datasets", "data set to try a folder on") if sample.is_dir() else ("readers", "reader to try a file on")
    )
    takers = [spec for kind, spec in specs if kind == wanted]
    if not takers:
        raise UsageError(f"{name} brings no {what}", "leave --sample out")
    if len(takers) > 1:
        takers = [spec for spec in takers if _knows(spec, sample)] or takers
    return [
        outcome
        for kind, spec in specs
        for outcome in (_CHECKS[kind](spec, sample) if spec in takers else _CHECKS[kind](spec))
    ]


def _knows(spec: Any, sample: Path) -> bool:
    """Whether a reader or data set takes the sample; one that breaks on it is tried with it, which reports that."""
    try:
        if sample.is_dir():
            return bool(spec.sniff(sample))
        with sample.open("rb") as file:
            return bool(spec.sniff(sample, file.read(512)))
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        return True


_LOAD = f"""
import os, sys, time
from cxrx.plugins import load_plugins
from cxrx.registry import Registries
os.environ["CXRX_PLUGINS"] = ""
Registries(*load_plugins())  # what cxrx itself needs is not the plugin's cost

def waited():
    try:
        with open("/proc/self/schedstat") as file:  # seconds in the queue for a processor, where the system counts them
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0

os.environ["CXRX_PLUGINS"] = sys.argv[1]
start, queued = time.perf_counter(), waited()
Registries(*load_plugins())
seconds = time.perf_counter() - start - (waited() - queued)
print(seconds, *(name for name in {HEAVY} if name in sys.modules))
"""


def _cheap(plugin: Plugin) -> str:
    """Load the plugin in fresh processes; look at what came with it and how long it took.

    A busy machine makes a load seem longer, never shorter: the shortest of several counts.
    """
    path = os.pathsep.join(module_path())
    seconds = float("inf")
    for _ in range(_TRIES):
        done = subprocess.run(  # noqa: S603 - this interpreter, this code
            [sys.executable, "-P", "-c", _LOAD, plugin.name],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        took, *heavy = done.stdout.splitlines()[-1].split()
        require(not heavy, f"loading it imports {', '.join(heavy)}: import them inside build, open, compute or write")
        seconds = min(seconds, float(took))
        if seconds <= _SLOW:
            return f"{seconds:.2f} s"
    raise Breach(
        f"loading it takes {seconds:.1f} s, which every command waits for: import what is heavy where it is used"
    )
