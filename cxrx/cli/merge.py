"""``cxrx merge``: several results files into one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrx.errors import UsageError


def merge(
    results: Annotated[list[Path], typer.Argument(help="Results files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new file.", dir_okay=False)],
) -> None:
    """Merge results files into one.

    They may hold other films, models or methods; what contradicts itself is refused by name.
    """
    if len(results) < 2:
        raise UsageError("merge takes at least two results files")
    from cxrx.results.merge import merge as merge_files
    from cxrx.results.reader import open_results

    merge_files(results, out)
    with open_results(out) as merged:
        counts = ", ".join(f"{n} {word}" for word, n in merged.counts().items())
        typer.echo(f"{out}: {counts or 'no films'}; {len(merged.models())} models")
