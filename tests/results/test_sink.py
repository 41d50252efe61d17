from __future__ import annotations

import io
import os
import tempfile

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrx.files import atomic
from cxrx.results.sink import Sink

steps = st.lists(
    st.tuples(st.sampled_from(["write", "read"]), st.integers(0, 200_000), st.integers(1, 70_000)), max_size=12
)


@given(steps, st.none() | st.integers(0, 5))
def test_it_reads_what_was_written_whether_the_disk_took_it_or_not(script, fails_at):
    """The oracle is a BytesIO; from write number `fails_at` on the disk takes nothing."""
    oracle, calls = io.BytesIO(), []
    real = atomic.write_at

    def failing(fd, data, offset):
        calls.append(offset)
        if fails_at is not None and len(calls) > fails_at:
            raise OSError(28, "full")
        real(fd, data, offset)

    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "write_at", failing)
        sink = Sink(file.fileno())
        for i, (step, position, size) in enumerate(script):
            sink.seek(position)
            oracle.seek(position)
            if step == "write":
                data = bytes([i + 1]) * size
                assert sink.write(data) == size
                oracle.write(data)
            else:
                buffer = bytearray(size)
                count = sink.readinto(buffer)
                assert bytes(buffer[:count]) == oracle.read(size)
            assert sink.tell() == oracle.tell()
        try:
            sink.finish()
            failed = False
        except OSError:
            failed = True
        assert failed == (fails_at is not None and len(calls) > fails_at)
        if not failed:
            assert os.pread(file.fileno(), 1 << 20, 0) == oracle.getvalue()


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_hdf5_closes_in_peace_when_the_disk_is_full(monkeypatch, error):
    def failing(fd, data, offset):
        raise error

    monkeypatch.setattr(atomic, "write_at", failing)
    with tempfile.TemporaryFile() as file:
        sink = Sink(file.fileno())
        with h5py.File(sink, "w", libver=("v110", "v110")) as h5:
            h5.create_dataset("a", data=np.random.default_rng(0).random((50, 1000)), chunks=(1, 1000), compression=1)
            np.testing.assert_array_equal(h5["a"][:], np.random.default_rng(0).random((50, 1000)))
        with pytest.raises(type(error)):
            sink.finish()
        assert os.fstat(file.fileno()).st_size == 0
