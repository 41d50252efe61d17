"""Workers may crash, hang and raise; only their item suffers."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cxrx.errors import UsageError
from cxrx.reading.find import find
from cxrx.reading.options import ReadOptions
from cxrx.reading.pool import DecodePool
from cxrx.reading.prepare import Prepared, prepare_item
from cxrx.specs import InputSpec, Unreadable

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def jobs():
    sys.path.insert(0, HERE)
    import pool_jobs

    yield pool_jobs
    sys.path.remove(HERE)


@pytest.fixture(scope="module")
def shared(jobs):
    with DecodePool(2, timeout=60) as pool:
        yield pool


def results(pool, jobs, words, **options):
    items = [jobs.item(i, word) for i, word in enumerate(words)]
    out = list(pool.map(jobs.job, items, **options))
    assert [item for item, _ in out] == items
    return [result for _, result in out]


def test_results_come_in_order_whatever_finishes_first(shared, jobs):
    words = [f"sleep {0.02 * ((7 * i) % 5)}" for i in range(20)]
    assert results(shared, jobs, words) == list(range(20))
    assert results(shared, jobs, []) == []


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("segfault", "decoder-crash"),
        ("exit", "decoder-crash"),
        ("abort", "decoder-crash"),
        ("unloadable", "decoder-crash"),
        ("panic", "decoder-error"),
        ("quit", "decoder-error"),
        ("raise secret", "decoder-error"),
        ("unpicklable", "decoder-error"),
    ],
)
def test_only_the_culprit_fails(shared, jobs, word, code):
    words = ["", "", "", word, "", "", word, ""]
    out = results(shared, jobs, words)
    for i, result in enumerate(out):
        if words[i]:
            assert isinstance(result, Unreadable)
            assert (result.kind, result.code) == ("failed", code)
            assert "secret" not in result.message
        else:
            assert result == i


def test_an_item_whose_worker_was_killed_is_tried_again_alone(jobs, tmp_path):
    with DecodePool(3, timeout=60) as pool:
        words = [f"beside {tmp_path}", f"once {tmp_path}", *[f"beside {tmp_path}"] * 4]
        assert results(pool, jobs, words) == [0, 100, 2, 3, 4, 5]


def test_items_that_took_too_long_are_tried_again_side_by_side(jobs, tmp_path):
    """Else each of many that hang would stop all workers for as long as two limits."""
    with DecodePool(2, timeout=1.5) as pool:
        assert results(pool, jobs, [f"meet {tmp_path} a b", f"meet {tmp_path} b a", ""]) == [0, 1, 2]


def test_little_of_what_items_carry_is_held_at_once(shared, jobs, monkeypatch):
    monkeypatch.setattr("cxrx.reading.pool.BYTES_IN_FLIGHT", 2_500_000)
    drawn = []

    def items():
        for i in range(12):
            drawn.append(i)
            yield jobs.item(i).__class__(Path("/"), "x", i, 0, "cxrx/dicom", data=bytes(1_000_000))

    for taken, (_, result) in enumerate(shared.map(jobs.job, items())):
        assert result == taken
        assert len(drawn) <= taken + 4


def test_nothing_but_culprits(shared, jobs):
    out = results(shared, jobs, ["segfault"] * 6)
    assert [r.code for r in out] == ["decoder-crash"] * 6
    assert results(shared, jobs, [""]) == [0]


@pytest.mark.parametrize("word", ["hang", "spin"])
def test_a_hang_ends_at_the_time_limit(jobs, word):
    with DecodePool(2, timeout=0.7) as pool:
        start = time.monotonic()
        out = results(pool, jobs, ["", word, "", "", ""])
        assert time.monotonic() - start < 5
        assert [r if isinstance(r, int) else r.code for r in out] == [0, "timeout", 2, 3, 4]


def test_large_results(shared, jobs):
    out = results(shared, jobs, ["big 2000000"] * 6)
    assert all(np.array_equal(r, np.ones(2_000_000, np.float32)) for r in out)


def test_large_items(shared, jobs):
    items = [jobs.item(i).__class__(Path("/"), "x", i, 0, "cxrx/dicom", data=bytes(3_000_000)) for i in range(6)]
    assert [r for _, r in shared.map(jobs.job, items)] == list(range(6))


def test_items_are_drawn_only_as_far_as_the_bound(shared, jobs):
    drawn = []

    def items():
        for i in range(50):
            drawn.append(i)
            yield jobs.item(i)

    stream = shared.map(jobs.job, items(), in_flight=3)
    for taken in range(10):
        assert next(stream)[1] == taken
        assert len(drawn) <= taken + 1 + 3
    stream.close()
    assert len(drawn) < 20


def test_a_slow_item_does_not_stop_the_other_workers(shared, jobs):
    drawn = []

    def items():
        for i, word in enumerate(["sleep 1"] + [""] * 9):
            drawn.append(i)
            yield jobs.item(i, word)

    assert next(shared.map(jobs.job, items(), in_flight=8))[1] == 0
    assert len(drawn) >= 8


def test_a_stream_left_early_leaves_nothing_behind(shared, jobs):
    stream = shared.map(jobs.job, (jobs.item(i, "sleep 0.3") for i in range(100)))
    next(stream)
    stream.close()
    assert results(shared, jobs, [""] * 5) == list(range(5))


def test_errors_of_the_source_reach_the_caller(shared, jobs):
    def items():
        yield jobs.item(0)
        raise KeyError("source")

    with pytest.raises(KeyError, match="source"):
        list(shared.map(jobs.job, items()))
    assert results(shared, jobs, [""]) == [0]


def test_misuse(shared, jobs):
    with pytest.raises(ValueError, match="at least one"):
        DecodePool(0)
    with pytest.raises(UsageError, match="at most 1024 decode processes"):
        DecodePool(99999999999)
    stream = shared.map(jobs.job, [jobs.item(0), jobs.item(1)])
    next(stream)
    with pytest.raises(RuntimeError, match="already"):
        next(shared.map(jobs.job, [jobs.item(0)]))
    stream.close()
    pool = DecodePool(1)
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        list(pool.map(jobs.job, [jobs.item(0)]))


def test_a_worker_killed_while_idle_costs_nothing(shared, jobs):
    for pid in set(results(shared, jobs, ["pid"] * 6)):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert results(shared, jobs, [""] * 6) == list(range(6))


def test_workers_ignore_interrupts(shared, jobs):
    for pid in set(results(shared, jobs, ["pid"] * 6)):
        os.kill(pid, signal.SIGINT)
    assert results(shared, jobs, [""] * 4) == list(range(4))


def test_workers_import_no_heavy_package_and_no_main_module(shared, jobs):
    (modules,) = results(shared, jobs, ["modules"])
    assert "cxrx.reading.pool" in modules
    assert not {"torch", "h5py", "pandas", "pytest", "matplotlib"} & set(modules)


def test_what_decoders_print_is_not_shown(shared, jobs, capfd):
    results(shared, jobs, ["print"])
    assert "Patient" not in "".join(capfd.readouterr())


def test_a_function_that_workers_cannot_import_is_an_error_of_each_item(shared, jobs, monkeypatch):
    monkeypatch.setattr(jobs, "late", Late(), raising=False)
    out = [r for _, r in shared.map(jobs.late, [jobs.item(0), jobs.item(1)])]
    assert [r.code for r in out] == ["decoder-error"] * 2
    assert results(shared, jobs, [""]) == [0]


class Late:
    """Pickled by a name that workers do not find."""

    def __reduce__(self):
        return "late"

    __module__ = "pool_jobs"

    def __call__(self, item):
        return item


def test_it_runs_in_a_thread(jobs):
    out = []

    def run():
        with DecodePool(1) as pool:
            out.extend(results(pool, jobs, ["", "segfault", ""]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert [out[0], out[1].code, out[2]] == [0, "decoder-crash", 2]


SCRIPT = """
import sys, time
sys.path.insert(0, {here!r})
import pool_jobs
from cxrx.reading.pool import DecodePool

pool = DecodePool(2, timeout={timeout})
print(*(pid for _, pid in pool.map(pool_jobs.job, [pool_jobs.item(i, "pid") for i in range(8)])), flush=True)
for _ in pool.map(pool_jobs.job, [pool_jobs.item(i, {word!r}) for i in range(2)]):
    pass
"""


@pytest.mark.parametrize("word", ["sleep 300", "spin"])
def test_workers_die_with_their_parent(tmp_path, word):
    """Killed with SIGKILL, while its workers are busy (in Python, or in C with the interpreter's lock held)."""
    script = tmp_path / "main.py"
    # no `if __name__ == "__main__"`: workers must not import the main module
    script.write_text(textwrap.dedent(SCRIPT.format(here=HERE, word=word, timeout=1000 if word != "spin" else 2)))
    root = str(Path(__file__).parents[2])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=env) as parent:
        pids = {int(pid) for pid in parent.stdout.readline().split()}
        assert pids
        time.sleep(0.3)
        assert all(alive(pid) for pid in pids)
        parent.kill()
    deadline = time.monotonic() + (5 if word != "spin" else 12)
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if alive(pid)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_films_through_the_pool_equal_films_read_here(shared, make, tmp_path):
    for i in range(12):
        pixels = make.ramp(40 + i, 60)
        data = make.film(pixels) if i % 4 else make.film(pixels)[:-50]
        (tmp_path / f"{i:02}.dcm").write_bytes(data)
    function = functools.partial(prepare_item, spec=InputSpec((32, 32)), options=ReadOptions())
    here = [function(item) for item in find([tmp_path])]
    there = [result for _, result in shared.map(function, find([tmp_path]))]
    for (ours,), (theirs,) in zip(here, there, strict=True):
        if isinstance(ours, Prepared):
            np.testing.assert_array_equal(ours.pixels, theirs.pixels)
            np.testing.assert_array_equal(ours.affine, theirs.affine)
            assert ours.image_id == theirs.image_id
        else:
            assert ours == theirs
