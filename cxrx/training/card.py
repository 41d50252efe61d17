"""The model card: what a reader must know before using the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrx.files import atomic
from cxrx.models.load import describe_input
from cxrx.training.data import untold
from cxrx.training.metrics import Evaluation
from cxrx.training.network import trainable
from cxrx.training.recipes import NO_FLIPS, differences
from cxrx.training.state import Progress
from cxrx.training.weights import CARD, CURVE, METRICS, MODEL

if TYPE_CHECKING:
    from cxrx.training.loop import Study


def write_card(home: Path, study: Study, progress: Progress, valid: Evaluation | None, test: Evaluation | None) -> None:
    """Write the card of a finished training."""
    model, films, recipe = study.model, study.films, study.recipe
    sizes = " / ".join(f"{len(films.rows(split)):,}" for split in ("train", "valid", "test"))
    changed = ", ".join(f"{name} {value}" for name, value in differences(recipe).items())
    numbers = sum(p.numel() for p in model.module.parameters())
    facts = {
        "architecture": f"{study.metadata['arch']}, {numbers:,} parameters, {trainable(model.module):,} learned",
        "initial weights": study.metadata["init"],
        "input": describe_input(model.input),
        "task": films.task,
        "findings": ", ".join(films.findings),
        "data": f"{films.name}; {sizes} films for training, validation and test; split: {films.split_kind}",
        "left out": "; ".join(films.notes) or "nothing",
        "unreadable": f"{len(study.decoded.unread)} films",
        "recipe": f"{recipe.preset}{', with ' + changed if changed else ''}",
        "mirroring": f"probability {recipe.flip:g}" if recipe.flip else NO_FLIPS,
        "epochs": f"{progress.epoch}; the weights are those of epoch {progress.best_epoch}, best on validation films",
        "thresholds": f"{recipe.threshold}, chosen on validation films{_but(untold(films))}",
    }
    if films.task == "multi-class":
        facts["thresholds"] = "none needed: a film is of the class of highest probability"
    parts = [f"# {study.metadata['arch']}\n", _warning(study.decoded.synthetic), "| | |\n|---|---|"]
    parts[-1] += "".join(f"\n| {name} | {text} |" for name, text in facts.items())
    for title, part in (("Test films, looked at once, after training", test), ("Validation films", valid)):
        parts.append(f"\n## {title}\n\n{_table(part)}" if part is not None else f"\n## {title}\n\nThere are none.")
        if part is not None and part.confusion is not None:
            parts.append(_confusion(films.findings, part.confusion))
    parts.append(
        f"\nOn validation films the numbers are too good: weights and thresholds were chosen on them.\n\n"
        f"![learning curve]({CURVE})\n\nAll epochs are in `{METRICS}`. "
        f"Use the weights with `cxrx predict DIR -m {home.name}` or from `{MODEL}`."
    )
    atomic.write_file(home / CARD, ("\n".join(parts) + "\n").encode())


def _but(names: list[str]) -> str:
    return f"; 0.5 for {', '.join(names)}, of which these show one side only" if names else ""


def _warning(synthetic: bool) -> str:
    text = "**Not a medical device: for research only.**"
    if synthetic:
        text += " **Trained on synthetic films only: it knows nothing of real films.**"
    return text + "\n"


def _table(part: Evaluation) -> str:
    names = "finding, films, positive, AUROC (95 % CI), AUPRC, F1, F1 macro, F1 weighted, accuracy, threshold"
    columns = [*names.split(", "), "TN / FP / FN / TP"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(_row(row) for row in part.rows)])


def _row(row: Mapping[str, Any]) -> str:
    interval = ""
    if _known(row["auroc_low"]):
        interval = f" ({row['auroc_low']:.3f} to {row['auroc_high']:.3f})"
    numbers = " | ".join(
        _number(row[name]) for name in ("auprc", "f1", "f1_macro", "f1_weighted", "accuracy", "threshold")
    )
    counts = " / ".join(str(row[name]) for name in ("tn", "fp", "fn", "tp"))
    name = "**all** (means, sums)" if row["finding"] == "all" else row["finding"]
    return f"| {name} | {row['n']} | {row['positives']} | {_number(row['auroc'])}{interval} | {numbers} | {counts} |"


def _known(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _number(value: Any) -> str:
    return f"{value:.3f}" if _known(value) else "–"


def _confusion(classes: tuple[str, ...], counts: list[list[int]]) -> str:
    lines = [
        "",
        "| true class, down; predicted, across | " + " | ".join(classes) + " |",
        "|" + "---|" * (len(classes) + 1),
    ]
    lines += [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in zip(classes, counts, strict=True)]
    return "\n".join(lines)
