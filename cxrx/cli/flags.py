"""Options that several commands share, how a command takes a group of them, and how one is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from cxrx.engine.options import Dtype
from cxrx.errors import UsageError
from cxrx.options import MOST_SEED
from cxrx.reading.options import MOST_WORKERS, Polarity
from cxrx.specs import Activation, Channels, Score

DEFAULT_RESULTS = Path("results.h5")
MOST = 2**31 - 1
"""No count is greater: beyond, nothing ends, and libraries break instead of refusing."""
MOST_PIXELS = 4096

_reading = partial(typer.Option, rich_help_panel="Reading")
_running = partial(typer.Option, rich_help_panel="Running")
_model = partial(typer.Option, rich_help_panel="Model")

Weights = Annotated[
    Path | None,
    _model("--weights", help="Checkpoint; recognised, loaded strictly, no code in it is run (cxrx weights show FILE)."),
]
Labels = Annotated[str | None, _model("--labels", help="Findings in the order of the outputs: a,b,c.")]
InputSize = Annotated[
    int | None, _model("--input-size", min=8, max=MOST_PIXELS, help="Side of the network's input, pixels.")
]
InChans = Annotated[Channels | None, _model("--in-chans", help="Input channels; 3: the grey picture repeated.")]
Device = Annotated[str, _running("--device", help="auto, cpu, cuda, cuda:1, mps.", envvar="CXRX_DEVICE")]
Workers = Annotated[
    int | None,
    _running(
        "--workers",
        min=0,
        max=MOST_WORKERS,
        help="Decode processes; 0: decode in this one.",
        show_default="one per core",
        envvar="CXRX_WORKERS",
    ),
]
Resume = Annotated[bool, _running("--resume/--no-resume", help="Go on with an interrupted run, or start anew.")]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder of moved films; they are recognised by their content.")
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=MOST_SEED, help="Seed of stochastic methods.", envvar="CXRX_SEED")
]
Scored = Annotated[
    Score,
    typer.Option(
        "--score",
        help="What maps explain: the log-odds of a finding, or its raw logit, stored as METHOD-logit.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class ModelFlags:
    """The classifier, and where it runs."""

    model: Annotated[
        str | None,
        _model(
            "--model",
            "-m",
            help="A name from `cxrx models`, timm/NAME, a folder of `cxrx train`, or ./net.py:build (runs your code).",
            envvar="CXRX_MODEL",
            show_default="as --weights say, else the demo model; of a results file its own",
        ),
    ] = None
    weights: Weights = None
    labels: Labels = None
    input_size: InputSize = None
    in_chans: InChans = None
    activation: Annotated[
        Activation | None,
        _model(
            "--activation",
            help="sigmoid (findings side by side) or softmax (classes that exclude each other).",
            show_default="as the model says",
        ),
    ] = None
    device: Device = "auto"

    @property
    def named(self) -> bool:
        """Whether a model is named at all."""
        return self.model is not None or self.weights is not None


@dataclass(frozen=True)
class ReadFlags:
    """The fields of :class:`cxrx.reading.options.ReadOptions` that a user may set."""

    views: Annotated[
        str, _reading("--views", help="Of frontal, lateral, oblique, unknown; or all.", envvar="CXRX_VIEWS")
    ] = "frontal,unknown"
    polarity: Annotated[
        Polarity,
        _reading("--polarity", help="header: trust the file, warn of negatives; report: flag them; auto: turn them."),
    ] = "header"
    voi_index: Annotated[int, _reading("--voi-index", min=0, max=MOST, help="Which of several windows or LUTs.")] = 0
    frame: Annotated[
        int | None, _reading("--frame", min=0, max=MOST, help="Take this frame of multi-frame objects.")
    ] = None
    non_chest: Annotated[bool, _reading("--non-chest", help="Take films of other body parts too.")] = False
    for_processing: Annotated[
        bool, _reading("--for-processing", help="Take raw detector data (DX FOR PROCESSING) too.")
    ] = False
    force_dicom: Annotated[bool, _reading("--force-dicom", help="Try DICOM files without a preamble.")] = False


@dataclass(frozen=True)
class RunFlags:
    """The fields of :class:`cxrx.engine.options.RunOptions` that predict and explain share, and how a run ends."""

    out: Annotated[Path, _running("--out", "-o", help="Results file.", envvar="CXRX_OUT", dir_okay=False)] = (
        DEFAULT_RESULTS
    )
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth", help="Table or folder of labels and boxes.", show_default="looked for beside the films"
        ),
    ] = None
    batch_size: Annotated[str, _running("--batch-size", help="Films a forward, or auto.", envvar="CXRX_BATCH_SIZE")] = (
        "auto"
    )
    workers: Workers = None
    dtype: Annotated[Dtype, _running("--dtype", help="bf16 is faster and not the same; predictions only.")] = "fp32"
    limit: Annotated[int | None, _running("--limit", min=1, max=MOST, help="Only the first films.")] = None
    resume: Resume = True
    add: Annotated[bool, _running("--add", help="Add films that the results file does not hold.")] = False
    retry_failed: Annotated[bool, _running("--retry-failed", help="Try failed films again.")] = False
    allow_failures: Annotated[bool, _running("--allow-failures", help="Exit 0 even if some films failed.")] = False


# ---------------------------------------------------------------------------------------------------------------------


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` an option for every field of its dataclass parameters, and call it with those dataclasses made."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            own = get_type_hints(groups[name], include_extras=True)
            fresh = inspect.signature(groups[name]).parameters.values()
            parameters += [field.replace(annotation=own[field.name]) for field in fresh]
        else:
            parameters.append(parameter.replace(annotation=hints[name]))

    @wraps(command)
    def called(**given: Any) -> None:
        made = {
            name: kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }  # fmt: skip
        command(**given, **made)

    keyword = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.Signature([parameter.replace(kind=keyword) for parameter in parameters])
    vars(called)["__signature__"] = signature  # what typer reads
    return called


def is_given(context: typer.Context, *names: str | None) -> bool:
    """Whether the command line itself gives one of the parameters `names`, and not cxrx.toml or ``CXRX_*``."""
    sources = [context.get_parameter_source(name) for name in names if name]
    return any(source is not None and source.name == "COMMANDLINE" for source in sources)


def refuse(context: typer.Context, names: Iterable[str], why: str, hint: str = "") -> None:
    """Refuse those of the parameters `names` that the command line itself gives.

    Defaults from cxrx.toml and ``CXRX_*`` are meant for many commands, and pass.

    Raises
    ------
    UsageError
        ``--FLAG WHY``, for the first of them.
    """
    for parameter in context.command.params:
        if parameter.name in names and is_given(context, parameter.name):
            raise UsageError(f"{max(parameter.opts, key=len)} {why}", hint)


def lists(context: typer.Context) -> bool:
    """Return whether a group is to list what there is; its options are refused where one of its commands is named."""
    command = context.invoked_subcommand
    if command is not None:
        own = [parameter.name for parameter in context.command.params if parameter.name]
        refuse(context, own, "here is an option of the list", f"options of {command} stand behind its name")
    return command is None
