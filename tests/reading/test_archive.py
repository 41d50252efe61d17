"""Archives: members are read to memory with caps, whatever they are called."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from cxrx.errors import UsageError
from cxrx.reading import source
from cxrx.reading.find import find
from cxrx.reading.item import Item, Rejected
from cxrx.reading.memory import film_memory
from cxrx.reading.options import ReadOptions
from cxrx.reading.readers import read_films
from cxrx.reading.refusal import RefusalError
from cxrx.reading.source import load
from cxrx.specs import Film

SUFFIXES = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"]


def packed(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, data in files.items():
                out.writestr(name, data)
        return path
    compression = {".tar": "", ".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz"}[path.suffix]
    with tarfile.open(path, f"w:{compression}") as out:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_members_are_found_and_decoded_like_files(make, tmp_path, suffix):
    film = make.film()
    files = {"s/b.dcm": film, "a.dcm": make.film(ViewPosition="AP"), "t.csv": b"a,b", "._x.dcm": b"", "z.dcm": b"no"}
    path = packed(tmp_path / f"films{suffix}", files)
    for start in (path, tmp_path):
        found = {f.relative if isinstance(f, Item) else f.item.relative: f for f in find([start])}
        folder = f"films{suffix}"
        assert set(found) == {f"{folder}/a.dcm", f"{folder}/s/b.dcm", f"{folder}/z.dcm"}
        assert isinstance(found[f"{folder}/z.dcm"], Rejected)
        assert found[f"{folder}/z.dcm"].item.data is None
        (b,) = read_films(found[f"{folder}/s/b.dcm"], ReadOptions())
        assert isinstance(b, Film)
        assert (b.member, b.sha256) == ("s/b.dcm", source.digest(film))
        (a,) = read_films(found[f"{folder}/a.dcm"], ReadOptions())
        assert a.view == "AP"


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_members_come_sorted_where_the_format_allows(make, tmp_path, suffix):
    path = packed(tmp_path / f"x{suffix}", {n: make.film() for n in ("c.dcm", "a/z.dcm", "a.dcm", "b.dcm")})
    names = [f.relative for f in find([path])]
    assert names == sorted(names)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_names_that_climb_are_tamed_and_nothing_is_written(make, tmp_path, suffix):
    inside = tmp_path / "in"
    inside.mkdir()
    path = packed(inside / f"slip{suffix}", {"../../evil.dcm": make.film(), "/abs.dcm": make.film()})
    found = list(find([path]))
    assert sorted(f.relative for f in found) == [f"slip{suffix}/abs.dcm", f"slip{suffix}/evil.dcm"]
    assert all(isinstance(next(read_films(item, ReadOptions())), Film) for item in found)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert [p.name for p in inside.iterdir()] == [f"slip{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_archives_are_listed_not_lost(make, tmp_path, suffix):
    path = packed(tmp_path / f"x{suffix}", {f"{i}.dcm": make.film() for i in range(3)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    rejected = [f for f in find([path]) if isinstance(f, Rejected)]
    unreadable = [
        f for f in find([path]) if isinstance(f, Item) and not isinstance(next(read_films(f, ReadOptions())), Film)
    ]
    assert rejected or unreadable
    assert all((r.reason.kind, r.reason.code) == ("failed", "corrupt-archive") for r in rejected)


def test_a_member_of_a_compressed_tar_can_be_read_again(make, tmp_path):
    path = packed(tmp_path / "x.tgz", {"a.dcm": make.film(), "b.dcm": make.film(ViewPosition="AP")})
    for item in find([path]):
        assert item.data
        assert load(replace(item, data=None), film_memory()) == item.data
    with pytest.raises(RefusalError, match="cannot be unpacked"):
        load(replace(item, data=None, member="c.dcm"), film_memory())


def test_encrypted_members(make, tmp_path):
    path = packed(tmp_path / "x.zip", {"a.dcm": make.film()})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    (found,) = find([path])
    assert found.reason.code == "encrypted"


LIMIT = "the limit is 16 MiB, which CXRX_FILM_MEMORY raises"


@pytest.fixture
def little_memory(monkeypatch):
    """A film may take 16 MiB: a third of it in its file."""
    monkeypatch.setenv("CXRX_FILM_MEMORY", "16")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_member_too_large_is_refused_before_it_is_read(make, tmp_path, little_memory, suffix):
    path = packed(tmp_path / f"x{suffix}", {"a.dcm": bytes(6 << 20), "b.dcm": make.film()})
    large, film = find([path])
    assert (large.reason.kind, large.reason.code) == ("failed", "over-limit")
    assert large.reason.message == f"a member of 6 MiB takes 18 MiB of memory; {LIMIT}"
    assert isinstance(next(read_films(film, ReadOptions())), Film)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_limit_that_is_asked_for_counts_and_not_that_of_the_environment(make, tmp_path, little_memory, suffix):
    content = {f"{i}.dcm": make.film() + bytes(6 << 20) for i in range(4)}
    path = packed(tmp_path / f"x{suffix}", content)
    found = list(find([path], memory=100 << 20))
    assert [type(entry) for entry in found] == 4 * [Item]
    assert load(replace(found[3], data=None), 100 << 20) == content["3.dcm"]


def test_a_zip_member_that_lies_about_its_size(tmp_path, little_memory):
    """Its directory says 100 bytes; no more than the limit is unpacked of the six megabytes."""
    path = packed(tmp_path / "x.zip", {"a.dcm": bytes(128) + b"DICM" + bytes(6 << 20)})
    (found,) = find([path])
    with pytest.raises(RefusalError, match="limit is 16 MiB") as caught:
        load(Item(path, "a.dcm", 10, found.item.mtime_ns, "cxrx/dicom", "a.dcm"), film_memory())
    assert caught.value.code == "over-limit"


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_tar_that_unpacks_to_far_more_than_films(tmp_path, little_memory, suffix):
    """Many members of an allowed size, or one header of many megabytes: neither is unpacked whole."""
    path = packed(tmp_path / f"many{suffix}", {f"{i:03}.dcm": bytes(5 << 20) for i in range(12)})
    *members, end = find([path])
    assert (end.reason.code, end.reason.kind) == ("over-limit", "failed")
    assert "CXRX_FILM_MEMORY" in end.reason.message
    assert len(members) < 12
    last = replace(members[0], item=replace(members[0].item, member="011.dcm")).item
    with pytest.raises(RefusalError) as caught:
        load(last, film_memory())
    assert (caught.value.code, caught.value.message) == ("over-limit", end.reason.message)
    with tarfile.open(tmp_path / f"header{suffix}", f"w:{suffix[5:]}") as out:
        info = tarfile.TarInfo("x" * (5 << 20))
        out.addfile(info, io.BytesIO())
    (end,) = find([tmp_path / f"header{suffix}"])
    assert end.reason.code == "corrupt-archive"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_members_whose_unpacking_has_no_bound_are_refused(make, tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as out:
        out.writestr("a.dcm", make.film())
    (found,) = find([tmp_path / "x.zip"])
    assert (found.reason.kind, found.reason.code) == ("failed", "unsupported")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_films_of_their_own(make, tmp_path, suffix):
    views = ["PA", "AP", "LL"]
    path = tmp_path / f"x{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as out:
            for view in views:
                out.writestr("a.dcm", make.film(ViewPosition=view))
    else:
        with tarfile.open(path, "w:" + {".tar": "", ".tgz": "gz"}.get(suffix, suffix[5:])) as out:
            for view in views:
                data = make.film(ViewPosition=view)
                info = tarfile.TarInfo("a.dcm")
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
    items = list(find([path]))
    assert [item.member for item in items] == ["a.dcm", "a.dcm'", "a.dcm''"]
    for again in (items, [replace(item, data=None) for item in items]):
        films = [next(read_films(item, ReadOptions(views=("all",)))) for item in again]
        assert [film.view for film in films] == ["PA", "AP", "LATERAL"]
        assert [film.member for film in films] == [item.member for item in items]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("damage", [bytes(512), b"x" * 512], ids=["zeros", "junk"])
def test_what_lies_behind_a_damaged_tar_header_is_not_lost_silently(make, tmp_path, suffix, damage):
    plain = packed(tmp_path / "x.tar", {f"{i}.dcm": make.film() for i in range(3)})
    with tarfile.open(plain) as file:
        at = file.getmembers()[1].offset
    data = bytearray(plain.read_bytes())
    data[at : at + 512] = damage
    plain.unlink()
    path = tmp_path / f"y{suffix}"
    path.write_bytes(bytes(data) if suffix == ".tar" else gzip.compress(bytes(data)))
    first, end = find([path])
    assert isinstance(first, Item)
    assert (end.reason.kind, end.reason.code) == ("failed", "corrupt-archive")
    assert f"byte {at}" in end.reason.message
    path.write_bytes(bytes(data[:at]) if suffix == ".tar" else gzip.compress(bytes(data[:at])))
    first, end = find([path])
    assert isinstance(first, Item)
    assert end.reason.message == "the archive is cut short: the mark of its end is missing"


def test_files_that_vanish_or_turn_into_something_else(make, tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(make.film())
    (item,) = find([path])
    path.unlink()
    (gone,) = read_films(item, ReadOptions())
    assert (gone.kind, gone.code) == ("skipped", "vanished")
    path.mkdir()
    (folder,) = read_films(item, ReadOptions())
    assert (folder.kind, folder.code) in {("skipped", "unreadable"), ("skipped", "not-a-file")}


def test_a_file_over_the_limit_is_not_read(make, tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(make.film().ljust(6 << 20, b"\0"))
    (item,) = find([path])
    (large,) = read_films(item, ReadOptions(memory=16 << 20))
    assert (large.kind, large.code, large.sha256) == ("failed", "over-limit", "")
    assert large.message == f"a file of 6 MiB takes 18 MiB of memory; {LIMIT}"


@pytest.mark.parametrize("said", ["0", "-5", "many", "1e9", "99999999999"])
def test_a_limit_that_is_none(monkeypatch, said):
    monkeypatch.setenv("CXRX_FILM_MEMORY", said)
    with pytest.raises(UsageError, match="CXRX_FILM_MEMORY"):
        ReadOptions()
