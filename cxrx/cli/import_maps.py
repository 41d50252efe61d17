"""``cxrx import-maps``: maps made elsewhere, to be compared like our own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrx.cli.flags import DEFAULT_RESULTS


def import_maps(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of maps IMAGE__FINDING.npy, or of one folder a method: METHOD/IMAGE__FINDING.npy.",
            show_default=False,
        ),
    ],
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth",
            help="Masks IMAGE__FINDING.png, boxes (path,finding,x,y,w,h) or CheXlocalize's gt_*.json.",
            show_default="what lies beside the maps",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The new results file.", envvar="CXRX_OUT", dir_okay=False)
    ] = DEFAULT_RESULTS,
    method: Annotated[
        str | None,
        typer.Option("--method", help="What the maps are called.", show_default="the folder in DIR, else imported"),
    ] = None,
    model: Annotated[str, typer.Option("--model", help="What the model behind them is called.")] = "imported",
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of the pictures: tells their size, and reports can show them."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over the results file.")] = False,
) -> None:
    """Bring maps made elsewhere into a results file; then: cxrx compare.

    A map covers the whole picture, whatever the size of both. Where boxes are the truth, --images or columns
    rows,columns in their table tell the size of the pictures, unless the maps have it.
    """
    from cxrx.importing.maps import import_folder

    report = import_folder(folder, truth, out, method=method, model=model, images=images, force=force)
    for sentence in report.problems:
        typer.secho(f"warning: {sentence}", fg="yellow", err=True)
    total, counts = sum(report.maps.values()), ", ".join(f"{name} {count}" for name, count in report.maps.items())
    seen = f"{report.pictures} pictures, {report.marked} of them with boxes or masks"
    typer.echo(f"{out}: {total} maps ({counts}) of {seen}")
