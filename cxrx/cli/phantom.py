"""``cxrx phantom``: synthetic films with known truth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cxrx.errors import UsageError
from cxrx.options import MOST_SEED


def phantom(
    out: Annotated[Path, typer.Argument(help="New folder for films, truth.csv, boxes.csv and masks/.")],
    n: Annotated[int, typer.Option("--n", min=1, max=1_000_000, help="Number of films.")] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="Same seed, same films.")] = 0,
    shortcut: Annotated[
        str | None,
        typer.Option("--shortcut", help="Plant a marker that goes along with this finding, to catch a cheating model."),
    ] = None,
) -> None:
    """Make synthetic films with known truth.

    Frontal chest films as DICOM, with labels, boxes and pixel masks of the planted findings.
    """
    from tqdm import tqdm

    from cxrx.phantom import FINDINGS, write_folder

    if shortcut is not None and shortcut not in FINDINGS:
        raise UsageError(f"there is no finding {shortcut!r}", f"phantoms have: {', '.join(FINDINGS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not empty", "name a new folder")
    with tqdm(total=n, desc="phantom", unit="film", file=sys.stderr, disable=None) as bar:
        write_folder(out, n, seed, shortcut=shortcut, progress=bar.update)
    typer.echo(f"{out}: {n} films, truth.csv, boxes.csv, masks/")
