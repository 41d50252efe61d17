"""``cxrx compare``: which explanation to trust."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrx.cli import shared
from cxrx.cli.runs import demo_banner


def compare(
    results: Annotated[list[Path] | None, typer.Argument(help="Results files.", show_default="results.h5")] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="Table of boxes or labels, by file name.", show_default="the file's")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the report.", show_default="beside the file")
    ] = None,
    metrics: Annotated[str, typer.Option("--metrics", help="auto (what the inputs allow), or names.")] = "auto",
    n_boot: Annotated[int, typer.Option("--n-boot", min=10, help="Bootstrap resamples of patients.")] = 1000,
    seed: shared.Seed = 0,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of moved films, for the pictures of the report.")
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Leave file names out of the report.")] = False,
    as_json: shared.Json = False,
) -> None:
    """Compare explanations; writes report.html.

    With boxes where there are some, with each other, and with baselines that never saw the picture.
    """
    shared.start_logging()
    from cxrx.compare.run import compare as run_comparison
    from cxrx.compare.run import write_tables
    from cxrx.report.html import write_report

    files = results or [shared.DEFAULT_RESULTS]
    comparison = run_comparison(files, truth=truth, metrics=metrics, n_boot=n_boot, seed=seed)
    folder = out or files[0].absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    written = write_tables(comparison, folder)
    written.append(write_report(comparison, folder / "report.html", images=images, share=share))
    if as_json:
        shared.print_json(comparison.as_json())
    else:
        show(comparison)
        typer.echo("written: " + ", ".join(path.name for path in written))
    if comparison.demo:
        demo_banner()


def show(comparison: object) -> None:
    """Print the tables of a comparison."""
    raise NotImplementedError
