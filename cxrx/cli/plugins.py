"""``cxrx plugins``: what is installed, and whether it keeps the contract."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cxrx.cli.flags import Json, lists
from cxrx.cli.shared import print_json, print_table
from cxrx.errors import EXIT_FAILED

app = typer.Typer(help="List plugins, or check one.", invoke_without_command=True)


@app.callback()
def plugins(context: typer.Context, as_json: Json = False) -> None:
    """List plugins: name, version, hooks, and what is wrong with the broken ones."""
    if not lists(context):
        return
    from cxrx.registry import load

    found = load().plugins
    if as_json:
        print_json([asdict(plugin) for plugin in found])
        return
    print_table(
        ("name", "version", "state", "hooks"),
        [(p.name, p.version, "broken" if p.errors else "ok", " ".join(p.hooks)) for p in found],
    )
    for plugin in found:
        for error in plugin.errors:
            typer.secho(f"{plugin.name}: {error}", fg="yellow", err=True)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A plugin, or one thing that it brings (a model, an explainer, ...).")],
    sample: Annotated[
        Path | None, typer.Option("--sample", help="A file to try its readers on, or a folder for its data sets.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the conformance kit on a plugin, or on one thing that it brings, to see whether it keeps the contract."""
    from cxrx.testing import check_named

    outcomes = check_named(name, sample)
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])
    else:
        for outcome in outcomes:
            mark = typer.style("ok  ", fg="green") if outcome.passed else typer.style("FAIL", fg="red")
            message = f": {outcome.message}" if outcome.message else ""
            typer.echo(f"{mark} {outcome.subject}: {outcome.check}{message}")
        failed = sum(not o.passed for o in outcomes)
        typer.echo(f"{len(outcomes) - failed} passed, {failed} failed")
    if not all(outcome.passed for outcome in outcomes):
        raise typer.Exit(EXIT_FAILED)
