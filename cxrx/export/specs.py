"""The built-in export formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrx.specs import ExporterSpec

if TYPE_CHECKING:
    from cxrx.export.films import Films
    from cxrx.results.reader import Results


@dataclass(frozen=True)
class WideOptions:
    """Options of ``chexnet-csv``.

    Attributes
    ----------
    model
        Which model, where the file holds several.
    """

    model: str | None = None


@dataclass(frozen=True)
class PngOptions:
    """Options of ``png``.

    Attributes
    ----------
    model, methods, findings
        Which of them; none: all.
    grid
        One picture per film and finding with the methods side by side, instead of one per method.
    longest
        Pixels of the longer side of the film.
    """

    model: str | None = None
    methods: tuple[str, ...] | None = None
    findings: tuple[str, ...] | None = None
    grid: bool = False
    longest: int = 512

    def __post_init__(self) -> None:
        if not 1 <= self.longest <= 10_000:
            raise ValueError(f"longest must lie between 1 and 10000, not at {self.longest}")


def _csv(results: Results, out: Path, *, share: bool = False) -> None:
    from cxrx.export.tables import write_long_csv

    write_long_csv(results, out, share=share)


def _chexnet_csv(results: Results, out: Path, *, share: bool = False, model: str | None = None) -> None:
    from cxrx.export.tables import write_chexnet_csv

    write_chexnet_csv(results, out, share=share, model=model)


def _png(results: Results, out: Path, *, films: Films | None = None, **options: Any) -> None:
    from cxrx.export.png import write_png

    write_png(results, out, films=films, **options)


BUILTIN_EXPORTERS = (
    ExporterSpec("csv", ".csv", _csv, "a row for every film, model and finding: logit, probability, label"),
    ExporterSpec(
        "chexnet-csv",
        ".chexnet.csv",
        _chexnet_csv,
        "Image Index, prob_<finding>..., as CheXNet's repositories",
        WideOptions,
    ),
    ExporterSpec("png", ".overlays", _png, "a folder of pictures: every map over its film", PngOptions),
)
