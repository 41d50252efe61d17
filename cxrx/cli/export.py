"""``cxrx export``: results as tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrx.cli.flags import DEFAULT_RESULTS
from cxrx.errors import UsageError


def export(
    results: Annotated[Path, typer.Argument(help="Results file.")] = DEFAULT_RESULTS,
    csv: Annotated[bool, typer.Option("--csv", help="Long table: a row for every film, model and finding.")] = False,
    chexnet_csv: Annotated[
        bool, typer.Option("--chexnet-csv", help="Wide table as the CheXNet repositories have it: Image Index, prob_*.")
    ] = False,
    png: Annotated[bool, typer.Option("--png", help="Overlays of the maps.")] = False,
    format_name: Annotated[
        str | None, typer.Option("--format", help="Any registered format, e.g. one a plugin brings.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File or folder to write.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of moved films.")] = None,
    grid: Annotated[
        bool,
        typer.Option("--grid", help="With --png: the methods side by side, one picture for each film and finding."),
    ] = False,
    method: Annotated[list[str] | None, typer.Option("--method", help="With --png: only these methods.")] = None,
    finding: Annotated[list[str] | None, typer.Option("--finding", help="With --png: only these findings.")] = None,
) -> None:
    """Write results as tables or pictures."""
    from cxrx.registry import load

    flags = (("csv", csv), ("chexnet-csv", chexnet_csv), ("png", png), (format_name, bool(format_name)))
    wanted = [name for name, given in flags if given and name]
    if len(wanted) != 1:
        raise UsageError("export takes one format: --csv, --chexnet-csv, --png or --format NAME")
    exporter = load().exporters.find(wanted[0])
    from cxrx.results.reader import open_results

    target = out or results.with_name(results.stem + exporter.suffix)
    given = {"images": images, "grid": grid or None, "methods": method, "findings": finding}
    options = {name: value for name, value in given.items() if value is not None}
    if not png and options.keys() - {"images"}:
        raise UsageError("--grid, --method and --finding go with --png")
    if images is not None and (csv or chexnet_csv):
        raise UsageError("--images is for formats that show films, and a table shows none")
    with open_results(results) as opened:
        exporter.write(opened, target, **options)
    typer.echo(str(target))
