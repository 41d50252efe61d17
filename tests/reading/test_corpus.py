"""pydicom's own test files: whatever they hold, there is an answer and no crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom.data
import pytest

from cxrx.reading.item import Item
from cxrx.reading.options import ReadOptions
from cxrx.reading.readers import read_films
from cxrx.specs import Film, Unreadable

# Only what is installed: pydicom's own look-up would download the rest.
FOLDER = Path(pydicom.data.__file__).parent / "test_files"
FILES = sorted(p for p in FOLDER.rglob("*") if p.is_file() and p.suffix in {".dcm", ""})
OPEN = ReadOptions(views=("all",), frame=0, force_dicom=True, non_chest=True, for_processing=True)


def outcome(path: Path, options: ReadOptions) -> Film | Unreadable:
    (result,) = read_films(Item(path, path.name, path.stat().st_size, 0, "cxrx/dicom"), options)
    return result


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_file_has_an_answer(path):
    for options in (ReadOptions(), OPEN):
        result = outcome(path, options)
        if isinstance(result, Film):
            assert np.isfinite(result.pixels).all()
            assert result.pixels.min() >= 0
            assert result.pixels.max() <= 1
            assert result.pixels.ndim == 2
        else:
            assert result.message


def test_there_is_a_corpus():
    assert len(FILES) > 60


def test_pixels_of_files_that_are_no_chest_films(monkeypatch):
    """With the gate held open, each syntax decodes; encodings of one picture agree."""
    monkeypatch.setattr("cxrx.reading.gate.check_object", lambda dataset, options: None)
    films = {p.name: outcome(p, OPEN) for p in FILES}
    for one, other in (
        ("MR_small.dcm", "MR_small_RLE.dcm"),
        ("MR_small.dcm", "MR_small_bigendian.dcm"),
        ("MR_small.dcm", "MR_small_implicit.dcm"),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm"),
        ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm"),
        ("MR_small.dcm", "MR_small_padded.dcm"),
        ("rtdose_1frame.dcm", "rtdose_rle_1frame.dcm"),
        ("SC_rgb_rle.dcm", "SC_rgb_rle_2frame.dcm"),
        ("SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm"),
    ):
        a, b = films[one], films[other]
        assert isinstance(a, Film), (one, a)
        assert isinstance(b, Film), (other, b)
        np.testing.assert_allclose(a.pixels, b.pixels, atol=1e-6, err_msg=other)
    refused = {name: f.code for name, f in films.items() if isinstance(f, Unreadable)}
    assert refused["MR_truncated.dcm"] == "truncated"
    assert refused["JPEG-lossy.dcm"] == "unsupported"  # 12-bit JPEG
    assert "corrupt" not in {refused.get(n) for n in ("JPEG2000.dcm", "examples_jpeg2k.dcm", "693_J2KI.dcm")}
