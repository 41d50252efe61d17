"""Turn parts into results.h5: one new file, put together from the old one and the parts, renamed over the old one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrx.files import atomic
from cxrx.reading.record import Link
from cxrx.results.assemble import padding, write_results
from cxrx.results.contents import Contents, load_results
from cxrx.results.failures import write_failures
from cxrx.results.parts import PartStore
from cxrx.results.plan import Plan, make_plan
from cxrx.results.private import private_path, read_private, update, write_private
from cxrx.results.ragged import Imported
from cxrx.results.records import Key
from cxrx.results.seal import write_seal
from cxrx.results.sink import Sink
from cxrx.results.truth import TruthTable

_SLACK = 1 << 20


def pack(
    store: PartStore,
    out: Path,
    *,
    truth: TruthTable | None,
    run: Mapping[str, Any],
    model_sources: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Put the parts of `store` and what is already in `out` together, into `out`; then remove the parts.

    Predicting with another model, explaining with another method and adding films are all this. The order of steps
    (link table, results, failures.csv, removal of the parts) makes it safe to stop anywhere and do it again. Where
    the parts bring nothing new, `out` is not touched.

    Parameters
    ----------
    store
        The parts.
    out
        The results file.
    truth
        Labels, boxes and masks to add; None leaves what is there.
    run
        Attributes of the run, for ``/runs``: JSON-able and without patient data.
    model_sources
        Model slug to ``{"name": ..., "weights": ...}``: what it was asked for by and the path of its weights, for the
        link table only.

    Raises
    ------
    UsageError
        If a model or method is there already with other settings.
    DiskFullError
        If there is no room; `out` and the parts are as they were.
    ResultsError
        If `out` or a part is damaged.
    """
    base = load_results(out) if out.exists() else None
    sources = ([base] if base else []) + store.contents()
    plan = make_plan(sources, truth, run)
    write_all(out, plan, sources, model_sources or {}, base=base)
    store.remove()


def write_all(
    out: Path,
    plan: Plan,
    sources: Sequence[Contents] = (),
    model_sources: Mapping[str, Mapping[str, str]] | None = None,
    *,
    base: Contents | None = None,
    imported: Mapping[Key, Imported] | None = None,
) -> None:
    """Write `plan` and what stands beside it: the link table, the results, the list of failures, in this order.

    Parameters
    ----------
    out, plan, sources, imported
        As for :func:`write_plan`.
    model_sources
        As for :func:`pack`.
    base
        What `out` holds already, which is left as it is if `plan` adds nothing.
    """
    write_links(out, plan, model_sources or {})
    if base is None or plan.adds_to(base):
        write_plan(out, plan, sources, imported)
    write_failures(out, plan.failures, plan.images)


def write_links(out: Path, plan: Plan, model_sources: Mapping[str, Mapping[str, str]]) -> None:
    """Bring the link table of `out` up to date; a table that says so already is not written again."""
    path = private_path(out)
    old = read_private(path)
    models = [
        Link("model", slug, relative=source.get("name", ""), path=source.get("weights", ""))
        for slug, source in sorted(model_sources.items())
    ]
    rows = update(old, [*plan.links, *models])
    if rows != old or not path.exists():
        write_private(path, rows)


def write_plan(
    out: Path, plan: Plan, sources: Sequence[Contents], imported: Mapping[Key, Imported] | None = None
) -> None:
    """Write `plan`, which takes from `sources`, and maps from elsewhere to `out`, all or nothing.

    Parameters
    ----------
    out
        The file to write.
    plan
        What it holds.
    sources
        Parts and results files that the arrays come from.
    imported
        Maps from elsewhere, by model and method.

    Raises
    ------
    DiskFullError, ResultsError
        `out` is then as it was.
    """
    imported = imported or {}
    size = sum(source.path.stat().st_size for source in sources) + padding(plan) + _SLACK
    size += sum(4 * maps.size for maps in imported.values())
    atomic.require_space(Path(os.path.realpath(out)).parent, size, out.name)
    with atomic.replacing(out) as fd:
        sink = Sink(fd)
        write_results(plan, sink, imported)
        sink.finish()
        write_seal(fd)
