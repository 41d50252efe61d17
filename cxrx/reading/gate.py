"""Which DICOM objects are chest films, and which view they show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cxrx.reading.header import sequence, text, texts
from cxrx.reading.refusal import skip

if TYPE_CHECKING:
    from pydicom import Dataset

    from cxrx.reading.options import ReadOptions

_STORAGE = "1.2.840.10008.5.1.4.1.1."
CR = _STORAGE + "1"
DX = _STORAGE + "1.1"
DX_FOR_PROCESSING = _STORAGE + "1.1.1"
SECONDARY_CAPTURE = frozenset(_STORAGE + s for s in ("7", "7.1", "7.2", "7.3", "7.4"))
RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "DR", "RG"})

# Longest prefix first: "88." (structured reports) and "88.59" (key objects) share a beginning.
_OTHER_OBJECTS = (
    ("1.2.840.10008.1.3.10", "dicomdir", "a directory of files (DICOMDIR)"),
    (_STORAGE + "11.", "presentation-state", "a presentation state"),
    (_STORAGE + "88.59", "key-object", "a key object selection"),
    (_STORAGE + "88.", "report", "a structured report"),
    (_STORAGE + "66.", "segmentation", "a segmentation or registration"),
    (_STORAGE + "104.", "document", "an encapsulated document"),
    (_STORAGE + "481.", "radiotherapy", "a radiotherapy object"),
    (_STORAGE + "9.", "waveform", "a waveform"),
)

# CID 4030 and what vendors write; matched as parts of words, so that "ERECT CHEST" and "CHEST_TO_ABDOMEN" are chests.
_CHEST = re.compile(r"CHEST|THORA(X|C)|TORAX|LUNG|CXR|PULM|RIB|HEART|STERNUM|BRUST|POUMON")
_NOT_CHEST = re.compile(
    r"EXTREMITY|ABDOMEN|PELVIS|SKULL|HEAD|NECK|SPINE|CERVICAL|LUMBAR|SACRUM|COCCYX|BREAST|HAND|FINGER|THUMB|WRIST|ARM"
    r"|ELBOW|HUMERUS|SHOULDER|CLAVICLE|SCAPULA|HIP|FEMUR|LEG|KNEE|PATELLA|ANKLE|FOOT|TOE|CALCANEUS|TIBIA|FIBULA|JAW"
    r"|TEETH|TOOTH|MANDIBLE|MAXILLA|SINUS|NASAL|ORBIT|FACE|ZYGOMA|SIJOINT|KIDNEY|BLADDER|COLON|STOMACH|ESOPHAGUS"
    r"|UTERUS|WHOLEBODY"
)
_CHEST_REGIONS = frozenset({"51185008", "T-D3000"})  # "chest" in SNOMED CT and SNOMED RT

VIEW_GROUP = {"PA": "frontal", "AP": "frontal", "FRONTAL": "frontal", "LATERAL": "lateral", "OBLIQUE": "oblique"}
"""`Film.view` to the word that ``--views`` takes; no view is ``"unknown"``."""


def check_object(dataset: Dataset, options: ReadOptions) -> None:
    """Let chest radiographs pass and skip every other kind of object with its reason."""
    storage = text(dataset.file_meta, "MediaStorageSOPClassUID") or text(dataset, "SOPClassUID")
    if not storage and "Modality" not in dataset and "Rows" not in dataset:
        raise skip("not-dicom", "the file ends inside its header, or is not DICOM at all")
    for prefix, code, words in _OTHER_OBJECTS:
        if storage.startswith(prefix):
            raise skip(code, f"this is {words}, not a film")
    modality = text(dataset, "Modality").upper()
    if storage in SECONDARY_CAPTURE or not storage:
        if modality not in RADIOGRAPH_MODALITIES:
            raise skip("other-modality", f"this is a secondary capture of {_modality_word(modality)}, not a radiograph")
    elif storage not in {CR, DX, DX_FOR_PROCESSING}:
        raise skip("other-modality", f"this is {_storage_name(storage)}, not a chest radiograph")
    if "LOCALIZER" in texts(dataset, "ImageType"):
        raise skip("localizer", "this is a localizer")
    raw = storage == DX_FOR_PROCESSING or text(dataset, "PresentationIntentType").upper() == "FOR PROCESSING"
    if raw and not options.for_processing:
        raise skip("for-processing", "this is raw detector data for processing; --for-processing takes it")


def _modality_word(modality: str) -> str:
    return f"modality {modality}" if re.fullmatch(r"[A-Z]{2,7}", modality) else "an unnamed modality"


def _storage_name(uid: str) -> str:
    from pydicom.uid import UID

    name = UID(uid).name
    return "an object of a private type" if name == uid else f"an object of type {name}"


def check_body_part(dataset: Dataset, options: ReadOptions) -> tuple[str, ...]:
    """Skip films of other body parts (unless they are asked for); return flags.

    BodyPartExamined counts, or AnatomicRegionSequence where that is empty. A third of real films tell neither; those
    pass.
    """
    part = text(dataset, "BodyPartExamined")
    regions = sequence(dataset, "AnatomicRegionSequence")
    if not part and regions:
        if text(regions[0], "CodeValue") in _CHEST_REGIONS:
            return ()
        part = text(regions[0], "CodeMeaning")
    letters = re.sub(r"[^A-Z]", "", part.upper())
    # "THORACIC SPINE" holds a chest word and is none.
    if not letters or (_CHEST.search(letters) and not re.search("SPINE|LUMBAR", letters)):
        return ()
    named = _NOT_CHEST.search(letters)
    if not named:
        return ("body part: the header's word is not known, taken for a chest",)
    if not options.non_chest:
        raise skip("body-part", f"the header says that this is not a chest ({named[0].lower()}); --non-chest takes it")
    return (f"body part: not a chest ({named[0].lower()})",)


# ---------------------------------------------------------------------------------------------------------------------
# Views

_VIEW_POSITIONS = {
    **dict.fromkeys(("PA",), "PA"),
    **dict.fromkeys(("AP", "AP AXIAL", "LORDOTIC"), "AP"),
    **dict.fromkeys(("LL", "RL", "LLAT", "RLAT", "LAT", "LATERAL", "XTL"), "LATERAL"),
    **dict.fromkeys(("RLD", "LLD", "FRONTAL"), "FRONTAL"),  # decubitus: the patient lies, the beam is frontal
    **dict.fromkeys(("LLO", "RLO", "RAO", "LAO", "RPO", "LPO", "OBLIQUE"), "OBLIQUE"),
}
_VIEW_WORDS = (
    ("OBLIQUE", re.compile(r"\bOBL(IQUE)?\b|\b[RL][AP]O\b")),
    ("LATERAL", re.compile(r"\bLAT(ERAL)?\b|\b[LR]\s?LAT\b|\bPROFILE?\b")),
    ("PA", re.compile(r"\bP\.?A\b|POSTERO.?ANTERIOR")),
    ("AP", re.compile(r"\bA\.?P\b|ANTERO.?POSTERIOR|\bBEDSIDE\b")),
    ("FRONTAL", re.compile(r"\bFRONTAL\b")),
)


def view_of(dataset: Dataset) -> str:
    """Return the view, asked of ViewPosition, ViewCodeSequence, PatientOrientation and SeriesDescription in turn."""
    position = text(dataset, "ViewPosition").upper().replace("_", " ").replace("-", " ")
    if view := _VIEW_POSITIONS.get(position) or _view_in(position):
        return view
    for item in sequence(dataset, "ViewCodeSequence")[:1]:
        if view := _view_in(text(item, "CodeMeaning")):
            return view
    # The first value says where the rows run to: from side to side in a frontal film (PS3.3 C.7.6.1.1.1).
    along_rows = text(dataset, "PatientOrientation").upper()[:1]
    view = {"A": "LATERAL", "P": "LATERAL", "L": "FRONTAL", "R": "FRONTAL"}.get(along_rows, "")
    return view or _view_in(text(dataset, "SeriesDescription"))


def _view_in(words: str) -> str:
    """Return the one view that free text names; "PA and lateral" names none."""
    spaced = words.upper().replace("_", " ")
    found = {view for view, pattern in _VIEW_WORDS if pattern.search(spaced)}
    if "OBLIQUE" in found:
        return "OBLIQUE"
    if "LATERAL" in found:
        return "LATERAL" if len(found) == 1 else ""
    return found.pop() if len(found) == 1 else "FRONTAL" if found else ""


def check_view(view: str, options: ReadOptions) -> None:
    """Skip films of views that were not asked for."""
    group = VIEW_GROUP.get(view, "unknown")
    if group not in options.views and "all" not in options.views:
        raise skip("view", f"the view is {group}; asked for: {', '.join(options.views)}")
