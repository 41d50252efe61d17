"""``cxrx train`` and ``cxrx pretrain``: from a folder of films to weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrx.cli.flags import MOST, Device, InChans, InputSize, Json, Resume, Workers, refuse, with_flags
from cxrx.cli.runs import note_own_code, parse_method_options
from cxrx.cli.shared import print_json, print_table, split_names
from cxrx.errors import EXIT_SOME_FAILED, UsageError
from cxrx.options import MOST_SEED
from cxrx.training.recipes import Preset, SplitRule

if TYPE_CHECKING:
    from cxrx.training.films import Unread
    from cxrx.training.metrics import Evaluation
    from cxrx.training.recipes import Recipe

_NOT_ON_SCREEN = {"note", "auprc_low", "auprc_high", "sensitivity", "specificity", "brier", "ece"}  # but in the files


@dataclass(frozen=True)
class TrainFlags:
    """What train and pretrain share: the films, the network, and how it is trained."""

    data: Annotated[
        Path | None,
        typer.Argument(help="Folder of films with their tables, or with a folder per class.", show_default=False),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A name from `cxrx models`, timm/NAME, or ./net.py:build for your own network (runs your code).",
            show_default=False,
        ),
    ] = None
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of this run.", file_okay=False)] = Path("run")
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-O", help="A value of the recipe: -O lr=1e-4 -O epochs=5.", show_default=False),
    ] = None
    split: Annotated[
        SplitRule, typer.Option("--split", help="auto: the published split, else by patient; patient: drawn anyway.")
    ] = "auto"
    films: Annotated[
        int | None, typer.Option("--films", min=2, max=MOST, help="Learn from so many films only.", show_default="all")
    ] = None
    input_size: InputSize = None
    in_chans: InChans = None
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            min=0,
            max=MOST_SEED,
            help="Of weights, order and augmentation; -O split_seed for drawn splits.",
            envvar="CXRX_SEED",
        ),
    ] = 0
    device: Device = "auto"
    workers: Workers = None
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", help="Keep decoded films here for other trainings.", show_default="in the run, until it ends"
        ),
    ] = None
    resume: Resume = True
    allow_failures: Annotated[
        bool, typer.Option("--allow-failures", help="Exit 0 even if some films cannot be read.")
    ] = False

    def request(self, command: str) -> dict[str, Any]:
        """Return the fields that the requests of both commands have, checked."""
        if self.data is None or self.model is None:
            what = "a folder of films" if self.data is None else "the name of a network"
            raise UsageError(f"{command} needs {what}", f"cxrx {command} DATA -m vit_small -o RUN")
        if not self.data.is_dir():
            raise UsageError(f"there is no folder {self.data}")
        if (Path(self.model) / "model.safetensors").is_file():
            raise UsageError(
                f"-m names a network, and {self.model} is a run", f"-m NETWORK --init {self.model} starts from it"
            )
        note_own_code(self.model)
        return {name: value for name, value in vars(self).items() if name not in {"option", "seed", "allow_failures"}}


@with_flags
def train(
    context: typer.Context,
    init: Annotated[
        str,
        typer.Option(
            "--init",
            help="random; supervised, mae or dino (published weights, by timm); or a checkpoint or run of your own.",
        ),
    ] = "random",
    recipe: Annotated[Preset, typer.Option("--recipe", help="Whose values to take where -O gives none.")] = "default",
    labels: Annotated[
        str | None, typer.Option("--labels", help="Findings to learn: a,b,c.", show_default="all that the data name")
    ] = None,
    show_recipe: Annotated[
        bool, typer.Option("--show-recipe", help="Print the values of --recipe and -O with what they mean, and stop.")
    ] = False,
    as_json: Json = False,
    *,
    flags: TrainFlags,
) -> None:
    """Train a classifier on a labelled folder; RUN/model.safetensors is what `-m RUN` loads.

    Weights and thresholds are chosen on validation films; test films are looked at once, at the end. A training that
    was killed goes on when the same command is given again.
    """
    from cxrx.training.recipes import make_recipe

    values = _values(context, flags)
    if "preset" in values:
        refuse(context, ["recipe"], "is given by -O preset as well")
    chosen = make_recipe(recipe, values)
    if show_recipe:
        used = {"show_recipe", "recipe", "option", "seed", "as_json"}
        others = [parameter.name for parameter in context.command.params if parameter.name not in used]
        refuse(context, others, "is no part of a recipe, and --show-recipe trains nothing", "leave one of them out")
        _print_recipe(chosen, as_json=as_json)
        return
    common = flags.request("train")
    from cxrx.training.run import TrainingConfig
    from cxrx.training.train import train as run

    config = TrainingConfig(**common, recipe=chosen, init=init, labels=split_names(labels))
    with _bar() as tick:
        result = run(config, log=_log, tick=tick)
    if as_json:
        from cxrx.training.state import as_plain

        print_json(as_plain(asdict(result) | {"out": str(flags.out)}))
    else:
        for title, part in (("test", result.test), ("validation", result.valid)):
            _print_numbers(title, part)
        best = f"epoch {result.progress.best_epoch} of {result.progress.epoch}"
        typer.echo(f"{flags.out}: weights of {best}; use them with: cxrx predict DIR -m {flags.out}")
    _end(result.unread, flags)


@with_flags
def pretrain(
    context: typer.Context,
    mask_ratio: Annotated[
        float,
        typer.Option("--mask-ratio", help="Share of patches that are hidden, between 0 and 1; 0.75 suits photographs."),
    ] = 0.9,
    *,
    flags: TrainFlags,
) -> None:
    """Pre-train a vision transformer without labels, as a masked autoencoder; `cxrx train --init RUN` starts from it.

    Films of patients whom the split puts into validation or test are not looked at.
    """
    from cxrx.training.pretrain import ENCODER, PretrainingConfig, make_options
    from cxrx.training.pretrain import pretrain as run

    options = make_options(_values(context, flags, mask_ratio=mask_ratio))
    config = PretrainingConfig(**flags.request("pretrain"), options=options)
    with _bar() as tick:
        result = run(config, log=_log, tick=tick)
    typer.echo(f"{flags.out}: {result.epochs} epochs, loss {result.loss:.4f}")
    typer.echo(f"start from it with: cxrx train DATA -m {flags.model} --init {flags.out / ENCODER} -o RUN")
    _end(result.unread, flags)


# ---------------------------------------------------------------------------------------------------------------------


def _values(context: typer.Context, flags: TrainFlags, **more: Any) -> dict[str, str]:
    """Return the values of -O and of the options that stand for one; -O goes before what another option defaults to."""
    values = parse_method_options(flags.option)
    options = {"seed": flags.seed} | more
    refuse(context, options.keys() & values.keys(), "is given by -O as well")
    return {name: str(value) for name, value in options.items()} | values


def _log(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


@contextmanager
def _bar() -> Iterator[Callable[[int], Any]]:
    from tqdm import tqdm

    with tqdm(desc="decoding", unit="film", file=sys.stderr, disable=None, leave=False) as bar:
        yield bar.update


def _print_recipe(recipe: Recipe, *, as_json: bool) -> None:
    from cxrx.options import document_options

    values = asdict(recipe)
    if as_json:
        print_json(values)
        return
    texts = document_options(type(recipe))
    print_table(("option", "value", ""), [(name, str(value), texts[name]) for name, value in values.items()])


def _print_numbers(title: str, part: Evaluation | None) -> None:
    from cxrx.training.metrics import COLUMNS

    if part is None:
        typer.echo(f"{title}: there are no films")
        return
    columns = [name for name in COLUMNS if name not in _NOT_ON_SCREEN]
    typer.echo(f"{title}:")
    print_table(columns, [[row[name] for name in columns] for row in part.rows])
    typer.echo("")
    if part.confusion is not None:
        classes = [row["finding"] for row in part.rows[:-1]]
        rows = [(name, *counts) for name, counts in zip(classes, part.confusion, strict=True)]
        print_table(("true class, down; predicted, across", *classes), rows)
        typer.echo("")


def _end(unread: Sequence[Unread], flags: TrainFlags) -> None:
    failed = [entry for entry in unread if entry.code != "view"]
    if len(unread) > len(failed):
        typer.echo(f"{len(unread) - len(failed)} films are not frontal and were left out", err=True)
    if failed:
        text = (
            f"{len(failed)} films could not be read and were left out; they are listed in {flags.out.name}/failures.csv"
        )
        typer.secho(text, fg="red", err=True)
        if not flags.allow_failures:
            raise typer.Exit(EXIT_SOME_FAILED)
