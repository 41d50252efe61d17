"""One spelling per finding, so that ``Infiltrate`` in a box table meets ``Infiltration`` in a model's labels."""

from __future__ import annotations

import difflib
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

#: The fourteen columns of CheXpert and MIMIC-CXR, in canonical spelling (Irvin et al. 2019).
CHEXPERT_FINDINGS = (
    NO_FINDING,
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

#: What the readers of VinDr-CXR were asked for besides (Nguyen et al. 2022).
_VINDR = (
    "Aortic enlargement",
    "Calcification",
    "Clavicle fracture",
    "Enlarged PA",
    "ILD",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Rib fracture",
    "Other lesion",
    "COPD",
    "Lung tumor",
    "Tuberculosis",
    "Other disease",
)

_CLASSES = ("COVID-19", "Viral Pneumonia", "Bacterial Pneumonia")

_SYNONYMS = {
    "infiltrate": "Infiltration",
    "pleural effusion": "Effusion",
    "airspace opacity": "Lung Opacity",
    "opacity": "Lung Opacity",
    "other diseases": "Other disease",
    "covid": "COVID-19",
    "covid19": "COVID-19",
    "pneumonia viral": "Viral Pneumonia",
    "pneumonia bacterial": "Bacterial Pneumonia",
    "tb": "Tuberculosis",
    "pulmonary fibrosis": "Fibrosis",
    "oedema": "Edema",
    "normal": NO_FINDING,
    "healthy": NO_FINDING,
}


def _key(name: str) -> str:
    return " ".join(re.sub(r"[^0-9a-z]+", " ", name.casefold()).split())


_CONTROL = re.compile("[\x00-\x1f\x7f]+")
_CANONICAL = {_key(name): name for name in (*NIH_FINDINGS, *CHEXPERT_FINDINGS, *_VINDR, *_CLASSES)} | _SYNONYMS


def canonical(name: str) -> str:
    """Return the usual spelling of a finding; a name nobody knows is returned as it is, stripped.

    Control characters count as blanks: HDF5 would end a name at one of them.

    Case, blanks and underscores do not matter: ``"pleural thickening"`` is ``"Pleural_Thickening"``.
    """
    return _CANONICAL.get(_key(name), _CONTROL.sub(" ", name).strip())


def is_known(name: str) -> bool:
    """Tell whether `name` is a finding of one of the public data sets, however it is spelt."""
    return _key(name) in _CANONICAL


def nearest(name: str) -> str:
    """Return the known finding that `name` looks like a slip of; empty where there is none."""
    close = difflib.get_close_matches(_key(name), _CANONICAL, n=1, cutoff=0.8)
    return _CANONICAL[close[0]] if close and not is_known(name) else ""
