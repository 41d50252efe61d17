"""Synthetic frontal chest films with planted findings and the truth about them.

The package is lazy: the names of the findings cost nothing, drawing imports scipy, writing imports pydicom.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrx.phantom.dicom import Encoding, to_dicom
    from cxrx.phantom.film import Phantom, make_film
    from cxrx.phantom.folder import write_folder

__all__ = ["FINDINGS", "Encoding", "Phantom", "make_film", "to_dicom", "write_folder"]

FINDINGS = ("Consolidation", "Nodule", "Effusion", "Pneumothorax", "Cardiomegaly")

_HOMES = {"Encoding": "dicom", "to_dicom": "dicom", "Phantom": "film", "make_film": "film", "write_folder": "folder"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
