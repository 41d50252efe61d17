from __future__ import annotations

import io

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cxrx.errors import ResultsError, UsageError
from cxrx.results import schema
from cxrx.results.schema import decode, encode, get_attrs, put_attrs, round_mantissa, storable, text

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
tricky = st.sampled_from(["true", "null", "[", "{}", '"', "1", "", "\0", "\udc80", "é", "[1]", "a\0b"])


@given(values | tricky)
def test_attributes_come_back_as_they_were(value):
    with h5py.File(io.BytesIO(), "w", libver=schema.LIBVER) as file:
        file.attrs["a"] = encode(value)
        found = decode(file.attrs["a"])
    assert found == value
    assert type(found) is type(value)


def test_attributes_of_a_group_are_written_in_one_order_and_large_ones_too():
    attrs = {"z": 1, "a": (1, 2), "long": ["Effusion"] * 20_000}
    with h5py.File(io.BytesIO(), "w", libver=schema.LIBVER) as file:
        put_attrs(file, attrs)
        assert get_attrs(file) == {"a": [1, 2], "long": ["Effusion"] * 20_000, "z": 1}


def test_an_integer_of_more_than_64_bits_is_refused():
    with pytest.raises(OverflowError):
        encode(2**64)


@given(st.text())
def test_text_changes_only_what_hdf5_cannot_hold(string):
    stored = text(string)
    assert len(stored) == len(string)
    for old, new in zip(string, stored, strict=True):
        assert new == ("\ufffd" if old == "\0" or "\ud800" <= old <= "\udfff" else old)


@given(hnp.arrays(np.float32, 40, elements=st.floats(width=32, allow_subnormal=False)))
def test_rounding_keeps_10_bits(x):
    y = round_mantissa(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(round_mantissa(y), y)
    np.testing.assert_array_equal(np.isnan(x), np.isnan(y))
    np.testing.assert_array_equal(np.isinf(x), np.isinf(y))
    finite = np.isfinite(x)
    assert (np.abs(y[finite].astype(float) - x[finite]) <= np.abs(x[finite]).astype(float) * 2.0**-11).all()


@given(hnp.arrays(np.float32, 40, elements=st.floats(0.0001220703125, 60000, width=32)))
def test_rounding_is_that_of_float16_where_float16_has_the_range(x):
    np.testing.assert_array_equal(round_mantissa(x), x.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(round_mantissa(-x), -round_mantissa(x))


def test_rounding_leaves_odd_nans_nan():
    odd = np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000], dtype=np.uint32).view(np.float32)
    assert np.isnan(round_mantissa(odd)).all()


def test_storable_types():
    assert storable(np.array([True])).dtype == np.uint8
    assert storable(np.array([1.5], np.float16)).dtype == np.float32
    big = np.array([1.5, 2], ">f8")
    assert storable(big).dtype.isnative
    np.testing.assert_array_equal(storable(big), big)


@pytest.mark.parametrize(
    ("space", "trailing", "storage"),
    [("native", (7, 7), "dense"), ("input", (7, 7), "map"), ("native", (32, 32), "map"), ("input", (), "dense")],
)
def test_storage(space, trailing, storage):
    assert schema.storage_of(space, trailing) == storage


def test_chunks_hold_256_films_or_4_megabytes():
    assert schema.chunk_rows((10_000, 14, 7, 7), "f4") == 256
    assert schema.chunk_rows((100, 14, 7, 7), "f4") == 100
    assert schema.chunk_rows((10_000, 14, 28, 28), "f4") == (4 << 20) // (14 * 28 * 28 * 4)
    assert schema.chunk_rows((10_000, 14, 1000, 1000), "f4") == 1


def write(path, **changes):
    attrs = {"format": "cxrx-results", "schema_version": "1.0", "complete": 1} | changes
    with h5py.File(path, "w") as file:
        put_attrs(file, {name: value for name, value in attrs.items() if value is not None})


def test_a_newer_minor_version_is_read(tmp_path):
    write(tmp_path / "a.h5", schema_version="1.9")
    schema.open_checked(tmp_path / "a.h5").close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": None}, "not one of cxrx"),
        ({"format": "cxrx-part"}, "not one of cxrx"),
        ({"schema_version": "2.0"}, "schema version 2.0"),
        ({"schema_version": None}, "schema version none"),
        ({"complete": 0}, "unfinished"),
        ({"complete": None}, "unfinished"),
    ],
)
def test_a_foreign_or_unfinished_file_is_refused(tmp_path, changes, message):
    write(tmp_path / "a.h5", **changes)
    with pytest.raises(ResultsError, match=message):
        schema.open_checked(tmp_path / "a.h5")


def test_what_is_no_hdf5_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    for content in (b"", b"no hdf5", b"\x89HDF\r\n\x1a\n" + bytes(20)):
        path.write_bytes(content)
        with pytest.raises(ResultsError):
            schema.open_checked(path)
    with pytest.raises(UsageError, match="no results file"):
        schema.open_checked(tmp_path / "missing.h5")


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    write(tmp_path / "a.h5")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Unable to open file")

    monkeypatch.setattr(schema.h5py, "File", refuse)
    with pytest.raises(ResultsError, match=r"a\.h5 cannot be opened: Permission denied"):
        schema.open_checked(tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["external", "soft", "storage", "virtual", "loop"])
def test_files_that_reach_elsewhere_are_refused(tmp_path, kind):
    other, path = tmp_path / "other.h5", tmp_path / "a.h5"
    with h5py.File(other, "w") as file:
        file["data"] = np.arange(4)
    write(path)
    with h5py.File(path, "r+") as file:
        match kind:
            case "external":
                file["maps"] = h5py.ExternalLink(str(other), "data")
            case "soft":
                file["maps"] = h5py.SoftLink("/elsewhere")
            case "storage":
                file.create_dataset("maps", shape=(4,), dtype="u1", external=[("/etc/passwd", 0, 4)])
            case "virtual":
                layout = h5py.VirtualLayout(shape=(4,), dtype="i8")
                layout[:] = h5py.VirtualSource(str(other), "data", shape=(4,))
                file.create_virtual_dataset("maps", layout)
            case "loop":
                file.create_group("maps")["maps"] = file["/"]
    with pytest.raises(ResultsError, match=r"link|another file|nested"):
        schema.open_checked(path)
