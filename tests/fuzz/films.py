"""Films to start from, and what is done to them: case `index` of a seed is the same bytes on every machine."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, PngImagePlugin
from pydicom import config, uid
from pydicom.encaps import encapsulate

from cxrx.phantom.dicom import to_dicom
from cxrx.phantom.film import make_film
from tests.reading.conftest import REALDATA, Maker, ramp, set_element, with_syntax

make = Maker()
RAW = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian,
       uid.DeflatedExplicitVRLittleEndian)  # fmt: skip
PACKED = (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless)
SYNTAXES = (*RAW, *PACKED, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1,
            uid.JPEG2000, uid.HTJ2K, uid.HTJ2KLossless, uid.MPEG2MPML, "1.2.3.4")  # fmt: skip
MOST_BYTES = 800_000  # of a seed


@cache
def seeds() -> list[tuple[str, str, bytes]]:
    """Return (name, suffix, bytes) of all films to start from; the same order everywhere."""
    found = [*_phantoms(), *_encodings(), *_pictures()] * 4  # those that are no chest films end at the door
    paths = [*(Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")]
    if REALDATA.is_dir():
        paths += [*REALDATA.glob("dicom/*.dcm"), *sorted(REALDATA.glob("nih_cxr14/images/*.png"))[:4]]
    for path in sorted(paths, key=lambda path: path.name):
        if path.stat().st_size <= MOST_BYTES:
            data = path.read_bytes()
            found.append((path.name, path.suffix, data))
            if path.suffix == ".dcm" and (dressed := _as_chest(data)):
                found += [(f"chest-{path.name}", ".dcm", dressed)] * 2
    return found


def _as_chest(data: bytes) -> bytes:
    """Return the film with a header that says chest, so that its pixels are looked at; empty where it has none."""
    out = io.BytesIO()
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        if "PixelData" not in dataset:
            return b""
        dataset.Modality, dataset.SOPClassUID, dataset.BodyPartExamined = "CR", "1.2.840.10008.5.1.4.1.1.1", "CHEST"
        dataset.save_as(out)
    except Exception:  # noqa: BLE001 - some of these files are broken on purpose
        return b""
    return out.getvalue()


def _phantoms() -> list[tuple[str, str, bytes]]:
    made = []
    for i, syntax in enumerate(("explicit", "rle", "jpeg2000", "jpegls")):
        forms = {"photometric": "MONOCHROME1" if i % 2 else "MONOCHROME2", "voi": "lut" if i > 1 else "window"}
        out = io.BytesIO()
        to_dicom(make_film(0, i, size=(96, 80)), transfer_syntax=syntax, **forms).save_as(out, enforce_file_format=True)
        made.append((f"phantom-{syntax}", ".dcm", out.getvalue()))
    return made


def _encodings() -> list[tuple[str, str, bytes]]:
    """Films of every transfer syntax that can be written here, and of every shape of header."""
    made: dict[str, bytes] = {}
    colour = np.stack([ramp(bits=8), ramp(bits=8)[::-1], ramp(bits=8)[:, ::-1]], axis=-1)
    for syntax in (*RAW, *PACKED):
        name = uid.UID(syntax).keyword
        for key, pixels in ("16", ramp()), ("8", ramp(bits=8)), ("colour", colour):
            made[f"{name}-{key}"] = make.film(pixels, syntax)
    made["JPEGBaseline8Bit"] = make.film(ramp(bits=8), uid.JPEGBaseline8Bit)
    for name, form in ("JPEG2000-irreversible", {"irreversible": True}), ("JPEG2000-tiles", {"tile_size": (16, 16)}):
        out = io.BytesIO()
        Image.fromarray(ramp(bits=8)).save(out, "JPEG2000", **form)
        made[name] = make.encapsulated(out.getvalue(), uid.JPEG2000, **_bits8())
    made["signed"] = make.film(ramp().astype(np.int16) - 1000, RescaleSlope="1.5", RescaleIntercept="-3")
    made["lut"] = make.film(VOILUTSequence=[_lut("US", 4096)], ModalityLUTSequence=[_lut("US", 256)])
    made["frames"] = make.film(np.concatenate([ramp(), ramp()]), NumberOfFrames="2", Rows=32)
    made["windows"] = make.film(WindowCenter=["1", "2", "3"], WindowWidth=["10", "0.5", "1e6"])
    made["palette"] = make.film(
        ramp(bits=8), PhotometricInterpretation="PALETTE COLOR",
        **{f"{c}PaletteColorLookupTableDescriptor": [256, 0, 16] for c in ("Red", "Green", "Blue")},
        **{f"{c}PaletteColorLookupTableData": bytes(range(256)) * 2 for c in ("Red", "Green", "Blue")},
    )  # fmt: skip
    return [(f"made-{name}", ".dcm", data) for name, data in made.items()]


def _bits8() -> dict[str, int]:
    return {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "Rows": 32, "Columns": 40}


def _lut(vr: str, n: int) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.add_new(0x00283002, vr, [n, 0, 16])
    item.add_new(0x00283003, "LO", "a table")
    item.add_new(0x00283004, "UN", "")
    item.add_new(0x00283006, "OW", np.linspace(0, 65535, n).astype("<u2").tobytes())
    return item


def _pictures() -> list[tuple[str, str, bytes]]:
    made = []
    grey = Image.fromarray(ramp(40, 48, bits=8))
    for mode in ("L", "LA", "RGB", "RGBA", "P", "1", "I;16"):
        info = PngImagePlugin.PngInfo()
        info.add_text("View", "PA", zip=True)
        out = io.BytesIO()
        (Image.fromarray(ramp(40, 48)) if mode == "I;16" else grey.convert(mode)).save(out, "PNG", pnginfo=info)
        made.append((f"png-{mode.replace(';', '')}", ".png", out.getvalue()))
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    for name, mode, options in (
        ("grey", "L", {}), ("rgb", "RGB", {"subsampling": 2}), ("cmyk", "CMYK", {}), ("exif", "RGB", {"exif": turned}),
        ("progressive", "L", {"progressive": True}), ("restart", "L", {"restart_marker_blocks": 2}),
    ):  # fmt: skip
        out = io.BytesIO()
        grey.convert(mode).save(out, "JPEG", **options)
        made.append((f"jpeg-{name}", ".jpg", out.getvalue()))
    return made


# ---------------------------------------------------------------------------------------------------------------------
# Bytes of any kind


def flip(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        out[_place(rng, out)] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite(rng: random.Random, data: bytes) -> bytes:
    at, n = _place(rng, data), rng.choice((1, 2, 4, 16, 512, 4096))
    return data[:at] + _filling(rng, min(n, len(data) - at)) + data[at + n :]


def insert(rng: random.Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + _filling(rng, rng.choice((1, 2, 3, 8, 1000))) + data[at:]


def delete(rng: random.Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice((1, 2, 4, 100, 5000)) :]


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.choice((rng.randrange(len(data)), len(data) - rng.randrange(1, 4), _place(rng, data)))]


def zero_tail(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes(len(data) - at)


def repeat(rng: random.Random, data: bytes) -> bytes:
    at, n = _place(rng, data), rng.choice((4, 64, 1024))
    return data[:at] + data[at : at + n] * rng.choice((2, 3, 50)) + data[at + n :]


def numbers(rng: random.Random, data: bytes) -> bytes:
    """Overwrite a number of 2, 4 or 8 bytes with one on the edge, in either byte order: sizes, lengths, offsets."""
    out, size = bytearray(data), rng.choice((1, 2, 2, 4, 4, 8))
    value = rng.choice((0, 1, 2, 1 << 8 * size - 1, (1 << 8 * size) - 1, (1 << 8 * size) - 2, 1 << 4 * size, 0x7FFF))
    at = _place(rng, out)
    out[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("little", "big")))
    return bytes(out)


ANY = (flip, overwrite, insert, delete, truncate, zero_tail, repeat, numbers)


def _place(rng: random.Random, data: bytes | bytearray) -> int:
    """Draw a place; headers and what follows a marker more often than pixels."""
    if not data:
        return 0
    kind = rng.random()
    if kind < 0.4:
        return rng.randrange(min(len(data), 1024))
    mark = bytes(data).find(b"\xff", rng.randrange(len(data))) if kind < 0.6 else -1
    return min(mark + rng.randrange(24), len(data) - 1) if mark >= 0 else rng.randrange(len(data))


def _filling(rng: random.Random, n: int) -> bytes:
    return rng.choice((bytes(n), b"\xff" * n, rng.randbytes(n)))


# ---------------------------------------------------------------------------------------------------------------------
# DICOM

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 9, 12, 15, 16, 17, 24, 32, 63, 64, 255, 256, 4095, 32767, 32768, 65535)
WORDS = ("", "0", "-1", "1e308", "-1e308", "1e-320", "nan", "inf", "abc", "1\\2", "1\\2\\3\\4", "\\", "9" * 70, "1.5.2",
         "\0", "é", "PALETTE COLOR", "YBR_FULL_422", "RGB", "MONOCHROME1", "SIGMOID", "LINEAR_EXACT", "LL", "HAND",
         "ORIGINAL\\PRIMARY", "Y" * 3000, "../../x", "\x1b$B\\x")  # fmt: skip
_KEYWORDS = """Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PlanarConfiguration
PhotometricInterpretation NumberOfFrames WindowCenter WindowWidth VOILUTFunction RescaleSlope RescaleIntercept
RescaleType PresentationLUTShape PixelSpacing ImagerPixelSpacing PixelAspectRatio PatientOrientation ViewPosition
Modality ImageType BodyPartExamined SOPClassUID SOPInstanceUID PatientID SpecificCharacterSet LossyImageCompression
SmallestImagePixelValue PixelPaddingValue Laterality FrameIncrementPointer"""
KEYWORDS = _KEYWORDS.split()


def tags(rng: random.Random, data: bytes) -> bytes:
    """Change some elements as a wrong writer would; what pydicom cannot write is changed as bytes."""
    with config.disable_value_validation():
        try:
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            for _ in range(rng.choice((1, 1, 1, 2, 5))):
                keyword = rng.choice(KEYWORDS)
                vr = pydicom.datadict.dictionary_VR(keyword)
                if rng.random() < 0.2:
                    dataset.pop(keyword, None)
                elif "US" in vr and rng.random() < 0.9:
                    set_element(dataset, keyword, ("US", rng.choice(NUMBERS)))
                else:
                    set_element(dataset, keyword, (rng.choice((vr.split()[0], "UN", "LO", "SQ")), rng.choice(WORDS)))
            out = io.BytesIO()
            pydicom.dcmwrite(out, dataset, implicit_vr=False, little_endian=True)
            return out.getvalue()
        except Exception:  # noqa: BLE001 - pydicom raises what it likes at films that were changed before
            return numbers(rng, data)


def lengths(rng: random.Random, data: bytes) -> bytes:
    """Let elements lie about their length."""
    places = [at for vr in (b"OW", b"OB", b"SQ", b"UN", b"US", b"DS", b"CS", b"UI") if (at := data.find(vr)) > 0]
    if not places:
        return numbers(rng, data)
    out, at = bytearray(data), rng.choice(places) + 2
    value = rng.choice((0, 1, 3, 0xFFFF, 0xFFFE, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, rng.randrange(1 << 16)))
    if value > 0xFFFF or rng.random() < 0.5:
        out[at : at + 6] = struct.pack("<HI", 0, value)
    else:
        out[at : at + 2] = struct.pack("<H", value)
    return bytes(out)


def syntax(rng: random.Random, data: bytes) -> bytes:
    return with_syntax(data, str(rng.choice(SYNTAXES))) if b"\x02\x00\x10\x00UI" in data else flip(rng, data)


def stream(rng: random.Random, data: bytes) -> bytes:
    """Put the stream of a picture, whole or damaged, under the header of another film."""
    picture = rng.choice([seed for _, suffix, seed in seeds() if suffix != ".dcm" and len(seed) < 50_000])
    picture = rng.choice((lambda _, p: p, *ANY))(rng, picture)
    header = dict(zip(("Rows", "Columns"), rng.choice(((40, 48), (48, 40), (0, 48), (65535, 65535))), strict=True))
    name = rng.choice((uid.JPEGBaseline8Bit, uid.JPEG2000, uid.JPEGLSLossless, uid.RLELossless, uid.JPEGLosslessSV1))
    return make.encapsulated(picture, name, **(_bits8() | header))


# ---------------------------------------------------------------------------------------------------------------------
# PNG and JPEG


def chunks(rng: random.Random, data: bytes) -> bytes:
    """Drop, double, swap or change chunks of a PNG; the checksums are put right in most."""
    parts, at = [], 8
    while at + 12 <= len(data):
        n = int.from_bytes(data[at : at + 4], "big")
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + n]))
        at += 12 + n
    if not parts:
        return flip(rng, data)
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    kind, body = parts[i]
    parts[i] = rng.choice((
        lambda: (kind, rng.choice(ANY)(rng, body or b"\0")), lambda: parts[j], lambda: (kind, b""),
        lambda: (rng.choice((b"tRNS", b"PLTE", b"iCCP", b"sBIT", b"gAMA", b"acTL", b"eXIf")), rng.randbytes(13)),
        lambda: (kind, zlib.compress(rng.randbytes(2000)) if kind == b"IDAT" else body[::-1]),
    ))()  # fmt: skip
    parts.insert(j, parts[rng.randrange(len(parts))]) if rng.random() < 0.2 else None
    out = data[:8]
    for kind, body in parts:
        out += _chunk(kind, body)
    return out if rng.random() < 0.9 else out[:-20] + rng.randbytes(4) + out[-16:]


def segments(rng: random.Random, data: bytes) -> bytes:
    """Change the bytes behind a marker of a JPEG (or the SIZ of a JPEG 2000 stream)."""
    marks = [i for i in range(len(data) - 1) if data[i] == 0xFF and data[i + 1] not in {0, 0xFF}]
    if not marks:
        return flip(rng, data)
    at, out = rng.choice(marks), bytearray(data)
    n = rng.choice((1, 1, 2, 4))
    at += rng.randrange(1, 20)
    out[at : at + n] = _filling(rng, n)
    return bytes(out)


# ---------------------------------------------------------------------------------------------------------------------
# Small files that would cost much


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_bomb(rng: random.Random) -> bytes:
    width, height = rng.choice(((65500, 65500), (20000, 20000), (2**31 - 1, 1), (1, 2**31 - 1), (9900, 9900)))
    head = struct.pack(">IIBBBBB", width, height, rng.choice((1, 8, 16)), rng.choice((0, 0, 2, 6)), 0, 0, 0)
    body = zlib.compress(bytes(min(width * height * 2, 200_000_000)), 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _text_bomb(rng: random.Random) -> bytes:
    data = make.png(ramp(40, 48, bits=8))
    return data[:33] + _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 1)) + data[33:]


def _deflate_bomb(rng: random.Random) -> bytes:
    whole = make.film(syntax=uid.DeflatedExplicitVRLittleEndian)
    length = int.from_bytes(whole[140:144], "little")
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    data = zlib.decompressobj(-15).decompress(whole[144 + length :])
    head = data[: data.rindex(b"\xe0\x7f\x10\x00")]  # the pixels of a film of some gigapixels come instead
    n = rng.choice((440, 900)) << 20
    out = whole[: 144 + length] + packer.compress(head + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", n))
    block = bytes(1 << 20)
    return out + b"".join(packer.compress(block) for _ in range(n >> 20)) + packer.flush()


def _large(rng: random.Random) -> bytes:
    """A film of many pixels, in few bytes."""
    rows, bits = rng.choice((10000, 30000, 65535)), rng.choice((8, 16, 32))
    name = rng.choice((uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGBaseline8Bit))
    body = rng.choice((b"\x81\0" * 40000, struct.pack("<16I", bits // 8, 64, *([64] * 14)) + b"\x81\0" * 40000))
    own = {"Rows": rows, "Columns": rows, "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1}
    return make.encapsulated(body, name, **own)


def _deep(rng: random.Random) -> bytes:
    """Sequences in sequences."""
    n = rng.choice((100, 1500, 20000))
    inner = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    data = make.film()
    at = data.index(b"\x08\x00\x60\x00CS")  # Modality
    return data[:at] + inner * n + data[at:]


def _fragments(rng: random.Random) -> bytes:
    parts = encapsulate([b"\xff\xd8"] * 20000, has_bot=rng.random() < 0.5)
    whole = make.encapsulated(b"\xff\xd8", uid.JPEGBaseline8Bit, NumberOfFrames=rng.choice(("1", "20000", "9" * 12)))
    return whole[: whole.index(b"\xe0\x7f\x10\x00") + 12] + parts


BOMBS: tuple[tuple[str, Callable[[random.Random], bytes]], ...] = (
    (".png", _png_bomb), (".png", _text_bomb), (".dcm", _deflate_bomb), (".dcm", _large), (".dcm", _large),
    (".dcm", _deep), (".dcm", _fragments),
)  # fmt: skip
BOMB_RATE = 0.004


def film(seed: int, index: int) -> tuple[str, str, bytes]:
    """Return (how it was made, suffix, bytes) of a mutated film; one in forty is a copy of another."""
    rng = random.Random(f"film {seed} {index}")
    if index > 4 and rng.random() < 0.025:
        how, suffix, data = film(seed, rng.randrange(index))
        return f"copy {how}", suffix, data
    if rng.random() < BOMB_RATE:
        suffix, bomb = rng.choice(BOMBS)
        return bomb.__name__, suffix, bomb(rng)
    name, suffix, data = rng.choice(seeds())
    special = {".dcm": (tags, tags, tags, lengths, syntax, segments, stream), ".png": (chunks, chunks)}
    own = special.get(suffix, (segments,) * 3)
    how = [name]
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 3))):
        change = rng.choice((*ANY, *own, *own))
        data = change(rng, data) or b"\0"
        how.append(change.__name__)
    if rng.random() < 0.05:
        _, _, other = rng.choice(seeds())
        data, how = data[: _place(rng, data)] + other[_place(rng, other) :], [*how, "splice"]
    return " ".join(how), rng.choice((suffix,) * 12 + (".dcm", ".png", ".jpg")), data
