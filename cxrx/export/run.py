"""Call an exporter: its options checked, and handed what its signature names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrx.errors import UsageError
from cxrx.options import parse_options

if TYPE_CHECKING:
    from cxrx.results.reader import Results
    from cxrx.specs import ExporterSpec


@dataclass(frozen=True)
class _NoOptions:
    """What an exporter without a type of options has."""


def export(
    spec: ExporterSpec,
    results: Results,
    out: Path,
    options: Mapping[str, Any],
    *,
    images: Path | None = None,
    share: bool = False,
) -> None:
    """Write `results` to `out` in the format of `spec`.

    Parameters
    ----------
    spec, results, out
        The exporter, open results, and the file or folder to write.
    options
        By name: text, as on the command line, or Python's own values; the rest are the defaults of ``spec.options``.
    images
        Folder of moved films; they are found by their content.
    share
        Leave the films' file names out.

    Raises
    ------
    UsageError
        An option that the exporter does not have or a value that does not fit, or `images` or `share` for an exporter
        that takes neither.
    """
    parsed: Any = parse_options(spec.options or _NoOptions, options, spec.name)
    keywords = {field.name: getattr(parsed, field.name) for field in fields(parsed)}
    parameters = inspect.signature(spec.write).parameters
    for name, value, why in (("images", images, "reads no films"), ("share", share, "cannot leave file names out")):
        if value and not takes(spec, name):
            raise UsageError(f"{spec.name} {why}, so --{name} has no use")
        if name in parameters or (value and "films" not in parameters):
            keywords[name] = value
    if "films" in parameters:
        from cxrx.compare.corpus import Corpus
        from cxrx.export.films import Films

        keywords["films"] = Films(Corpus([results]), images, share=share)
    spec.write(results, out, **keywords)


def option_names(spec: ExporterSpec) -> set[str]:
    """Return the names of an exporter's options."""
    return {field.name for field in fields(spec.options or _NoOptions)}


def takes(spec: ExporterSpec, name: str) -> bool:
    """Whether `write` takes ``images`` or ``share``: by itself, in ``films``, which know both, or as any keyword."""
    parameters = inspect.signature(spec.write).parameters
    return bool({name, "films"} & parameters.keys()) or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
