from __future__ import annotations

import stat
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cxrx.errors import ResultsError
from cxrx.files import atomic
from cxrx.reading.record import ImageRecord, Link, Status
from cxrx.results.contents import Contents, load_part
from cxrx.results.parts import PartStore, part_bytes
from cxrx.results.records import Block, FailureRecord, keyed
from cxrx.results.schema import round_mantissa

names = st.text(max_size=8)  # with NUL, surrogates and whatever else a file name or a codec's message brings
shas = st.text("0123456789abcdef", min_size=64, max_size=64)
reals = st.floats(width=32, allow_nan=True)


@st.composite
def images(draw):
    sha = draw(shas)
    counts = [draw(st.integers(0, 2**40)) for _ in range(4)]
    link = Link("film", sha[:16], *(draw(names) for _ in range(5)), counts[2], counts[3])
    status = draw(st.sampled_from(Status))
    return ImageRecord(
        sha, draw(names), counts[0], counts[1], draw(names), status, draw(names), draw(st.booleans()), link
    )


@st.composite
def parts(draw):
    ids = tuple(draw(st.lists(shas.map(lambda sha: sha[:16]), min_size=1, max_size=3, unique=True)))
    findings = tuple(draw(st.lists(st.text(max_size=6), min_size=1, max_size=3, unique=True)))
    n, K = len(ids), len(findings)
    stages = st.sampled_from(["find", "read", "predict", "explain"])
    failure = st.builds(FailureRecord, st.just("") | st.sampled_from(ids), stages, *[names] * 5)

    def array(shape, dtype=np.float32):
        return draw(hnp.arrays(dtype, shape, elements=reals if dtype == np.float32 else None))

    attrs = {"settings": draw(st.dictionaries(names, names | st.integers(0, 9), max_size=2)), "_findings_": [1, None]}
    h, w = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    present, arrays = array((n, K), np.bool_), {"values": array((n, K, h, w)), "score": array((n, K))}
    arrays |= {"extras/steps": array((n, K), np.int32), "extras/mask": array((n, K, 33, 33), np.bool_)}
    space = draw(st.sampled_from(["native", "input"]))
    block = Block("net@1", "cam", findings, ids, attrs | {"space": space}, present, arrays)
    arrays = {"logit": array((n, K)), "probability": array((n, K)), "affine": array((n, 2, 3), np.float64)}
    predictions = Block("net@1", "", findings, ids, attrs, np.ones(n, bool), arrays)
    blocks = draw(st.sampled_from([[], [predictions], [block], [predictions, block]]))
    return Contents(draw(st.lists(images(), max_size=3)), draw(st.lists(failure, max_size=3)), keyed(*blocks))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parts())
def test_a_part_comes_back_as_it_was(made, part):
    with tempfile.TemporaryDirectory() as folder:
        store = PartStore(Path(folder) / "results.h5")
        found = made.with_arrays(load_part(store.write(part, 0)))
    made.same_part(part, found)
    for old, new in ((part.blocks[key], found.blocks[key]) for key in part.blocks if key[1]):
        values = old.arrays["values"]
        values = round_mantissa(values) if old.attrs["space"] == "input" else values
        np.testing.assert_array_equal(np.where(old.present[..., None, None], values, np.nan), new.arrays["values"])
    assert part_bytes(part) == part_bytes(part)


def test_parts_are_private_and_named_after_their_content(store, made):
    first = store.write(made.part([0, 1]), 0)
    second = store.write(made.part([2]), 2)
    assert store.paths() == sorted([first, second])
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    before = first.read_bytes()
    time.sleep(1.1)  # HDF5 would note seconds
    assert store.write(made.part([0, 1]), 0) == first
    assert first.read_bytes() == before
    assert len(store.paths()) == 2
    assert store.write(Contents(blocks=keyed(made.maps([0, 1]))), 0) != first


def test_absent_pixel_maps_take_no_space(made):
    import io

    import h5py

    block = made.maps([0, 1, 2], space="input")
    with h5py.File(io.BytesIO(part_bytes(Contents(blocks=keyed(block))))) as file:
        values = file[f"maps/{made.MODEL}/gradcam/values"]
        assert values.chunks == (1, 1, 24, 20)
        assert values.id.get_num_chunks() == block.present.sum()
        assert 0 < block.present.sum() < block.present.size


def test_strays_are_cleaned_and_a_damaged_part_is_named(store, made):
    path = store.write(made.part([0]), 0)
    stray = store.folder / f".{path.name}.1.cxrx-tmp"
    beside = store.out.with_name(f".{store.out.name}.1.cxrx-tmp")
    link = store.out.with_name(".results.private.csv.1.cxrx-tmp")
    foreign = store.out.with_name(".other.h5.1.cxrx-tmp")
    for left in (stray, beside, link, foreign):
        left.write_bytes(b"half")
    store.clean_strays()
    assert [p.exists() for p in (stray, beside, link, foreign)] == [False, False, False, True]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ResultsError, match=path.name):
        store.contents()


def test_remove_takes_all_of_ours_and_nothing_else(store, made):
    store.write(made.part([0]), 0)
    store.lock_path.write_bytes(b"")
    atomic.write_file(store.plan_path, b"{}")
    (store.folder / "notes.txt").write_text("mine")
    store.remove()
    assert [path.name for path in store.folder.iterdir()] == ["notes.txt"]
    (store.folder / "notes.txt").unlink()
    store.remove()
    assert not store.folder.exists()
    store.remove()
