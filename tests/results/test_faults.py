"""Every step to the disk fails once, by an error and by a kill; done again, the result is the undisturbed run's."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from pathlib import Path

import pytest

from cxrx.errors import CxrxError, DiskFullError
from cxrx.files import atomic
from cxrx.results.contents import Contents
from cxrx.results.pack import pack
from cxrx.results.parts import PartStore
from cxrx.results.reader import open_results
from cxrx.results.records import keyed

STEPS = ("create", "allocate", "write_at", "sync", "rename", "sync_folder", "unlink")
RUN = {"argv": ["explain"]}


class Kill(BaseException):
    """Stands for SIGKILL: nothing that handles errors sees it."""


class Faults:
    """Counts the steps and makes one of them fail; a write fails in its middle."""

    def __init__(self, monkeypatch):
        self.log: list[str] = []
        self.at, self.error = -1, None
        monkeypatch.setattr(os, "fsync", lambda fd: None)  # there is no power loss here, and it takes its time
        processes = itertools.count(1)
        monkeypatch.setattr(os, "getpid", lambda: next(processes))  # what is done again is done by another process
        for step in STEPS:
            monkeypatch.setattr(atomic, step, self._wrapped(step, getattr(atomic, step)))

    def arm(self, at, error):
        self.log, self.at, self.error = [], at, error

    def disarm(self):
        self.arm(-1, None)

    def _wrapped(self, name, step):
        def wrapped(*arguments):
            self.log.append(name)
            if len(self.log) - 1 == self.at:
                if name == "write_at":
                    fd, data, offset = arguments
                    step(fd, bytes(data)[: len(data) // 2], offset)
                raise self.error
            return step(*arguments)

        return wrapped


@pytest.fixture
def faults(monkeypatch):
    return Faults(monkeypatch)


@pytest.fixture(params=["error", "kill"])
def fault(request):
    """Makes a fresh error: of the disk, or the end of the process."""
    return (lambda: OSError(errno.ENOSPC, "No space left on device")) if request.param == "error" else Kill


def write_parts(store: PartStore, made) -> None:
    """A run as the engine makes it: clean up, write the parts that are not there yet."""
    store.clean_strays()
    done = {record.image_id for part in store.contents() for record in part.images}
    if store.out.exists():
        with open_results(store.out) as results:
            done.update(results.image_ids)
    for films in ([0, 1], [2]):
        if made.image_id(films[0]) not in done:
            store.write(made.part(films), films[0])


def whole_run(out: Path, made) -> None:
    store = PartStore(out)
    write_parts(store, made)
    pack(store, out, truth=None, run=RUN)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_length(tmp_path, made, faults) -> tuple[list[str], dict[str, bytes]]:
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    faults.disarm()
    whole_run(folder / "results.h5", made)
    return list(faults.log), everything(folder)


@pytest.mark.slow
def test_run_resumed_after_a_fault_at_each_step_equals_an_undisturbed_one(tmp_path, made, faults, fault):
    log, undisturbed = run_length(tmp_path, made, faults)
    assert {"allocate", "write_at", "sync", "rename", "sync_folder", "unlink"} <= set(log)
    parts = 2 * 6  # steps; of the many small writes of packing every eighth, the next test takes each of them
    chosen = [k for k, step in enumerate(log) if k < parts or step != "write_at" or k % 8 == 0]
    for k in chosen:
        folder = tmp_path / f"{k}"
        folder.mkdir()
        faults.arm(k, fault())
        with pytest.raises((CxrxError, OSError, Kill)):
            whole_run(folder / "results.h5", made)
        assert len(faults.log) == k + 1 or log[k] in {"write_at", "create"}, "the run went on after the fault"
        faults.disarm()
        whole_run(folder / "results.h5", made)
        assert everything(folder) == undisturbed, f"step {k}: {log[k]}"
        shutil.rmtree(folder)


@pytest.mark.slow
def test_no_write_of_packing_can_harm_the_old_file_or_the_parts(tmp_path, made, faults, fault):
    folder = tmp_path / "before"
    folder.mkdir()
    store = PartStore(folder / "results.h5")
    store.write(Contents([made.film(0), made.film(1)], [], keyed(made.predictions([0, 1]))), 0)
    pack(store, store.out, truth=None, run=RUN)
    store.write(Contents(blocks=keyed(made.maps([0, 1], "saliency", space="input", with_extras=False))), 0)
    before = everything(folder)

    def copy(name: str) -> PartStore:
        shutil.copytree(folder, tmp_path / name)
        return PartStore(tmp_path / name / "results.h5")

    whole = copy("whole")
    faults.disarm()
    pack(whole, whole.out, truth=None, run=RUN)
    log, after = list(faults.log), everything(whole.out.parent)
    writes = [k for k, step in enumerate(log) if step == "write_at"]
    assert len(writes) > 20
    for k in writes:
        store = copy(f"{k}")
        faults.arm(k, fault())
        with pytest.raises((DiskFullError, Kill)):
            pack(store, store.out, truth=None, run=RUN)
        left = everything(store.out.parent)
        strays = {name for name in left if name.endswith(".cxrx-tmp")}
        assert not strays or isinstance(faults.error, Kill)
        assert left["results.h5"] == before["results.h5"] or k > max(writes[:-1])
        assert {n: b for n, b in left.items() if ".parts/" in n} == {n: b for n, b in before.items() if ".parts/" in n}
        if k % 16 == 0:
            faults.disarm()
            store.clean_strays()
            pack(store, store.out, truth=None, run=RUN)
            assert everything(store.out.parent) == after
        shutil.rmtree(store.out.parent)


@pytest.mark.slow
def test_disk_full_on_a_real_small_disk(tmp_path, made):
    mount = tmp_path / "small"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs '{mount}' 2>/dev/null") != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        store = PartStore(mount / "results.h5")
        start, full = 0, None
        while full is None:
            part = made.part(range(start, start + 4), methods=["sg"], spaces=["input"])
            try:
                store.write(part, start)
                start += 4
            except DiskFullError as error:
                full = error
        assert full.exit_code == 28
        assert start > 8
        assert sum(len(part.images) for part in store.contents()) == start, "a finished part was lost"
        assert not atomic.strays(store.folder)
        whole = everything(mount)
        with pytest.raises(DiskFullError):
            pack(store, store.out, truth=None, run=RUN)
        kept = everything(mount)
        assert {name: kept[name] for name in whole} == whole
        assert not store.out.exists()
        larger = PartStore(tmp_path / "results.h5")
        shutil.copytree(store.folder, larger.folder)
        pack(larger, larger.out, truth=None, run=RUN)
        with open_results(larger.out) as results:
            assert len(results.image_ids) == start
    finally:
        os.system(f"umount '{mount}'")
