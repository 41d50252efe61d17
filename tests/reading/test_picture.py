"""PNG and JPEG files."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cxrx.specs import Film, Unreadable

GREY = np.arange(32 * 40, dtype=np.uint32).reshape(32, 40) % 251


def picture(make, data: bytes, **options) -> Film:
    film = make.read(data, "cxrx/image", **options)
    assert isinstance(film, Film), film
    return film


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_eight_bits(make):
    film = picture(make, make.png(GREY.astype(np.uint8)))
    np.testing.assert_allclose(film.pixels, GREY / 255, atol=1e-6)
    assert film.pixels.dtype == np.float32
    assert film.flags == ()
    assert (film.view, film.uid, film.patient) == ("", "", "")
    assert film.decoder.startswith("pillow ")


def test_sixteen_bits_are_not_clipped(make):
    pixels = (GREY * 261).astype(np.uint16)
    film = picture(make, make.png(pixels))
    np.testing.assert_allclose(film.pixels, pixels / 65535, atol=1e-6)
    assert film.flags == ()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_sixteen_are_noticed(make, bits):
    pixels = (GREY * ((1 << bits) - 1) // 250).astype(np.uint16)
    film = picture(make, make.png(pixels))
    np.testing.assert_allclose(film.pixels, pixels / ((1 << bits) - 1), atol=1e-6)
    assert film.flags == (f"bits: 16 stored, {bits} used",)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_in_other_clothes_is_the_same_film(make, mode):
    image = Image.fromarray(GREY.astype(np.uint8)).convert(mode)
    film = picture(make, saved(image))
    np.testing.assert_allclose(film.pixels, GREY / 255, atol=1e-6)
    assert film.flags == ()


def test_colour_becomes_luma_and_says_so(make):
    rgb = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    film = picture(make, make.png(rgb))
    np.testing.assert_allclose(film.pixels, rgb @ [0.299, 0.587, 0.114] / 255, atol=1e-5)
    assert film.flags == ("colour: turned to grey by luma",)


def test_a_coloured_palette(make):
    image = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8), (32, 5))).convert("P")
    image.putpalette([*(255, 0, 0), *(0, 255, 0), *(0, 0, 255), *[200] * 759])
    film = picture(make, saved(image))
    np.testing.assert_allclose(film.pixels[0, :4], [0.299, 0.587, 0.114, 200 / 255], atol=1e-5)


def test_transparent_parts_are_black(make):
    rgba = np.full((32, 40, 4), 200, np.uint8)
    rgba[..., 3] = 255
    rgba[:5, :, 3] = 0
    film = picture(make, make.png(rgba))
    assert not film.pixels[:5].any()
    np.testing.assert_allclose(film.pixels[5:], 200 / 255, atol=1e-6)
    assert film.flags == ("transparency: laid over black",)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(make, kind, orientation):
    """The picture that was stored turned comes out upright: EXIF 2.3, tag 0x0112."""
    upright = np.zeros((32, 48), np.uint8)
    upright[:8, :16] = 255  # a corner that tells all eight apart
    upright[:8, 16:24] = 120
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} | ({"quality": 100} if kind == "JPEG" else {})
    film = picture(make, saved(Image.fromarray(np.ascontiguousarray(turn(upright))), kind, **options))
    np.testing.assert_allclose(film.pixels, upright / 255, atol=0.03)
    assert bool(film.flags) == (orientation != 1)


def test_jpeg_grey_and_colour(make):
    image = Image.fromarray(GREY.astype(np.uint8))
    reference = np.asarray(Image.open(BytesIO(saved(image, "JPEG")))) / 255
    np.testing.assert_allclose(picture(make, saved(image, "JPEG")).pixels, reference, atol=1e-6)
    film = picture(make, saved(image.convert("RGB"), "JPEG", subsampling=0))
    np.testing.assert_allclose(film.pixels, reference, atol=0.02)
    assert film.flags == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_cut_files_fail(make, kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    whole = saved(Image.fromarray(noise), kind)
    result = make.read(whole[: int(len(whole) * share)], "cxrx/image")
    assert isinstance(result, Unreadable)
    assert result.kind == "failed" if share > 0.1 else result.kind in {"failed", "skipped"}


def test_a_cut_file_says_so(make):
    whole = make.png(np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8))
    assert make.read(whole[:-3000], "cxrx/image").code == "truncated"


def test_flipped_bits_never_crash(make):
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG"):
        whole = saved(Image.fromarray(GREY.astype(np.uint8)), kind)
        for _ in range(40):
            broken = bytearray(whole)
            for position in rng.integers(8, len(whole), 4):
                broken[position] ^= 1 << rng.integers(8)
            assert isinstance(make.read(bytes(broken), "cxrx/image"), Film | Unreadable)


@pytest.mark.parametrize("side", [20_000, 65_535])
def test_size_bombs_are_refused_by_their_header(make, side):
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    result = make.read(bomb, "cxrx/image")
    assert (result.kind, result.code) == ("failed", "over-limit")
    jpeg = bytearray(saved(Image.new("L", (40, 32)), "JPEG"))
    at = jpeg.find(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", side, side)
    assert make.read(bytes(jpeg), "cxrx/image").code == "over-limit"


def test_the_limit_is_an_option(make):
    data = make.png(GREY.astype(np.uint8))
    assert make.read(data, "cxrx/image", max_pixels=32 * 40 - 1).code == "over-limit"
    assert isinstance(make.read(data, "cxrx/image", max_pixels=32 * 40), Film)


def test_pillows_own_limit_does_not_interfere(make, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert isinstance(make.read(make.png(GREY.astype(np.uint8)), "cxrx/image"), Film)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_constant_picture(make):
    assert make.read(make.png(np.full((20, 20), 9, np.uint8)), "cxrx/image").code == "constant"


def test_real_pngs(make, realdata):
    films = [make.read(p.read_bytes(), "cxrx/image") for p in sorted((realdata / "nih_cxr14/images").glob("*.png"))]
    assert len(films) == 60
    assert all(isinstance(f, Film) and f.pixels.shape == (1024, 1024) and f.flags == () for f in films)
