"""Everything the plugins registered, by name.

A thing's full name is ``owner/name`` (the owner is the plugin, ``cxrx`` for built-ins). The short name works too while
nobody else took it before; a later plugin that brings the same short name is reported and stays reachable by the full
one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Generic, Protocol, TypeVar, get_type_hints

import pluggy

from cxrx.errors import PluginError, UsageError
from cxrx.plugins import BUILTIN, Plugin, call_hook, describe_error, isolated, load_plugins
from cxrx.specs import DatasetSpec, ExplainerSpec, ExporterSpec, MetricSpec, ModelSpec, ReaderSpec


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Spec = TypeVar("Spec", bound=_Named)


class Registry(Mapping[str, Spec], Generic[Spec]):
    """Specs of one kind: a mapping from full names, with a forgiving `find`."""

    def __init__(self, kind: str, kind_type: type[Spec]) -> None:
        self.kind = kind
        self._type = kind_type
        self._specs: dict[str, Spec] = {}
        self._short: dict[str, str] = {}

    def __getitem__(self, full_name: str) -> Spec:
        return self._specs[full_name]

    def __iter__(self) -> Any:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def add(self, owner: str, spec: Spec) -> list[str]:
        """Add `spec` of `owner`; return what collides, one sentence each."""
        if not isinstance(spec, self._type):
            raise PluginError(f"register() takes a {self._type.__name__}, not {type(spec).__name__}")
        _require_sound(spec)
        full = f"{owner}/{spec.name}"
        if full in self._specs:
            return [f"{self.kind} {full!r} is registered twice; the first is kept"]
        self._specs[full] = spec
        problems = []
        for short in (spec.name, *getattr(spec, "aliases", ())):
            holder = self._short.setdefault(short, full)
            if holder != full:
                problems.append(f"{self.kind} {short!r} collides with {holder!r}; use the full name {full!r}")
        return problems

    def full_name(self, name: str) -> str:
        """Return the full name that `name` (full, short or alias) stands for.

        Raises
        ------
        UsageError
            No such name; the nearest ones are named.
        """
        if name in self._specs:
            return name
        if name in self._short:
            return self._short[name]
        near = difflib.get_close_matches(name, [*self._short, *self._specs], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(self._short))}"
        raise UsageError(f"there is no {self.kind} named {name!r}", hint)

    def find(self, name: str) -> Spec:
        """Return the spec called `name` (full, short or alias); UsageError with the nearest names otherwise."""
        return self._specs[self.full_name(name)]


def _require_sound(spec: Any) -> None:
    """Refuse what would break the listings: names that are no names, needs and options of the wrong kind."""
    aliases = getattr(spec, "aliases", ())
    if not isinstance(aliases, tuple):
        raise PluginError(f"aliases of {spec.name!r} must be a tuple, not {type(aliases).__name__}")
    for name in (spec.name, *aliases):
        if not isinstance(name, str) or not name or "/" in name:
            raise PluginError(f"{name!r} is no name (text without a slash; the owner is put before it)")
    if isinstance(spec, ExplainerSpec) and not isinstance(spec.needs, frozenset):
        raise PluginError(f"needs of {spec.name!r} must be a frozenset, not {type(spec.needs).__name__}")
    if isinstance(spec, ExplainerSpec) or getattr(spec, "options", None) is not None:
        if not isinstance(spec.options, type) or not is_dataclass(spec.options):
            raise PluginError(f"options of {spec.name!r} must be a dataclass type, not {spec.options!r}")
        try:
            get_type_hints(spec.options)
            spec.options()
        except Exception as error:
            raise PluginError(f"options of {spec.name!r} cannot be used: {describe_error(error)}") from error


class Registries:
    """All plugins and what they brought.

    Attributes
    ----------
    models, explainers, readers, datasets, metrics, exporters
        The registry of each kind of spec, by full name.
    plugins
        Every plugin, sound or broken.
    """

    def __init__(self, manager: pluggy.PluginManager, plugins: list[Plugin]) -> None:
        self.manager = manager
        self.plugins = plugins
        self.models = Registry("model", ModelSpec)
        self.explainers = Registry("explainer", ExplainerSpec)
        self.readers = Registry("reader", ReaderSpec)
        self.datasets = Registry("data set", DatasetSpec)
        self.metrics = Registry("metric", MetricSpec)
        self.exporters = Registry("exporter", ExporterSpec)
        by_hook: dict[str, Registry[Any]] = {
            "register_models": self.models,
            "register_explainers": self.explainers,
            "register_readers": self.readers,
            "register_datasets": self.datasets,
            "register_metrics": self.metrics,
            "register_exporters": self.exporters,
        }
        for plugin in plugins:
            for hook, registry in by_hook.items():
                if hook in plugin.hooks:
                    self._collect(plugin, hook, registry)

    def _collect(self, plugin: Plugin, hook: str, registry: Registry[Any]) -> None:
        """Let `plugin` register; what it brought counts only if its hook went well to the end."""
        brought: list[Any] = []
        if not call_hook(self.manager, plugin, hook, register=brought.append):
            return
        for spec in brought:
            try:
                plugin.errors += registry.add(plugin.name, spec)
            except PluginError as error:
                plugin.errors.append(f"{hook}: {error}")

    def add_commands(self, app: Any) -> None:
        """Let every plugin add its commands to the Typer `app`; commands that cannot work, or are taken, stay out."""
        adding = [plugin for plugin in self.plugins if "register_commands" in plugin.hooks]
        if not adding:
            return
        from typer import Typer
        from typer.main import get_group

        taken = dict.fromkeys(get_group(app).commands, BUILTIN)
        for plugin in adding:
            own = Typer()
            if not call_hook(self.manager, plugin, "register_commands", app=own):
                continue
            names: list[str] = []
            with isolated(plugin, "register_commands:"):
                names += get_group(own).commands  # Typer looks at a command's parameters here, not before
            clashes = [f"command {name!r} is {taken[name]}'s already" for name in names if name in taken]
            plugin.errors += clashes
            if names and not clashes:
                taken |= dict.fromkeys(names, plugin.name)
                app.registered_commands += own.registered_commands
                app.registered_groups += own.registered_groups

    def plugin(self, name: str) -> Plugin:
        """Return the plugin called `name` (entry point or distribution); UsageError with the nearest otherwise."""
        for plugin in self.plugins:
            if name in (plugin.name, plugin.distribution):
                return plugin
        near = difflib.get_close_matches(name, [p.name for p in self.plugins], n=3)
        raise UsageError(
            f"there is no plugin named {name!r}", f"did you mean {near[0]}?" if near else "see: cxrx plugins"
        )

    def broken(self) -> list[Plugin]:
        """Return the plugins with something wrong."""
        return [plugin for plugin in self.plugins if plugin.errors]


@cache
def load() -> Registries:
    """Load all plugins once per process and return what they registered."""
    return Registries(*load_plugins())
