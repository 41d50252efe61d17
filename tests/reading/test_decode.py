"""Every transfer syntax gives the pixels that were put in, by the decoder that is named."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from cxrx.reading.decode import Coded, j2k_size, jpeg_size
from cxrx.specs import Film

DECODERS = {
    ImplicitVRLittleEndian: "pydicom",
    ExplicitVRLittleEndian: "pydicom",
    ExplicitVRBigEndian: "pydicom",
    DeflatedExplicitVRLittleEndian: "pydicom",
    RLELossless: "pylibjpeg-rle",
    JPEGLSLossless: "pyjpegls",
    JPEG2000Lossless: "pillow",
}


@pytest.mark.parametrize("syntax", DECODERS)
@pytest.mark.parametrize("kind", ["u1", "u2", "i2"])
def test_lossless_syntaxes_agree_with_uncompressed(make, syntax, kind):
    noise = np.random.default_rng(0).integers(0, 200 if kind == "u1" else 4000, (48, 36))
    pixels = (noise - (2000 if kind == "i2" else 0)).astype(kind)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    film = make.read(make.film(pixels.astype(order + kind) if kind != "u1" else pixels, syntax))
    assert isinstance(film, Film), film
    reference = make.read(make.film(pixels))
    np.testing.assert_array_equal(film.pixels, reference.pixels)
    name, version = film.decoder.rsplit(" ", 1)
    assert name == DECODERS[syntax]
    assert version[0].isdigit()
    assert film.flags == reference.flags == ()


def test_jpeg_baseline(make):
    pixels = make.ramp(64, 48, 8)
    data = make.film(pixels, JPEGBaseline8Bit)
    film = make.read(data)
    stream = next(generate_frames(dcmread(BytesIO(data)).PixelData, number_of_frames=1))
    np.testing.assert_allclose(film.pixels, np.asarray(Image.open(BytesIO(stream))) / 255, atol=1e-6)
    np.testing.assert_allclose(film.pixels, pixels / 255, atol=0.02)
    assert film.decoder.startswith("pillow ")


def test_signed_jpeg_2000_with_few_bits(make):
    """Unused high bits must be the sign, whichever decoder fills them."""
    pixels = (make.ramp(bits=10).astype(np.int16) - 512).astype(np.int16)
    elements = {"BitsStored": 10, "HighBit": 9, "WindowCenter": "0", "WindowWidth": "1024"}
    plain = make.read(make.film(pixels, **elements))
    for syntax in (JPEG2000Lossless, JPEGLSLossless, RLELossless):
        np.testing.assert_array_equal(make.read(make.film(pixels, syntax, **elements)).pixels, plain.pixels)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_colour(make, syntax):
    rgb = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    film = make.read(make.film(rgb, syntax))
    np.testing.assert_allclose(film.pixels, rgb @ [0.299, 0.587, 0.114] / 255, atol=1e-5)
    assert film.flags == ("colour: turned to grey by luma",)
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    film = make.read(make.film(grey, syntax))
    np.testing.assert_allclose(film.pixels, grey[..., 0] / 255, atol=1e-6)
    assert film.flags == ()


# ---------------------------------------------------------------------------------------------------------------------
# What the codestream and the header say differently


def window_of(bits: int, low: int = 0) -> dict[str, str]:
    """A window that maps `low` to black and ``low + 2**bits - 1`` to white, by PS3.3 C.11.2.1.2.1."""
    return {"WindowCenter": str(low + (1 << bits - 1)), "WindowWidth": str(1 << bits)}


def coded_as(pixels: np.ndarray, bits: int, signed: bool) -> bytes:
    return bytes(encode_array(pixels.astype(np.int16 if signed else np.uint16), bits_stored=bits))


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_signed_stream_under_an_unsigned_header(make, bits):
    """The pattern of bits counts: what does not fit the unsigned header is what its two's complement means there."""
    values = (make.ramp(bits=bits).astype(np.int64) - (1 << bits - 1)).astype(np.int16)
    described = {"BitsStored": bits, "HighBit": bits - 1} | window_of(bits)
    film = make.read(make.encapsulated(coded_as(values, bits, True), JPEG2000Lossless, **described))
    np.testing.assert_allclose(film.pixels, (values.astype(int) % (1 << bits)) / ((1 << bits) - 1), atol=1e-6)
    assert film.flags == ("bits: signed in the codestream, unsigned in the header, which was followed",)
    assert film.decoder.startswith("pylibjpeg-openjpeg")


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_an_unsigned_stream_under_a_signed_header(make, bits):
    values = (make.ramp(bits=bits).astype(np.int64) - (1 << bits - 1)).astype(np.int16)
    patterns = values.view(np.uint16) & ((1 << bits) - 1)
    described = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": 1} | window_of(bits, -(1 << bits - 1))
    film = make.read(make.encapsulated(coded_as(patterns, bits, False), JPEG2000Lossless, **described))
    expected = (values.astype(int) + (1 << bits - 1)) / ((1 << bits) - 1)
    np.testing.assert_allclose(film.pixels, expected, atol=1e-6)
    assert film.flags == ("bits: unsigned in the codestream, signed in the header, which was followed",)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize(("coded", "stored"), [(12, 16), (16, 12), (8, 12), (10, 12)])
def test_a_stream_of_other_bits_than_the_header(make, syntax, coded, stored):
    """The values are the stream's, whatever the header says of their bits; it is told where the two matter."""
    values = make.ramp(bits=coded)
    dataset = make.dataset(values, BitsStored=coded, HighBit=coded - 1)
    stream = next(generate_frames(dcmread(BytesIO(make.bytes(dataset, syntax))).PixelData, number_of_frames=1))
    described = {"BitsAllocated": 16, "BitsStored": stored, "HighBit": stored - 1} | window_of(coded)
    film = make.read(make.encapsulated(stream, syntax, **described))
    np.testing.assert_allclose(film.pixels, values / ((1 << coded) - 1), atol=1e-6)
    assert film.flags == (f"bits: {coded} in the codestream, {stored} in the header",)
    if coded > stored:  # a wide stream of values that fit is no contradiction
        narrow = make.dataset(make.ramp(bits=stored), BitsStored=coded, HighBit=coded - 1)
        stream = next(generate_frames(dcmread(BytesIO(make.bytes(narrow, syntax))).PixelData, number_of_frames=1))
        film = make.read(make.encapsulated(stream, syntax, **(described | window_of(stored))))
        np.testing.assert_allclose(film.pixels, make.ramp(bits=stored) / ((1 << stored) - 1), atol=1e-6)
        assert film.flags == ()


def test_pydicoms_example_of_a_mismatch(make):
    """J2K_pixelrep_mismatch.dcm: 13 bits, unsigned stream, signed header; pydicom's tests know its first row."""
    path = Path(pydicom.data.__file__).parent / "test_files" / "J2K_pixelrep_mismatch.dcm"
    dataset = dcmread(path)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    described = {k: dataset[k].value for k in ("Rows", "Columns", "BitsStored", "HighBit", "PixelRepresentation")}
    film = make.read(make.encapsulated(stream, JPEG2000Lossless, **described, **window_of(13, -4096)))
    np.testing.assert_allclose(film.pixels[0, 0], (-2000 + 4096) / 8191, atol=1e-6)
    np.testing.assert_allclose(film.pixels, (dataset.pixel_array.astype(float) + 4096) / 8191, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Colour of fewer bits than its words hold


def to_ybr(rgb: np.ndarray, bits: int) -> np.ndarray:
    """PS3.3 C.7.6.3.1.2, YBR_FULL, for `bits` instead of 8."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    half = 1 << bits - 1
    ybr = np.stack([y, (b - y) / 1.772 + half, (r - y) / 1.402 + half], -1)
    return ybr.round().clip(0, (1 << bits) - 1).astype(rgb.dtype)


@pytest.mark.parametrize(("words", "bits"), [("u2", 12), ("u2", 10), ("u2", 16), ("u1", 6), ("u1", 8)])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize(
    ("syntax", "planar"),
    [
        (ExplicitVRLittleEndian, 1),
        *((s, 0) for s in (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless)),
    ],
)
def test_colour_of_any_bits(make, words, bits, planar, photometric, syntax):
    white = (1 << bits) - 1
    grey = make.ramp(bits=bits).astype(words)
    colour = np.random.default_rng(0).integers(0, white + 1, (32, 40, 3)).astype(words)
    for rgb in (np.stack([grey] * 3, -1), colour):
        stored = rgb if photometric == "RGB" else to_ybr(rgb, bits)
        data = make.film(stored, syntax, BitsStored=bits, HighBit=bits - 1)  # compressed as if it were RGB
        dataset = dcmread(BytesIO(data))
        dataset.PhotometricInterpretation = photometric
        if planar:
            dataset.PlanarConfiguration = 1
            dataset.PixelData = np.moveaxis(stored, -1, 0).tobytes()
        dataset.save_as(out := BytesIO())
        film = make.read(out.getvalue())
        assert isinstance(film, Film), film
        np.testing.assert_allclose(film.pixels, rgb @ [0.299, 0.587, 0.114] / white, atol=1.6 / white)
        assert film.flags == (() if rgb is not colour else ("colour: turned to grey by luma",))


def test_colour_beside_its_bits(make, flagged):
    rgb = np.stack([make.ramp()] * 3, -1)
    film = flagged(make.film(rgb | 0x8000), "bits: values above")
    np.testing.assert_allclose(film.pixels, make.ramp() / 4095, atol=1e-6)
    film = flagged(make.film(rgb << 4, HighBit=15), "bits: the high bit")
    np.testing.assert_allclose(film.pixels, make.ramp() / 4095, atol=1e-6)


@pytest.mark.parametrize("entry", [8, 16])
def test_a_palette_of_twelve_bits(make, flagged, entry):
    pixels = make.ramp()
    table = np.linspace(0, (1 << entry) - 1, 4096).round().astype(f"<u{entry // 8}")
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [4096, 0, entry]
        elements[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    expected = table[pixels] / ((1 << entry) - 1)
    np.testing.assert_allclose(make.read(make.film(pixels, **elements)).pixels, expected, atol=1e-6)
    film = flagged(make.film(pixels | 0x8000, **elements), "bits: values above")
    np.testing.assert_allclose(film.pixels, expected, atol=1e-6)


def test_a_palette_of_eight_bits_in_words_and_an_index_beyond_it(make):
    pixels = make.ramp(bits=9)
    table = np.arange(256, dtype="<u2")[::-1]
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 100, 8]
        elements[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    expected = table[(pixels.astype(int) - 100).clip(0, 255)] / 255
    np.testing.assert_allclose(make.read(make.film(pixels, **elements)).pixels, expected, atol=1e-6)


def test_a_palette(make):
    pixels = (np.arange(32 * 40) % 4).astype(np.uint8).reshape(32, 40)
    levels = np.array([0, 100, 200, 255], np.uint8)
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 8]
        elements[f"{colour}PaletteColorLookupTableData"] = levels.tobytes()
    film = make.read(make.film(pixels, **elements))
    assert isinstance(film, Film), film
    np.testing.assert_allclose(film.pixels, levels[pixels] / 255, atol=1e-6)


def test_one_frame_of_several_has_to_be_asked_for(make, refused):
    frames = np.stack([make.ramp(), make.ramp()[::-1]])
    data = make.film(make.ramp(), NumberOfFrames="2", PixelData=frames.tobytes())
    refused(data, "skipped", "multi-frame")
    refused(data, "failed", "no-frame", frame=2)
    second = make.read(data, frame=1)
    np.testing.assert_array_equal(second.pixels, make.read(make.film(make.ramp()[::-1])).pixels)
    assert isinstance(make.read(make.film(), frame=0), Film)


def test_a_frame_in_several_fragments(make):
    whole = make.film(syntax=JPEG2000Lossless)
    dataset = dcmread(BytesIO(whole))
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([stream], fragments_per_frame=3)
    dataset["PixelData"].is_undefined_length = True
    out = BytesIO()
    dataset.save_as(out)
    np.testing.assert_array_equal(make.read(out.getvalue()).pixels, make.read(whole).pixels)


def test_a_missing_transfer_syntax_is_found_out(make):
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        data = make.film(syntax=syntax)
        at = data.find(b"\x02\x00\x10\x00UI")
        length = 8 + int.from_bytes(data[at + 6 : at + 8], "little")
        without = data[:at] + data[at + length :]
        if data[132:136] == b"\x02\0\0\0":  # the group's length
            total = int.from_bytes(data[140:144], "little") - length
            without = without[:140] + total.to_bytes(4, "little") + without[144:]
        np.testing.assert_array_equal(make.read(without).pixels, make.read(data).pixels)


def test_the_size_in_a_codestream(make):
    for rows, columns in ((1, 1), (17, 300), (300, 17)):
        for kind, size in (("JPEG", jpeg_size), ("JPEG2000", j2k_size)):
            for mode, samples in (("L", 1), ("RGB", 3)):
                out = BytesIO()
                Image.new(mode, (columns, rows)).save(out, kind, progressive=True)
                signed = False if kind == "JPEG2000" else None
                assert size(out.getvalue()) == Coded(rows, columns, samples, 8, signed)
    jls = next(generate_frames(dcmread(BytesIO(make.film(syntax=JPEGLSLossless))).PixelData, number_of_frames=1))
    assert jpeg_size(jls) == Coded(32, 40, 1, 12)
    for junk in (b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xc4\x00\x00" * 9, bytes(100), b"\xff" * 100):
        assert jpeg_size(junk) is None
        assert j2k_size(junk) is None


def test_rle_damage_that_panics_is_an_error_of_the_file(make, refused):
    """pylibjpeg-rle raises a PanicException, which is no Exception."""
    data = make.film(syntax=RLELossless)
    stream = bytearray(next(generate_frames(dcmread(BytesIO(data)).PixelData, number_of_frames=1)))
    codes = set()
    for offset in (0, 1, 60, 2**31, 2**32 - 1):
        for segment in (1, 2):
            broken = stream.copy()
            broken[4 * segment : 4 * segment + 4] = offset.to_bytes(4, "little")
            result = make.read(make.encapsulated(bytes(broken), RLELossless))
            codes.add(getattr(result, "code", "film"))
    assert "corrupt" in codes
    assert codes <= {"corrupt", "film"}
