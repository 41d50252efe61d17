from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from cxrx.datasets import rle
from cxrx.specs import Mask

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def decode(counts, shape):
    return Mask("x", shape, counts).decode()


def plain_runs(mask):
    """Return (start, length) of the runs down the columns, found pixel by pixel."""
    pixels = [bool(mask[y, x]) for x in range(mask.shape[1]) for y in range(mask.shape[0])]
    runs, start = [], None
    for place, pixel in enumerate([*pixels, False]):
        if pixel and start is None:
            start = place
        elif not pixel and start is not None:
            runs.append((start, place - start))
            start = None
    return runs


def relative(mask):
    words, end = [], 0
    for start, length in plain_runs(mask):
        words += [start - end, length]
        end = start + length
    return " ".join(map(str, words))


def coco_counts(mask):
    counts, end = [], 0
    for start, length in plain_runs(mask):
        counts += [start - end, length]
        end = start + length
    return [*counts, mask.size - end] if end < mask.size else counts


def packed(counts):
    """Pack as COCO does: five bits a character, sign extended, differences from the fourth number on."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


@given(masks)
def test_every_encoding_gives_the_pixels_back(mask):
    shape = mask.shape
    assert (decode(rle.from_relative(relative(mask), shape), shape) == mask).all()
    assert (decode(rle.from_coco(coco_counts(mask), shape), shape) == mask).all()
    assert (decode(rle.from_coco(packed(coco_counts(mask)), shape), shape) == mask).all()
    assert (decode(rle.from_pixels(mask), shape) == mask).all()
    assert rle.from_pixels(mask).tolist() == coco_counts(mask)
    assert rle.area(rle.from_pixels(mask)) == mask.sum()


@given(st.lists(st.integers(0, 2**33), min_size=1, max_size=12))
def test_packed_numbers_of_any_size(counts):
    assert rle._unpacked(packed(counts)).tolist() == counts


@pytest.mark.parametrize(("text", "shape"), [("PVWX6", (2320, 2828)), ("nefl3", (2022, 2021))])
def test_empty_masks_as_coco_itself_packs_them(text, shape):
    assert rle.from_coco(text, shape).tolist() == [shape[0] * shape[1]]


@given(masks)
def test_rows_instead_of_columns(mask):
    runs = rle.row_major(rle.from_pixels(mask), mask.shape)
    assert (np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(mask.shape) == mask).all()


@given(st.data())
def test_union(data):
    shape = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    several = data.draw(st.lists(arrays(bool, shape), min_size=1, max_size=3))
    joined = np.logical_or.reduce(several)
    counts = rle.union([rle.from_pixels(mask) for mask in several], shape)
    assert (decode(counts, shape) == joined).all()


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-8, 30, width=32), st.floats(-8, 30, width=32)), min_size=3, max_size=6),
        max_size=3,
    )
)
def test_polygons_are_filled_as_pillow_fills_them_on_the_whole_picture(polygons):
    shape = (20, 17)
    canvas = Image.new("1", shape[::-1])
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon(polygon, outline=1, fill=1)
    assert (decode(rle.from_polygons(polygons, shape), shape) == np.array(canvas)).all()


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (rle.from_relative, "1 2 3"),
        (rle.from_relative, "90 20"),
        (rle.from_relative, "-1"),
        (rle.from_relative, "one two"),
        (rle.from_coco, "!!"),
        (rle.from_coco, ""),
        (rle.from_coco, "P"),
        (rle.from_coco, "PPPPPPPPPPPPPPPPPPPPPPPPPP0"),
        (rle.from_coco, [90, 20]),
        (rle.from_coco, [-10, 110]),
        (rle.from_coco, "é"),
    ],
)
def test_what_is_no_encoding_is_refused(read, text):
    with pytest.raises(ValueError, match=r".+"):
        read(text, (10, 10))
