"""``cxrx compare``: which explanation to trust."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrx.cli.flags import DEFAULT_RESULTS, MOST, Device, Images, Json, Labels, ModelFlags, Seed, Weights, refuse
from cxrx.cli.runs import demo_banner, named_models
from cxrx.cli.shared import print_json, print_table, split_names, start_logging
from cxrx.metrics.protocols import Protocol

if TYPE_CHECKING:
    from pandas import DataFrame

    from cxrx.compare.comparison import Comparison


def compare(
    context: typer.Context,
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
    protocol: Annotated[Protocol, typer.Option("--protocol", help="How localisation is scored.")] = "native",
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
            max=MOST,
            help="Most pairs of film and finding for metrics that run the model.",
            show_default="auto: 20, else 100",
        ),
    ] = None,
    n_boot: Annotated[
        int,
        typer.Option("--n-boot", min=10, max=100_000, help="Resamples of patients, for AUROC and AUPRC."),
    ] = 1000,
    seed: Seed = 0,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="The model to run again.", show_default="as the file records it")
    ] = None,
    weights: Weights = None,
    labels: Labels = None,
    device: Device = "auto",
    images: Images = None,
    share: Annotated[bool, typer.Option("--share", help="Leave file names out of the report.")] = False,
    as_json: Json = False,
) -> None:
    """Compare explanations; writes report.html.

    With boxes where there are some, with what the model does when the map's pixels change, with each other, and with
    baselines that never saw the picture. Of NAME.h5 the report is NAME.report.html.
    """
    start_logging()
    from cxrx.compare.corpus import open_corpus
    from cxrx.compare.run import compare as run_comparison
    from cxrx.export.tables import prefix_of, write_tables
    from cxrx.report.html import write_report

    network = ModelFlags(model, weights, labels, device=device)
    uses_model = _refuse_what_has_no_use(context, metrics, network)
    files = results or [DEFAULT_RESULTS]
    given = (named_models(context, network, files) if network.named and uses_model else None) or []
    with open_corpus(files) as corpus:
        for slug in (one.slug for one in given if one.slug not in corpus.models):
            known = ", ".join(corpus.models) or "none"
            refuse(context, ["model", "weights"], f"gives {slug}, and the results come from {known}")
        comparison = run_comparison(
            corpus, truth, metrics, protocol=protocol, signed=signed, model=given, device=device, images=images,
            stratify=() if stratify == "none" else tuple(split_names(stratify) or ()), max_pairs=max_pairs,
            n_boot=n_boot, seed=seed,
        )  # fmt: skip
        folder, prefix = out or files[0].absolute().parent, prefix_of(files)
        written = write_tables(comparison, folder, prefix)
        written.append(write_report(comparison, corpus, folder / f"{prefix}report.html", images=images, share=share))
    if as_json:
        print_json(comparison.as_json())
    else:
        show(comparison)
        typer.echo("written: " + ", ".join(path.name for path in written))
    if comparison.demo:
        demo_banner()


def _refuse_what_has_no_use(context: typer.Context, metrics: str, network: ModelFlags) -> bool:
    """Refuse options for sections that `metrics` leaves out; return whether one of the sections runs the model."""
    from cxrx.compare.selection import select

    sections = set(select(metrics).sections)
    uses = (
        (("max_pairs", "model", "weights", "labels", "device"), {"faithfulness", "sanity"}),
        (("protocol",), {"localisation"}),
        (("stratify",), {"localisation", "agreement"}),
        (("signed",), {"localisation", "agreement", "faithfulness"}),
    )
    for names, users in uses:
        if not sections & users:
            needed = " or ".join(sorted(users))
            refuse(context, names, f"is for {needed}, which --metrics {metrics} leaves out")
    if not network.named:
        refuse(context, ["labels"], "belongs to a model that is named", "name it: -m NAME or --weights FILE")
    return bool(sections & {"faithfulness", "sanity"})


SHOWN_METRICS = ("hit", "iou", "mass", "rank", "auprc", "average_precision")
"""Localisation metrics on the screen, as far as the protocol has them; all of them stand in summary.csv."""


def show(comparison: Comparison) -> None:
    """Print the tables of a comparison: the means over findings; the rest stands in the files."""
    for sentence in comparison.verdict:
        typer.echo(sentence)
    show_classification(comparison.classification)
    added = {kind: tuple(measures) for kind, measures in comparison.plugin_metrics.items()}
    show_means("localisation", comparison.summary, SHOWN_METRICS + added.get("localisation", ()))
    show_means("faithfulness", comparison.faithfulness, added.get("faithfulness", ()))
    show_agreement(comparison.agreement, ("spearman", *added.get("agreement", ())))
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
    print_table(("model", "finding", "AUROC", "F1", "tp", "fp", "fn", "tn"), rows)
    _say_few(table, "auroc")


def show_means(section: str, table: DataFrame, metrics: tuple[str, ...]) -> None:
    """Print the mean over findings of each of `metrics` that the table has, a row a method."""
    macro = table[(table["finding"] == "all") & table["metric"].isin(metrics)]
    if not len(macro):
        return
    typer.echo(f"\n{section}: mean over findings, 95 % interval over patients")
    names = [metric for metric in metrics if metric in set(macro["metric"])]
    rows = []
    for (model, method), group in macro.groupby(["model", "method"], sort=False):
        by_metric = {row["metric"]: row for row in _records(group)}
        cells = ("-" if row is None else _with_interval(row["value"], row["low"], row["high"])
                 for row in map(by_metric.get, names))  # fmt: skip
        rows.append((model, method, group["n"].max(), *cells))
    print_table(("model", "method", "n", *names), rows)
    _say_few(macro, "value")


def show_agreement(table: DataFrame, metrics: tuple[str, ...] = ("spearman",)) -> None:
    """Print how alike the methods' maps of one film and finding are, beside maps of different patients."""
    for metric in metrics:
        macro = table[(table["finding"] == "all") & (table["metric"] == metric)]
        if not len(macro):
            continue
        name = "Spearman" if metric == "spearman" else metric
        typer.echo(f"\nagreement: {name} of two methods' maps (in brackets: maps of different patients)")
        rows = [
            (row["model"], row["method_a"], row["method_b"], row["n"], f"{row['value']:.2f} ({row['random_pair']:.2f})")
            for row in _records(macro)
        ]
        print_table(("model", "method", "method", "n", name), rows)


def _say_few(table: DataFrame, name: str) -> None:
    """Say why numbers have no interval, where some have none."""
    from cxrx.metrics.bootstrap import MIN_PATIENTS

    low = "low" if name == "value" else f"{name}_low"
    if (table[name].notna() & table[low].isna()).any():
        typer.echo(f"a number without an interval is of fewer than {MIN_PATIENTS} patients, who say nothing")


def _records(table: DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _with_interval(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
