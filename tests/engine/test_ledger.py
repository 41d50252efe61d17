"""What is done is read from the results file and the parts beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxrx.engine.ledger import Ledger
from cxrx.errors import LockedError
from cxrx.reading.item import Item
from cxrx.reading.record import ImageRecord, Link, Status
from cxrx.results.contents import Contents
from cxrx.results.pack import pack
from cxrx.results.parts import PartStore
from cxrx.results.records import Block, FailureRecord, keyed

MODEL, FINDINGS = "tiny@0123abcd", ("Effusion", "Nodule", "Mass")


def image_id(i):
    return f"{i:016x}"


def film(i, status=Status.OK):
    link = Link("film", image_id(i), f"{i}.dcm", f"/films/{i}.dcm", size=100 + i, mtime_ns=i)
    return ImageRecord(image_id(i) * 4, "PA", 9, 8, "pillow 1", status, "", False, link)


def predictions(films):
    n, rng = len(films), np.random.default_rng(films)
    logit = rng.standard_normal((n, 3)).astype(np.float32)
    arrays = {"logit": logit, "probability": 1 / (1 + np.exp(-logit)), "affine": np.zeros((n, 2, 3))}
    attrs = {"settings": {"dtype": "fp32"}}
    return Block(MODEL, "", FINDINGS, tuple(map(image_id, films)), attrs, np.ones(n, bool), arrays)


def maps(films, present, method="gradcam"):
    present = np.array(present, bool)
    arrays = {"values": np.zeros((*present.shape, 2, 2), np.float32), "score": np.zeros(present.shape, np.float32)}
    return Block(MODEL, method, FINDINGS, tuple(map(image_id, films)), {"settings": {"seed": 0}}, present, arrays)


@pytest.fixture
def store(tmp_path):
    return PartStore(tmp_path / "results.h5")


def item(i, reader="cxrx/dicom"):
    return Item(Path(f"/films/{i}.dcm"), f"{i}.dcm", 100 + i, i, reader)


def test_parts_say_what_needs_no_second_time(store):
    blocks = keyed(predictions([0, 1]), maps([0, 1], [[1, 0, 1], [0, 0, 0]]))
    store.write(Contents([film(0), film(1)], [], blocks), 0)
    failure = FailureRecord(image_id(0), "explain", "not-finite", "NaN", "0.dcm", MODEL, "smoothgrad")
    store.write(Contents([film(2, Status.FAILED)], [failure]), 2)
    ledger = Ledger(store, MODEL)
    assert set(ledger.records) == {image_id(i) for i in range(3)}
    assert [ledger.predicted(image_id(i)) for i in range(3)] == [True, True, False]
    assert ledger.mapped(image_id(0), "gradcam") == {"Effusion", "Mass"}
    assert ledger.mapped(image_id(1), "gradcam") == frozenset()
    assert [ledger.processed(image_id(i), "gradcam") for i in range(3)] == [True, True, False]
    assert not ledger.processed(image_id(0), "smoothgrad")
    assert ledger.map_failed(image_id(0), "smoothgrad")
    assert not Ledger(store, MODEL, retry_failed=True).map_failed(image_id(0), "smoothgrad")
    assert ledger.unusable(image_id(2))
    assert not Ledger(store, MODEL, retry_failed=True).unusable(image_id(2))
    assert ledger.known(item(1)) == {image_id(1)}
    assert ledger.known(item(7)) == frozenset()
    assert not Ledger(store, "other@1").predicted(image_id(0))
    store.write(Contents([film(2)]), 2)
    assert Ledger(store, MODEL).status(image_id(2)) is Status.OK


def test_a_file_of_several_films_is_whole_only_where_a_run_has_ended(store, monkeypatch):
    links = [Link("film", image_id(i), f"a.npz/{i}", "/films/a.npz", str(i), size=9, mtime_ns=1) for i in range(2)]
    images = [ImageRecord(link.image_id * 4, "", 9, 8, "x", Status.OK, "", False, link) for link in links]
    store.write(Contents(images), 0)
    container = Item(Path("/films/a.npz"), "a.npz", 9, 1, "third/npz")
    monkeypatch.setattr("cxrx.engine.ledger.holds_several", lambda item: True)
    ledger = Ledger(store, MODEL)
    assert ledger.known(container) == {image_id(0), image_id(1)}
    assert not ledger.read_whole(container)
    pack(store, store.out, truth=None, run={})
    assert Ledger(store, MODEL).read_whole(container)


def test_a_skipped_film_does_not_hide_the_others_of_its_file(store, monkeypatch):
    """A second model skips it anew, is killed, and goes on: the good film still lacks its prediction."""
    links = [Link("film", image_id(i), f"a.npz/{i}", "/films/a.npz", str(i), size=9, mtime_ns=1) for i in range(2)]
    good, bad = (
        ImageRecord(link.image_id * 4, "", 9, 8, "x", status, "", False, link)
        for link, status in zip(links, (Status.OK, Status.SKIPPED), strict=True)
    )
    store.write(Contents([good, bad]), 0)
    pack(store, store.out, truth=None, run={})
    store.write(Contents([bad]), 0)
    assert Ledger(store, MODEL).known(Item(Path("/films/a.npz"), "a.npz", 9, 1, "third/npz")) == {
        image_id(0),
        image_id(1),
    }


def test_what_a_file_no_longer_gave_is_tried_again(store):
    lost, broken = (
        FailureRecord(image_id(i), "explain", code, "x", f"{i}.dcm", MODEL, "gradcam")
        for i, code in enumerate(("changed", "not-finite"))
    )
    store.write(Contents([film(0), film(1)], [lost, broken]), 0)
    assert [Ledger(store, MODEL).map_failed(image_id(i), "gradcam") for i in range(2)] == [False, True]


def test_parts_of_other_settings_are_refused_by_name(store):
    store.write(Contents([film(0)], [], keyed(predictions([0]), maps([0], [[1, 1, 1]]))), 0)
    ledger = Ledger(store, MODEL)
    ledger.check({"": {"dtype": "fp32"}, "gradcam": {"seed": 0}})
    Ledger(store, "other@1").check({"gradcam": {"seed": 1}})
    with pytest.raises(LockedError, match="seed: 0 there, 1 now") as refused:
        ledger.check({"gradcam": {"seed": 1}})
    assert refused.value.exit_code == 5
    with pytest.raises(LockedError, match="dtype"):
        ledger.check({"gradcam": {"seed": 0}, "": {"dtype": "bf16"}})
