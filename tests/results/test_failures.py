from __future__ import annotations

import csv
import stat

import pytest

from cxrx.reading.record import Status
from cxrx.results.contents import Contents
from cxrx.results.pack import pack
from cxrx.results.reader import open_results
from cxrx.results.records import keyed


def packed(store, *parts):
    for start, part in enumerate(parts):
        store.write(part, start)
    pack(store, store.out, truth=None, run={})
    with open_results(store.out) as results:
        table = results.failures()
        status = dict(zip(results.image_ids, results.images()["status"], strict=True))
    return list(table[["image_id", "stage", "code"]].itertuples(index=False, name=None)), status


def test_a_film_that_reads_at_last_takes_the_place_of_its_failure(store, made):
    broken = Contents([made.film(1, Status.FAILED, "It is truncated.")], [made.failure(1)])
    failures, status = packed(store, made.part([0]), broken)
    assert failures == [(made.image_id(1), "read", "truncated")]
    assert status[made.image_id(1)] == "failed"
    failures, status = packed(store, made.part([1]))
    assert failures == []
    assert status == {made.image_id(0): "ok", made.image_id(1): "ok"}
    failures, status = packed(store, broken)
    assert failures == []
    assert status[made.image_id(1)] == "ok"


def test_a_retry_that_fails_otherwise_is_the_newer_word(store, made):
    packed(store, Contents([made.film(1, Status.FAILED, "It is truncated.")], [made.failure(1)]))
    _, status = packed(store, Contents([made.film(1, Status.SKIPPED, "It is lateral.")]))
    assert status == {made.image_id(1): "skipped"}
    with open_results(store.out) as results:
        assert results.images()["message"].tolist() == ["It is lateral."]


def test_a_flag_beats_none(store, made):
    _, status = packed(store, Contents([made.film(1)]), Contents([made.film(1, Status.FLAGGED, "It is odd.")]))
    assert status == {made.image_id(1): "flagged"}


@pytest.mark.parametrize("named", [True, False])
def test_a_failed_map_stands_until_that_map_is_there(store, made, named):
    """A failure that names its method goes when that method has a map; one that does not, with any newer map."""
    which = {"model": made.MODEL, "method": "extremal"} if named else {}
    failure = made.failure(0, "explain", "diverged", **which)
    part = made.part([0])
    part.failures.append(failure)
    failures, _ = packed(store, part)
    assert failures == [(made.image_id(0), "explain", "diverged")]
    failures, _ = packed(store, Contents(blocks=keyed(made.maps([0], "smoothgrad"))))
    assert bool(failures) == named
    failures, _ = packed(store, Contents(blocks=keyed(made.maps([0], "extremal"))))
    assert failures == []


def test_a_failed_prediction_stands_until_that_model_has_one(store, made):
    failure = made.failure(0, "predict", "out-of-memory", model="vit@1")
    part = made.part([0])
    part.failures.append(failure)
    assert len(packed(store, part)[0]) == 1
    assert len(packed(store, made.part([1]))[0]) == 1
    assert packed(store, Contents(blocks=keyed(made.predictions([0], "vit@1"))))[0] == []


def test_packing_the_same_failures_again_lists_them_once(store, made):
    part = Contents(
        [made.film(0)],
        [
            made.failure(0, "find", "duplicate", relative="a/copy.dcm"),
            made.failure(0, "find", "duplicate", relative="b/copy.dcm"),
            made.failure(None, "find", "unreadable"),
            made.failure(None, "find", "unreadable", relative="other/unreadable.dcm"),
        ],
    )
    first, _ = packed(store, part)
    assert [row[1:] for row in first].count(("find", "duplicate")) == 2
    assert sorted(row[0] for row in first if row[2] == "unreadable") == ["unread-0001", "unread-0002"]
    before = store.out.read_bytes()
    assert packed(store, part)[0] == first
    assert store.out.read_bytes() == before


def test_an_unreadable_file_that_can_be_read_later_is_no_failure(store, made):
    packed(store, Contents([], [made.failure(None, "find", "unreadable", relative="secret-folder/003.dcm")]))
    assert packed(store, made.part([3]))[0] == []


def test_failures_csv_names_files_for_the_owner_and_holds_no_formula(store, made):
    packed(
        store,
        Contents(
            [made.film(1, Status.FAILED, "=cmd()", relative='=HYPERLINK("x").dcm')],
            [made.failure(1, code="-1", relative='=HYPERLINK("x").dcm')],
        ),
        Contents([], [made.failure(None, relative="@sum.dcm")]),
    )
    path = store.out.with_name("failures.csv")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ['\'=HYPERLINK("x").dcm', "'@sum.dcm"]
    assert rows[0]["code"] == "'-1"
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    packed(store, Contents([made.film(1), made.film(2, relative="@sum.dcm")]))
    assert not path.exists()
