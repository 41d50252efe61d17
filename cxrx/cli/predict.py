"""``cxrx predict``: films in, findings out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrx.cli.flags import ModelFlags, ReadFlags, RunFlags, with_flags
from cxrx.cli.runs import check_inputs, demo_warning, engine_options, make_model, show_report
from cxrx.cli.shared import start_logging
from cxrx.errors import UsageError


@with_flags
def predict(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders, films, .zip/.tar archives, or a .txt list of paths.", show_default=False),
    ] = None,
    ten_crop: Annotated[
        bool,
        typer.Option(
            "--ten-crop",
            help="Average over ten crops of each film, as CheXNet's authors do; cannot be explained.",
            rich_help_panel="Model",
        ),
    ] = False,
    *,
    network: ModelFlags,
    reading: ReadFlags,
    work: RunFlags,
) -> None:
    """Predict findings on films; writes results.h5."""
    if not inputs:
        raise UsageError("predict needs films", "cxrx predict DIR")
    check_inputs(inputs)
    options = engine_options(reading, work)
    start_logging()
    from cxrx.engine.api import run

    loaded = make_model(network)
    if ten_crop:
        from cxrx.models.ten_crop import ten_crop as averaged

        loaded = averaged(loaded)
    report = run(loaded, inputs, (), work.out, **options)
    demo_warning(report, loaded)
    show_report(report, allow_failures=work.allow_failures)
