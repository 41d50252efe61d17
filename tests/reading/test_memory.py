"""What a film may take, and that the figures behind it hold."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from cxrx.reading import decode, picture
from cxrx.reading.decode import PixelFormat, memory_of
from cxrx.reading.memory import film_memory

CHILD = """
import sys
from pathlib import Path
import cv2, PIL.Image, pydicom.pixels
import cxrx.reading.dicom, cxrx.reading.picture
from cxrx.reading.item import Item
from cxrx.reading.options import ReadOptions
from cxrx.reading.prepare import prepare_item
from cxrx.specs import InputSpec

def read(path):
    item = Item(Path(path), "x", Path(path).stat().st_size, 0, sys.argv[3])
    return prepare_item(item, InputSpec(), ReadOptions(memory=2**36))[0]

def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024

read(sys.argv[1])  # what is imported and built once
Path("/proc/self/clear_refs").write_text("5")
before = peak()
read(sys.argv[2]).record
print(peak() - before)
"""


def film(make, kind: str, rows: int, columns: int) -> tuple[bytes, str]:
    wave = np.sin(np.arange(rows) / 300)[:, None] * np.cos(np.arange(columns) / 200)
    noise = np.random.default_rng(0).integers(0, 40, (rows, columns))
    grey = (2000 + 1900 * wave + noise).astype(np.uint16)
    small = (grey >> 4).astype(np.uint8)
    words, bytes_ = (np.stack([a, a // 2, a // 3], -1) for a in (grey, small))
    if kind.startswith("png"):
        pixels = {"pngL": small, "png16": grey, "pngRGB": bytes_, "pngRGB16": words}.get(kind)
        pixels = np.concatenate([bytes_, small[..., None]], -1) if pixels is None else pixels
        return cv2.imencode(".png", pixels)[1].tobytes(), "cxrx/image"
    if kind.startswith("jpeg"):
        Image.fromarray(bytes_).save(out := BytesIO(), "JPEG", quality=95, subsampling=0, progressive=True)
        return out.getvalue(), "cxrx/image"
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [4096, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = np.arange(0, 65536, 16, np.uint16).tobytes()
    data = {
        "native": lambda: make.film(grey),
        "native32": lambda: make.film(grey.astype(np.uint32), BitsStored=12, HighBit=11),
        "rle": lambda: make.film(grey, RLELossless),
        "jls": lambda: make.film(grey, JPEGLSLossless),
        "j2k": lambda: make.film(grey, JPEG2000Lossless),
        "jpg": lambda: make.film(small, JPEGBaseline8Bit),
        "rgb": lambda: make.film(bytes_),
        "rgb16": lambda: make.film(words),
        "ybr": lambda: make.film(bytes_, PhotometricInterpretation="YBR_FULL"),
        "ybr16": lambda: make.film(words, PhotometricInterpretation="YBR_FULL"),
        "rgbj2k": lambda: make.film(bytes_, JPEG2000Lossless),
        "rgbj2k16": lambda: make.film(words, JPEG2000Lossless),
        "palette": lambda: make.film(grey, **palette),
    }[kind]()
    return data, "cxrx/dicom"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is reset on Linux only")
@pytest.mark.parametrize(
    "kind",
    [
        *("native", "native32", "rle", "jls", "j2k", "jpg", "rgb", "rgb16", "ybr", "ybr16", "rgbj2k", "rgbj2k16"),
        *("palette", "pngL", "png16", "pngRGB", "pngRGBA", "pngRGB16", "jpegRGB"),
    ],
)
def test_a_film_takes_no_more_than_was_asked_for(make, tmp_path, monkeypatch, kind):
    """The peak of a process that reads it, against what was worked out before anything was allocated."""
    asked: list[int] = []
    for module in (decode, picture):
        monkeypatch.setattr(module, "check_memory", lambda what, need, limit: asked.append(need))
    for name, size in (("small", (60, 80)), ("large", (1500, 2000))):
        data, reader = film(make, kind, *size)
        (tmp_path / name).write_bytes(data)
        result = make.read(data, reader)
    assert result.pixels.shape == (1500, 2000)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "small"), str(tmp_path / "large"), reader]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert peak < asked[-1] + 8e6  # strips, tables and the input grid, whatever the film's size
    assert peak > asked[-1] / 4  # refused for what it is, not for what it might be


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_large_films_pass(syntax):
    """30 megapixels of 16 bits, held twice uncompressed; two workers and what is loaded leave 2 GB alone."""
    form = PixelFormat(6000, 5000, 1, "MONOCHROME2", 16, 14, 13, False, 1, syntax)
    assert memory_of(form, 2 * 60_000_000) < film_memory()
    assert 2 * film_memory() < 1.25e9


@pytest.mark.parametrize(
    ("shape", "elements"),
    [
        ((10_000, 10_000), {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}),
        ((10_000, 10_000), {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}),
        ((10_000, 10_000), {"PhotometricInterpretation": "PALETTE COLOR"}),
        ((65_535, 65_535), {}),
    ],
)
def test_what_takes_more_is_refused_by_its_header(make, refused, monkeypatch, shape, elements):
    monkeypatch.setattr(decode, "decode", SimpleNamespace)  # never reached
    found = refused(make.film(Rows=shape[0], Columns=shape[1], **elements), "failed", "over-limit")
    assert found.message.startswith(f"a picture of {shape[0]}×{shape[1]} pixels takes ")
    assert found.message.endswith("MiB of memory; the limit is 576 MiB, which CXRX_FILM_MEMORY raises")
