"""The files of a run: weights, tables, the learning curve and the model card."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cxrx.files import atomic
from cxrx.files.figures import plain_style
from cxrx.models.checkpoints import tensor_bytes
from cxrx.models.model import Model
from cxrx.training.films import Unread
from cxrx.training.metrics import COLUMNS

MODEL, METRICS, CURVE, CARD, REPORT, FAILURES = (
    "model.safetensors", "metrics.csv", "curve.png", "card.md", "report.json", "failures.csv",
)  # fmt: skip

_OF_EPOCH = ("epoch", "train_loss", "valid_loss", "lr", "seconds", "waited", "films_per_second")


def write_model(folder: Path, model: Model, metadata: dict[str, str]) -> None:
    """Write the weights as they are now, with what is needed to use them."""
    atomic.write_file(folder / MODEL, tensor_bytes(model.module.state_dict(), metadata))


def read_model(folder: Path, network: nn.Module) -> dict[str, float]:
    """Load the best weights back and return their thresholds."""
    from safetensors import safe_open

    with safe_open(folder / MODEL, framework="pt") as file:
        network.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a dict
        thresholds: dict[str, float] = json.loads(file.metadata()["thresholds"])
    return thresholds


def write_metrics(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write a row per epoch and finding; all numbers but the losses are of the validation films."""
    write_table(folder / METRICS, (*_OF_EPOCH, *COLUMNS), history)


def write_failures(folder: Path, unread: Sequence[Unread]) -> None:
    """List films that gave no pixels; paths may name patients, so the file is for its owner only."""
    if unread:
        rows = [{"path": u.path, "code": u.code, "message": u.message} for u in unread]
        atomic.write_file(folder / FAILURES, _as_csv(("path", "code", "message"), rows), mode=0o600)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file, all or nothing."""
    atomic.write_file(path, _as_csv(columns, rows))


def _as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


@plain_style()
def save_figure(path: Path, figure: Any) -> None:
    """Write a figure as PNG, all or nothing."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    atomic.write_file(path, stream.getvalue())


@plain_style()
def write_curve(folder: Path, history: Sequence[Mapping[str, Any]], best_epoch: int) -> None:
    """Draw losses and the validation's AUROC over the epochs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    overall = [row for row in history if row["finding"] == "all"]
    epochs = [row["epoch"] for row in overall]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    marker = "o" if len(epochs) < 30 else None
    for name, label, colour in (("train_loss", "training", "#767676"), ("valid_loss", "validation", "#1f5fa8")):
        left.plot(epochs, [row[name] for row in overall], label=label, color=colour, marker=marker, markersize=3)
    left.set(xlabel="epoch", ylabel="loss")
    left.legend(frameon=False)
    for finding in dict.fromkeys(row["finding"] for row in history if row["finding"] != "all"):
        values = [row["auroc"] for row in history if row["finding"] == finding]
        right.plot(epochs, values, color="#b9c7d8", linewidth=0.8, zorder=1)
    right.plot(epochs, [row["auroc"] for row in overall], color="#1f5fa8", marker=marker, markersize=3, zorder=3)
    bounds = [[row[name] for row in overall] for name in ("auroc_low", "auroc_high")]
    right.fill_between(epochs, *bounds, color="#1f5fa8", alpha=0.15, linewidth=0, zorder=2)
    right.axvline(best_epoch, color="#c0392b", linewidth=0.8, linestyle="--")
    on_the_right = best_epoch > sum(epochs[:: len(epochs) - 1 or 1]) / 2
    right.annotate(
        f"kept: {best_epoch}", (best_epoch, 0.02), xycoords=("data", "axes fraction"), textcoords="offset points",
        xytext=(-4 if on_the_right else 4, 0), ha="right" if on_the_right else "left", color="#c0392b", fontsize=8,
    )  # fmt: skip
    right.set(xlabel="epoch", ylabel="AUROC, validation")
    right.set_title("blue: mean with 95 % interval; grey: each finding", fontsize=8, loc="left")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(folder / CURVE, figure)
