"""Tables as the templates draw them: one shape for all, so that every one scrolls, prints and reads alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.report.words import Record, count, finite, methods_of, number, span


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    text, under
        What it says, and a smaller line below it.
    shade
        Share of the accent colour behind it, 0 to 1; None in tables without colours.
    words
        Text, not a number: to the left, and it may wrap.
    """

    text: str
    under: str = ""
    shade: float | None = None
    words: bool = False


@dataclass(frozen=True)
class Row:
    """A row: its headers (method, finding ...), its cells, and whether it is a control or a total."""

    heads: Sequence[str]
    cells: Sequence[Cell]
    kind: str = ""


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes
    ----------
    caption
        Says what the numbers are, with n.
    heads, columns
        Headings of the row headers and of the cells.
    matrix
        Drawn as a heatmap.
    """

    caption: str
    heads: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Row]
    matrix: bool = False

    def wordy(self, column: int) -> bool:
        """Tell whether a column holds words."""
        return bool(self.rows) and self.rows[0].cells[column].words


DASH = Cell("–")


def value_cell(row: Mapping[str, Any] | None, digits: int = 2, *, name: str = "value") -> Cell:
    """Return a number over its interval; the columns of the interval are `low`, `high` or carry the metric's name."""
    if row is None or finite(row, name) is None:
        return DASH
    low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return Cell(number(row[name], digits), span(row.get(low), row.get(high), digits))


def count_cell(row: Mapping[str, Any], name: str = "n") -> Cell:
    """Return a count, with how many pairs were left out below it."""
    others = finite(row, "nan")
    return Cell(count(row.get(name)), f"{others:.0f} left out" if others else "")


def text_cell(text: Any) -> Cell:
    """Return words; nothing for a missing value."""
    return Cell(text if isinstance(text, str) else "", words=True)


def kind_of(method: str, controls: Collection[str]) -> str:
    """Return the class of a method's row."""
    return "control" if method in controls else ""


def method_rows(table: pd.DataFrame, controls: Collection[str], cells: Callable[[str], Sequence[Cell]]) -> list[Row]:
    """Return a row with its `cells` for every method of a table, the controls last."""
    return [Row([name], cells(name), kind_of(name, controls)) for name in methods_of(table, controls)]


def keyed(rows: Iterable[Record], *names: str) -> dict[tuple[Any, ...], Record]:
    """Return the rows by the values of some columns; of equal ones the first."""
    found: dict[tuple[Any, ...], Record] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), row)
    return found


def matrix(
    rows: Iterable[Record], a: str, b: str, caption: str, *, corner: str = "", order: Sequence[str] = ()
) -> Grid | None:
    """Draw a symmetric table of values as a heatmap; below each number stands the random pair's.

    Parameters
    ----------
    rows, a, b
        The cells, with the columns ``value``, ``random_pair`` and those that name the two sides.
    caption, corner
        What stands above the table, and above the names on its left.
    order
        Of the names; where it does not hold just these, like stands beside like.
    """
    listed = list(rows)
    cells = keyed(listed, a, b) | keyed(listed, b, a)
    there = list(dict.fromkeys(name for row in listed for name in (row[a], row[b])))
    names = list(order) if set(order) == set(there) else clustered(there, cells)
    if len(names) < 2:
        return None
    body = []
    for name in names:
        found = [shaded_cell(cells.get((name, other)), "random_pair", number) for other in names]
        found[names.index(name)] = Cell("·")
        body.append(Row([name], found))
    return Grid(caption, [corner], names, body, matrix=True)


def shaded_cell(row: Record | None, under: str, write: Callable[[Any], str]) -> Cell:
    """Return a number, shaded by its absolute value, over another one of the row."""
    value = None if row is None else finite(row, "value")
    if row is None or value is None:
        return DASH
    return Cell(number(value), write(row.get(under)), min(abs(value), 1.0))


def clustered(names: Sequence[str], cells: Mapping[tuple[Any, ...], Record]) -> list[str]:
    """Order names so that those that agree stand together.

    The leaves of an average-linkage tree on the distance 1 - value, in the order that keeps neighbours closest
    (Bar-Joseph et al. 2001); a pair without a value counts as 0.
    """
    if len(names) < 3:
        return list(names)
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering

    distances: NDArray[np.float64] = np.array(
        [
            max(0.0, 1 - (finite(cells.get((one, other), {}), "value") or 0.0))  # rounding may leave a value above 1
            for i, one in enumerate(names)
            for other in names[i + 1 :]
        ]
    )  # condensed, (n (n - 1) / 2,)
    tree = optimal_leaf_ordering(linkage(distances, "average"), distances)
    return [names[i] for i in leaves_list(tree).tolist()]
