from __future__ import annotations

import stat
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

from cxrx.errors import DiskFullError, ResultsError, UsageError
from cxrx.files import atomic
from cxrx.reading.record import Status
from cxrx.results.contents import Contents
from cxrx.results.pack import pack
from cxrx.results.parts import PartStore
from cxrx.results.plan import conflicting
from cxrx.results.private import private_path, read_private
from cxrx.results.reader import open_results
from cxrx.results.records import keyed
from cxrx.results.schema import round_mantissa
from cxrx.results.verify import verify

RUN = {"argv": ["explain", "--method", "gradcam"], "device": "cpu"}
METHODS = {"methods": ("gradcam", "smoothgrad"), "spaces": ("native", "input")}


def packed(store, made, *parts, truth=None, run=RUN):
    for start, part in enumerate(parts):
        store.write(part, start)
    pack(store, store.out, truth=truth, run=run)
    assert verify(store.out) == []
    return store.out


@pytest.fixture
def elsewhere(tmp_path):
    """Another store, for the same work done in another way."""

    def make(name):
        (tmp_path / name).mkdir()
        return PartStore(tmp_path / name / "results.h5")

    return make


def test_numbers_and_maps_arrive_at_their_film(store, made):
    films = [4, 0, 2, 3, 1]
    out = packed(store, made, made.part([4, 0], **METHODS), made.part([2, 3, 1], **METHODS))
    assert not store.folder.exists()
    with open_results(out) as results:
        ids = results.image_ids
        assert ids == [made.image_id(i) for i in sorted(films)]
        for i in films:
            row = ids.index(made.image_id(i))
            expected = made.predictions([i])
            for name, array in (("logit", results.logits()), ("probability", results.probabilities())):
                np.testing.assert_array_equal(array[row], expected.arrays[name][0])
            np.testing.assert_array_equal(results.affine()[row], expected.arrays["affine"][0])
            for method, space in (("gradcam", "native"), ("smoothgrad", "input")):
                block = made.maps([i], method, space=space)
                values = round_mantissa(block.arrays["values"]) if space == "input" else block.arrays["values"]
                np.testing.assert_array_equal(results.values(None, method, [row]), values)
                np.testing.assert_array_equal(results.present(None, method)[row], block.present[0])
                np.testing.assert_array_equal(results.scores(None, method)[row], block.arrays["score"][0])
                extras = {name: array for name, array in block.arrays.items() if name.startswith("extras/")}
                assert len(extras) == 3
                for name, extra in extras.items():
                    found = results.extra(None, method, name.removeprefix("extras/"), [row])[0]
                    np.testing.assert_array_equal(found[block.present[0]], extra[0][block.present[0]])


def test_storage_is_as_the_measurements_want_it(store, made):
    out = packed(store, made, made.part(range(5), **METHODS))
    assert out.read_bytes()[8] == 3, "the superblock of HDF5 1.10, neither older nor newer"
    with h5py.File(out) as file:
        native, pixels = (file[f"maps/{made.MODEL}/{name}/values"] for name in METHODS["methods"])
        assert (native.chunks, native.compression, native.dtype) == ((5, 3, 4, 5), None, np.float32)
        assert (pixels.chunks, pixels.compression, pixels.compression_opts) == ((1, 1, 24, 20), "gzip", 1)
        assert pixels.shuffle
        assert np.isnan(pixels.fillvalue)
        present = made.maps(range(5), "smoothgrad").present
        assert pixels.id.get_num_chunks() == present.sum() < present.size
        types = []
        file.visititems(lambda _, item: types.append(item.dtype) if isinstance(item, h5py.Dataset) else None)
        assert np.float16 not in types
        assert np.bool_ not in types


def test_the_order_of_parts_does_not_matter(store, elsewhere, made):
    other = elsewhere("other")
    a, b = made.part([0, 3]), made.part([1, 2])
    packed(store, made, a, b)
    packed(other, made, b, a)
    assert store.out.read_bytes() == other.out.read_bytes()


def test_predict_then_explain_then_other_films_equals_all_at_once(store, elsewhere, made):
    """Up to the list of runs and, with films added later, their order."""
    whole = elsewhere("whole")
    packed(whole, made, made.part(range(4), **METHODS))
    for films in ([0, 1], [2, 3]):
        packed(store, made, Contents([made.film(i) for i in films], [], keyed(made.predictions(films))))
        packed(store, made, Contents(blocks=keyed(made.maps(films))))
    packed(store, made, Contents(blocks=keyed(made.maps([1, 3, 0], "smoothgrad", space="input"))))
    packed(store, made, Contents(blocks=keyed(made.maps([2], "smoothgrad", space="input"))))
    assert made.contents(store.out, ["runs"]) == made.contents(whole.out, ["runs"])
    with open_results(store.out) as results:
        assert len(results.runs()) == 6


def test_films_of_the_old_file_keep_their_order(store, made):
    packed(store, made, made.part([5, 7]))
    packed(store, made, made.part([6, 1]))
    with open_results(store.out) as results:
        assert results.image_ids == [made.image_id(i) for i in (5, 7, 1, 6)]
        np.testing.assert_array_equal(results.logits()[3], made.predictions([6]).arrays["logit"][0])


def test_another_model_is_added(store, made):
    packed(store, made, made.part([0, 1]))
    packed(store, made, Contents(blocks=keyed(made.predictions([1, 0], "vit@ffff0000"))))
    with open_results(store.out) as results:
        assert results.models() == [made.MODEL, "vit@ffff0000"]
        np.testing.assert_array_equal(
            results.logits("vit")[0], made.predictions([0], "vit@ffff0000").arrays["logit"][0]
        )


def test_another_finding_of_the_same_film_is_added(store, made):
    block = made.maps([0, 1])
    first, second = made.maps([0, 1]), made.maps([0, 1])
    first.present[:, 1:] = False
    second.present[:, 0] = False
    packed(store, made, Contents([made.film(0), made.film(1)], [], keyed(made.predictions([0, 1]), first)))
    packed(store, made, Contents(blocks=keyed(second)))
    with open_results(store.out) as results:
        np.testing.assert_array_equal(results.present(None, "gradcam"), block.present)
        np.testing.assert_array_equal(results.values(None, "gradcam", [0, 1]), block.arrays["values"])


def test_blocks_with_some_of_the_findings_are_put_together(store, made):
    whole = made.maps([0])
    some = made.maps([0])
    some.findings, k = (made.FINDINGS[2], made.FINDINGS[0]), [2, 0]
    some.present = some.present[:, k]
    some.arrays = {name: array[:, k] for name, array in some.arrays.items()}
    packed(store, made, Contents([made.film(0)], [], keyed(made.predictions([0]), some)))
    packed(store, made, Contents(blocks=keyed(whole)))
    with open_results(store.out) as results:
        names = results.findings(made.MODEL, "gradcam")
        assert set(names) == set(made.FINDINGS)
        order = [names.index(name) for name in made.FINDINGS]
        np.testing.assert_array_equal(results.values(None, "gradcam", [0])[:, order], whole.arrays["values"])


def test_nothing_new_leaves_the_file_alone(store, made):
    out = packed(store, made, made.part([0, 1]), truth=made.truth([0]))
    before, stamp = out.read_bytes(), out.stat().st_mtime_ns
    packed(store, made, made.part([1]), truth=made.truth([0]), run={"argv": ["again"]})
    packed(store, made)
    assert out.read_bytes() == before
    assert out.stat().st_mtime_ns == stamp
    assert not store.folder.exists()


@pytest.mark.parametrize("what", ["predictions", "maps"])
def test_other_settings_under_one_name_are_refused(store, made, what):
    out = packed(store, made, made.part([0]))
    before = out.read_bytes()
    other = {"method": "gradcam", "seed": 1, "dtype": "float32", "weights": "0123abcd"}
    block = made.predictions([0], settings=other) if what == "predictions" else made.maps([0], settings=other)
    path = store.write(Contents(blocks=keyed(block)), 0)
    with pytest.raises(UsageError, match=r"other settings: .*seed: (unset|0) there, 1 now") as refused:
        pack(store, out, truth=None, run=RUN)
    assert "--as" in refused.value.hint
    assert path.exists()
    assert out.read_bytes() == before


def test_another_grid_or_other_findings_are_refused(store, made):
    packed(store, made, made.part([0]))
    wrong = made.maps([0])
    wrong.arrays["values"] = wrong.arrays["values"][..., :3]
    store.write(Contents(blocks=keyed(wrong)), 0)
    with pytest.raises(UsageError, match="another grid"):
        pack(store, store.out, truth=None, run=RUN)
    store.remove()
    swapped = made.predictions([0])
    swapped.findings = swapped.findings[::-1]
    store.write(Contents(blocks=keyed(swapped)), 0)
    with pytest.raises(UsageError, match="other findings"):
        pack(store, store.out, truth=None, run=RUN)


def test_rows_of_unlisted_films_are_refused(store, made):
    store.write(Contents(blocks=keyed(made.maps([9]))), 0)
    with pytest.raises(ResultsError, match="not listed"):
        pack(store, store.out, truth=None, run=RUN)
    assert not store.out.exists()


def test_patients_are_the_smallest_image_id_whatever_comes_when(store, elsewhere, made):
    films = [made.film(i, patient="p" if i in {0, 3, 5} else "") for i in range(6)]
    smallest = min(made.image_id(i) for i in (0, 3, 5))
    expected = {f.image_id: smallest if f.link.patient else f.image_id for f in films}
    for name, split in (("once", [films]), ("thrice", [films[:2], films[2:4], films[4:]])):
        store = elsewhere(name)
        for some in split:
            packed(store, made, Contents(some))
        with open_results(store.out) as results:
            table = results.images()
        assert dict(zip(table["image_id"], table["patient"], strict=True)) == expected


def test_patients_survive_the_loss_of_the_link_table(store, made):
    packed(store, made, Contents([made.film(0), made.film(1)]))
    private_path(store.out).unlink()
    packed(store, made, Contents([made.film(2)]))
    with open_results(store.out) as results:
        patients = results.images()["patient"].tolist()
    assert patients == [min(made.image_id(0), made.image_id(1))] * 2 + [made.image_id(2)]


def test_nothing_private_is_in_the_file_and_all_of_it_beside(store, made):
    failed = made.film(2, Status.FAILED, "No.")
    out = packed(
        store,
        made,
        made.part([0, 1], **METHODS),
        Contents([failed], [made.failure(2), made.failure(None, "find", "unreadable")]),
        truth=made.truth([0]),
    )
    raw = out.read_bytes()
    for secret in (b"secret", b"1.2.840.99999", b"/home"):
        assert secret not in raw
    table = private_path(out)
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    rows = {row.image_id: row for row in read_private(table)}
    assert rows[made.image_id(1)].uid == "1.2.840.99999.1"
    assert rows[made.image_id(2)].relative == "secret-folder/002.dcm"
    assert rows["unread-0001"].relative == "secret-folder/unreadable.dcm"


@pytest.mark.slow
def test_two_packs_of_the_same_parts_are_one_file_bit_for_bit(store, elsewhere, made):
    other = elsewhere("other")
    for each in (store, other):
        time.sleep(1.1)  # HDF5 would note seconds
        packed(each, made, made.part([0, 1], **METHODS), truth=made.truth([0]))
        packed(each, made, made.part([2], **METHODS))
    assert store.out.read_bytes() == other.out.read_bytes()


def test_a_base_that_is_damaged_stops_packing(store, made):
    out = packed(store, made, made.part([0]))
    store.write(made.part([1]), 0)
    out.write_bytes(out.read_bytes()[:-500])
    with pytest.raises(ResultsError, match="damaged"):
        pack(store, out, truth=None, run=RUN)
    assert len(store.paths()) == 1


def test_too_little_room_is_said_before_a_byte_is_written(store, made, monkeypatch):
    path = store.write(made.part([0]), 0)
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda folder: type("usage", (), {"free": 1000})())
    with pytest.raises(DiskFullError) as full:
        pack(store, store.out, truth=None, run=RUN)
    assert full.value.exit_code == 28
    assert path.exists()
    assert not store.out.exists()


def test_truth_is_kept_and_brought_up_to_date(store, made):
    packed(store, made, made.part([0, 1, 2]), truth=made.truth([0, 1]))
    newer = made.truth([1])
    newer.labels[made.image_id(1)] = {"Effusion": 0}
    newer.boxes = [(made.image_id(1), "Nodule", 1.0, 1.0, 2.0, 2.0)]
    packed(store, made, truth=newer)
    packed(store, made, made.part([3]))
    with open_results(store.out) as results:
        labels, boxes = results.labels(), results.boxes()
        assert labels.loc[made.image_id(0)].to_dict() == {
            "Effusion": 0, "Nodule": -2, "Mass": -2, "Fracture": -1,
        }  # fmt: skip
        assert labels.loc[made.image_id(1), ["Effusion", "Fracture"]].tolist() == [0, -1]
        assert (labels.loc[made.image_id(3)] == -2).all()
        assert boxes["finding"].tolist() == ["Effusion", "Nodule"]
        assert results.findings() == [*made.FINDINGS, "Fracture"]
        masks = {mask.image_id: mask.decode() for mask in results.masks()}
        np.testing.assert_array_equal(masks[made.image_id(0)], made.numbers(0, "truth", (9, 7)) > 0)


def test_models_are_linked_to_where_they_came_from(store, made):
    store.write(made.part([0]), 0)
    source = {"name": "./net.py:build", "weights": "/home/secret-user/net.pt"}
    pack(store, store.out, truth=None, run=RUN, model_sources={made.MODEL: source})
    packed(store, made, made.part([1]))
    with open_results(store.out) as results:
        assert results.model_sources() == {made.MODEL: source}
    assert b"secret" not in store.out.read_bytes()


def test_results_without_any_film_can_be_written(store, made):
    out = packed(store, made, Contents([], [made.failure(None)]))
    with open_results(out) as results:
        assert results.images().empty
        assert results.predictions().empty
        assert results.models() == []
        assert len(results.failures()) == 1


def test_many_parts_need_few_open_files(store, made):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for i in range(80):
        store.write(Contents([made.film(i)], [], keyed(made.predictions([i]))), i)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        pack(store, store.out, truth=None, run=RUN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with open_results(store.out) as results:
        assert np.isfinite(results.logits()).all()


def test_a_film_seen_under_two_paths_is_one_row_with_two_links(store, made):
    twin = made.film(0, relative="zzz.dcm", path="/home/secret-user/zzz.dcm")
    packed(store, made, made.part([0]), Contents([twin]))
    with open_results(store.out) as results:
        assert len(results.images()) == 1
        assert results.private()["relative"].tolist() == ["secret-folder/000.dcm", "zzz.dcm"]


def test_films_with_one_uid_and_other_bytes_are_both_kept_and_flagged(tmp_path, made):
    out = tmp_path / "results.h5"
    changes = [{"uid": "1.2.3"}, {"uid": "1.2.3", "message": "odd"}, {}, {"uid": ""}, {"uid": ""}]
    films = [made.film(i, **change) for i, change in enumerate(changes)]
    store = PartStore(out)
    store.write(Contents(images=films[:1]), 0)
    store.write(Contents(images=films[1:]), 1)
    pack(store, out, truth=None, run={})
    with open_results(out) as results:
        images = results.images().set_index("image_id")
    assert images["status"][[f.image_id for f in films]].tolist() == ["flagged", "flagged", "ok", "ok", "ok"]
    assert images["message"][films[0].image_id].startswith("conflict: ")
    assert images["message"][films[1].image_id].startswith("odd; conflict: ")
    links = [film.link for film in films]
    assert conflicting(links) == {film.image_id for film in films[:2]}
    assert conflicting([links[0], replace(links[0], path="/elsewhere"), replace(links[1], kind="duplicate")]) == set()
