"""Predictions as CSV. Text cells that a spreadsheet would run as a formula get a quote in front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrx.errors import UsageError
from cxrx.files.atomic import write_file
from cxrx.results.private import csv_bytes
from cxrx.results.truth import UNKNOWN

if TYPE_CHECKING:
    from cxrx.results.reader import Results

LONG_COLUMNS = ("image_id", "film", "patient", "status", "model", "finding", "logit", "probability", "label")


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
