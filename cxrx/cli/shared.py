"""Printing and parsing that several commands share."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

SHOWN_ITEMS = 20  # of a list in a line


def print_json(value: Any) -> None:
    """Print `value` as JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_fields(described: Mapping[str, Any]) -> None:
    """Print what is known of one thing, a line a field; empty ones are left out."""
    for key, value in described.items():
        if value not in (None, "", [], {}):
            typer.echo(f"{key.replace('_', ' '):<10} {_in_words(value)}")


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(value[:SHOWN_ITEMS]) + (
            f" and {len(value) - SHOWN_ITEMS} more" if len(value) > SHOWN_ITEMS else ""
        )
    return str(value)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a plain table on stdout: left-aligned text, right-aligned numbers."""
    cells = [[_text(cell) for cell in row] for row in rows]
    numeric = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(headers))]
    widths = [max(len(header), *(len(row[i]) for row in cells), 0) for i, header in enumerate(headers)]
    for row in [list(headers), *cells]:
        line = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True))
        typer.echo("  ".join(line).rstrip())


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return "-" if cell != cell else f"{cell:.3f}"  # noqa: PLR0124 - NaN
    return "-" if cell is None else str(cell)


def _is_number(text: str) -> bool:
    return text in {"-", ""} or text.lstrip("+-").replace(".", "", 1).replace("%", "").isdigit()


class _StderrHandler(logging.Handler):
    """Writes to whatever stderr is at the time, above a progress bar that may stand there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def start_logging() -> None:
    """Send the program's log lines to stderr, bare."""
    logger = logging.getLogger("cxrx")
    if not logger.handlers:
        logger.addHandler(_StderrHandler())
        logger.setLevel(logging.INFO)


def split_names(text: str | None) -> list[str] | None:
    """Split ``a,b,c``; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
