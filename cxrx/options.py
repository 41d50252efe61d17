"""Options of explainers, exporters and trainings: from text or Python values into a frozen dataclass."""

from __future__ import annotations

import difflib
import inspect
import math
import operator
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cxrx.errors import UsageError

Options = TypeVar("Options")

MOST = 1_000_000
"""No whole number of an option is greater; what costs memory has bounds of its own."""
MOST_SEED = 2**63 - 1

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def parse_options(kind: type[Options], given: Mapping[str, Any], name: str = "") -> Options:
    """Return ``kind(...)`` with `given` set, each value of the type that its field declares.

    Parameters
    ----------
    kind
        A dataclass type whose fields all have defaults. One with a class attribute ``PRESETS`` (preset name to values)
        and a field ``preset`` takes a preset's values where none is given.
    given
        Values by field name: text, as on the command line (``{"steps": "200"}``), or Python's own.
    name
        What the options belong to, for the messages; the type's name where it is empty.

    Raises
    ------
    UsageError
        An option that does not exist or a value of the wrong type or range; the sentence says what fits.
    """
    name = name or kind.__name__
    hints = get_type_hints(kind)
    defaults: Any = kind()
    known = [f.name for f in fields(defaults) if f.init]
    for option in given:
        if option not in known:
            raise _unknown_option(name, option, known)
    values = {option: _convert(f"{name}: {option}", value, hints[option]) for option, value in given.items()}
    presets: Mapping[str, Mapping[str, Any]] = getattr(kind, "PRESETS", {})
    if "preset" in known:
        values = {**presets.get(values.get("preset", defaults.preset), {}), **values}
    try:
        return kind(**values)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


def options_dict(options: Any) -> dict[str, Any]:
    """Return options as plain data that JSON can hold."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}


def describe_options(kind: type) -> list[tuple[str, str, Any]]:
    """Return (name, type in words, default) of every option of the dataclass type `kind`."""
    hints, defaults = get_type_hints(kind), kind()
    return [(f.name, _in_words(hints[f.name]), getattr(defaults, f.name)) for f in fields(defaults) if f.init]


def document_options(options: type) -> dict[str, str]:
    """Return what the docstrings of an options type and of its bases say of each option (numpydoc's Attributes)."""
    texts: dict[str, str] = {}
    for kind in reversed(options.__mro__):
        _, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")
        names: list[str] = []
        for line in attributes.splitlines():
            if line and not line.startswith(" "):
                names = [name.strip() for name in line.split(",")]
                texts |= dict.fromkeys(names, "")
            elif line:
                texts |= {name: f"{texts[name]} {line.strip()}".strip() for name in names}
    return texts


def _unknown_option(method: str, name: str, known: Iterable[str]) -> UsageError:
    known = list(known)
    if not known:
        return UsageError(f"{method} has no options, so {name!r} cannot be set")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else ""
    return UsageError(f"{method} has no option {name!r}; it has {', '.join(known)}", hint)


def _convert(where: str, value: Any, kind: Any) -> Any:
    """Return `value` as `kind`: int, float, bool, str, Literal, tuple[item, ...] or one of these or None."""
    origin, arguments = get_origin(kind), get_args(kind)
    wrong = UsageError(f"{where} must be {_in_words(kind)}, not {value!r}")
    text = value.strip() if isinstance(value, str) else None
    if origin in (Union, types.UnionType) and type(None) in arguments:
        inner = next(argument for argument in arguments if argument is not type(None))
        return (
            None
            if value is None or (text is not None and text.lower() in ("none", ""))
            else _convert(where, value, inner)
        )
    if origin is Literal:
        for choice in arguments:
            if value == choice or text == str(choice):
                return choice
        raise wrong
    if origin is tuple:
        between = r"\s*,\s*" if arguments[0] is str else r"[\s,]+"  # a text may hold spaces
        items = value if text is None else filter(None, re.split(between, text))
        if not isinstance(items, Iterable):
            items = (items,)
        return tuple(_convert(where, item, arguments[0]) for item in items)
    scalar = _to_scalar(value if text is None else text, kind)
    if scalar is None:
        raise wrong
    if kind is int:
        least, most = (0, MOST_SEED) if where.endswith("seed") else (-MOST, MOST)
        if not least <= int(scalar) <= most:
            raise UsageError(f"{where} must lie between {least} and {most}, not at {scalar}")
    return scalar


def _to_scalar(value: Any, kind: Any) -> bool | int | float | str | None:
    """Return `value` as the scalar type `kind`, or None where it is none."""
    if kind is bool:
        word = str(value).lower()
        return True if word in _TRUE else False if word in _FALSE else None
    if kind is str:
        return value if isinstance(value, str) else None
    if isinstance(value, bool):
        return None
    try:
        if kind is int:
            return int(value) if isinstance(value, str) else operator.index(value)
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _in_words(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin is tuple:
        one = _in_words(arguments[0])
        return "numbers, separated by commas" if one == "a number" else f"{one}, several separated by commas"
    if origin in (Union, types.UnionType):
        return " or ".join("none" if argument is type(None) else _in_words(argument) for argument in arguments)
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(kind, str(kind))
