"""Films made in memory: every test of this room builds the file it needs."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import DataElement, Dataset, config, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import validate_file_meta
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    generate_uid,
)

from cxrx.reading.item import Item
from cxrx.reading.options import ReadOptions
from cxrx.reading.readers import DICOM, read_films
from cxrx.specs import Film, Unreadable

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"


def ramp(rows: int = 32, columns: int = 40, bits: int = 12) -> np.ndarray:
    """A picture in which every pixel tells where it is."""
    values = np.linspace(0, (1 << bits) - 1, rows * columns).round()
    return values.astype(np.uint8 if bits <= 8 else np.uint16).reshape(rows, columns)


def film_dataset(pixels: np.ndarray | None = None, **elements: Any) -> Dataset:
    """A small CR chest film; `elements` override (None deletes)."""
    pixels = ramp() if pixels is None else pixels
    bits = 8 * pixels.dtype.itemsize
    values: dict[str, Any] = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "SOPInstanceUID": generate_uid(entropy_srcs=["film"]),
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientID": "P1",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": pixels.shape[2] if pixels.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": 12 if bits == 16 else bits,
        "HighBit": (12 if bits == 16 else bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    if pixels.ndim == 3:
        values["PlanarConfiguration"] = 0
    if bits == 16:
        values |= {"WindowCenter": "2048", "WindowWidth": "4096"}
    dataset = Dataset()
    with config.disable_value_validation():
        for keyword, value in (values | elements).items():
            if value is not None:
                set_element(dataset, keyword, value)
    return dataset


def set_element(dataset: Dataset, keyword: str, value: Any) -> None:
    """Set a value; ``(VR, value)`` goes into the file as it is, however wrong."""
    if isinstance(value, tuple):
        vr, given = value
        raw = given.to_bytes(2, "little") if isinstance(given, int) else given.encode()
        raw += b" " * (len(raw) % 2)
        tag = BaseTag(Tag(keyword))
        dataset[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    elif keyword == "PixelData":
        dataset.add(DataElement(Tag(keyword), "OW" if dataset.get("BitsAllocated", 16) > 8 else "OB", value))
    else:
        setattr(dataset, keyword, value)


def file_bytes(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Write `dataset` as a DICOM file, compressing native pixels where `syntax` asks for it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", ComputedRadiographyImageStorage)
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    if syntax in {ExplicitVRBigEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian}:
        out = BytesIO()
        meta.TransferSyntaxUID = syntax
        dcmwrite(out, dataset, enforce_file_format=True)
        return out.getvalue()
    if syntax == JPEGBaseline8Bit:
        pixels = np.frombuffer(dataset.PixelData, np.uint8).reshape(dataset.Rows, dataset.Columns)
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=95)
        set_stream(dataset, syntax, stream.getvalue())
    elif syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
    return _written(dataset)


def _written(dataset: Dataset) -> bytes:
    """Write without pydicom's own checks, which would stop the files that these tests are about."""
    dataset.preamble = bytes(128)
    validate_file_meta(dataset.file_meta, enforce_standard=True)
    out = BytesIO()
    with config.disable_value_validation():
        dcmwrite(out, dataset, implicit_vr=False, little_endian=True)
    return out.getvalue()


def with_syntax(data: bytes, syntax: str) -> bytes:
    """Name another transfer syntax in the file meta information of `data`."""
    at = data.find(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    return data[: at + 6] + len(value).to_bytes(2, "little") + value + data[at + 8 + length :]


def set_stream(dataset: Dataset, syntax: str, stream: bytes) -> None:
    """Put a ready codestream into the data set."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def encapsulated(stream: bytes, syntax: str, **elements: Any) -> bytes:
    """A file whose pixel data are `stream`, whatever the header says."""
    dataset = film_dataset(**elements)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    set_stream(dataset, JPEG2000Lossless, stream)
    return with_syntax(_written(dataset), syntax)


def read(data: bytes, reader: str = DICOM, **options: Any) -> Film | Unreadable:
    """Read a file that exists in memory only."""
    item = Item(Path("/nowhere"), "film", len(data), 0, reader, data=data)
    (result,) = read_films(item, ReadOptions(**options))
    if isinstance(result, Film):  # what every film promises
        assert result.pixels.dtype == np.float32
        assert result.pixels.ndim == 2
        assert result.pixels.min() >= 0
        assert result.pixels.max() <= 1
    return result


class Maker:
    """The functions above, as one fixture."""

    ramp = staticmethod(ramp)
    dataset = staticmethod(film_dataset)
    bytes = staticmethod(file_bytes)
    encapsulated = staticmethod(encapsulated)
    read = staticmethod(read)

    @staticmethod
    def film(pixels: np.ndarray | None = None, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> bytes:
        return file_bytes(film_dataset(pixels, **elements), syntax)

    @staticmethod
    def png(pixels: np.ndarray, **options: Any) -> bytes:
        out = BytesIO()
        Image.fromarray(pixels).save(out, "PNG", **options)
        return out.getvalue()


@pytest.fixture(scope="session")
def make() -> Maker:
    return Maker()


@pytest.fixture(scope="session")
def realdata() -> Path:
    if not REALDATA.is_dir():
        pytest.skip("no real films beside the repository")
    return REALDATA


@pytest.fixture
def refused(make: Maker) -> Callable[..., Unreadable]:
    """Read a file that must give no film; return why."""

    def check(data: bytes, kind: str, code: str, **options: Any) -> Unreadable:
        result = make.read(data, **options)
        assert isinstance(result, Unreadable), getattr(result, "flags", None)
        assert (result.kind, result.code) == (kind, code), result.message
        assert len(result.sha256) == 64
        return result

    return check


@pytest.fixture
def flagged(make: Maker) -> Callable[..., Film]:
    """Read a file that must give a film with a flag that begins so."""

    def check(data: bytes, beginning: str, **options: Any) -> Film:
        result = make.read(data, **options)
        assert isinstance(result, Film), result
        assert any(flag.startswith(beginning) for flag in result.flags), result.flags
        return result

    return check
