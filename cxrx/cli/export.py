"""``cxrx export``: results as tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cxrx.cli.flags import DEFAULT_RESULTS, is_given
from cxrx.cli.runs import parse_method_options
from cxrx.errors import UsageError


def export(
    context: typer.Context,
    results: Annotated[Path, typer.Argument(help="Results file.")] = DEFAULT_RESULTS,
    csv: Annotated[bool, typer.Option("--csv", help="Long table: a row for every film, model and finding.")] = False,
    chexnet_csv: Annotated[
        bool, typer.Option("--chexnet-csv", help="Wide table as the CheXNet repositories have it: Image Index, prob_*.")
    ] = False,
    png: Annotated[bool, typer.Option("--png", help="Overlays of the maps.")] = False,
    format_name: Annotated[
        str | None, typer.Option("--format", help="Any registered format, e.g. one a plugin brings.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("-O", "--option", help="Option of the format, name=value; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File or folder to write.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of moved films.")] = None,
    share: Annotated[bool, typer.Option("--share", help="Leave file names out.")] = False,
    grid: Annotated[
        bool, typer.Option("--grid", help="The methods side by side, one picture for each film and finding (-O grid).")
    ] = False,
    method: Annotated[list[str] | None, typer.Option("--method", help="Only these methods (-O methods=a,b).")] = None,
    finding: Annotated[
        list[str] | None, typer.Option("--finding", help="Only these findings (-O findings=a,b).")
    ] = None,
) -> None:
    """Write results as tables or pictures.

    Options of a format are set by -O, as those of png: model, methods, findings, grid, longest.
    """
    from cxrx.registry import load

    formats = (("csv", csv), ("chexnet-csv", chexnet_csv), ("png", png), (format_name, bool(format_name)))
    wanted = [name for name, given in formats if given and name]
    if len(wanted) != 1:
        raise UsageError("export takes one format", "name it: --csv, --chexnet-csv, --png or --format NAME")
    exporter = load().exporters.find(wanted[0])
    from cxrx.export.run import export as write
    from cxrx.export.run import option_names, takes
    from cxrx.results.reader import open_results

    options: dict[str, Any] = dict(parse_method_options(option))
    for flag, name, value in (("grid", "grid", grid), ("method", "methods", method), ("finding", "findings", finding)):
        if value and name in options:
            raise UsageError(f"{name} is given twice, as a flag and by -O")
        if value and (is_given(context, flag) or name in option_names(exporter)):
            options[name] = value
    if not is_given(context, "images") and not takes(exporter, "images"):
        images = None
    target = out or results.with_name(results.stem + exporter.suffix)
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", "make it first, or name another place with -o")
    with open_results(results) as opened:
        write(exporter, opened, target, options, images=images, share=share)
    typer.echo(str(target))
