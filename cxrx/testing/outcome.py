"""What a check found, and how checks are run."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from typing import Any, TypeVar

from cxrx.plugins import describe_error

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check of one thing.

    Attributes
    ----------
    subject
        What was checked: ``"explainer gradcam on tiny-cnn"``.
    check
        Name of the check.
    passed
        Whether the contract holds.
    message
        What is wrong, or a remark on a check that passed.
    """

    subject: str
    check: str
    passed: bool
    message: str = ""


class Breach(Exception):  # noqa: N818 - a finding of the kit, not an error of the program
    """The contract is broken; the message says how."""


def require(held: object, message: str) -> None:
    """Raise :class:`Breach` with `message` unless `held` is true."""
    if not held:
        raise Breach(message)


def attempt(subject: str, check: str, function: Callable[[], str | None]) -> Outcome:
    """Run one check: it passes unless it raises; what it returns is a remark."""
    try:
        remark = function()
    except Breach as breach:
        return Outcome(subject, check, passed=False, message=str(breach))
    except Exception as error:  # noqa: BLE001 - what is checked may raise anything, and that is a finding
        return Outcome(subject, check, passed=False, message=f"raised {describe_error(error)}")
    return Outcome(subject, check, passed=True, message=remark or "")


def attempt_all(
    subject: str, checks: Mapping[str, Callable[[Subject], str | None]], thing: Subject, wanted: Container[str]
) -> list[Outcome]:
    """Run those of `checks` whose names are `wanted` on `thing`.

    Parameters
    ----------
    subject
        What is checked, for the outcomes.
    checks
        Name to check.
    thing
        What a check gets.
    wanted
        Names of the checks to run.
    """
    return [attempt(subject, name, partial(check, thing)) for name, check in checks.items() if name in wanted]


_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")


def require_names(spec: Any) -> None:
    """Check the name, the aliases and the summary of any spec."""
    for name in (spec.name, *getattr(spec, "aliases", ())):
        require(
            isinstance(name, str) and _NAME.fullmatch(name),
            f"the name {name!r} must be made of a-z, 0-9 and . _ + - only: it is typed, and part of paths",
        )
    require(isinstance(spec.summary, str) and "\n" not in spec.summary, "the summary must be one line of text")


def require_options(options: Any) -> None:
    """Check the type of a spec's options: a frozen dataclass whose defaults survive being typed."""
    from cxrx.options import describe_options, parse_options

    require(isinstance(options, type) and is_dataclass(options), "options must be a dataclass type")
    require(options.__dataclass_params__.frozen, "the options dataclass must be frozen")
    bare = [f.name for f in fields(options) if f.init and f.default is MISSING and f.default_factory is MISSING]
    require(not bare, f"every option needs a default; these have none: {', '.join(bare)}")
    given = {name: value for name, _, value in describe_options(options)}
    require(parse_options(options, given) == options(), "the defaults do not survive being given as options")
