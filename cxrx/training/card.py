"""The model card: what a reader must know before using the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cxrx.files import atomic
from cxrx.models.load import describe_input
from cxrx.training.data import of_one_class
from cxrx.training.recipes import NO_FLIPS, differences
from cxrx.training.weights import CARD, CURVE, METRICS, MODEL

if TYPE_CHECKING:
    from cxrx.training.classifier import ClassifierTraining
    from cxrx.training.run import TrainingResult

_COLUMNS = (
    "finding", "films", "positive", "AUROC (95 % CI)", "AUPRC", "F1", "F1 macro", "F1 weighted", "accuracy",
    "threshold", "TN / FP / FN / TP",
)  # fmt: skip


def write_card(training: ClassifierTraining, result: TrainingResult) -> None:
    """Write the card of a finished training."""
    model, films, recipe, progress = training.model, training.films, training.recipe, result.progress
    sizes = " / ".join(f"{len(films.rows(split)):,}" for split in ("train", "valid", "test"))
    changed = ", ".join(f"{name} {value}" for name, value in differences(recipe).items())
    count = sum(p.numel() for p in model.module.parameters())
    learned = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
    facts = {
        "architecture": f"{training.metadata['arch']}, {count:,} parameters, {learned:,} learned",
        "initial weights": training.metadata["init"],
        "input": describe_input(model.input),
        "task": films.task,
        "findings": ", ".join(films.findings),
        "data": f"{films.name}; {sizes} films for training, validation and test; split: {films.split_kind}",
        "left out": "; ".join(films.notes) or "nothing",
        "unreadable": f"{len(training.decoded.unread)} films",
        "recipe": f"{recipe.preset}{', with ' + changed if changed else ''}",
        "mirroring": f"probability {recipe.flip:g}" if recipe.flip else NO_FLIPS,
        "epochs": f"{progress.epoch}; the weights are those of epoch {progress.best_epoch}, best on validation films",
        "thresholds": f"{recipe.threshold}, chosen on validation films",
    }
    if names := of_one_class(films):
        facts["thresholds"] += f"; 0.5 for {', '.join(names)}, of which these show one class only"
    if recipe.threshold == "half":
        facts["thresholds"] = "0.5 for every finding"
    if films.task == "multi-class":
        facts["thresholds"] = "none needed: a film is of the class of highest probability"
    warning = "**Not a medical device: for research only.**"
    if training.decoded.synthetic:
        warning += " **Trained on synthetic films only: it knows nothing of real films.**"
    parts = [f"# {training.metadata['arch']}\n", f"{warning}\n", "| | |\n|---|---|"]
    parts[-1] += "".join(f"\n| {name} | {text} |" for name, text in facts.items())
    titles = {"Test films, looked at once, after training": result.test, "Validation films": result.valid}
    for title, part in titles.items():
        numbers = _table(_COLUMNS, map(_row, part.rows)) if part is not None else "There are none."
        parts.append(f"\n## {title}\n\n{numbers}")
        if part is not None and part.confusion is not None:
            counts = [(name, *row) for name, row in zip(films.findings, part.confusion, strict=True)]
            parts.append("\n" + _table(("true class, down; predicted, across", *films.findings), counts))
    parts.append(
        f"\nOn validation films the numbers are too good: weights and thresholds were chosen on them.\n\n"
        f"![learning curve]({CURVE})\n\nAll epochs are in `{METRICS}`. "
        f"Use the weights with `cxrx predict DIR -m {result.out.name}` or from `{MODEL}`."
    )
    atomic.write_file(result.out / CARD, ("\n".join(parts) + "\n").encode())


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _row(row: Mapping[str, Any]) -> list[str]:
    auroc = _number(row["auroc"])
    if math.isfinite(row["auroc_low"]):
        auroc += f" ({row['auroc_low']:.3f} to {row['auroc_high']:.3f})"
    name = "**all** (means, sums)" if row["finding"] == "all" else row["finding"]
    numbers = [_number(row[name]) for name in ("auprc", "f1", "f1_macro", "f1_weighted", "accuracy", "threshold")]
    counts = " / ".join(str(row[name]) for name in ("tn", "fp", "fn", "tp"))
    return [name, str(row["n"]), str(row["positives"]), auroc, *numbers, counts]


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"
