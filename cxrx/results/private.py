"""The link table ``results.private.csv``: which file a film came from. Mode 0600, beside the results, never packed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from cxrx.errors import ResultsError
from cxrx.files import atomic
from cxrx.results.records import ImageRecord

# A cell that begins with one of these is a formula to a spreadsheet; the quote itself is there to make it reversible.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


@dataclass(frozen=True, slots=True)
class PrivateRow:
    """One line of the link table.

    Attributes
    ----------
    kind
        ``"film"``, ``"failure"`` (a file whose bytes could not be read; `image_id` is its label in ``/failures``) or
        ``"model"`` (`image_id` is its slug, `relative` the name it was asked for by, `path` its weights).
    """

    kind: str
    image_id: str
    relative: str = ""
    path: str = ""
    member: str = ""
    uid: str = ""
    patient: str = ""
    size: int = 0
    mtime_ns: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        """What a later row with the same key replaces."""
        place = (self.path, self.member) if self.kind == "film" else ()
        return (self.kind, self.image_id, *place)


def film_row(record: ImageRecord) -> PrivateRow:
    """Return the private side of `record`."""
    return PrivateRow(
        "film",
        record.image_id,
        record.relative,
        record.path,
        record.member,
        record.uid,
        record.patient,
        record.size,
        record.mtime_ns,
    )


def private_path(results: Path) -> Path:
    """Return the link table's path: ``results.h5`` -> ``results.private.csv``."""
    return results.with_name(results.stem + ".private.csv")


def failures_path(results: Path) -> Path:
    """Return where failures are listed: ``results.h5`` -> ``failures.csv``, ``a.h5`` -> ``a.failures.csv``."""
    return results.with_name("failures.csv" if results.stem == "results" else f"{results.stem}.failures.csv")


def update(old: Iterable[PrivateRow], new: Iterable[PrivateRow]) -> list[PrivateRow]:
    """Return `old` with rows of the same key replaced, then what is new; doing it twice changes nothing."""
    rows = {row.key: row for row in old}
    for row in new:
        rows[row.key] = row
    return list(rows.values())


def write_private(path: Path, rows: Sequence[PrivateRow]) -> None:
    """Write the link table, all or nothing, readable by its owner only.

    Raises
    ------
    DiskFullError, ResultsError
        As :func:`cxrx.files.atomic.write_file`.
    """
    columns = [column.name for column in fields(PrivateRow)]
    atomic.write_file(path, csv_bytes(columns, (astuple(row) for row in rows)), mode=0o600)


def read_private(path: Path) -> list[PrivateRow]:
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
        raise ResultsError(f"{path.name} is damaged; move it away and name the films with --images DIR.") from error


def _row(line: Mapping[str, str]) -> PrivateRow:
    if None in line.values():
        raise ValueError("a line is too short")
    cells = {column.name: unguard(line[column.name]) for column in fields(PrivateRow)}
    size, mtime_ns = int(cells.pop("size")), int(cells.pop("mtime_ns"))
    return PrivateRow(**cells, size=size, mtime_ns=mtime_ns)


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
