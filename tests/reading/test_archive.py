"""Archives: members are read to memory with caps, whatever they are called."""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from cxrx.reading import archive, source
from cxrx.reading.find import find
from cxrx.reading.item import Item, Rejected
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
        assert load(replace(item, data=None)) == item.data
    with pytest.raises(RefusalError, match="cannot be unpacked"):
        load(replace(item, data=None, member="c.dcm"))


def test_encrypted_members(make, tmp_path):
    path = packed(tmp_path / "x.zip", {"a.dcm": make.film()})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    (found,) = find([path])
    assert found.reason.code == "encrypted"


def test_a_zip_bomb_is_stopped_by_what_it_says_and_by_what_it_does(make, tmp_path, monkeypatch):
    path = packed(tmp_path / "x.zip", {"a.dcm": bytes(128) + b"DICM" + bytes(2**20)})
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 2**16)
    (found,) = find([path])
    assert found.reason.code == "over-limit"
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 2**30)
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 2**16)
    (item,) = find([path])
    with pytest.raises(RefusalError, match="larger") as caught:
        load(Item(item.path, item.relative, 10, item.mtime_ns, "cxrx/dicom", item.member))
    assert caught.value.code == "over-limit"


def test_a_tar_bomb(tmp_path, monkeypatch):
    path = packed(tmp_path / "x.tar.gz", {"a.dcm": bytes(2**22)})
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 2**10)
    (found,) = find([path])
    assert found.reason.code == "over-limit"


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


def test_a_file_over_the_limit_is_not_read(make, tmp_path, monkeypatch):
    path = tmp_path / "a.dcm"
    path.write_bytes(make.film())
    (item,) = find([path])
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 100)
    (large,) = read_films(item, ReadOptions())
    assert (large.kind, large.code, large.sha256) == ("failed", "over-limit", "")
