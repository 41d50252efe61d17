"""Check whatever a name stands for: a plugin with all it brings, a model, or an explainer."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from cxrx.errors import UsageError
from cxrx.registry import load
from cxrx.testing.explainers import check_explainer
from cxrx.testing.models import check_model
from cxrx.testing.others import check_dataset, check_exporter, check_metric, check_reader
from cxrx.testing.outcome import Outcome, attempt, require

if TYPE_CHECKING:
    from cxrx.plugins import Plugin

HEAVY = ("torch", "timm", "captum", "pytorch_grad_cam", "h5py")
"""What no plugin may import before it is used: every command would wait for it."""

_CHECKS: dict[str, Any] = {
    "models": check_model,
    "explainers": check_explainer,
    "readers": check_reader,
    "datasets": check_dataset,
    "metrics": check_metric,
    "exporters": check_exporter,
}


def check_named(name: str) -> list[Outcome]:
    """Check the plugin, model or explainer called `name`.

    Raises
    ------
    UsageError
        Nothing has that name; the nearest are told.
    """
    registry = load()
    for plugin in registry.plugins:
        if name in (plugin.name, plugin.distribution):
            return check_plugin(plugin)
    known = [plugin.name for plugin in registry.plugins]
    for kind in ("models", "explainers"):
        specs = getattr(registry, kind)
        try:
            spec = specs.find(name)
        except UsageError:
            known += [*specs, *(spec.name for spec in specs.values())]
            continue
        return list(_CHECKS[kind](spec))
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see: cxrx plugins, cxrx models, cxrx explainers"
    raise UsageError(f"there is no plugin, model or explainer named {name!r}", hint)


def check_plugin(plugin: Plugin) -> list[Outcome]:
    """Check a plugin: it loads, cheaply, and everything it registered keeps its contract."""
    subject = f"plugin {plugin.name}"
    outcomes = [Outcome(subject, "loading", passed=not plugin.errors, message="; ".join(plugin.errors))]
    if not plugin.hooks:
        return outcomes
    outcomes.append(attempt(subject, "cheap to load", lambda: _cheap(plugin)))
    registry = load()
    for kind, check in _CHECKS.items():
        for full_name, spec in getattr(registry, kind).items():
            if full_name == f"{plugin.name}/{spec.name}":
                outcomes += check(spec)
    return outcomes


def _cheap(plugin: Plugin) -> None:
    """Load the plugin in a fresh process and look at what came with it."""
    code = f"import sys; from cxrx.registry import load; load(); print(*(n for n in {HEAVY} if n in sys.modules))"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(  # noqa: S603 - this interpreter, this code
        [sys.executable, "-c", code],
        env=os.environ | {"CXRX_PLUGINS": plugin.name, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    heavy = done.stdout.split()
    require(not heavy, f"loading it imports {', '.join(heavy)}: import them inside build, open, compute or write")
