"""Each row of the reference's table of bad input that concerns a single file."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, Sequence, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from cxrx.reading.header import MOST_ELEMENTS, parse
from cxrx.specs import Film, Unreadable

BOMB = 65535


# ---------------------------------------------------------------------------------------------------------------------
# Not DICOM


@pytest.mark.parametrize(
    "data",
    [b"", b"just a text\n" * 50, b"\xff\xd8\xff\xe0" + bytes(400), bytes(128) + b"DICM"],
    ids=["empty", "text", "jpeg", "preamble only"],
)
def test_what_is_not_dicom_is_skipped(refused, data):
    refused(data, "skipped", "not-dicom")


@pytest.mark.parametrize("length", [140, 200, 300, 420])
def test_a_file_cut_inside_its_header_is_skipped(make, refused, length):
    whole = make.film()
    assert whole.find(b"\xe0\x7f\x10\x00") > length
    refused(whole[:length], "skipped", "not-dicom")


def test_a_film_cut_between_header_and_pixels_fails(make, refused):
    whole = make.film()
    refused(whole[: whole.find(b"\xe0\x7f\x10\x00")], "failed", "no-pixels")


def test_without_preamble_only_when_forced(make, refused):
    bare = make.film()[132:]
    refused(bare, "skipped", "not-dicom")
    assert isinstance(make.read(bare, force_dicom=True), Film)


@pytest.mark.parametrize("deflated", [False, True])
def test_zeros_behind_a_film_are_no_elements(deflated, make):
    """pydicom takes them for one empty element for each eight of them, and a minute for 50 MB."""
    whole = make.film(syntax=DeflatedExplicitVRLittleEndian) if deflated else make.film()
    expected = make.read(whole).pixels
    if deflated:
        meta = 144 + struct.unpack("<I", whole[140:144])[0]
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        inside = zlib.decompress(whole[meta:], -zlib.MAX_WBITS) + bytes(1 << 20)
        whole = whole[:meta] + packer.compress(inside) + packer.flush()
    else:
        whole += bytes(1 << 20)
    assert not [tag for tag in parse(whole, 1 << 28) if tag.tag.group == 0]
    np.testing.assert_array_equal(make.read(whole).pixels, expected)


@pytest.mark.parametrize("tag", [b"\x02\x00", b"\x09\x00"], ids=["file meta", "header"])
def test_more_elements_than_any_film_has_are_refused(tag, make, refused):
    whole = make.film()
    many = (tag + b"\x10\x10LO\x00\x00") * (MOST_ELEMENTS + 1)
    at = 132 if tag == b"\x02\x00" else 144 + struct.unpack("<I", whole[140:144])[0]
    refused(whole[:at] + many + whole[at:], "failed", "over-limit")


def test_junk_is_no_film_even_when_forced(make):
    result = make.read(np.random.default_rng(0).bytes(4000), force_dicom=True)
    assert isinstance(result, Unreadable)


# ---------------------------------------------------------------------------------------------------------------------
# Pixel data too short, too long, damaged


def test_short_native_pixels(make, refused):
    refused(make.film()[:-100], "failed", "truncated")
    refused(make.film(PixelData=bytes(100)), "failed", "truncated")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_cut_encapsulated_file(make, refused, syntax):
    whole = make.film(syntax=syntax)
    refused(whole[:-60], "failed", "truncated")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_codestream_cut_inside_an_intact_file(make, syntax, share):
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    pixels = make.ramp(128, 128, bits) ^ np.random.default_rng(0).integers(0, 16, (128, 128), dtype=np.uint8)
    dataset = dcmread(BytesIO(make.film(pixels, syntax=syntax)))
    stream = next(_frames(dataset))
    described = {k: dataset[k].value for k in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit")}
    cut = stream[: int(len(stream) * share)]
    result = make.read(make.encapsulated(cut, syntax, **described))
    assert isinstance(result, Unreadable)
    assert result.kind == "failed"


def _frames(dataset: Dataset):
    from pydicom.encaps import generate_frames

    return generate_frames(dataset.PixelData, number_of_frames=1)


def test_flipped_bits_never_crash(make):
    """Flips that a decoder cannot notice give a film; no flip gives an exception or a process that dies."""
    rng = np.random.default_rng(1)
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        whole = bytearray(make.film(syntax=syntax))
        for _ in range(30):
            broken = whole.copy()
            for position in rng.integers(132, len(whole), 8):
                broken[position] ^= 1 << rng.integers(8)
            assert isinstance(make.read(bytes(broken)), Film | Unreadable)


def test_pixels_too_long_are_flagged(make, flagged):
    flagged(make.film(PixelData=make.ramp().tobytes() + bytes(100)), "pixel data: longer")


def test_bits_above_bits_stored_are_flagged_and_masked(make, flagged):
    pixels = make.ramp()
    film = flagged(make.film(pixels | 0x8000), "bits: values above")
    np.testing.assert_array_equal(film.pixels, make.read(make.film(pixels)).pixels)


# ---------------------------------------------------------------------------------------------------------------------
# Bombs: refused before anything is allocated


def test_a_deflate_bomb(make, refused):
    small = make.film(syntax=DeflatedExplicitVRLittleEndian)
    assert isinstance(make.read(small), Film)
    meta = small[: 132 + 12 + struct.unpack("<I", small[140:144])[0]]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = meta + b"".join(packer.compress(bytes(2**20)) for _ in range(100)) + packer.flush()
    assert len(bomb) < 2**18
    found = refused(bomb, "failed", "over-limit", memory=2**26)
    assert found.message.startswith("the deflated data set unpacks to more than 16 MiB")
    assert "CXRX_FILM_MEMORY" in found.message


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless, JPEGLSLossless, JPEGBaseline8Bit, RLELossless])
def test_header_bombs(make, refused, syntax):
    data = make.film() if syntax is None else make.encapsulated(b"\xff\xd8\xff\xd9", syntax)
    refused(_resized(data), "failed", "over-limit")


def _resized(data: bytes) -> bytes:
    for tag in (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x11\x00US\x02\x00"):
        at = data.find(tag) + 8
        data = data[:at] + struct.pack("<H", BOMB) + data[at + 2 :]
    return data


def test_a_codestream_that_lies_about_its_size(make, refused, monkeypatch):
    """The header says 32 x 40; the decoder would allocate by the stream's 65535 x 65535."""
    jls = bytes.fromhex("ffd8fff7000b10ffffffff01011100") + bytes(50) + b"\xff\xd9"
    refused(make.encapsulated(jls, JPEGLSLossless), "failed", "over-limit")
    j2k = dcmread(BytesIO(make.film(syntax=JPEG2000Lossless)))
    stream = bytearray(next(_frames(j2k)))
    start = stream.find(b"\xff\x4f\xff\x51") + 8
    stream[start : start + 8] = struct.pack(">II", BOMB, BOMB)
    refused(make.encapsulated(bytes(stream), JPEG2000Lossless), "failed", "over-limit")
    jpeg = BytesIO()
    Image.new("L", (40, 32)).save(jpeg, "JPEG")
    stream = bytearray(jpeg.getvalue())
    at = stream.find(b"\xff\xc0") + 5
    stream[at : at + 4] = struct.pack(">HH", BOMB, BOMB)
    described = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    refused(make.encapsulated(bytes(stream), JPEGBaseline8Bit, **described), "failed", "over-limit")


def test_two_million_frames(make, refused):
    refused(make.film(NumberOfFrames="2000000"), "failed", "over-limit")


# ---------------------------------------------------------------------------------------------------------------------
# Impossible descriptions


@pytest.mark.parametrize(
    "elements",
    [
        {"Rows": 0},
        {"Columns": 0},
        {"Rows": None},
        {"BitsAllocated": 12},
        {"BitsStored": 17},
        {"BitsStored": 16, "BitsAllocated": 8, "HighBit": 15},
        {"SamplesPerPixel": 2},
        {"SamplesPerPixel": 3},
        {"PhotometricInterpretation": "HSV"},
        {"PhotometricInterpretation": None},
        {"PhotometricInterpretation": "RGB"},
    ],
    ids=str,
)
def test_impossible_descriptions(make, refused, elements):
    refused(make.film(**elements), "failed", "bad-header")


@pytest.mark.parametrize("elements", [{"PixelData": None}, {"PixelData": b""}], ids=str)
def test_no_pixels(make, refused, elements):
    refused(make.film(**elements), "failed", "no-pixels")


@pytest.mark.parametrize(
    ("syntax", "names"),
    [
        ("1.2.840.10008.1.2.4.110", "JPEG XL"),
        ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2"),
        ("1.2.840.10008.1.2.4.102", "MPEG-4"),
        ("1.2.3.4.5.6", "private"),
    ],
)
def test_syntaxes_without_a_decoder_are_named(make, refused, syntax, names):
    reason = refused(make.encapsulated(b"\0" * 64, syntax), "failed", "unsupported")
    assert syntax in reason.message
    assert names in reason.message


def test_jpeg_lossless_names_its_package(make, refused, monkeypatch):
    monkeypatch.setattr("cxrx.reading.decode.find_spec", lambda name: None)
    reason = refused(make.encapsulated(b"\xff\xd8" + bytes(64), JPEGLossless), "failed", "unsupported")
    assert JPEGLossless in reason.message
    assert "python-gdcm" in reason.message


# ---------------------------------------------------------------------------------------------------------------------
# Values of the pixel transformation


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": ("DS", "nan")},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowWidth": ("DS", "0")},
        {"WindowWidth": ("DS", "-5")},
        {"WindowCenter": ("DS", "abc")},
        {"WindowCenter": ["1000", "2000"]},
        {"WindowWidth": None},
        {"VOILUTFunction": "CUBIC"},
        {"WindowCenter": "100000", "WindowWidth": "10"},
    ],
    ids=str,
)
def test_bad_windows_fall_back_to_percentiles(make, flagged, elements):
    film = flagged(make.film(**elements), "VOI: percentiles")
    assert any(flag.startswith("VOI:") and "percentiles" not in flag for flag in film.flags)
    low, high = np.percentile(make.ramp(), [0.5, 99.5])
    expected = np.clip((make.ramp() - low) / (high - low), 0, 1)
    np.testing.assert_allclose(film.pixels, expected, atol=0.002)


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": "0", "RescaleIntercept": "0"},
        {"RescaleSlope": "", "RescaleIntercept": "0"},
        {"RescaleSlope": ("DS", "1e308"), "RescaleIntercept": "0"},
        {"RescaleSlope": ("DS", "nan"), "RescaleIntercept": "0"},
    ],
    ids=str,
)
def test_senseless_rescale(make, refused, elements):
    refused(make.film(**elements), "failed", "bad-rescale")


def test_a_constant_picture(make, refused):
    refused(make.film(np.full((32, 40), 7, np.uint16)), "failed", "constant")


def test_a_picture_of_padding_and_one_value(make, refused):
    pixels = np.full((32, 40), 7, np.uint16)
    pixels[:5] = 0
    refused(make.film(pixels, PixelPaddingValue=("US", 0)), "failed", "constant")


# ---------------------------------------------------------------------------------------------------------------------
# Damage to the header


def test_an_element_of_four_gigabytes(make):
    data = make.film(StudyDescription=("UT", "x" * 32))
    at = data.find(b"\x08\x00\x30\x10UT") + 8
    result = make.read(data[:at] + struct.pack("<I", 0xFFFFFFF0) + data[at + 4 :])
    assert isinstance(result, Unreadable)


def test_sequences_nested_three_thousand_deep(make, refused):
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    start = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff" + item
    whole = make.film()
    at = whole.find(b"\x08\x00\x60\x00CS")
    refused(whole[:at] + start * 3000 + whole[at:], "failed", "corrupt")


@pytest.mark.parametrize(
    "elements",
    [
        {"StudyDate": ("DA", "99999999"), "PatientAge": ("AS", "old")},
        {"InstanceNumber": ("IS", "one")},
        {"ViewPosition": ("CS", "lower case and much too long for a code string")},
    ],
    ids=str,
)
def test_bad_values_elsewhere_do_not_matter(make, elements):
    assert isinstance(make.read(make.film(**elements)), Film)


def test_an_unknown_character_set_does_not_matter(make):
    whole = make.film(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^A")
    assert isinstance(make.read(whole.replace(b"ISO_IR 100", b"NO_SUCH_ST")), Film)


def test_private_junk_and_a_bad_representation_do_not_matter(make):
    junk = b"\x09\x00\x01\x10ZZ\x04\x00abcd" + b"\x09\x00\x02\x10\x00\x00\x04\x00abcd"
    whole = make.film()
    at = whole.find(b"\x10\x00\x20\x00LO")
    assert isinstance(make.read(whole[:at] + junk + whole[at:]), Film | Unreadable)


def test_a_uid_is_never_a_path(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film = make.read(make.film(SOPInstanceUID=("UI", "../../etc/passwd")))
    assert isinstance(film, Film)
    assert not list(tmp_path.iterdir())


def test_nothing_of_the_patient_in_any_message(make, capfd, recwarn):
    secret = "Doe^Jane"
    for elements in ({"PixelData": None}, {"Rows": 0}, {"BodyPartExamined": "KNEE"}, {"RescaleSlope": "0"}):
        result = make.read(make.film(PatientName=secret, PatientID=secret, StudyDate=("DA", secret), **elements))
        assert isinstance(result, Unreadable)
        assert "Doe" not in result.message
    out, err = capfd.readouterr()
    assert "Doe" not in out + err
    assert not len(recwarn)


def test_other_objects_are_skipped_with_their_reason(make, refused):
    for uid, code in {
        "1.2.840.10008.1.3.10": "dicomdir",
        "1.2.840.10008.5.1.4.1.1.11.1": "presentation-state",
        "1.2.840.10008.5.1.4.1.1.88.11": "report",
        "1.2.840.10008.5.1.4.1.1.88.59": "key-object",
        "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
        "1.2.840.10008.5.1.4.1.1.104.1": "document",
        "1.2.840.10008.5.1.4.1.1.481.3": "radiotherapy",
        "1.2.840.10008.5.1.4.1.1.2": "other-modality",
        "1.2.840.10008.5.1.4.1.1.4": "other-modality",
        "1.2.840.10008.5.1.4.1.1.1.2": "other-modality",
    }.items():
        refused(make.film(SOPClassUID=uid, PixelData=None), "skipped", code)


def test_icon_pixels_are_not_the_film(make, refused):
    """PixelData inside a sequence must not pass for the missing picture."""
    icon = make.dataset()
    dataset = make.dataset(PixelData=None)
    dataset.IconImageSequence = Sequence([icon])
    refused(make.bytes(dataset), "failed", "no-pixels")
