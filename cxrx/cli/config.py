"""Defaults from ``cxrx.toml`` in the working folder: keys at the top for every command, tables for one.

::

    device = "cuda"

    [explain]
    seed = 7
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrx.errors import UsageError

FILE = "cxrx.toml"


def default_map(commands: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of each command, read from the file that ``CXRX_CONFIG`` names, else ``cxrx.toml``.

    Raises
    ------
    UsageError
        The file is no TOML, or names a command or option that does not exist.
    """
    path = Path(os.environ.get("CXRX_CONFIG", FILE))
    if not path.is_file():
        if "CXRX_CONFIG" in os.environ:
            raise UsageError(f"CXRX_CONFIG names {path.name!r}, which is no file")
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} is no TOML: {error}") from error
    common = {key: value for key, value in content.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    options = {name: _options(command) for name, command in commands.items()}
    _check(path, tables, options, "command")
    _check(path, common, {name for names in options.values() for name in names}, "option")
    defaults = {}
    for name, own in options.items():
        table = tables.get(name, {})
        _check(path, table, own, f"option of {name}")
        merged = common | table
        defaults[name] = {own[key]: value for key, value in merged.items() if key in own}
    return defaults


def _options(command: Any) -> dict[str, str]:
    """Map the long names of a command's options (``batch-size``, ``batch_size``) to its parameters."""
    names = {}
    for parameter in command.params:
        for option in parameter.opts:
            long = option.removeprefix("--")
            names[long] = names[long.replace("-", "_")] = parameter.name
    return names


def _check(path: Path, given: Mapping[str, Any], known: Any, what: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1)
            raise UsageError(f"{path.name}: there is no {what} {key!r}", f"did you mean {near[0]!r}?" if near else "")
