from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cxrx.errors import LockedError
from cxrx.files.lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from cxrx.files.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_lock_is_refused_and_the_first_can_be_had_again(tmp_path):
    path = tmp_path / "results.h5.parts" / "run.lock"
    with RunLock(path):
        with pytest.raises(LockedError, match="another run") as refused, RunLock(path):
            pass
        assert refused.value.exit_code == 5
    with RunLock(path):
        pass


def test_another_process_is_refused_and_its_death_sets_the_lock_free(tmp_path):
    path = tmp_path / "run.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError), RunLock(path):
            pass
        holder.kill()
        holder.wait()
    with RunLock(path):
        pass


def test_programs_started_meanwhile_do_not_keep_the_lock(tmp_path):
    path = tmp_path / "run.lock"
    lock = RunLock(path)
    with lock:
        assert not os.get_inheritable(lock._fd)
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with RunLock(path):
            assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_a_lock_on_a_removed_file_guards_nothing_and_is_taken_anew(tmp_path):
    path = tmp_path / "run.lock"
    with RunLock(path):
        path.unlink()
        with RunLock(path):
            assert path.exists()
