"""``cxrx datasets``: which layouts are understood, and what a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cxrx.cli.flags import Json, lists
from cxrx.cli.shared import print_json, print_table
from cxrx.options import MOST_SEED

app = typer.Typer(help="List the data set layouts, or show what a folder holds.", invoke_without_command=True)


@app.callback()
def datasets(context: typer.Context, as_json: Json = False) -> None:
    """List the layouts that predict, explain, compare and train recognise."""
    if not lists(context):
        return
    from cxrx.registry import load

    registry = load().datasets
    if as_json:
        print_json([{"name": spec.name, "full_name": name, "summary": spec.summary} for name, spec in registry.items()])
        return
    print_table(
        ("data set", "recognised by"), [(name.removeprefix("cxrx/"), spec.summary) for name, spec in registry.items()]
    )


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of films and their tables.", show_default=False)],
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MOST_SEED, help="Seed of a split that is drawn.", envvar="CXRX_SEED")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Show what a labelled folder holds: films, patients, labels, boxes, masks, splits, and what is wrong with it."""
    from cxrx.datasets import open_dataset
    from cxrx.datasets.survey import survey

    found = survey(open_dataset(folder), seed)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    patients = "patients unknown" if found["patients"] is None else f"{found['patients']} patients"
    typer.echo(f"{found['name']}: {found['films']} films, {found['labelled']} with labels or boxes, {patients}")
    typer.echo("views: " + ", ".join(f"{n} {view}" for view, n in found["views"].items()))
    typer.echo(f"boxes: {found['boxes']} on {found['boxed_films']} films; ", nl=False)
    typer.echo(f"masks: {found['masks']} on {found['masked_films']} films\n")
    columns = ("positive", "negative", "uncertain", "unknown", "prevalence", "boxes", "masks")
    print_table(
        ("finding", *columns), [(row["finding"], *(row[column] for column in columns)) for row in found["findings"]]
    )
    splits = found["splits"]
    if splits is not None:
        typer.echo(f"\nsplits: {splits['kind']}")
        for name, size in splits.items():
            if name != "kind":
                typer.echo(f"  {name:<8} {size['films']} films of {size['patients']} patients")
    for problem in found["problems"]:
        typer.secho(f"problem: {problem}", fg="yellow", err=True)
