"""PNG and JPEG files."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydicom.uid import JPEGBaseline8Bit

from cxrx.reading.intact import jpeg_warnings
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


def chunks_of(data: bytes) -> list[tuple[bytes, int, int]]:
    """Name, beginning and end of each chunk (PNG, 5.3)."""
    found, at = [], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], at, end))
        at = end
    return found


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def rich_png() -> bytes:
    """A picture with many kinds of chunks."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "x" * 50)
    info.add_itxt("Comment", "y" * 50, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 1
    image = Image.fromarray(GREY.astype(np.uint8)).convert("P")
    return saved(image, pnginfo=info, exif=exif, dpi=(72, 72), transparency=255, icc_profile=b"z" * 200)


def test_every_chunk_of_a_png_is_checked(make):
    whole = rich_png()
    assert len({name for name, _, _ in chunks_of(whole)}) >= 9
    assert isinstance(make.read(whole, "cxrx/image"), Film)
    for name, start, end in chunks_of(whole):
        body = {start + 8, end - 5} if end > start + 12 else set()
        for position in body | {end - 4, end - 1}:  # its checksum
            broken = bytearray(whole)
            broken[position] ^= 0x10
            result = make.read(bytes(broken), "cxrx/image")
            assert (result.kind, result.code) == ("failed", "corrupt"), (name, position)
            assert name.decode() in result.message


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_a_png_whose_tail_is_zeros(make, share):
    whole = make.png(np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8))
    keep = int(len(whole) * share)
    result = make.read(whole[:keep] + bytes(len(whole) - keep), "cxrx/image")
    assert (result.kind, result.code) == ("failed", "corrupt")


def test_a_png_cut_at_any_byte(make):
    whole = rich_png()
    for length in range(8, len(whole)):
        result = make.read(whole[:length], "cxrx/image")
        assert isinstance(result, Unreadable), length
        assert (result.kind, result.code) == ("failed", "truncated"), length


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(
    ("depth", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 6), (8, 4), (16, 4), (16, 6)]
)
@pytest.mark.parametrize(("rows", "columns"), [(32, 40), (5, 3), (1, 9)])
def test_the_pixels_of_a_png_must_all_be_there(make, interlace, depth, colour, rows, columns):
    """By the passes of PNG 8.2, written out; one byte less, and a missing end of the stream, are noticed."""
    bits = depth * {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rng, pixels = np.random.default_rng(0), b""
    for y, x, dy, dx in passes:
        width = len(range(x, columns, dx))
        pixels += b"".join(b"\0" + rng.bytes((width * bits + 7) // 8) for _ in range(y, rows, dy) if width)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, interlace))

    def png(packed: bytes) -> Film | Unreadable:
        data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
        return make.read(data, "cxrx/image")

    assert isinstance(png(zlib.compress(pixels)), Film)
    assert png(zlib.compress(pixels[:-1])).code == "truncated"
    assert png(zlib.compress(pixels)[:-4]).code == "truncated"  # without its own checksum
    assert png(zlib.compress(pixels)[:-1] + b"x").code == "corrupt"
    assert png(zlib.compress(pixels + bytes(10**7))).flags[0] == "PNG: more pixels than its header says"


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_sixteen_bits(make, bits, channels):
    white = (1 << bits) - 1
    rgb = np.random.default_rng(0).integers(0, white + 1, (32, 40, 3)).astype(np.uint16)
    rgb[0, 0] = white
    alpha = np.full((32, 40, 1), 65535, np.uint16)
    alpha[:5] = 0
    bgr = rgb[..., ::-1] if channels == 3 else np.concatenate([rgb[..., ::-1], alpha], -1)
    film = picture(make, cv2.imencode(".png", bgr)[1].tobytes())
    expected = rgb @ [0.299, 0.587, 0.114] / white * (1 if channels == 3 else alpha[..., 0] / 65535)
    np.testing.assert_allclose(film.pixels, expected, atol=1e-5)
    flags = [] if bits == 16 else [f"bits: 16 stored, {bits} used"]
    flags += ["colour: turned to grey by luma"] + ["transparency: laid over black"] * (channels == 4)
    assert film.flags == tuple(flags)
    assert film.decoder.startswith("opencv ")


SMOOTH = (127 + 100 * np.sin(np.arange(256) / 30)[:, None] * np.cos(np.arange(200) / 20)).astype(np.uint8)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
def test_a_jpeg_whose_decoder_warned_is_flagged(make, options):
    """Whole but for its middle: libjpeg fills in what is missing, and says so."""
    noisy = SMOOTH ^ np.random.default_rng(0).integers(0, 16, SMOOTH.shape, dtype=np.uint8)
    whole = saved(Image.fromarray(noisy), "JPEG", quality=90, **options)
    assert picture(make, whole).flags == ()
    half = len(whole) // 2
    for broken in (whole[:half] + b"\xff\xd9", whole[:half] + whole[half + 500 :]):
        for film in (
            picture(make, broken),
            make.read(make.encapsulated(broken, JPEGBaseline8Bit, **EIGHT_BITS), views=("all",)),
        ):
            assert film.flags[0].startswith("JPEG: the decoder warned: Corrupt JPEG data"), film.flags
    for broken in (whole[:-2], whole[:half], whole[:half] + bytes(len(whole) - half)):
        result = make.read(broken, "cxrx/image")
        assert (result.kind, result.code) == ("failed", "truncated")
        result = make.read(make.encapsulated(broken, JPEGBaseline8Bit, **EIGHT_BITS))
        assert (result.kind, result.code) == ("failed", "corrupt")


def test_what_other_threads_print_meanwhile_is_no_flag_and_not_lost(monkeypatch, capfd):
    """With ``--workers 0`` the log and the bar of the run share the decoder's stderr."""
    decode, whole = cv2.imdecode, saved(Image.fromarray(SMOOTH), "JPEG")

    def beside(*arguments):
        os.write(2, b"\rpredict: 12 films")
        picture = decode(*arguments)
        os.write(2, b"a line of the log\n")
        return picture

    monkeypatch.setattr(cv2, "imdecode", beside)
    assert jpeg_warnings(whole) == ()
    (flag,) = jpeg_warnings(whole[: len(whole) // 2] + b"\xff\xd9")
    assert flag == "JPEG: the decoder warned: Corrupt JPEG data: premature end of data segment"
    assert capfd.readouterr().err == 2 * "\rpredict: 12 filmsa line of the log\n"


EIGHT_BITS = {"Rows": 256, "Columns": 200, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def test_what_others_print_meanwhile_is_not_swallowed(make, capfd):
    picture(make, saved(Image.fromarray(SMOOTH), "JPEG"))
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"


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
    refused = make.read(make.png(np.zeros((1200, 1000), np.uint8)), "cxrx/image", memory=20 << 20)
    assert refused.code == "over-limit"
    assert "1200×1000" in refused.message
    assert "the limit is 20 MiB, which CXRX_FILM_MEMORY raises" in refused.message
    assert isinstance(make.read(data, "cxrx/image", memory=20 << 20), Film)


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
