"""``cxrx predict``: films in, findings out."""

from __future__ import annotations

from typing import Any

from cxrx.cli import shared
from cxrx.cli.runs import (
    check_inputs,
    demo_warning,
    make_model,
    parse_batch_size,
    parse_views,
    public_argv,
    show_report,
)
from cxrx.errors import UsageError


def predict(
    inputs: shared.Inputs = None,
    model: shared.ModelName = None,
    weights: shared.Weights = None,
    labels: shared.Labels = None,
    input_size: shared.InputSize = None,
    in_chans: shared.InChans = None,
    activation: shared.ActivationOption = None,
    ten_crop: shared.TenCrop = False,
    out: shared.Out = shared.DEFAULT_RESULTS,
    truth: shared.Truth = None,
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
    """Predict findings on films; writes results.h5."""
    if not inputs:
        raise UsageError("predict needs films", "cxrx predict DIR")
    check_inputs(inputs)
    options: dict[str, Any] = {
        "argv": public_argv(),
        "truth": truth,
        "batch_size": parse_batch_size(batch_size),
        "workers": workers,
        "dtype": dtype.value,
        "views": parse_views(views),
        "polarity": polarity.value,
        "voi_index": voi_index,
        "frame": frame,
        "non_chest": non_chest,
        "force_dicom": force_dicom,
        "limit": limit,
        "resume": resume,
        "add": add,
        "retry_failed": retry_failed,
    }
    shared.start_logging()
    from cxrx.engine.api import run

    network: dict[str, Any] = {"input_size": input_size, "in_chans": in_chans, "activation": activation}
    loaded = make_model(model, weights, labels, device, **network)
    if ten_crop:
        from cxrx.models.ten_crop import ten_crop as averaged

        loaded = averaged(loaded)
    report = run(loaded, inputs, (), out, **options)
    demo_warning(report, loaded)
    show_report(report, allow_failures=allow_failures)
