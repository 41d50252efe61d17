"""``cxrx compare``: which explanation to trust."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrx.cli import shared
from cxrx.cli.runs import demo_banner


class Protocol(StrEnum):
    """See ``cxrx.score_localisation``."""

    native = "native"
    chexlocalize = "chexlocalize"
    arun = "arun"


if TYPE_CHECKING:
    from pandas import DataFrame

    from cxrx.compare.comparison import Comparison


def compare(
    results: Annotated[list[Path] | None, typer.Argument(help="Results files.", show_default="results.h5")] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="Table of boxes or labels, by file name.", show_default="the file's")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the report.", show_default="beside the file")
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            help="auto (all but the sanity tests), fast (without running the model), full, or names: classification, "
            "localisation, agreement, faithfulness, sanity, deletion, road, randomisation, ...",
        ),
    ] = "auto",
    protocol: Annotated[Protocol, typer.Option("--protocol", help="How localisation is scored.")] = Protocol.native,
    signed: Annotated[
        bool, typer.Option("--signed", help="Score maps as stored, without the ReLU of their published form.")
    ] = False,
    stratify: Annotated[
        str, typer.Option("--stratify", help="Of size, confidence, outcome; or none.")
    ] = "size,confidence,outcome",
    max_pairs: Annotated[
        int | None,
        typer.Option(
            "--max-pairs",
            min=1,
            help="Most pairs of film and finding for metrics that run the model.",
            show_default="auto: 20, else 100",
        ),
    ] = None,
    n_boot: Annotated[int, typer.Option("--n-boot", min=10, help="Bootstrap resamples of patients.")] = 1000,
    seed: shared.Seed = 0,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="The model to run again.", show_default="as the file records it"),
    ] = None,
    weights: shared.Weights = None,
    labels: shared.Labels = None,
    device: shared.Device = "auto",
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of moved films; they are recognised by their content.")
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Leave file names out of the report.")] = False,
    as_json: shared.Json = False,
) -> None:
    """Compare explanations; writes report.html.

    With boxes where there are some, with what the model does when the map's pixels change, with each other, and with
    baselines that never saw the picture.
    """
    shared.start_logging()
    from cxrx.compare.corpus import open_corpus
    from cxrx.compare.run import compare as run_comparison
    from cxrx.compare.run import write_tables
    from cxrx.report.html import write_report

    given = None
    if model is not None or weights is not None:
        from cxrx.cli.runs import make_model

        given = make_model(model, weights, labels, device)
    files = results or [shared.DEFAULT_RESULTS]
    with open_corpus(files) as corpus:
        comparison = run_comparison(
            corpus, truth, metrics, protocol=protocol.value, signed=signed, model=given, images=images,
            stratify=() if stratify == "none" else tuple(shared.split_names(stratify) or ()), max_pairs=max_pairs,
            n_boot=n_boot, seed=seed,
        )  # fmt: skip
        folder = out or files[0].absolute().parent
        written = write_tables(comparison, folder)
        written.append(write_report(comparison, corpus, folder / "report.html", images=images, share=share))
    if as_json:
        shared.print_json(comparison.as_json())
    else:
        show(comparison)
        typer.echo("written: " + ", ".join(path.name for path in written))
    if comparison.demo:
        demo_banner()


SHOWN_METRICS = ("hit", "iou", "mass", "rank", "auprc", "average_precision")
"""Localisation metrics on the screen, as far as the protocol has them; all of them stand in summary.csv."""


def show(comparison: Comparison) -> None:
    """Print the tables of a comparison: the means over findings; the rest stands in the files."""
    for sentence in comparison.verdict:
        typer.echo(sentence)
    show_classification(comparison.classification)
    show_localisation(comparison.summary)
    show_agreement(comparison.agreement)
    for sentence in comparison.warnings:
        typer.secho(f"warning: {sentence}", fg="yellow", err=True)
    for what, why in comparison.skipped:
        typer.echo(f"skipped {what}: {why}", err=True)


def show_classification(table: DataFrame) -> None:
    """Print AUROC, F1 and the confusion matrix of every finding."""
    if not len(table):
        return
    typer.echo("\nclassification")
    rows = []
    for row in _records(table):
        counts = ("-" if math.isnan(row[name]) else round(row[name]) for name in ("tp", "fp", "fn", "tn"))
        auroc = _with_interval(row["auroc"], row["auroc_low"], row["auroc_high"])
        rows.append((row["model"], row["finding"], auroc, row["f1"], *counts))
    shared.print_table(("model", "finding", "AUROC", "F1", "tp", "fp", "fn", "tn"), rows)


def show_localisation(table: DataFrame) -> None:
    """Print the mean over findings of each localisation metric, a row a method."""
    macro = table[(table["finding"] == "all") & table["metric"].isin(SHOWN_METRICS)]
    if not len(macro):
        return
    typer.echo("\nlocalisation: mean over findings, 95 % interval over patients")
    names = [metric for metric in SHOWN_METRICS if metric in set(macro["metric"])]
    rows = []
    for (model, method), group in macro.groupby(["model", "method"], sort=False):
        by_metric = {row["metric"]: row for row in _records(group)}
        shown = [by_metric[metric] for metric in names]
        cells = (_with_interval(row["value"], row["low"], row["high"]) for row in shown)
        rows.append((model, method, max(row["n"] for row in shown), *cells))
    shared.print_table(("model", "method", "n", *names), rows)


def show_agreement(table: DataFrame) -> None:
    """Print how alike the methods' maps of one film and finding are, beside maps of different patients."""
    macro = table[(table["finding"] == "all") & (table["metric"] == "spearman")]
    if not len(macro):
        return
    typer.echo("\nagreement: Spearman of two methods' maps (in brackets: maps of different patients)")
    rows = [
        (row["model"], row["method_a"], row["method_b"], row["n"], f"{row['value']:.2f} ({row['random_pair']:.2f})")
        for row in _records(macro)
    ]
    shared.print_table(("model", "method", "method", "n", "Spearman"), rows)


def _records(table: DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _with_interval(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
