"""Options and printing that several commands share."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_RESULTS = Path("results.h5")


class Dtype(StrEnum):
    """Number format of the forward passes."""

    fp32 = "fp32"
    bf16 = "bf16"


class Polarity(StrEnum):
    """What to do about photographic negatives."""

    header = "header"
    auto = "auto"
    report = "report"


class Activation(StrEnum):
    """What turns outputs into probabilities."""

    sigmoid = "sigmoid"
    softmax = "softmax"


_READING = "Reading"
_RUNNING = "Running"
_MODEL = "Model"

Inputs = Annotated[
    list[Path] | None,
    typer.Argument(help="Folders, films, .zip/.tar archives, or a .txt list of paths.", show_default=False),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Results file.", envvar="CXRX_OUT", dir_okay=False, rich_help_panel=_RUNNING)
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A name from `cxrx models`, timm/NAME, a folder of `cxrx train`, or ./net.py:build (runs your code).",
        envvar="CXRX_MODEL",
        show_default="as --weights say, else the demo model",
        rich_help_panel=_MODEL,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="Checkpoint; recognised, loaded strictly, no code in it is run (cxrx weights show FILE).",
        rich_help_panel=_MODEL,
    ),
]
Labels = Annotated[
    str | None, typer.Option("--labels", help="Findings in the order of the outputs: a,b,c.", rich_help_panel=_MODEL)
]
InputSize = Annotated[
    int | None,
    typer.Option("--input-size", min=8, help="Side of the network's input, pixels.", rich_help_panel=_MODEL),
]
InChans = Annotated[
    int | None, typer.Option("--in-chans", min=1, max=3, help="1 or 3 input channels.", rich_help_panel=_MODEL)
]
ActivationOption = Annotated[
    Activation | None,
    typer.Option(
        "--activation",
        help="sigmoid (findings side by side) or softmax (classes that exclude each other).",
        show_default="as the model says",
        rich_help_panel=_MODEL,
    ),
]
TenCrop = Annotated[
    bool,
    typer.Option(
        "--ten-crop",
        help="Average over ten crops of each film, as CheXNet's authors do; cannot be explained.",
        rich_help_panel=_MODEL,
    ),
]
Layer = Annotated[
    str | None, typer.Option("--layer", help="Dotted name of the layer that CAM methods read (-O layer=NAME).")
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.", envvar="CXRX_DEVICE", rich_help_panel=_RUNNING)
]
BatchSize = Annotated[
    str,
    typer.Option("--batch-size", help="Films a forward, or auto.", envvar="CXRX_BATCH_SIZE", rich_help_panel=_RUNNING),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Decode processes; 0: decode in this one.",
        show_default="one per core",
        envvar="CXRX_WORKERS",
        rich_help_panel=_RUNNING,
    ),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option("--dtype", help="bf16 is faster and not the same; predictions only.", rich_help_panel=_RUNNING),
]
Views = Annotated[
    str,
    typer.Option(
        "--views", help="Of frontal, lateral, oblique, unknown; or all.", envvar="CXRX_VIEWS", rich_help_panel=_READING
    ),
]
PolarityOption = Annotated[
    Polarity,
    typer.Option(
        "--polarity",
        help="header: trust the file, warn of negatives; report: flag them; auto: turn them.",
        rich_help_panel=_READING,
    ),
]
NonChest = Annotated[
    bool, typer.Option("--non-chest", help="Take films of other body parts too.", rich_help_panel=_READING)
]
ForceDicom = Annotated[
    bool, typer.Option("--force-dicom", help="Try DICOM files without a preamble.", rich_help_panel=_READING)
]
Frame = Annotated[
    int | None, typer.Option("--frame", min=0, help="Take this frame of multi-frame objects.", rich_help_panel=_READING)
]
VoiIndex = Annotated[
    int, typer.Option("--voi-index", min=0, help="Which of several windows or LUTs.", rich_help_panel=_READING)
]
Truth = Annotated[
    Path | None,
    typer.Option("--truth", help="Table or folder of labels and boxes.", show_default="looked for beside the films"),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first films.", rich_help_panel=_RUNNING)]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume", help="Go on with an interrupted run, or start anew.", rich_help_panel=_RUNNING
    ),
]
Add = Annotated[
    bool, typer.Option("--add", help="Add films that the results file does not hold.", rich_help_panel=_RUNNING)
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try failed films again.", rich_help_panel=_RUNNING)]
AllowFailures = Annotated[
    bool,
    typer.Option("--allow-failures", help="Exit 0 even if some films failed.", rich_help_panel=_RUNNING),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of stochastic methods.", envvar="CXRX_SEED")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any) -> None:
    """Print `value` as JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a plain table on stdout: left-aligned text, right-aligned numbers."""
    cells = [[_text(cell) for cell in row] for row in rows]
    numeric = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(headers))]
    widths = [max(len(header), *(len(row[i]) for row in cells), 0) for i, header in enumerate(headers)]
    for row in [list(headers), *cells]:
        line = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True))
        typer.echo("  ".join(line).rstrip())


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return "-" if cell != cell else f"{cell:.3f}"  # noqa: PLR0124 - NaN
    return "-" if cell is None else str(cell)


def _is_number(text: str) -> bool:
    return text in {"-", ""} or text.lstrip("+-").replace(".", "", 1).replace("%", "").isdigit()


class _StderrHandler(logging.Handler):
    """Writes to whatever stderr is at the time, above a progress bar that may stand there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def start_logging() -> None:
    """Send the program's log lines to stderr, bare."""
    logger = logging.getLogger("cxrx")
    if not logger.handlers:
        logger.addHandler(_StderrHandler())
        logger.setLevel(logging.INFO)


def split_names(text: str | None) -> list[str] | None:
    """Split ``a,b,c``; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
