"""``cxrx explain``: attribution maps for predictions, old or new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cxrx.cli import shared
from cxrx.cli.runs import (
    check_inputs,
    demo_banner,
    demo_warning,
    make_model,
    parse_batch_size,
    parse_method_options,
    parse_views,
    public_argv,
    show_report,
)
from cxrx.errors import UsageError


def explain(
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
    layer: shared.Layer = None,
    seed: shared.Seed = 0,
    model: shared.ModelName = None,
    weights: shared.Weights = None,
    labels: shared.Labels = None,
    input_size: shared.InputSize = None,
    in_chans: shared.InChans = None,
    activation: shared.ActivationOption = None,
    ten_crop: Annotated[bool, typer.Option("--ten-crop", hidden=True)] = False,
    out: shared.Out = shared.DEFAULT_RESULTS,
    truth: shared.Truth = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of moved films; they are recognised by their content.")
    ] = None,
    batch_size: shared.BatchSize = "auto",
    device: shared.Device = "auto",
    workers: shared.Workers = None,
    dtype: shared.DtypeOption = shared.Dtype.fp32,
    views: shared.Views = "frontal,unknown",
    polarity: shared.PolarityOption = shared.Polarity.header,
    voi_index: shared.VoiIndex = 0,
    frame: shared.Frame = None,
    non_chest: shared.NonChest = False,
    force_dicom: shared.ForceDicom = False,
    limit: shared.Limit = None,
    resume: shared.Resume = True,
    add: shared.Add = False,
    retry_failed: shared.RetryFailed = False,
    allow_failures: shared.AllowFailures = False,
) -> None:
    """Explain predictions; adds maps to results.h5."""
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
    wanted_views = parse_views(views)
    common: dict[str, Any] = {
        "argv": public_argv(),
        "method_options": parse_method_options(option) | ({} if layer is None else {"layer": layer}),
        "as_name": as_name,
        "targets": targets,
        "seed": seed,
        "images": images,
        "truth": truth,
        "batch_size": parse_batch_size(batch_size),
        "workers": workers,
        "limit": limit,
        "resume": resume,
        "retry_failed": retry_failed,
        "non_chest": non_chest,
        "force_dicom": force_dicom,
    }
    shared.start_logging()
    from cxrx.engine.api import explain_results, run

    network: dict[str, Any] = {"input_size": input_size, "in_chans": in_chans, "activation": activation}
    films = None if not inputs else _films(inputs)
    if inputs and films is None:
        out = inputs[0]
    if films is None:
        if not out.exists():
            raise UsageError(
                f"there is no {out} here", "make it first: cxrx predict DIR; or name films: cxrx explain DIR"
            )
        named = model is not None or weights is not None
        loaded = [make_model(model, weights, labels, device, **network)] if named else None
        reports = explain_results(out, method, loaded, device=device, **common)
        if loaded is None and any(report.model.startswith("demo-") for report in reports):
            demo_banner()
    else:
        chosen = make_model(model, weights, labels, device, **network)
        reports = [
            run(
                chosen, films, method, out, dtype=dtype.value, views=wanted_views,
                polarity=polarity.value, voi_index=voi_index, frame=frame, add=add, **common,
            )
        ]  # fmt: skip
        demo_warning(reports[0], chosen)
    for report in reports:
        show_report(report, allow_failures=allow_failures)


def _films(inputs: list[Path]) -> list[Path] | None:
    """Return the inputs if they are films, None if they are one results file."""
    files = [path for path in inputs if path.suffix in {".h5", ".hdf5"}]
    if not files:
        return inputs
    if len(inputs) > 1:
        raise UsageError("explain takes one results file, or films, not both")
    return None
