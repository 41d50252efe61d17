"""Every transfer syntax gives the pixels that were put in, by the decoder that is named."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
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

from cxrx.reading.decode import j2k_size, jpeg_size
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
                assert size(out.getvalue()) == (rows, columns, samples, 8)
    jls = next(generate_frames(dcmread(BytesIO(make.film(syntax=JPEGLSLossless))).PixelData, number_of_frames=1))
    assert jpeg_size(jls)[:3] == (32, 40, 1)
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
