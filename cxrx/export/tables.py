"""Results and comparisons as CSV. Text cells that a spreadsheet would run as a formula get a quote in front."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrx.compare.comparison import ALWAYS, COLUMNS, Comparison, plain_rows
from cxrx.errors import UsageError
from cxrx.files.atomic import unlink, write_file
from cxrx.results.private import csv_bytes
from cxrx.results.truth import UNKNOWN

if TYPE_CHECKING:
    from cxrx.results.reader import Results

LONG_COLUMNS = ("image_id", "film", "patient", "status", "model", "finding", "logit", "probability", "label")
_JOINED = 3  # files whose names make up that of their comparison


def film_names(results: Results, *, share: bool) -> dict[str, str]:
    """Return image_id to relative path, as far as the private link table knows; nothing where `share` is set."""
    private = None if share else results.private()
    return {} if private is None else dict(zip(private["image_id"], private["relative"], strict=True))


def write_long_csv(results: Results, out: Path, *, share: bool = False) -> None:
    """Write one row per film, model and finding; a file with names in it is readable by its owner only.

    Parameters
    ----------
    out
        The CSV file; columns :data:`LONG_COLUMNS`. A label that is not known is blank.
    share
        Leave the films' file names out.
    """
    names = film_names(results, share=share)
    films = results.images().set_index("image_id")
    known = results.labels()
    labels = {finding: known[finding].to_dict() for finding in known.columns}
    rows: list[list[Any]] = []
    for image_id, model, finding, logit, probability in results.predictions().itertuples(index=False, name=None):
        label = labels.get(finding, {}).get(image_id, UNKNOWN)
        film = films.loc[image_id]
        rows.append([
            image_id, names.get(image_id, ""), film["patient"], film["status"], model, finding,
            _short(logit), _short(probability), "" if label == UNKNOWN else int(label),
        ])  # fmt: skip
    write_file(out, csv_bytes(LONG_COLUMNS, rows), mode=_mode(names))


def write_chexnet_csv(results: Results, out: Path, *, model: str | None = None, share: bool = False) -> None:
    """Write one row per film: ``Image Index, prob_<finding>...``, the layout of the CheXNet repositories.

    A file with names in it is readable by its owner only.

    Parameters
    ----------
    model
        Which model, where the file holds several.
    share
        Name films by image_id instead of by file name.

    Raises
    ------
    UsageError
        If `model` does not name one model, or it has no predictions.
    """
    slug = results.model(model)
    names = film_names(results, share=share)
    probability = results.probabilities(slug)
    predicted = np.flatnonzero(results.predicted(slug))
    if not len(predicted):
        raise UsageError(f"{results.path.name} holds no predictions of {slug}")
    ids = results.image_ids
    rows = [[Path(names.get(ids[i], ids[i])).name, *map(_short, probability[i])] for i in predicted.tolist()]
    write_file(
        out, csv_bytes(["Image Index", *(f"prob_{name}" for name in results.findings(slug))], rows), mode=_mode(names)
    )


def _mode(names: Mapping[str, str]) -> int:
    return 0o600 if names else 0o666


def _short(value: float) -> float:
    """Return a float32 with the digits it has; a number, so that a minus sign is not taken for a formula."""
    return float(f"{value:.7g}")


# ---------------------------------------------------------------------------------------------------------------------
# Comparisons


def prefix_of(results: Sequence[Path]) -> str:
    """Return how names of reports and tables begin: not at all for ``results.h5``, ``"a."`` for ``a.h5``.

    Of several files it is ``"a+b."``, of more than three ``"a+9."``.
    """
    files = dict.fromkeys(path.resolve() for path in results)
    names = [path.stem if path.suffix == ".h5" else path.name for path in files]
    joined = "+".join(names) if len(names) <= _JOINED else f"{names[0]}+{len(names) - 1}"
    return "" if joined == "results" else f"{joined}."


def write_tables(comparison: Comparison, folder: Path, prefix: str = "") -> list[Path]:
    """Write ``summary.csv``, ``per_pair.csv``, ``paired_tests.csv``, ``compare.json``, and other tables with rows.

    Films appear by image_id only. Names begin with `prefix`. Tables that are not made this time, and that an earlier
    comparison of that prefix wrote, are removed. Returns the paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        f"{prefix}{name}.csv": csv_bytes(list(table.columns), plain_rows(table))
        for name, table in comparison.tables().items()
        if len(table) or name in ALWAYS
    }
    for name, content in contents.items():
        write_file(folder / name, content)
    summary = folder / f"{prefix}compare.json"
    for path, digest in _written_before(summary, prefix).items():
        if path.name not in contents and path.is_file() and sha256(path.read_bytes()).hexdigest() == digest:
            unlink(path)
    described = comparison.as_json() | {"written": {name: sha256(own).hexdigest() for name, own in contents.items()}}
    write_file(summary, (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode())
    return [*(folder / name for name in contents), summary]


def _written_before(summary: Path, prefix: str) -> dict[Path, str]:
    """Return the tables that the last comparison wrote beside its `summary`, with the sha256 of each."""
    try:
        written = json.loads(summary.read_bytes())["written"]
        return {summary.with_name(f"{prefix}{name}.csv"): written.get(f"{prefix}{name}.csv", "") for name in COLUMNS}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # none, or not ours: nothing is removed
