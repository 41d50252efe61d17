from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile

import pytest

from cxrx.errors import UsageError
from cxrx.results.contents import Contents
from cxrx.results.pack import pack
from cxrx.results.reader import open_results


@pytest.fixture
def films(tmp_path, made, store):
    """Three real files, packed: two plain ones and a member of a zip."""
    folder = tmp_path / "films"
    folder.mkdir()
    contents = [b"film zero", b"film one", b"film two"]
    with zipfile.ZipFile(folder / "films.zip", "w") as archive:
        archive.writestr("inner/two.dcm", contents[2])
    (folder / "zero.dcm").write_bytes(contents[0])
    (folder / "one.dcm").write_bytes(contents[1])
    records = []
    for i, (name, member) in enumerate([("zero.dcm", ""), ("one.dcm", ""), ("films.zip", "inner/two.dcm")]):
        path = folder / name
        digest, stat = hashlib.sha256(contents[i]).hexdigest(), path.stat()
        records.append(
            made.film(
                i, sha256=digest, path=str(path), relative=name, member=member,
                size=stat.st_size, mtime_ns=stat.st_mtime_ns,
            )
        )  # fmt: skip
    store.write(Contents(records), 0)
    pack(store, store.out, truth=None, run={})
    with open_results(store.out) as results:
        yield folder, [record.image_id for record in records], results


def test_films_are_where_the_link_table_says(films):
    folder, ids, results = films
    assert results.paths() == {
        ids[0]: (folder / "zero.dcm", ""),
        ids[1]: (folder / "one.dcm", ""),
        ids[2]: (folder / "films.zip", "inner/two.dcm"),
    }


def test_a_touched_film_is_still_itself_and_a_changed_one_is_not(films):
    folder, ids, results = films
    os.utime(folder / "zero.dcm", (1, 1))
    (folder / "one.dcm").write_bytes(b"film 1ne")
    assert set(results.paths()) == {ids[0], ids[2]}
    (folder / "zero.dcm").write_bytes(b"film z3ro")
    assert set(results.paths()) == {ids[2]}


def test_moved_films_are_found_by_content(films, tmp_path):
    folder, ids, results = films
    moved = tmp_path / "moved" / "deep"
    moved.parent.mkdir()
    folder.rename(moved)
    assert results.paths() == {}
    (moved / "one.dcm").rename(moved / "renamed.bin")
    with tarfile.open(moved / "films.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("zero.dcm")
        info.size = 9
        archive.addfile(info, io.BytesIO(b"film zero"))
    (moved / "zero.dcm").unlink()
    assert results.paths(tmp_path / "moved") == {
        ids[0]: (moved / "films.tar.gz", "zero.dcm"),
        ids[1]: (moved / "renamed.bin", ""),
        ids[2]: (moved / "films.zip", "inner/two.dcm"),
    }
    with pytest.raises(UsageError, match="not a folder"):
        results.paths(tmp_path / "nowhere")
