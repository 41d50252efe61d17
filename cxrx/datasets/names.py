"""One spelling per finding, so that ``Infiltrate`` in a box table meets ``Infiltration`` in a model's labels."""

from __future__ import annotations

import re

NO_FINDING = "No Finding"

#: The fourteen findings of ChestX-ray14, spelt as its tables spell them (Wang et al. 2017).
NIH_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

_OTHERS = (
    NO_FINDING,
    "Enlarged Cardiomediastinum",
    "Lung Opacity",
    "Lung Lesion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "Aortic enlargement",
    "Calcification",
    "ILD",
    "Nodule/Mass",
    "Other lesion",
)

_SYNONYMS = {
    "infiltrate": "Infiltration",
    "pleural effusion": "Effusion",
    "airspace opacity": "Lung Opacity",
    "pulmonary fibrosis": "Fibrosis",
    "oedema": "Edema",
    "normal": NO_FINDING,
}


def _key(name: str) -> str:
    return " ".join(re.sub(r"[^0-9a-z]+", " ", name.casefold()).split())


_CANONICAL = {_key(name): name for name in (*NIH_FINDINGS, *_OTHERS)} | _SYNONYMS


def canonical(name: str) -> str:
    """Return the usual spelling of a finding; a name nobody knows is returned as it is, stripped.

    Case, blanks and underscores do not matter: ``"pleural thickening"`` is ``"Pleural_Thickening"``.
    """
    return _CANONICAL.get(_key(name), name.strip())


def is_known(name: str) -> bool:
    """Tell whether `name` is a finding of one of the public data sets, however it is spelt."""
    return _key(name) in _CANONICAL
