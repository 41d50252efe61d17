"""The walk: order, what is taken, what is rejected with a reason, what is merely counted."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrx.errors import UsageError
from cxrx.reading.find import find
from cxrx.reading.item import Item, Rejected, safe_relative
from cxrx.reading.readers import BUILTIN
from cxrx.specs import ReaderSpec

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
DICOM = bytes(128) + b"DICM" + bytes(100)


def touch(path: Path, data: bytes = DICOM) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(found) -> list[str]:
    return [f.relative if isinstance(f, Item) else f.item.relative for f in found]


def reasons(found) -> dict[str, str]:
    return {f.item.relative: f.reason.code for f in found if isinstance(f, Rejected)}


def test_relative_paths_come_sorted_even_where_a_folder_shares_a_beginning(tmp_path):
    expected = ["a-b.dcm", "a.dcm", "a/1.dcm", "a/b/2.dcm", "a0.dcm", "b/1.png", "b/10.dcm", "b/2.dcm"]
    for name in expected:
        touch(tmp_path / name, PNG if name.endswith("png") else DICOM)
    found = list(find([tmp_path]))
    assert names(found) == expected == sorted(expected)
    assert all(f.path.is_absolute() and f.size == f.path.stat().st_size for f in found)
    assert [f.reader for f in found] == ["cxrx/image" if n.endswith("png") else "cxrx/dicom" for n in expected]


@settings(max_examples=25, deadline=None)
@given(st.sets(st.text("ab./-", min_size=1, max_size=6), max_size=12))
def test_order_holds_for_any_tree(tmp_path_factory, paths):
    root = tmp_path_factory.mktemp("tree")
    for path in sorted(paths):
        parts = [part for part in path.split("/") if part.strip(".")]
        try:
            touch(root.joinpath(*(p.lstrip(".") for p in parts), "x.dcm") if parts else root / "x.dcm")
        except (FileExistsError, NotADirectoryError):
            continue
    found = names(find([root]))
    assert found == sorted(found)
    assert len(found) == len(list(root.rglob("x.dcm")))


def test_it_streams(tmp_path):
    for i in range(5):
        touch(tmp_path / f"{i}" / "x.dcm")
    stream = find([tmp_path])
    assert next(stream).relative == "0/x.dcm"
    touch(tmp_path / "4" / "y.dcm")
    assert names(stream)[-1] == "4/y.dcm"


def test_what_is_plainly_no_picture_is_counted_only(tmp_path):
    for name in ("labels.csv", "more.CSV", "notes.md", "run.h5", ".hidden.dcm", ".git/x.dcm", "masks/m.png", "blob"):
        touch(tmp_path / name, PNG if name.endswith("png") else b"text")
    counts: Counter[str] = Counter()
    assert list(find([tmp_path], passed_over=counts)) == []
    assert counts == {".csv": 2, ".md": 1, ".h5": 1, "hidden": 1, ".git/": 1, "masks/": 1, "no suffix": 1}
    assert names(find([tmp_path / "masks"])) == ["m.png"]


def test_pretenders_are_rejected_with_a_reason(tmp_path):
    touch(tmp_path / "empty.dcm", b"")
    touch(tmp_path / "jpeg.dcm", b"\xff\xd8\xff\xe0" + bytes(200))
    touch(tmp_path / "text.png", b"not a picture")
    touch(tmp_path / "scan.tif", b"II*\0")
    os.mkfifo(tmp_path / "fifo.dcm")
    (tmp_path / "dangling.dcm").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.dcm").symlink_to(tmp_path / "self.dcm")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket.dcm"))
    found = list(find([tmp_path]))
    listener.close()
    assert reasons(found) == {
        "dangling.dcm": "unreadable",
        "empty.dcm": "not-dicom",
        "fifo.dcm": "not-a-file",
        "jpeg.dcm": "not-dicom",
        "scan.tif": "unsupported-format",
        "self.dcm": "unreadable",
        "socket.dcm": "not-a-file",
        "text.png": "not-a-picture",
    }
    assert {f.reason.kind for f in found} == {"skipped"}


def test_a_symbolic_link_to_a_folder_is_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "real" / "x.dcm")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    found = list(find([tmp_path]))
    assert names(f for f in found if isinstance(f, Item)) == ["link/x.dcm", "real/x.dcm"]
    assert reasons(found) == {"link/up": "symlink-loop", "real/up": "symlink-loop"}


def test_undecodable_names_are_rejected_and_printable(tmp_path):
    (tmp_path / os.fsdecode(b"f\xe9e.dcm")).write_bytes(DICOM)
    (rejected,) = find([tmp_path])
    assert rejected.reason.code == "name"
    assert rejected.item.relative == r"f\xe9e.dcm"
    str(rejected.item.path).encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_and_folders(tmp_path):
    touch(tmp_path / "a.dcm").chmod(0)
    (tmp_path / "b").mkdir(mode=0)
    assert set(reasons(find([tmp_path])).values()) == {"unreadable"}


def test_an_unlistable_folder_is_rejected(tmp_path, monkeypatch):
    touch(tmp_path / "b" / "x.dcm")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert reasons(find([tmp_path])) == {"b": "unreadable"}


def test_force_takes_files_without_the_mark(tmp_path):
    touch(tmp_path / "1.2.840", b"\x08\0\x05\0")
    touch(tmp_path / "x.dcm", b"\x08\0\x05\0")
    touch(tmp_path / "y.csv", b"a,b")
    assert names(find([tmp_path], force_dicom=True)) == ["1.2.840", "x.dcm"]
    assert reasons(find([tmp_path])) == {"x.dcm": "not-dicom"}


def test_a_single_film_and_several_inputs(tmp_path):
    one, two = touch(tmp_path / "p" / "one.dcm"), touch(tmp_path / "q" / "two.dcm")
    assert names(find([two, one.parent])) == ["two.dcm", "one.dcm"]
    odd = touch(tmp_path / "odd.csv", b"a,b")
    assert reasons(find([odd])) == {"odd.csv": "unsupported-format"}


def test_a_missing_input_is_a_usage_error_at_once(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        find([tmp_path / "nowhere"])


def test_a_list_of_paths(tmp_path, monkeypatch):
    touch(tmp_path / "films" / "a.dcm")
    touch(tmp_path / "films" / "b.dcm")
    elsewhere = touch(tmp_path / "else" / "c.dcm")
    table = tmp_path / "list.txt"
    long = "x" * 5000
    table.write_text(f"films/b.dcm\n\nfilms\n{elsewhere}\ngone.dcm\n{long}\n../{tmp_path.name}/films/a.dcm\n")
    found = list(find([table]))
    outside = str(elsewhere).lstrip("/")
    assert names(found) == [
        "films/b.dcm",
        "films/a.dcm",
        "films/b.dcm",
        outside,
        "gone.dcm",
        long,
        f"{tmp_path.name}/films/a.dcm",
    ]
    assert reasons(found) == {"gone.dcm": "missing", long: "missing"}
    assert {f.reason.kind for f in found if isinstance(f, Rejected)} == {"failed"}


@given(st.text(max_size=30))
def test_tamed_names_never_leave_their_folder(name):
    safe = safe_relative(name)
    assert safe
    assert not safe.startswith("/")
    assert ".." not in safe.split("/")
    assert ":" not in safe


def test_third_party_readers_come_after_the_built_in_ones(tmp_path):
    touch(tmp_path / "a.dcm")
    touch(tmp_path / "b.raw", b"RAWX1234")
    touch(tmp_path / "c.npy", b"RAWX1234")
    seen = []

    def sniff(path, head):
        seen.append(path.name)
        return head.startswith(b"RAWX")

    reader = ReaderSpec("me/raw", sniff, lambda path: iter(()))
    assert [(f.relative, f.reader) for f in find([tmp_path], formats=BUILTIN | {"me/raw": reader})] == [
        ("a.dcm", "cxrx/dicom"),
        ("b.raw", "me/raw"),
        ("c.npy", "me/raw"),
    ]
    assert seen == ["b.raw", "c.npy"]


def test_a_reader_that_breaks_in_sniff_is_left_out_once(tmp_path):
    touch(tmp_path / "a.raw", b"1")
    touch(tmp_path / "b.raw", b"1")
    reader = ReaderSpec("me/raw", lambda path, head: 1 / 0, lambda path: iter(()))
    with pytest.warns(UserWarning, match="me/raw is left out: ZeroDivisionError") as caught:
        assert list(find([tmp_path], formats=BUILTIN | {"me/raw": reader})) == []
    assert len(caught) == 1
