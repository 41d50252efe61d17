"""Phantoms as DICOM: Digital X-Ray Image - For Presentation (PS3.3 A.26), 12 bits stored in 16."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxrx.phantom.anatomy import Array
    from cxrx.phantom.film import Phantom

MANUFACTURER = "cxrx"
MODEL_NAME = "cxrx phantom"
BITS = 12
BLACK, WHITE = 160, 3900  # stored values that the window shows as black and white
LUT_GAMMA = 1.6  # of the VOI LUT: a display curve steeper in the light parts

# (code, scheme, meaning), PS3.16 CID 4031 and CID 4010
CHEST = ("51185008", "SCT", "Chest")
VIEWS = {
    "PA": ("272479007", "SCT", "postero-anterior"),
    "AP": ("399348003", "SCT", "antero-posterior"),
}

TransferSyntax = Literal["explicit", "rle", "jpeg2000", "jpegls"]
Photometric = Literal["MONOCHROME2", "MONOCHROME1"]
Voi = Literal["window", "lut"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the pixels of a film are stored.

    Attributes
    ----------
    transfer_syntax
        ``"explicit"`` (uncompressed), ``"rle"``, ``"jpeg2000"`` or ``"jpegls"``; all are lossless.
    photometric
        ``"MONOCHROME1"`` stores the film inverted and says so.
    voi
        A linear window, or a lookup table.
    """

    transfer_syntax: TransferSyntax = "explicit"
    photometric: Photometric = "MONOCHROME2"
    voi: Voi = "window"


# compressed syntaxes, each with the one encoder that may write it, so that bytes do not depend on what is installed
COMPRESSORS = {
    "rle": (RLELossless, "pydicom"),
    "jpeg2000": (JPEG2000Lossless, "pylibjpeg"),
    "jpegls": (JPEGLSLossless, "pyjpegls"),
}


def to_dicom(
    phantom: Phantom,
    *,
    transfer_syntax: TransferSyntax = "explicit",
    photometric: Photometric = "MONOCHROME2",
    voi: Voi = "window",
    patient_id: str | None = None,
) -> Dataset:
    """Return the film as a DX image; write it with ``save_as(path, enforce_file_format=True)``.

    Same arguments, same bytes (compressed ones as far as the codec's version is the same). UIDs are derived from seed
    and index under ``2.25``, dates are empty.

    Parameters
    ----------
    phantom
        The film.
    transfer_syntax, photometric, voi
        As in :class:`Encoding`.
    patient_id
        Patient ID and name, by default ``PHANTOM`` and the patient's number.
    """
    ds = _header(phantom, patient_id or f"PHANTOM{phantom.patient + 1:04d}")
    _describe_image(ds, phantom)
    ds.PixelData = _store(ds, phantom.pixels, photometric, voi).tobytes()
    ds["PixelData"].VR = "OW"
    _add_file_meta(ds)
    if transfer_syntax != "explicit":
        syntax, encoder = COMPRESSORS[transfer_syntax]
        ds.compress(syntax, encoding_plugin=encoder, generate_instance_uid=False)
    return ds


def _add_file_meta(ds: Dataset) -> None:
    """Say what is in the file; the implementation is fixed here, so that pydicom's version does not show."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = derived_uid("implementation")
    meta.ImplementationVersionName = "CXRX_PHANTOM"
    ds.file_meta = meta


def derived_uid(*parts: object) -> UID:
    """Return the ``2.25`` UID that belongs to `parts` (PS3.5 B.2)."""
    digest = hashlib.sha256("/".join(("cxrx phantom", *map(str, parts))).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def _header(phantom: Phantom, name: str) -> Dataset:
    """Fill the modules of patient, study, series and equipment."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID = name, name
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyInstanceUID = derived_uid("study", phantom.seed, phantom.index)
    ds.SeriesInstanceUID = derived_uid("series", phantom.seed, phantom.index)
    ds.SOPInstanceUID = derived_uid("film", phantom.seed, phantom.index)
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ds.StudyID = ds.AccessionNumber = ""
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.Manufacturer, ds.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    ds.DeviceSerialNumber, ds.SoftwareVersions = "0", "1"
    return ds


def _describe_image(ds: Dataset, phantom: Phantom) -> None:
    """Fill the modules of general image, DX image, anatomy, positioning, detector and acquisition context."""
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.BodyPartExamined, ds.ImageLaterality = "CHEST", "U"
    ds.AnatomicRegionSequence = DicomSequence([_code(*CHEST)])
    ds.ViewPosition = phantom.view
    ds.ViewCodeSequence = DicomSequence([_code(*VIEWS[phantom.view])])
    ds.PatientOrientation = ["L", "F"]
    ds.PositionerType = "NONE"
    ds.DetectorType = "DIRECT"
    spacing = [f"{phantom.pixel_spacing:.6f}"] * 2
    ds.ImagerPixelSpacing, ds.PixelSpacing = spacing, spacing
    ds.AcquisitionContextSequence = DicomSequence()
    ds.PixelIntensityRelationship = "LOG"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "NO"
    ds.DerivationDescription = "Synthetic film, no patient"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _store(ds: Dataset, pixels: Array, photometric: Photometric, voi: Voi) -> NDArray[np.uint16]:
    """Turn [0, 1] into stored values and describe the way back; return ``(rows, columns)`` uint16."""
    top = 2**BITS - 1
    inverted = photometric == "MONOCHROME1"
    shown = 1 - pixels.astype(np.float64) if inverted else pixels.astype(np.float64)
    if voi == "window":
        # LINEAR (PS3.3 C.11.2.1.2.1) shows BLACK as 0 and WHITE as 1 exactly
        stored = np.round(BLACK + shown * (WHITE - BLACK))
        ds.WindowCenter, ds.WindowWidth = f"{(BLACK + WHITE + 1) / 2:g}", f"{WHITE - BLACK + 1:g}"
        ds.WindowCenterWidthExplanation = "NORMAL"
    else:
        stored = np.round(top * shown ** (1 / LUT_GAMMA))
        table = np.round(65535 * (np.arange(top + 1) / top) ** LUT_GAMMA).astype("<u2")
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [top + 1, 0, 16])
        item.LUTExplanation = "NORMAL"
        item.add_new("LUTData", "OW", table.tobytes())
        ds.VOILUTSequence = DicomSequence([item])
    ds.PhotometricInterpretation = photometric
    ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    ds.PixelIntensityRelationshipSign = 1 if inverted else -1  # -1: lower values, more X-rays
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, BITS, BITS - 1
    return stored.astype("<u2")


def presentation_state(phantom: Phantom) -> Dataset:
    """Return a Grayscale Softcopy Presentation State of the film (PS3.3 A.33.1): of its study, but without pixels."""
    film = to_dicom(phantom)
    ds = Dataset()
    for keyword in _SHARED:
        ds[keyword] = film[keyword]
    ds.SOPClassUID = GrayscaleSoftcopyPresentationStateStorage
    ds.SOPInstanceUID = derived_uid("state", phantom.seed, phantom.index)
    ds.SeriesInstanceUID = derived_uid("state series", phantom.seed, phantom.index)
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "PR", 2, 1
    ds.PresentationCreationDate, ds.PresentationCreationTime = "20000101", "000000"
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "WINDOW", "", ""
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = film.SOPClassUID, film.SOPInstanceUID
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedImageSequence = film.SeriesInstanceUID, DicomSequence([image])
    ds.ReferencedSeriesSequence = DicomSequence([series])
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [1, 1], [film.Columns, film.Rows]
    area.PresentationSizeMode, area.PresentationPixelAspectRatio = "SCALE TO FIT", [1, 1]
    ds.DisplayedAreaSelectionSequence = DicomSequence([area])
    window = Dataset()
    window.WindowCenter, window.WindowWidth = film.WindowCenter, film.WindowWidth
    ds.SoftcopyVOILUTSequence = DicomSequence([window])
    ds.PresentationLUTShape = "IDENTITY"
    _add_file_meta(ds)
    return ds


_SHARED = (
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber", "StudyInstanceUID", "Manufacturer",
    "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions",
)  # fmt: skip
"""What a presentation state has in common with its film."""
