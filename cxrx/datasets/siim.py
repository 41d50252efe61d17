"""SIIM-ACR Pneumothorax (2019): ``train-rle.csv``, header ``ImageId, EncodedPixels`` (mind the blank).

Masks are relative run-length encodings down the columns of the 1024 x 1024 film; `` -1`` means no pneumothorax; several
rows of a film are parts of one mask. Films are called ``<ImageId>.dcm``.
"""

from __future__ import annotations

import re

from cxrx.datasets import rle
from cxrx.datasets.sheet import Format, Sheet, Table, cell, film_name, split_of_path
from cxrx.datasets.specs import SIIM
from cxrx.specs import FilmTruth, Mask

FINDING = "Pneumothorax"
SIDE = 1024
SHAPE = (SIDE, SIDE)


def read_masks(sheet: Sheet) -> Table:
    """Read the masks; one that cannot be decoded keeps its label."""
    image, encoded = sheet.required("imageid"), sheet.required("encodedpixels")
    labels: dict[str, int] = {}
    parts: dict[str, dict[str, rle.Counts]] = {}
    for row in sheet.rows:
        name, text = film_name(cell(row, image)), cell(row, encoded)
        if not name or not text:
            sheet.problems["rows without a film or an encoding were left out"] += 1
            continue
        masked = text != "-1"
        if labels.setdefault(name, int(masked)) != int(masked):
            sheet.problems["films with a row that says -1 and one with a mask were taken as positive"] += 1
            labels[name] = 1
        if not masked:
            continue
        try:
            parts.setdefault(name, {})[text] = rle.from_relative(text, SHAPE)
        except ValueError:  # also a number of thousands of digits
            sheet.problems["masks that are no run-length encoding of 1024 x 1024 pixels were left out"] += 1
    films = {}
    for name, label in labels.items():
        found = parts.get(name)
        masks = (Mask(FINDING, SHAPE, rle.union(list(found.values()), SHAPE)),) if found else ()
        films[name] = FilmTruth({FINDING: label}, masks=masks, split=split_of_path(name))
    return Table(sheet.path, "siim", films, (FINDING,), sheet.sentences(), side=SIDE)


FORMATS = (
    Format(
        "siim",
        frozenset({"imageid", "encodedpixels"}),
        read_masks,
        SIIM,
        re.compile(r"train-rle.*|stage_2_train\.csv", re.IGNORECASE),
    ),
)
