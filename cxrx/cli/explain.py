"""``cxrx explain``: attribution maps for predictions, old or new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrx.cli.flags import Images, ModelFlags, ReadFlags, RunFlags, Scored, Seed, is_given, refuse, with_flags
from cxrx.cli.runs import (
    check_inputs,
    demo_banner,
    demo_warning,
    engine_options,
    make_model,
    named_models,
    parse_method_options,
    show_report,
)
from cxrx.cli.shared import start_logging
from cxrx.errors import UsageError

if TYPE_CHECKING:
    from cxrx.engine.report import RunReport
    from cxrx.models.model import Model


@with_flags
def explain(
    context: typer.Context,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help="A results file, or films to predict and explain in one go.", show_default="results.h5"),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="Attribution method; repeat it (`cxrx explainers` lists them).")
    ] = None,
    targets: Annotated[
        str,
        typer.Option(
            "--targets", help="auto (predicted or true positive, and the top one), positive, truth, top, all, or names."
        ),
    ] = "auto",
    option: Annotated[
        list[str] | None, typer.Option("-O", help="Option of a method: -O steps=200, -O smoothgrad.n=50.")
    ] = None,
    as_name: Annotated[str | None, typer.Option("--as", help="Store the maps under this name.")] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Dotted name of the layer that CAM methods read (-O layer=NAME).")
    ] = None,
    score: Scored = "log-odds",
    seed: Seed = 0,
    images: Images = None,
    ten_crop: Annotated[bool, typer.Option("--ten-crop", hidden=True)] = False,
    *,
    network: ModelFlags,
    reading: ReadFlags,
    work: RunFlags,
) -> None:
    """Explain predictions; adds maps to results.h5.

    A network of your own (-m FILE.py:FUNCTION) must be named again for the maps of its results file; all else of it
    comes from the file.

    What decided the predictions of a results file (--views, --polarity, --voi-index, --frame, --dtype; without -m also
    the model's input) comes from that file: such an option is refused, and a default from cxrx.toml or CXRX_* gives
    way.
    """
    from cxrx.registry import load

    if not method:
        names = [spec.name for spec in load().explainers.values()]
        raise UsageError("explain needs a method: --method NAME", f"methods: {', '.join(names)}")
    for name in method:
        load().explainers.find(name)  # a mistyped name should not wait for torch
    if ten_crop:
        raise UsageError(
            "a mean over ten crops has no one map", "--ten-crop is for cxrx predict only: leave it out here"
        )
    check_inputs(inputs or [])
    films = _films(inputs or [])
    stored = work.out if not inputs else inputs[0]
    if films:
        refuse(context, ["images"], "finds the films of a results file again, and here films are named")
    else:
        _refuse_what_is_fixed(context, stored, work)
    options = engine_options(reading, work) | {
        "method_options": parse_method_options(option, layer=layer),
        "as_name": as_name,
        "targets": targets,
        "score": score,
        "seed": seed,
        "images": images,
    }
    start_logging()
    if films:
        reports = _explain_films(films, method, network, work.out, options)
    else:
        models = named_models(context, network, [stored])
        reports = _explain_stored(stored, method, models, network.device, options)
    for report in reports:
        show_report(report, allow_failures=work.allow_failures)


def _films(inputs: list[Path]) -> list[Path]:
    """Return the inputs if they are films, nothing if they are one results file."""
    files = [path for path in inputs if path.suffix in {".h5", ".hdf5"}]
    if files and len(inputs) > 1:
        raise UsageError("explain takes one results file, or films, not both")
    return [] if files else inputs


def _refuse_what_is_fixed(context: typer.Context, stored: Path, work: RunFlags) -> None:
    """Refuse options that an explanation of the predictions in `stored` cannot follow."""
    if not stored.exists():
        raise UsageError(
            f"there is no {stored} here", "make it first: cxrx predict DIR; or name films: cxrx explain DIR"
        )
    fixed = f"is fixed by the predictions in {stored.name}"
    elsewhere = "predict anew into another file: cxrx predict DIR -o FILE"
    refuse(context, ("views", "polarity", "voi_index", "frame", "dtype"), fixed, elsewhere)
    refuse(context, ("non_chest", "for_processing", "force_dicom"), f"let films into {stored.name}, and these are in")
    if not is_given(context, "model", "weights"):
        own = ("labels", "input_size", "in_chans", "activation")
        refuse(context, own, fixed, "or name the model as well: -m NAME or --weights FILE")
    refuse(context, ["add"], f"adds films, and {stored.name} is explained as it is", "name films: cxrx explain DIR")
    if work.out != stored:
        refuse(context, ["out"], f"is for films: the maps are added to {stored.name}", "copy the file first")


def _explain_films(
    films: list[Path], methods: list[str], network: ModelFlags, out: Path, options: dict[str, Any]
) -> list[RunReport]:
    from cxrx.engine.api import run

    model = make_model(network)
    report = run(model, films, methods, out, **options)
    demo_warning(report, model)
    return [report]


def _explain_stored(
    stored: Path, methods: list[str], models: list[Model] | None, device: str, options: dict[str, Any]
) -> list[RunReport]:
    from cxrx.engine.api import explain_results

    reports = explain_results(stored, methods, models, device=device, **options)
    if models is None and any(report.model.startswith("demo-") for report in reports):
        demo_banner()
    return reports
