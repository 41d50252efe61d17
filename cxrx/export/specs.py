"""The built-in export formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrx.specs import ExporterSpec

if TYPE_CHECKING:
    from cxrx.results.reader import Results


def _csv(results: Results, out: Path, **options: Any) -> None:
    from cxrx.export.tables import write_long_csv

    write_long_csv(results, out, **options)


def _chexnet_csv(results: Results, out: Path, **options: Any) -> None:
    from cxrx.export.tables import write_chexnet_csv

    write_chexnet_csv(results, out, **options)


def _png(results: Results, out: Path, **options: Any) -> None:
    from cxrx.export.png import write_png

    write_png(results, out, **options)


BUILTIN_EXPORTERS = (
    ExporterSpec("csv", ".csv", _csv, summary="a row for every film, model and finding: logit, probability, label"),
    ExporterSpec(
        "chexnet-csv", ".chexnet.csv", _chexnet_csv, summary="Image Index, prob_<finding>..., as CheXNet's repositories"
    ),
    ExporterSpec("png", ".overlays", _png, summary="a folder of pictures: every map over its film"),
)
