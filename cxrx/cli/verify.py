"""``cxrx verify``: whether a results file is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrx.cli.flags import DEFAULT_RESULTS, Json
from cxrx.cli.shared import print_json
from cxrx.errors import EXIT_FAILED, UsageError


def verify(
    results: Annotated[Path, typer.Argument(help="Results file.")] = DEFAULT_RESULTS,
    as_json: Json = False,
) -> None:
    """Check that a results file is whole."""
    if not results.exists():
        raise UsageError(f"there is no file {results}")
    from cxrx.results.verify import not_covered
    from cxrx.results.verify import verify as check

    problems = check(results)
    open_to_change = [] if problems else not_covered(results)
    if as_json:
        print_json({"file": results.name, "problems": problems, "not_covered": open_to_change})
    else:
        for problem in problems:
            typer.echo(problem)
        typer.echo(f"{results.name}: " + (f"{len(problems)} problems" if problems else "whole"))
        if open_to_change:
            groups = ", ".join(sorted({f"/{name.split('/')[1]}" for name in open_to_change}))
            typer.echo(
                f"as far as an old file tells: no checksum covers its attributes, nor {len(open_to_change)} data sets "
                f"(of {groups}); what cxrx adds to or merges gets one"
            )
    if problems:
        raise typer.Exit(EXIT_FAILED)
