"""Films as DICOM: what the standard demands is there, and the pixels come back."""

from __future__ import annotations

import io
import itertools
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut, pixel_array

from cxrx.phantom import make_film
from cxrx.phantom.dicom import Encoding, derived_uid, presentation_state, to_dicom
from cxrx.phantom.folder import write_film

SYNTAXES = ("explicit", "rle", "jpeg2000", "jpegls")
ENCODINGS = [
    Encoding(syntax, photometric, voi)
    for syntax, photometric, voi in itertools.product(SYNTAXES, ("MONOCHROME2", "MONOCHROME1"), ("window", "lut"))
]

# PS3.3 A.26.3 (For Presentation) and the modules it names: attributes of type 1, with a value ...
TYPE_1 = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "PresentationIntentType",
    "ImageType",
    "ImageLaterality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "PresentationLUTShape",
    "LossyImageCompression",
    "BurnedInAnnotation",
    "PatientOrientation",
    "ImagerPixelSpacing",
    "PixelData",
]
# ... and of type 2, which may be empty
TYPE_2 = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "SeriesNumber",
    "InstanceNumber",
    "Manufacturer",
    "AnatomicRegionSequence",
    "DetectorType",
    "PositionerType",
    "AcquisitionContextSequence",
]


@pytest.fixture(scope="module")
def film():
    return make_film(1, 2, size=(128, 112), patient=6)


def reread(ds: pydicom.Dataset) -> pydicom.Dataset:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def shown(ds: pydicom.Dataset) -> np.ndarray:
    """Return the film as displayed, [0, 1], by pydicom's own steps."""
    values = apply_voi_lut(pixel_array(ds), ds).astype(np.float64)
    # pydicom maps a window onto the range of the stored bits, a table onto its own
    top = 65535 if "VOILUTSequence" in ds else 2**ds.BitsStored - 1
    values = values / top
    return 1 - values if ds.PhotometricInterpretation == "MONOCHROME1" else values


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_pixels_survive_every_encoding(film, encoding):
    ds = reread(to_dicom(film, **asdict(encoding)))
    stored = pixel_array(ds)
    assert stored.max() < 2**12
    np.testing.assert_allclose(shown(ds), film.pixels, atol=1.0 / 2000)


def test_encodings_say_what_they_are(film):
    names = {
        "explicit": "1.2.840.10008.1.2.1",
        "rle": "1.2.840.10008.1.2.5",
        "jpeg2000": "1.2.840.10008.1.2.4.90",
        "jpegls": "1.2.840.10008.1.2.4.80",
    }
    for syntax, uid in names.items():
        ds = reread(to_dicom(film, transfer_syntax=syntax))
        assert ds.file_meta.TransferSyntaxUID == uid
        np.testing.assert_array_equal(pixel_array(ds), pixel_array(to_dicom(film)))


@pytest.mark.parametrize("encoding", ENCODINGS[:4], ids=str)
def test_the_object_is_a_complete_dx_image(film, encoding):
    ds = reread(to_dicom(film, **asdict(encoding)))
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
    for keyword in TYPE_1:
        assert keyword in ds, keyword
        assert ds[keyword].value not in (None, "", b""), keyword
    for keyword in TYPE_2:
        assert keyword in ds, keyword
    assert (ds.Modality, ds.BodyPartExamined, ds.ViewPosition) == ("DX", "CHEST", film.view)
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, 12, 11)
    assert (ds.Manufacturer, ds.ManufacturerModelName) == ("cxrx", "cxrx phantom")
    assert ds.PatientID == ds.PatientName == "PHANTOM0007"
    assert [float(v) for v in ds.PixelSpacing] == pytest.approx([film.pixel_spacing] * 2)
    assert ("WindowCenter" in ds) != ("VOILUTSequence" in ds)
    assert ds.PresentationLUTShape == ("INVERSE" if encoding.photometric == "MONOCHROME1" else "IDENTITY")
    for uid in (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID):
        assert uid.is_valid
        assert uid.startswith("2.25.")


def test_every_value_fits_its_representation(film):
    """pydicom's own checks, made strict, on writing and on reading."""
    for encoding in (Encoding(), Encoding("jpegls", "MONOCHROME1", "lut")):
        pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
        try:
            for element in reread(to_dicom(film, **asdict(encoding))).iterall():
                assert element.VR
        finally:
            pydicom.config.settings.reading_validation_mode = pydicom.config.WARN


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_same_film_same_bytes(film, syntax, tmp_path: Path):
    for name in ("a.dcm", "b.dcm"):
        write_film(film, tmp_path / name, Encoding(syntax))
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


def test_uids_differ_by_film_and_level():
    uids = {to_dicom(make_film(1, k, size=(64, 64))).SOPInstanceUID for k in range(3)}
    assert len(uids) == 3
    assert derived_uid("film", 1, 1) != derived_uid("study", 1, 1)
    assert derived_uid("film", 1, 1) == derived_uid("film", 1, 1)


def test_a_presentation_state_refers_to_its_film_and_holds_no_pixels(film):
    state, image = reread(presentation_state(film)), to_dicom(film)
    assert state.SOPClassUID == "1.2.840.10008.5.1.4.1.1.11.1"
    assert state.Modality == "PR"
    assert "PixelData" not in state
    assert state.StudyInstanceUID == image.StudyInstanceUID
    assert state.SeriesInstanceUID != image.SeriesInstanceUID
    reference = state.ReferencedSeriesSequence[0].ReferencedImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == image.SOPInstanceUID
