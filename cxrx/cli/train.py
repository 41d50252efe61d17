"""``cxrx train`` and ``cxrx pretrain``: from a folder of films to weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cxrx.cli import shared
from cxrx.cli.runs import parse_method_options
from cxrx.errors import EXIT_SOME_FAILED, UsageError

if TYPE_CHECKING:
    from cxrx.training.films import Unread
    from cxrx.training.metrics import Evaluation
    from cxrx.training.recipes import Recipe

_NOT_ON_SCREEN = {"note", "auprc_low", "auprc_high", "sensitivity", "specificity", "brier", "ece"}  # but in the files


class Preset(StrEnum):
    """Published recipes."""

    default = "default"
    chexnet = "chexnet"
    rsna = "rsna"
    vit_pneumonia = "vit-pneumonia"
    attention_maps = "attention-maps"
    medical_mae = "medical-mae"


class SplitRule(StrEnum):
    """Where the split comes from."""

    auto = "auto"
    patient = "patient"


Data = Annotated[
    Path | None,
    typer.Argument(help="Folder of films with their tables, or with a folder per class.", show_default=False),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A name from `cxrx models`, timm/NAME, or ./net.py:build for your own network (runs your code).",
        show_default=False,
    ),
]
Run = Annotated[Path, typer.Option("--out", "-o", help="Folder of this run.", file_okay=False)]
DEFAULT_RUN = Path("run")
Init = Annotated[
    str,
    typer.Option(
        "--init",
        help="random; supervised, mae or dino (published weights, by timm); or a checkpoint or run of your own.",
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", help="A value of the recipe: -O lr=1e-4 -O epochs=5.", show_default=False),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="Keep decoded films here for other trainings.", show_default="in the run, until it ends"
    ),
]
NewSeed = Annotated[
    int,
    typer.Option(
        "--seed", help="Of weights, order and augmentation; -O split_seed for drawn splits.", envvar="CXRX_SEED"
    ),
]
Split = Annotated[
    SplitRule, typer.Option("--split", help="auto: the published split, else by patient; patient: drawn anyway.")
]
SizeOption = Annotated[int | None, typer.Option("--input-size", min=8, help="Side of the network's input, pixels.")]
AllowFailures = Annotated[bool, typer.Option("--allow-failures", help="Exit 0 even if some films cannot be read.")]


def train(
    data: Data = None,
    model: Network = None,
    out: Run = DEFAULT_RUN,
    init: Init = "random",
    recipe: Annotated[
        Preset, typer.Option("--recipe", help="Whose values to take where -O gives none.")
    ] = Preset.default,
    option: Options = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Findings to learn: a,b,c.", show_default="all that the data name")
    ] = None,
    split: Split = SplitRule.auto,
    films: Annotated[
        int | None, typer.Option("--films", min=2, help="Learn from so many films only.", show_default="all")
    ] = None,
    input_size: SizeOption = None,
    in_chans: shared.InChans = None,
    seed: NewSeed = 0,
    device: shared.Device = "auto",
    workers: shared.Workers = None,
    cache: Cache = None,
    resume: shared.Resume = True,
    allow_failures: AllowFailures = False,
    show_recipe: Annotated[
        bool, typer.Option("--show-recipe", help="Print the values and what they mean, and stop.")
    ] = False,
    as_json: shared.Json = False,
) -> None:
    """Train a classifier on a labelled folder; RUN/model.safetensors is what `-m RUN` loads.

    Weights and thresholds are chosen on validation films; test films are looked at once, at the end. A training that
    was killed goes on when the same command is given again.
    """
    from cxrx.training.recipes import make_recipe

    chosen = make_recipe(recipe.value, _with_seed(option, seed))
    if show_recipe:
        _print_recipe(chosen, as_json=as_json)
        return
    folder, network = _required("train", data, model)
    from cxrx.training.run import TrainingConfig
    from cxrx.training.train import train as run

    config = TrainingConfig(
        data=folder,
        model=network,
        out=out,
        recipe=chosen,
        init=init,
        labels=shared.split_names(labels),
        input_size=input_size,
        in_chans=_channels(in_chans),
        split="patient" if split is SplitRule.patient else "auto",
        films=films,
        device=device,
        workers=workers,
        cache=cache,
        resume=resume,
    )
    with _bar() as tick:
        result = run(config, log=_log, tick=tick)
    if as_json:
        from cxrx.training.state import as_plain

        shared.print_json(as_plain(asdict(result) | {"out": str(out)}))
    else:
        for title, part in (("test", result.test), ("validation", result.valid)):
            _print_numbers(title, part)
        best = f"epoch {result.progress.best_epoch} of {result.progress.epoch}"
        typer.echo(f"{out}: weights of {best}; use them with: cxrx predict DIR -m {out}")
    _end(result.unread, out, allow_failures=allow_failures)


def pretrain(
    data: Data = None,
    model: Network = None,
    out: Run = DEFAULT_RUN,
    mask_ratio: Annotated[
        float, typer.Option("--mask-ratio", help="Share of the patches that are hidden; 0.75 suits photographs.")
    ] = 0.9,
    option: Options = None,
    split: Split = SplitRule.auto,
    films: Annotated[int | None, typer.Option("--films", min=2, help="Only so many films.", show_default="all")] = None,
    input_size: SizeOption = None,
    in_chans: shared.InChans = None,
    seed: NewSeed = 0,
    device: shared.Device = "auto",
    workers: shared.Workers = None,
    cache: Cache = None,
    resume: shared.Resume = True,
    allow_failures: AllowFailures = False,
) -> None:
    """Pre-train a vision transformer without labels, as a masked autoencoder; `cxrx train --init RUN` starts from it.

    Films of patients whom the split puts into validation or test are not looked at.
    """
    from cxrx.training.pretrain import ENCODER, PretrainingConfig, make_options
    from cxrx.training.pretrain import pretrain as run

    options = make_options({**_with_seed(option, seed), "mask_ratio": str(mask_ratio)})
    folder, network = _required("pretrain", data, model)
    config = PretrainingConfig(
        data=folder,
        model=network,
        out=out,
        options=options,
        input_size=input_size,
        in_chans=_channels(in_chans),
        split="patient" if split is SplitRule.patient else "auto",
        films=films,
        device=device,
        workers=workers,
        cache=cache,
        resume=resume,
    )
    with _bar() as tick:
        result = run(config, log=_log, tick=tick)
    typer.echo(f"{out}: {result.epochs} epochs, loss {result.loss:.4f}")
    typer.echo(f"start from it with: cxrx train DATA -m {network} --init {out / ENCODER} -o RUN")
    _end(result.unread, out, allow_failures=allow_failures)


# ---------------------------------------------------------------------------------------------------------------------


def _with_seed(option: Sequence[str] | None, seed: int) -> dict[str, str]:
    return {"seed": str(seed)} | parse_method_options(option)


def _required(command: str, data: Path | None, model: str | None) -> tuple[Path, str]:
    if data is None or model is None:
        what = "a folder of films" if data is None else "the name of a network"
        raise UsageError(f"{command} needs {what}", f"cxrx {command} DATA -m vit_small -o RUN")
    if not data.is_dir():
        raise UsageError(f"there is no folder {data}")
    if (Path(model) / "model.safetensors").is_file():
        raise UsageError(f"-m names a network, and {model} is a run", f"-m NETWORK --init {model} starts from it")
    if ":" in model:
        typer.echo(f"note: running your code in {Path(model.rpartition(':')[0]).name}", err=True)
    return data, model


def _channels(in_chans: int | None) -> Literal[1, 3] | None:
    if in_chans == 2:
        raise UsageError("--in-chans is 1, or 3 for the grey picture repeated")
    return None if in_chans is None else 1 if in_chans == 1 else 3


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
        shared.print_json(values)
        return
    texts = document_options(type(recipe))
    shared.print_table(("option", "value", ""), [(name, str(value), texts[name]) for name, value in values.items()])


def _print_numbers(title: str, part: Evaluation | None) -> None:
    from cxrx.training.metrics import COLUMNS

    if part is None:
        typer.echo(f"{title}: there are no films")
        return
    columns = [name for name in COLUMNS if name not in _NOT_ON_SCREEN]
    typer.echo(f"{title}:")
    shared.print_table(columns, [[row[name] for name in columns] for row in part.rows])
    typer.echo("")
    if part.confusion is not None:
        classes = [row["finding"] for row in part.rows[:-1]]
        rows = [(name, *counts) for name, counts in zip(classes, part.confusion, strict=True)]
        shared.print_table(("true class, down; predicted, across", *classes), rows)
        typer.echo("")


def _end(unread: Sequence[Unread], out: Path, *, allow_failures: bool) -> None:
    failed = [entry for entry in unread if entry.code != "view"]
    if len(unread) > len(failed):
        typer.echo(f"{len(unread) - len(failed)} films are not frontal and were left out", err=True)
    if failed:
        text = f"{len(failed)} films could not be read and were left out; they are listed in {out.name}/failures.csv"
        typer.secho(text, fg="red", err=True)
        if not allow_failures:
            raise typer.Exit(EXIT_SOME_FAILED)
