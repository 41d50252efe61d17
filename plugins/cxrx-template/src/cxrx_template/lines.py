"""A new export format with options: predictions as JSON, a line for each film and model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrx import ExporterSpec, hookimpl


@dataclass(frozen=True)
class LineOptions:
    """`above` leaves out lower probabilities, `digits` rounds; ``-O above=0.5 -O digits=2``."""

    above: float = 0.0
    digits: int = 4


def write_lines(results: Any, out: Path, *, above: float = 0.0, digits: int = 4) -> None:
    """Write one line of JSON for each film and model: its findings and their probabilities, the highest first."""
    table = results.predictions().sort_values("probability", ascending=False, kind="stable")
    lines = []
    for (image, model), rows in table[table.probability >= above].groupby(["image_id", "model"]):
        findings = {row.finding: round(float(row.probability), digits) for row in rows.itertuples()}
        lines.append(json.dumps({"image_id": image, "model": model, "findings": findings}))
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@hookimpl
def register_exporters(register: Any) -> None:
    """Register the format: its name, the suffix of its files, and what writes them."""
    summary = "predictions, a line of JSON for each film and model"
    register(ExporterSpec("lines", ".jsonl", write_lines, summary=summary, options=LineOptions))
