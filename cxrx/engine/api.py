"""Runs by name: what the command line and ``cxrx.run`` call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from cxrx.engine.options import MethodRequest, RunOptions
from cxrx.engine.report import RunReport
from cxrx.engine.run import execute
from cxrx.engine.targets import check_targets
from cxrx.errors import UsageError
from cxrx.explainers.fit import check_fit
from cxrx.explainers.targets import check_score
from cxrx.models.architectures import DEFAULT_MODEL, is_code
from cxrx.models.checkpoints import input_from
from cxrx.models.load import load_model
from cxrx.models.model import Model
from cxrx.models.ten_crop import cannot_explain, check_explainable
from cxrx.options import parse_options
from cxrx.reading.options import ReadOptions
from cxrx.registry import load as load_registry
from cxrx.results.reader import Results, open_results
from cxrx.results.records import as_key, check_key
from cxrx.specs import Score


def run(
    model: Model | str,
    inputs: str | Path | Sequence[str | Path] | None,
    methods: Sequence[str] = (),
    out: str | Path = "results.h5",
    *,
    method_options: Mapping[str, Any] | None = None,
    as_name: str | None = None,
    device: str = "auto",
    argv: Sequence[str] = (),
    **options: Any,
) -> RunReport:
    """Predict films, and explain the predictions, into one results file.

    Parameters
    ----------
    model
        A :class:`Model`, or the name of one.
    inputs
        Folders, films, archives or lists; None: the films that `out` holds.
    methods
        Names of attribution methods; none: predict only.
    out
        Results file; an existing one is added to.
    method_options
        ``{"steps": 200}`` for all methods, ``{"smoothgrad.n": 50}`` for one.
    as_name
        Store the maps of the one method under this name.
    device
        Where a model given by its name computes.
    argv
        The command, without paths, for the file's record of its runs.
    **options
        Fields of :class:`cxrx.engine.options.RunOptions` and :class:`cxrx.reading.options.ReadOptions`.

    Returns
    -------
    What was done: counts, failures, the file. The results themselves: ``cxrx.open_results(out)``.

    Raises
    ------
    CxrxError
        With a sentence that says what fits; finished work is kept.

    Examples
    --------
    >>> from pathlib import Path
    >>> import cxrx
    >>> from cxrx.phantom import write_folder
    >>> from torch import nn
    >>> write_folder(Path("phantoms"), 2, seed=11, size=(96, 96))  # two synthetic films
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> model = cxrx.wrap_model(network, ["Effusion", "Nodule"], input_size=32)
    >>> report = cxrx.run(model, "phantoms/films", methods=["gradcam"], targets="all", out="results.h5")
    >>> report.counts["ok"], report.failed, report.methods
    (2, 0, ('gradcam',))
    """
    loaded = load_model(model, device=device) if isinstance(model, str) else model
    run_options = make_options(options)
    requests = request_methods(methods, method_options or {}, loaded, as_name, check_score(run_options.score))
    run_options = replace(run_options, targets=check_targets(run_options.targets, loaded.labels))
    return execute(loaded, requests, _paths(inputs), Path(out), run_options, argv=argv)


def explain_results(
    out: str | Path,
    methods: Sequence[str],
    models: Sequence[Model] | None = None,
    *,
    device: str = "auto",
    **options: Any,
) -> list[RunReport]:
    """Explain every model of a results file.

    Parameters
    ----------
    out
        The results file.
    methods
        Names of attribution methods.
    models
        Explain these only.
    device
        Where models that are loaded here compute.
    **options
        As for :func:`run`.

    Raises
    ------
    UsageError
        The file holds no predictions, or one of its models cannot be loaded again.
    """
    path = Path(out)
    with open_results(path) as results:
        described = {slug: results.attrs(slug) for slug in results.models()}
        settings = {slug: attrs["settings"] for slug, attrs in described.items() if attrs}  # imported maps have none
        loaded = models if models is not None else [reload_model(results, slug, device) for slug in settings]
    if not loaded:
        raise UsageError(f"{path.name} holds no predictions", "make some: cxrx predict DIR")
    reports = []
    for model in loaded:
        if model.slug not in settings:
            raise UsageError(f"{path.name} holds no predictions of {model.slug}", f"it has: {', '.join(settings)}")
        # what the prediction saw, the explanation must see
        same: dict[str, Any] = {key: settings[model.slug][key] for key in ("polarity", "voi_index", "frame", "dtype")}
        same["views"] = tuple(settings[model.slug]["views"])
        same |= dict.fromkeys(("non_chest", "for_processing", "force_dicom"), True)  # it has let them in already
        reports.append(run(model, None, methods, path, **(options | same)))
    return reports


def reload_model(results: Results, slug: str, device: str = "auto", code: str = "") -> Model:
    """Load the model behind the predictions `slug` again, as the file and its private link table record it.

    Parameters
    ----------
    results, slug, device
        The open file, which of its models, and where that computes.
    code
        The ``FILE.py:FUNCTION`` that the user names for it. One that only the file names is never run.

    Raises
    ------
    UsageError
        It cannot be found, is code that nobody named, or its weights have changed.
    """
    attrs = results.attrs(slug)
    settings, source = attrs["settings"], results.model_sources().get(slug, {})
    seen = input_from(settings["input"])
    if seen.crops > 1:
        raise cannot_explain(slug)
    name = code or source.get("name") or attrs["model_name"]
    if is_code(name) and not code:
        raise UsageError(
            f"{slug} is the network of {Path(name).name!r}, and code that only a file names is not run",
            "name it yourself, if you trust it: -m FILE.py:FUNCTION",
        )
    try:
        # everything that decides the numbers comes from the file: a later default must not change them
        model = load_model(
            name,
            weights=source.get("weights") or None,
            labels=settings["labels"],
            device=device,
            input=seen,
            activation=settings["activation"],
        )
    except UsageError as error:
        raise UsageError(
            f"the model {slug} cannot be loaded again: {error}", "name it with -m and --weights"
        ) from error
    if model.slug != slug:
        raise UsageError(
            f"the weights of {slug} cannot be found: loading it again gives {model.slug}",
            "name them with -m and --weights",
        )
    return model


def reload_own(results: Results, code: str, device: str = "auto") -> list[Model]:
    """Load the models that the user's ``FILE.py:FUNCTION`` is behind; all else of them is as the file tells."""
    name = as_key(Path(code.rpartition(":")[0]).stem)
    slugs = [slug for slug in results.models() if slug.rpartition("@")[0] == name and results.attrs(slug)]
    return [reload_model(results, slug, device, code) for slug in slugs]


def request_methods(
    names: Sequence[str],
    given: Mapping[str, Any],
    model: Model,
    as_name: str | None = None,
    score: Score = "log-odds",
) -> list[MethodRequest]:
    """Turn method names and ``-O`` options into requests.

    Parameters
    ----------
    names
        Of methods, full or short.
    given
        ``{"steps": 200}`` for all methods, ``{"smoothgrad.n": 50}`` for one.
    model
        The model that they must fit.
    as_name
        Store the maps of the one method under this name.
    score
        What is explained. Maps of raw logits are stored as ``gradcam-logit``, beside those of log-odds.

    Raises
    ------
    UsageError
        Unknown method or option, or a method that the model cannot support.
    """
    if names:
        check_explainable(model)
    registry = load_registry().explainers
    specs = [(registry.full_name(name), registry.find(name)) for name in dict.fromkeys(names)]
    short = {spec.name for _, spec in specs}
    common = {key: value for key, value in given.items() if "." not in key}
    unknown = sorted({key.split(".", 1)[0] for key in given if "." in key} - short)
    if unknown:
        raise UsageError(f"-O names {', '.join(unknown)}, which is none of the methods asked for")
    if as_name is not None:
        check_key(as_name, "method")
        if len(specs) != 1:
            raise UsageError("--as names the maps of one method, so give exactly one --method")
    requests = []
    for full, spec in specs:
        own = {key.split(".", 1)[1]: value for key, value in given.items() if key.startswith(f"{spec.name}.")}
        shared = {k: v for k, v in common.items() if len(specs) == 1 or k in {f.name for f in fields(spec.options)}}
        short_name = spec.name if registry.full_name(spec.name) == full else full.replace("/", "-")
        key = as_name or f"{short_name}{'-logit' if score == 'logit' else ''}"
        parsed: Any = parse_options(spec.options, shared | own, spec.name)
        check_fit(model, spec, parsed)
        requests.append(MethodRequest(key, spec, parsed))
    lost = [k for k in common if len(specs) > 1 and not any(k in {f.name for f in fields(s.options)} for _, s in specs)]
    if lost:
        raise UsageError(f"none of the methods has an option {', '.join(lost)}")
    return requests


def make_options(options: Mapping[str, Any]) -> RunOptions:
    """Split keyword options into those of the run and those of reading.

    Raises
    ------
    UsageError
        An option that neither knows.
    """
    read_names = {f.name for f in fields(ReadOptions)}
    run_names = {f.name for f in fields(RunOptions)} - {"read"}
    known = run_names | read_names
    unknown = sorted(options.keys() - known)
    if unknown:
        raise UsageError(f"there is no option {', '.join(unknown)}", f"known: {', '.join(sorted(known))}")
    read = ReadOptions(**{k: v for k, v in options.items() if k in read_names})
    return RunOptions(**{k: v for k, v in options.items() if k in run_names}, read=read)


def _paths(inputs: str | Path | Sequence[str | Path] | None) -> list[Path] | None:
    if inputs is None:
        return None
    return [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]


__all__ = ["DEFAULT_MODEL", "explain_results", "reload_model", "reload_own", "request_methods", "run"]
