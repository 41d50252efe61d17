"""The files of a run: weights, tables, the learning curve and the model card."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxrx.files import atomic
from cxrx.models.model import Model
from cxrx.training.films import Unread
from cxrx.training.metrics import COLUMNS

MODEL, METRICS, CURVE, CARD, REPORT, FAILURES = (
    "model.safetensors", "metrics.csv", "curve.png", "card.md", "report.json", "failures.csv",
)  # fmt: skip

_OF_EPOCH = ("epoch", "train_loss", "valid_loss", "lr", "seconds", "waited", "films_per_second")


def tensor_bytes(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """Return a safetensors file of contiguous copies."""
    from safetensors.torch import save

    return save({key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                 for key, value in tensors.items()}, metadata)  # fmt: skip


def write_model(home: Path, model: Model, metadata: Mapping[str, str], thresholds: Mapping[str, float]) -> None:
    """Write the weights as they are now, with what is needed to use them."""
    told = {**metadata, "thresholds": json.dumps(dict(thresholds))}
    atomic.write_file(home / MODEL, tensor_bytes(model.module.state_dict(), told))


def read_model(home: Path, network: nn.Module) -> dict[str, float]:
    """Load the best weights back and return their thresholds."""
    from safetensors import safe_open

    with safe_open(home / MODEL, framework="pt") as file:
        network.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a dict
        thresholds: dict[str, float] = json.loads(file.metadata()["thresholds"])
    return thresholds


def write_metrics(home: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write a row per epoch and finding; all numbers but the losses are of the validation films."""
    write_table(home / METRICS, (*_OF_EPOCH, *COLUMNS), history)


def write_failures(home: Path, unread: Sequence[Unread]) -> None:
    """List films that gave no pixels; paths may name patients, so the file is for its owner only."""
    if unread:
        rows = [{"path": u.path, "code": u.code, "message": u.message} for u in unread]
        write_table(home / FAILURES, ("path", "code", "message"), rows, mode=0o600)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], mode: int = 0o666) -> None:
    """Write a CSV file, all or nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_file(path, text.getvalue().encode("utf-8", "surrogateescape"), mode=mode)


def save_figure(path: Path, figure: Any) -> None:
    """Write a figure as PNG, all or nothing."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    atomic.write_file(path, stream.getvalue())


def write_curve(home: Path, history: Sequence[Mapping[str, Any]], best_epoch: int) -> None:
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
        f"kept: {best_epoch}",
        (best_epoch, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if on_the_right else 4, 0),
        textcoords="offset points",
        ha="right" if on_the_right else "left",
        color="#c0392b",
        fontsize=8,
    )
    right.set(xlabel="epoch", ylabel="AUROC, validation")
    right.set_title("blue: mean with 95 % interval; grey: each finding", fontsize=8, loc="left")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(home / CURVE, figure)
