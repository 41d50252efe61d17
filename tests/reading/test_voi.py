"""The pixel transformation against the equations of the standard, and against pydicom where pydicom is right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxrx.reading.voi import Lut, Window, percentile_greys, window_to_grey
from cxrx.specs import Film

finite = st.floats(-1e5, 1e5)


def standard(x: float, c: float, w: float, function: str) -> float:
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2, word for word, with y from 0 to 1."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(max(-700.0, min(700.0, -4 * (x - c) / w))))
    low, high, y = c - w / 2, c + w / 2, lambda: (x - c) / w + 0.5
    if function == "LINEAR":
        low, high, y = c - 0.5 - (w - 1) / 2, c - 0.5 + (w - 1) / 2, lambda: (x - (c - 0.5)) / (w - 1) + 0.5
    return 0.0 if x <= low else 1.0 if x > high else y()


@given(
    values=st.lists(finite, min_size=1, max_size=20),
    centre=finite,
    width=st.floats(1, 1e5),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_windows_follow_the_standard(values, centre, width, function):
    ours = window_to_grey(np.array(values), Window(centre, width, function))
    np.testing.assert_allclose(ours, [standard(x, centre, width, function) for x in values], rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(
    centre=st.integers(-50, 300),
    width=st.integers(2, 500),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_windows_agree_with_pydicom(centre, width, function):
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = str(centre), str(width), function
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 8, 0
    values = np.arange(256, dtype=np.uint8)
    theirs = apply_windowing(values, dataset) / 255
    np.testing.assert_allclose(window_to_grey(values.astype(float), Window(centre, width, function)), theirs, atol=1e-9)


@given(first=st.integers(-500, 500), data=st.lists(st.integers(0, 4095), min_size=2, max_size=50), x=st.integers())
def test_look_up_tables_clamp_at_both_ends(first, data, x):
    x = max(-(2**40), min(2**40, x))
    expected = data[0] if x < first else data[-1] if x >= first + len(data) else data[x - first]
    assert Lut(first, np.array(data, float))(np.array([float(x)]))[0] == expected


@given(st.lists(st.integers(0, 4095), min_size=30, max_size=300).filter(lambda v: len(set(v)) > 5))
def test_percentiles_from_counts_are_those_of_the_picture(pixels):
    counts = np.bincount(pixels, minlength=4096)
    low, high = np.percentile(pixels, [0.5, 99.5], method="inverted_cdf")
    if low == high:
        low, high = min(pixels), max(pixels)
    expected = np.clip((np.arange(4096) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(percentile_greys(np.arange(4096.0), counts), expected, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Whole files


def grey(make, pixels, **elements) -> np.ndarray:
    film = make.read(make.film(pixels, **elements))
    assert isinstance(film, Film), film
    assert film.pixels.dtype == np.float32
    return film.pixels


def test_rescale_then_window_then_one_inversion(make):
    stored = make.ramp().astype(float)
    elements = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": "3000", "WindowWidth": "4000"}
    expected = np.vectorize(standard)(2 * stored - 1000, 3000, 4000, "LINEAR")
    np.testing.assert_allclose(grey(make, make.ramp(), **elements), expected, atol=1e-6)
    for inverse in ({"PhotometricInterpretation": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}):
        np.testing.assert_allclose(grey(make, make.ramp(), **elements, **inverse), 1 - expected, atol=1e-6)
    both = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    np.testing.assert_allclose(grey(make, make.ramp(), **elements, **both), 1 - expected, atol=1e-6)


def test_eight_bits_without_a_window_keep_their_range(make):
    pixels = make.ramp(bits=8) // 2 + 20
    film = make.read(make.film(pixels))
    assert film.flags == ()
    np.testing.assert_allclose(film.pixels, pixels / 255, atol=1e-6)


def test_the_second_window(make):
    elements = {"WindowCenter": ["2048", "1000"], "WindowWidth": ["4096", "500"]}
    film = make.read(make.film(**elements), voi_index=1)
    np.testing.assert_allclose(film.pixels, np.vectorize(standard)(make.ramp(), 1000, 500, "LINEAR"), atol=1e-6)
    assert make.read(make.film(**elements), voi_index=2).flags == ("VOI: there is no window 2, the first was used",)


@pytest.mark.parametrize("allocated", [16, 32])
def test_signed_pixels(make, allocated):
    signed = make.ramp().astype(f"i{allocated // 8}") - 2000
    elements = {"WindowCenter": "48", "WindowWidth": "4096", "BitsStored": 13, "HighBit": 12}
    expected = np.vectorize(standard)(signed, 48, 4096, "LINEAR")
    np.testing.assert_allclose(grey(make, signed, **elements), expected, atol=1e-6)


def test_signed_pixels_whose_unused_bits_are_not_extended(make, flagged):
    signed = make.ramp().astype(np.int16) - 2000
    elements = {"WindowCenter": "48", "WindowWidth": "4096", "BitsStored": 13, "HighBit": 12}
    film = flagged(make.film(signed & 0x1FFF, PixelRepresentation=1, **elements), "bits: values above")
    np.testing.assert_allclose(film.pixels, grey(make, signed, **elements), atol=1e-6)


def test_pixels_at_the_top_of_their_words(make, flagged):
    film = flagged(make.film(make.ramp() << 4, HighBit=15), "bits: the high bit")
    np.testing.assert_allclose(film.pixels, grey(make, make.ramp()), atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_out_of_the_statistics(make, photometric):
    pixels = make.ramp() // 2 + 500
    padded = pixels.copy()
    padded[:4] = 4095
    padded[4:6] = 4000
    elements = {
        "PhotometricInterpretation": photometric,
        "WindowCenter": None,
        "WindowWidth": None,
        "PixelPaddingValue": ("US", 4095),
        "PixelPaddingRangeLimit": ("US", 4000),
    }
    film = grey(make, padded, **elements)
    assert not film[:6].any()
    low, high = np.percentile(pixels[6:], [0.5, 99.5], method="inverted_cdf")
    expected = np.clip((pixels[6:].astype(float) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(film[6:], expected if photometric == "MONOCHROME2" else 1 - expected, atol=1e-6)


def lut_item(entries: list[int] | bytes, count: int, first: int, bits: int, vr: str = "OW") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [count, first, bits])
    raw = entries if isinstance(entries, bytes) else np.array(entries, "<u2").tobytes()
    item.add_new("LUTData", vr, raw if vr == "OW" else [int(v) for v in np.frombuffer(raw, "<u2")])
    return item


CURVE = (np.linspace(0, 1, 4096) ** 2 * 1000).round().astype(int)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("vr", ["OW", "US"])
def test_voi_luts_are_scaled_by_their_own_maximum(make, bits, vr):
    film = grey(make, make.ramp(), VOILUTSequence=[lut_item(list(CURVE), 4096, 0, bits, vr)])
    np.testing.assert_allclose(film, CURVE[make.ramp()] / 1000, atol=1e-6)


def test_a_lut_comes_before_a_window(make):
    elements = {"VOILUTSequence": [lut_item(list(CURVE), 4096, 0, 12)], "WindowCenter": "10", "WindowWidth": "5"}
    np.testing.assert_allclose(grey(make, make.ramp(), **elements), CURVE[make.ramp()] / 1000, atol=1e-6)


def test_packed_eight_bit_luts(make):
    """Two entries a word, more than 256 of them: pydicom reads past the table and wraps its index."""
    packed = (np.arange(4096) // 16).astype(np.uint8)
    film = grey(make, make.ramp(), VOILUTSequence=[lut_item(packed.tobytes(), 4096, 0, 8)])
    np.testing.assert_allclose(film, (make.ramp() // 16) / 255, atol=1e-6)


@pytest.mark.parametrize("first", [-1000, 0, 700])
def test_the_first_mapped_value_may_be_negative(make, first):
    table = np.linspace(0, 4095, 2000).round().astype(int)
    elements = {"RescaleIntercept": "-1000", "RescaleSlope": "1"}
    film = grey(make, make.ramp(), VOILUTSequence=[lut_item(list(table), 2000, first, 12)], **elements)
    index = np.clip(make.ramp().astype(int) - 1000 - first, 0, 1999)
    np.testing.assert_allclose(film, table[index] / 4095, atol=1e-6)


def test_sixty_five_thousand_entries_are_written_as_zero(make):
    table = np.arange(65536)
    pixels = make.ramp(bits=16)
    elements = {"BitsStored": 16, "HighBit": 15, "VOILUTSequence": [lut_item(list(table), 0, 0, 16)]}
    np.testing.assert_allclose(grey(make, pixels, **elements), pixels / 65535, atol=1e-6)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_luts_in_every_byte_order(make, syntax):
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    item = lut_item(np.array(CURVE, order).tobytes(), 4096, 0, 12)
    film = make.read(make.film(make.ramp().astype(order), syntax, VOILUTSequence=[item]))
    np.testing.assert_allclose(film.pixels, CURVE[make.ramp()] / 1000, atol=1e-6)


def test_a_modality_lut(make):
    item = lut_item(list(CURVE), 4096, 0, 12)
    item.ModalityLUTType = "US"
    elements = {"ModalityLUTSequence": [item], "WindowCenter": "500.5", "WindowWidth": "1001"}
    np.testing.assert_allclose(grey(make, make.ramp(), **elements), CURVE[make.ramp()] / 1000, atol=1e-6)


@pytest.mark.parametrize("item", [lut_item([1, 2, 3], 4096, 0, 12), lut_item([5] * 4096, 4096, 0, 12), Dataset()])
def test_broken_luts_leave_the_window(make, flagged, item):
    film = flagged(make.film(VOILUTSequence=[item]), "VOI: the look-up table")
    np.testing.assert_allclose(film.pixels, grey(make, make.ramp()), atol=1e-6)
