"""What the user may decide about reading."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cxrx.reading.memory import film_memory

Polarity = Literal["header", "auto", "report"]


MOST_WORKERS = 1024
"""Decode processes that anybody may ask for."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Choices that change which films are read, or how.

    Attributes
    ----------
    polarity
        ``"header"``: trust the file. ``"report"``: flag a film that looks like a negative. ``"auto"``: flag and
        invert it.
    views
        Any of ``"frontal"``, ``"lateral"``, ``"oblique"``, ``"unknown"``, or ``"all"``.
    voi_index
        Which of several windows (or VOI LUTs) to display.
    frame
        Index (from 0) of the frame to take from multi-frame files; None: such files are skipped.
    force_dicom
        Also try files without the ``DICM`` mark.
    non_chest
        Also take films of other body parts.
    for_processing
        Also take DX images for processing (raw detector data).
    memory
        Bytes that reading one film may take, all intermediate arrays counted; what would take more is refused before
        anything is allocated. By default what the environment variable ``CXRX_FILM_MEMORY`` says, in MiB.
    """

    polarity: Polarity = "header"
    views: tuple[str, ...] = ("frontal", "unknown")
    voi_index: int = 0
    frame: int | None = None
    force_dicom: bool = False
    non_chest: bool = False
    for_processing: bool = False
    memory: int = field(default_factory=film_memory)
