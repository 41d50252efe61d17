"""The link table ``results.private.csv``: which file a film came from. Mode 0600, beside the results, never packed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from cxrx.errors import ResultsError
from cxrx.files import atomic
from cxrx.reading.record import Link

# A cell that begins with one of these is a formula to a spreadsheet; the quote itself is there to make it reversible.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def private_path(results: Path) -> Path:
    """Return the link table's path: ``results.h5`` -> ``results.private.csv``."""
    return results.with_name(results.stem + ".private.csv")


def failures_path(results: Path) -> Path:
    """Return where failures are listed: ``results.h5`` -> ``failures.csv``, ``a.h5`` -> ``a.failures.csv``."""
    return results.with_name("failures.csv" if results.stem == "results" else f"{results.stem}.failures.csv")


def update(old: Iterable[Link], new: Iterable[Link]) -> list[Link]:
    """Return `old` with rows of the same key replaced, then what is new; doing it twice changes nothing."""
    rows = {row.key: row for row in old}
    for row in new:
        rows[row.key] = row
    return list(rows.values())


def write_private(path: Path, rows: Sequence[Link]) -> None:
    """Write the link table, all or nothing, readable by its owner only.

    Raises
    ------
    DiskFullError, ResultsError
        As :func:`cxrx.files.atomic.write_file`.
    """
    columns = [column.name for column in fields(Link)]
    atomic.write_file(path, csv_bytes(columns, (astuple(row) for row in rows)), mode=0o600)


def read_private(path: Path) -> list[Link]:
    """Read the link table; none there is an empty one.

    Raises
    ------
    ResultsError
        If it cannot be read as one.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [_row(line) for line in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ResultsError(f"{path.name} is damaged", "move it away and name the films with --images DIR") from error


def _row(line: Mapping[str, str]) -> Link:
    if None in line.values():
        raise ValueError("a line is too short")
    cells = {column.name: unguard(line[column.name]) for column in fields(Link)}
    size, mtime_ns = int(cells.pop("size")), int(cells.pop("mtime_ns"))
    return Link(**cells, size=size, mtime_ns=mtime_ns)


# ---------------------------------------------------------------------------------------------------------------------
# CSV that a spreadsheet cannot be tricked with


def guard(cell: str) -> str:
    """Put a quote before what a spreadsheet would take for a formula."""
    return "'" + cell if cell.startswith(_FORMULA) else cell


def unguard(cell: str) -> str:
    """Undo :func:`guard`."""
    return cell.removeprefix("'")


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV file; file names that are no valid UTF-8 keep their bytes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)  # its CRLF is also what makes it quote a lone CR or LF
    writer.writerow(columns)
    writer.writerows([guard(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return buffer.getvalue().encode("utf-8", "surrogateescape")
