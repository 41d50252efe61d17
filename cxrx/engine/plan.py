"""Which films a run goes through, in which order."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from cxrx.engine.ledger import Ledger
from cxrx.engine.options import RunOptions
from cxrx.errors import UsageError
from cxrx.reading.find import Item, Rejected, find
from cxrx.registry import load as load_registry
from cxrx.results.reader import open_results
from cxrx.specs import ReaderSpec


@dataclass
class Plan:
    """The films of a run.

    Attributes
    ----------
    items
        Candidates, in the order of their relative paths.
    rejected
        What can be told to be no film without reading it.
    passed_over
        Other files by suffix (tables, texts): how many.
    expected
        ``(path, member)`` to image_id, for films of an existing results file.
    streamed
        Some items lie in compressed archives, whose members can only be read in passing.
    """

    items: list[Item]
    streamed: bool = False
    rejected: list[Rejected] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    expected: dict[tuple[str, str], str] = field(default_factory=dict)


def plan_films(inputs: Sequence[Path] | None, ledger: Ledger, out: Path, options: RunOptions) -> Plan:
    """List the films of `inputs`, or those of the results file `out` where `inputs` is None.

    Raises
    ------
    UsageError
        An input does not exist; films cannot be found again; or films are not in the existing file and ``add`` is off.
    """
    if inputs is None:
        return _films_of_results(out, options)
    for path in inputs:
        if not path.exists():
            raise UsageError(f"there is no file or folder {str(path)!r}")
    plan = Plan([])
    found = find(inputs, _foreign_readers(), force_dicom=options.read.force_dicom, passed_over=plan.passed_over)
    for entry in islice(found, options.limit):
        if isinstance(entry, Rejected):
            plan.rejected.append(entry)
        else:
            plan.streamed |= entry.data is not None
            plan.items.append(replace(entry, data=None))
    if ledger.base.status and not options.add:
        _refuse_others(plan, ledger, out)
    return plan


def _refuse_others(plan: Plan, ledger: Ledger, out: Path) -> None:
    """Refuse films that the existing file does not hold, before anything is computed."""
    others = []
    for item in plan.items:
        image_id = ledger.known_id((str(item.path), item.member, item.size, item.mtime_ns)) or file_digest(item)[:16]
        if image_id and ledger.status(image_id) is None:
            others.append(item)
    if others:
        raise UsageError(
            f"{out.name} exists and does not hold {len(others)} of these {len(plan.items)} films",
            "add them with --add, or name another file with -o",
        )


def file_digest(item: Item) -> str:
    """Return the sha256 of a plain file; empty for members of archives, pipes, devices and what cannot be read."""
    if item.member or not item.path.is_file():
        return ""
    try:
        with item.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _films_of_results(out: Path, options: RunOptions) -> Plan:
    with open_results(out) as results:
        images = results.images()
        wanted = [str(i) for i in images.loc[images["status"].isin(["ok", "flagged"]), "image_id"]]
        paths = results.paths(options.images)
    missing = [image_id for image_id in wanted if image_id not in paths]
    if missing:
        raise UsageError(
            f"{len(missing)} of the {len(wanted)} films of {out.name} cannot be found",
            "name the folder they are in with --images DIR; they are recognised by their content",
        )
    plan = Plan([])
    members: dict[Path, dict[str, Item]] = {}
    by_path: dict[Path, list[str]] = defaultdict(list)
    for image_id in wanted:
        by_path[paths[image_id][0]].append(image_id)
    for image_id in wanted[: options.limit]:
        path, member = paths[image_id]
        if path not in members:
            members[path] = {item.member: replace(item, data=None) for item in _items(path, options)}
            plan.streamed |= path.suffix not in {".tar", ".zip"} and any(members[path])
        if member not in members[path]:
            raise UsageError(f"film {image_id} cannot be found again", "name the folder it is in with --images DIR")
        plan.items.append(members[path][member])
        plan.expected[str(path), member] = image_id
    return plan


def with_data(todo: Sequence[Item], plan: Plan, inputs: Sequence[Path] | None, options: RunOptions) -> Iterator[Item]:
    """Yield `todo`; members of compressed archives are read in passing, one at a time, so that memory stays small."""
    if not plan.streamed:
        yield from todo
        return
    wanted = {(item.path, item.member) for item in todo}
    paths = inputs if inputs is not None else list(dict.fromkeys(item.path for item in todo))
    for path in paths:
        yield from (item for item in _items(path, options) if (item.path, item.member) in wanted)


def _items(path: Path, options: RunOptions) -> Iterator[Item]:
    for entry in find([path], _foreign_readers(), force_dicom=options.read.force_dicom):
        if isinstance(entry, Item):
            yield entry


def _foreign_readers() -> list[ReaderSpec]:
    """Return the readers of plugins, under their full names: a decode process finds them again by these."""
    registry = load_registry().readers
    return [replace(spec, name=name) for name, spec in registry.items() if not name.startswith("cxrx/")]
