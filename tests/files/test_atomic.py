from __future__ import annotations

import errno
import os
import stat

import pytest

from cxrx.errors import DiskFullError, ResultsError
from cxrx.files import atomic


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.h5"
    atomic.write_file(path, b"old")
    atomic.write_file(path, b"new, longer", mode=0o600)
    assert path.read_bytes() == b"new, longer"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    atomic.write_file(path, b"")
    assert path.read_bytes() == b""


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "a.h5"
    link.symlink_to(tmp_path / "elsewhere" / "real.h5")
    atomic.write_file(link, b"data")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "real.h5").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, ResultsError)]
)
@pytest.mark.parametrize("step", ["create", "allocate", "write_at", "sync", "rename"])
def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch, step, number, kind):
    path = tmp_path / "a.h5"
    path.write_bytes(b"old")

    def failing(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic, step, failing)
    with pytest.raises(kind, match=r"a\.h5|disk is full"):
        atomic.write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ResultsError("no"), ValueError("a bug"), KeyboardInterrupt()])
def test_an_error_or_interrupt_while_writing_removes_the_temporary_file_too(tmp_path, error):
    with pytest.raises(type(error)), atomic.replacing(tmp_path / "a.h5"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_a_stray_that_is_found(tmp_path):
    class Kill(BaseException):
        pass

    def killed():
        with atomic.replacing(tmp_path / "a.h5") as fd:
            atomic.write_at(fd, b"half", 0)
            raise Kill

    with pytest.raises(Kill):
        killed()
    (stray,) = tmp_path.iterdir()
    assert atomic.strays(tmp_path) == atomic.strays(tmp_path, ["a.h5"]) == [stray]
    assert atomic.strays(tmp_path, ["b.h5"]) == []
    assert atomic.strays(tmp_path / "missing") == []


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data)[:3], offset))
    atomic.write_file(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_file_system_without_fallocate_or_folder_sync_will_do(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    atomic.write_file(tmp_path / "a", b"data")
    assert (tmp_path / "a").read_bytes() == b"data"


def test_space_is_asked_for_in_advance(tmp_path):
    atomic.require_space(tmp_path, 1, "a.h5")
    with pytest.raises(DiskFullError, match="may take"):
        atomic.require_space(tmp_path, 1 << 60, "a.h5")


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResultsError, match="could not be created"):
        atomic.make_folder(tmp_path / "file" / "below")
