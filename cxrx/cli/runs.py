"""What ``predict`` and ``explain`` share: making the model, parsing options, and reporting."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cxrx.cli import config
from cxrx.cli.flags import ModelFlags, ReadFlags, RunFlags, is_given
from cxrx.cli.shared import split_names
from cxrx.errors import EXIT_SOME_FAILED, UsageError

if TYPE_CHECKING:
    from cxrx.engine.report import RunReport
    from cxrx.models.model import Model

MOST_FILMS = 65_536  # of a batch
SHOWN = 5  # films of a kind named on the screen; the rest stands in failures.csv


def make_model(flags: ModelFlags) -> Model:
    """Load the model that the options name, and say what the user should know of it."""
    from cxrx.models.architectures import DEFAULT_MODEL
    from cxrx.models.load import load_model

    name = flags.model
    if name is None and flags.weights is not None:
        name = _model_of(flags.weights)
    if name is not None:
        note_own_code(name)
    model = load_model(
        name or DEFAULT_MODEL,
        flags.weights,
        split_names(flags.labels),
        flags.device,
        input_size=flags.input_size,
        in_chans=flags.in_chans,
        activation=flags.activation,
    )
    for note in model.notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)
    if model.demo:
        demo_banner()
    return model


def named_models(context: typer.Context, flags: ModelFlags, stored: Sequence[Path]) -> list[Model] | None:
    """Load the models of the results files `stored` that the command line names; None: it names none.

    Defaults from elsewhere are meant for films, which is said.

    Beside code of the user's own that stands alone, everything else comes from the files.
    """
    if not is_given(context, "model", "weights"):
        for name in ("model", "weights"):
            source = context.get_parameter_source(name)
            if getattr(flags, name) is not None and source is not None:
                said = "CXRX_MODEL" if source.name == "ENVIRONMENT" else config.named()
                typer.echo(f"note: {name} of {said}: for films; a results file has its own", err=True)
        return None
    from cxrx.models.architectures import is_code

    if (
        flags.model is None
        or not is_code(flags.model)
        or is_given(context, *(vars(flags).keys() - {"model", "device"}))
    ):
        return [make_model(flags)]
    from cxrx.engine.api import reload_own
    from cxrx.results.reader import open_results

    note_own_code(flags.model)
    models: dict[str, Model] = {}
    for path in stored:
        with open_results(path) as results:
            models |= {model.slug: model for model in reload_own(results, flags.model, flags.device)}
    if models:
        return list(models.values())
    name = Path(flags.model.rpartition(":")[0]).name
    raise UsageError(f"{' and '.join(path.name for path in stored)} holds no predictions of {name}", "see: cxrx info")


def note_own_code(name: str) -> None:
    """Say that code of the user's own is run, where `name` names some."""
    from cxrx.models.architectures import is_code

    if is_code(name):
        typer.echo(f"note: running your code in {Path(name.rpartition(':')[0]).name}", err=True)


def _model_of(weights: Path) -> str:
    """Return the built-in model whose weights `weights` are, where the user names none."""
    from cxrx.models.checkpoints import read_checkpoint

    found = read_checkpoint(weights).architecture
    if found is None:
        raise UsageError("--weights needs the network they belong to", "name it with -m, e.g. -m densenet121")
    typer.secho(f"note: these are weights of {found}", fg="yellow", err=True)
    return found


DEMO = "DEMO weights, trained on synthetic films only: the numbers show how cxrx works, nothing about a patient"


def demo_banner() -> None:
    """Say that the output comes from the demo weights."""
    typer.secho(DEMO, fg="yellow", err=True)


def check_inputs(inputs: Sequence[Path]) -> None:
    """Refuse inputs that do not exist, before anything slow begins."""
    for path in inputs:
        if not path.exists():
            raise UsageError(f"there is no file or folder {path}")


def engine_options(reading: ReadFlags, work: RunFlags) -> dict[str, Any]:
    """Return the options of :func:`cxrx.engine.api.run` that predict and explain share."""
    own = {name: value for name, value in vars(work).items() if name not in {"out", "allow_failures"}}
    parsed = {"views": parse_views(reading.views), "batch_size": parse_batch_size(work.batch_size)}
    return vars(reading) | own | parsed | {"argv": public_argv()}


def parse_batch_size(text: str) -> int | str:
    """Return ``auto`` or a positive number of films."""
    if text == "auto":
        return text
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= MOST_FILMS:
        raise UsageError(f"--batch-size is auto or a number of films, 1 to {MOST_FILMS}, not {text!r}")
    return int(text)


def parse_views(text: str) -> tuple[str, ...]:
    """Return the wanted views, ``all`` spelled out."""
    known = ("frontal", "lateral", "oblique", "unknown")
    names = tuple(split_names(text) or ())
    if names == ("all",):
        return known
    for name in names:
        if name not in known:
            raise UsageError(f"there is no view {name!r} (all, or of {', '.join(known)})")
    return names


def parse_method_options(pairs: Sequence[str] | None, **given: str | None) -> dict[str, str]:
    """Return ``-O key=value`` pairs as a dict, with those that options of their own name give (None: not)."""
    options = {key: value for key, value in given.items() if value is not None}
    for pair in pairs or ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key:
            raise UsageError(f"-O takes key=value, not {pair!r}")
        if key in options:
            raise UsageError(f"{key} is given twice")
        options[key] = value
    return options


def public_argv() -> list[str]:
    """Return the command line without what could name a patient's files: paths become ``PATH``."""
    return ["PATH" if _names_a_file(word) else word for word in sys.argv[1:]]


def _names_a_file(word: str) -> bool:
    value = word.partition("=")[2] if word.startswith("-") else word
    return bool(value) and ("/" in value or "\\" in value or bool(Path(value).suffix) or Path(value).exists())


def show_report(report: RunReport, *, allow_failures: bool) -> None:
    """Print what a run did; exit 3 if some films failed."""
    from cxrx.results.outcomes import WORDS
    from cxrx.results.private import failures_path

    counts = report.counts
    done = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
    what = ", ".join(report.methods) if report.methods else "predictions"
    took = f"{report.kept} kept from before; {report.seconds:.1f} s" if report.kept else f"{report.seconds:.1f} s"
    typer.echo(f"{report.out}: {what} of {report.model}: {done or 'nothing to do'} ({took})")
    if report.passed_over:
        others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in sorted(report.passed_over.items()))
        typer.echo(f"passed over {sum(report.passed_over.values())} other files ({others})", err=True)
    for name, reason in report.skipped[:SHOWN]:
        typer.echo(f"skipped {name}: {reason}", err=True)
    if len(report.skipped) > SHOWN:
        typer.echo(f"... and {len(report.skipped) - SHOWN} more skipped", err=True)
    if report.negatives:
        what_was_done = {"header": "taken as they are", "report": "flagged", "auto": "inverted"}[report.polarity]
        names = ", ".join(report.negatives[: 2 * SHOWN])
        alike = f"{len(report.negatives)} films look like photographic negatives"
        typer.secho(f"{alike} ({what_was_done}): {names}", fg="yellow", err=True)
    if report.conflicts:
        same = f"{report.conflicts} films share their SOPInstanceUID with another one of other bytes"
        typer.secho(f"{same}: all are kept, and flagged as a conflict", fg="yellow", err=True)
    if counts["failed"]:
        listed = f"/failures and {failures_path(report.out).name}"
        typer.secho(f"{counts['failed']} failed; they are listed in {listed}", fg="red", err=True)
        if not allow_failures:
            raise typer.Exit(EXIT_SOME_FAILED)


def demo_warning(report: RunReport, model: Model) -> None:
    """Warn where demo weights met films that are not synthetic."""
    if model.demo and report.foreign:
        foreign = f"{report.foreign} of these films were not made by `cxrx phantom`"
        typer.secho(f"{foreign}: what the demo says of them means nothing", fg="yellow", err=True)
