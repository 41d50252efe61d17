"""Defaults from ``cxrx.toml`` in the working folder: keys at the top for every command, tables for one.

::

    device = "cuda"

    [explain]
    seed = 7

The file is found, not named: whoever made the folder may have put it there. So it sets nothing that runs code, or reads
or writes outside the folder, unless ``CXRX_CONFIG`` names it.
"""

from __future__ import annotations

import difflib
import math
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
        The file is no TOML, names a command or option that does not exist, or sets what it may not.
    """
    path = _path()
    if not path.is_file():
        if "CXRX_CONFIG" in os.environ:
            raise UsageError(f"CXRX_CONFIG names {path.name!r}, which is no file")
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
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
        for key, value in merged.items():
            _check_value(path, key, value)
        defaults[name] = {own[key]: value for key, value in merged.items() if key in own}
    return defaults


def _path() -> Path:
    return Path(os.environ.get("CXRX_CONFIG", FILE))


def named() -> str:
    """Return the name of the file that defaults come from."""
    return _path().name


def _check_value(path: Path, key: str, value: Any) -> None:
    """Refuse what no option can be, and what a file that nobody named may not say."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if (isinstance(item, float) and not math.isfinite(item)) or not isinstance(item, str | int | float):
            raise UsageError(f"{path.name}: {key} is a text, a number, true or false, or a list of such")
        if "CXRX_CONFIG" not in os.environ and isinstance(item, str) and (reaches := _reaches(key, item)):
            raise UsageError(
                f"{path.name}: {key} = {item!r} {reaches}, and a file that is only found here may not say so",
                "say it on the command line, or trust the file by naming it: CXRX_CONFIG=cxrx.toml",
            )


def _reaches(key: str, text: str) -> str:
    """Say what `text` reaches outside the data of the working folder: code, or other folders; nothing: neither."""
    if ".py" in text or (":" in text and key in {"model", "-m"}):
        return "is code"
    try:
        inside = not text.startswith("~") and Path(text).resolve().is_relative_to(Path.cwd())
    except (OSError, ValueError, RuntimeError):  # a loop of links, a null byte
        inside = False
    return "" if inside else "lies outside this folder"


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
