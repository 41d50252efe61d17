"""Find and load plugins, each on its own: a broken one is reported and never stops the program.

Built-ins go through the same hooks as everybody's plugins. Third-party plugins are the entry points of the group
``cxrx``; the environment variable ``CXRX_PLUGINS`` chooses among them (unset: all; empty: none; else names, separated
by commas).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from cxrx import hookspecs
from cxrx.errors import INTERRUPTS

BUILTIN = "cxrx"


@dataclass
class Plugin:
    """One plugin and how loading it went.

    Attributes
    ----------
    name
        The entry point's name; it is the owner in ``owner/name``.
    distribution, version
        Of the installed package; empty for a module without one.
    hooks
        Names of the hooks it implements.
    errors
        What is wrong with it, one sentence each; empty for a sound plugin.
    """

    name: str
    distribution: str = ""
    version: str = ""
    hooks: tuple[str, ...] = ()
    errors: list[str] = field(default_factory=list)


def _chosen(name: str, distribution: str) -> bool:
    wanted = os.environ.get("CXRX_PLUGINS")
    if wanted is None:
        return True
    return bool({name, distribution} & {part.strip() for part in wanted.split(",") if part.strip()})


def _installed() -> Iterator[tuple[Plugin, EntryPoint]]:
    """Yield the chosen entry points, each with a fresh record, in a stable order, whatever the order on disk."""
    found = [(*_distribution(point), point) for point in entry_points(group=hookspecs.GROUP)]
    for distribution, version, point in sorted(found, key=lambda f: (f[0], f[2].name)):
        if _chosen(point.name, distribution):
            yield Plugin(point.name, distribution, version), point


def _distribution(point: EntryPoint) -> tuple[str, str]:
    """Return name and version of the package that brought `point`; empty where its metadata is damaged."""
    try:
        return (point.dist.name or "", point.dist.version or "") if point.dist is not None else ("", "")
    except Exception:  # noqa: BLE001 - importlib.metadata names no type for metadata left behind by half an uninstall
        return "", ""


def describe_error(error: BaseException) -> str:
    """Return an exception as one line: its type and message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


def load_plugins() -> tuple[pluggy.PluginManager, list[Plugin]]:
    """Load the built-ins and every chosen entry point.

    Returns
    -------
    The manager with all sound plugins registered under their names, and a record of every plugin, sound or not.
    """
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    builtin = Plugin(BUILTIN, distribution=BUILTIN, version=import_module(BUILTIN).__version__)
    plugins = [builtin]
    _register(manager, builtin, import_module("cxrx.builtin"))
    for plugin, point in _installed():
        plugins.append(plugin)
        if plugin.name in [earlier.name for earlier in plugins[:-1]]:
            plugin.errors.append(f"another plugin is already called {plugin.name!r}")
            continue
        with isolated(plugin, "cannot be loaded:"):
            _register(manager, plugin, point.load())
    return manager, plugins


@contextmanager
def isolated(plugin: Plugin, what: str) -> Iterator[None]:
    """Record whatever `plugin` raises inside the block, even sys.exit() or a panic of an extension, and go on."""
    try:
        yield
    except INTERRUPTS:
        raise
    except BaseException as error:  # noqa: BLE001 - the plugin is reported, the program goes on
        plugin.errors.append(f"{what} {describe_error(error)}")


def _register(manager: pluggy.PluginManager, plugin: Plugin, module: Any) -> None:
    """Register `module`; a plugin that breaks the contract of any hook is left out as a whole."""
    try:
        manager.register(module, plugin.name)
    except (pluggy.PluginValidationError, ValueError) as error:
        plugin.errors.append(f"does not fit its hook: {' '.join(str(error).split())}")
        # pluggy leaves the hooks that it had accepted before the faulty one
        if manager.get_plugin(plugin.name) is not None:
            manager.unregister(name=plugin.name)
        return
    callers = manager.get_hookcallers(module) or []
    plugin.hooks = tuple(sorted(caller.name for caller in callers))
    known = [name for name in vars(hookspecs) if name.startswith("register_")]
    for unknown in [caller.name for caller in callers if not caller.has_spec()]:
        near = difflib.get_close_matches(unknown, known, n=1)
        plugin.errors.append(f"unknown hook {unknown!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    if not plugin.hooks:
        plugin.errors.append("implements no hook of cxrx (mark functions with @cxrx.hookimpl)")
    if plugin.errors:
        manager.unregister(name=plugin.name)


def call_hook(manager: pluggy.PluginManager, plugin: Plugin, hook: str, **arguments: Any) -> bool:
    """Call one hook of one plugin; return whether it went well, and record what did not.

    One plugin at a time, because pluggy ends a call at the first exception and would take the others with it.

    Parameters
    ----------
    manager
        Holds all sound plugins.
    plugin
        Whose hook is called; what it raises is added to its errors.
    hook
        Name of the hook.
    **arguments
        What the hook takes.
    """
    if not manager.has_plugin(plugin.name):
        return False
    others = [other for name, other in manager.list_name_plugin() if name != plugin.name and other is not None]
    before = len(plugin.errors)
    with isolated(plugin, f"{hook} raised"):
        manager.subset_hook_caller(hook, remove_plugins=others)(**arguments)
    return len(plugin.errors) == before
