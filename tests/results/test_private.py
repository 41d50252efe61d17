from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrx.errors import ResultsError
from cxrx.reading.record import Link
from cxrx.results.private import guard, private_path, read_private, unguard, update, write_private

cells = st.text(st.characters(exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["=1", "+1", "-1", "@a", "\t=1", "'", "''=", "a,b", 'a"b', "a\nb", "a\r\nb", os.fsdecode(b"\xff.dcm")]
)
rows = st.builds(
    Link,
    st.sampled_from(["film", "failure", "model"]),
    *[cells.filter(lambda cell: not any("\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" for c in cell))] * 6,
    st.integers(0, 2**50),
    st.integers(0, 2**62),
)


@given(st.lists(rows, max_size=4))
def test_the_link_table_comes_back_as_it_was(table):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.private.csv"
        write_private(path, table)
        assert read_private(path) == table
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(st.lists(rows, max_size=5), st.lists(rows, max_size=5))
def test_update_is_idempotent_and_the_newer_row_counts(old, new):
    once = update(old, new)
    assert update(once, new) == once
    assert len({row.key for row in once}) == len(once)
    assert {row.key for row in once} == {row.key for row in old + new}
    assert {row.key: row for row in new}.items() <= {row.key: row for row in once}.items()


@given(st.text())
def test_guard_can_be_undone_and_leaves_no_formula(cell):
    assert unguard(guard(cell)) == cell
    assert not guard(cell).startswith(("=", "+", "-", "@", "\t", "\r"))


def test_names():
    assert private_path(Path("a/results.h5")) == Path("a/results.private.csv")
    assert private_path(Path("a/b.c.h5")) == Path("a/b.c.private.csv")
    assert read_private(Path("missing.csv")) == []


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", "kind,image_id,relative,path,member,uid,patient,size,mtime_ns\nfilm,a\n"]
)
def test_a_damaged_table_says_so(tmp_path, content):
    path = tmp_path / "results.private.csv"
    path.write_text(content)
    with pytest.raises(ResultsError, match="damaged"):
        read_private(path)
