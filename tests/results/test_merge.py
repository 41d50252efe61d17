from __future__ import annotations

import csv
import hashlib
import shutil
from itertools import pairwise

import numpy as np
import pytest

from cxrx.errors import ResultsError, UsageError
from cxrx.importing.maps import import_maps
from cxrx.reading.record import Status
from cxrx.results.contents import Contents
from cxrx.results.merge import merge
from cxrx.results.pack import pack
from cxrx.results.parts import PartStore
from cxrx.results.private import private_path, read_private
from cxrx.results.reader import open_results
from cxrx.results.records import keyed
from cxrx.results.verify import verify

METHODS = {"methods": ("gradcam", "smoothgrad"), "spaces": ("native", "input")}


@pytest.fixture
def results(tmp_path):
    """Make a results file of some parts."""

    def make(name, *parts, truth=None):
        store = PartStore(tmp_path / f"{name}.h5")
        for start, part in enumerate(parts):
            store.write(part, start)
        pack(store, store.out, truth=truth, run={"argv": [name]})
        return store.out

    return make


@pytest.mark.parametrize("borders", [(3,), (1, 4), (2, 2)])
def test_merging_what_was_split_gives_the_whole(tmp_path, made, results, borders):
    films = list(range(6))
    edges = [0, *borders, len(films)]
    whole = results("whole", made.part(films, **METHODS), truth=made.truth(films))
    pieces = [
        results(f"piece{i}", *([made.part(films[a:b], **METHODS)] if a < b else []), truth=made.truth(films[a:b]))
        for i, (a, b) in enumerate(pairwise(edges))
    ]
    out = tmp_path / "merged.h5"
    merge(pieces, out)
    assert verify(out) == []
    expected, found = made.contents(whole, ["runs"]), made.contents(out, ["runs"])
    assert found.keys() == expected.keys()
    assert found == expected
    assert {r.key for r in read_private(private_path(out))} == {r.key for r in read_private(private_path(whole))}


def test_models_and_methods_of_the_same_films_are_put_together(tmp_path, made, results):
    whole = results("whole", made.part([0, 1], **METHODS), Contents(blocks=keyed(made.predictions([0, 1], "vit@1"))))
    films = [made.film(0), made.film(1)]
    a = results("a", Contents(films, [], keyed(made.predictions([0, 1]), made.maps([0, 1]))))
    b = results("b", Contents(films, [], keyed(made.predictions([0, 1], "vit@1"))))
    c = results("c", Contents(films[::-1], [], keyed(made.maps([1, 0], "smoothgrad", space="input"))))
    merge([a, b, c], tmp_path / "merged.h5")
    assert made.contents(tmp_path / "merged.h5", ["runs"]) == made.contents(whole, ["runs"])
    with open_results(tmp_path / "merged.h5") as merged:
        assert [run["argv"] for run in merged.runs()] == [["a"], ["b"], ["c"]]


def test_merging_one_file_or_a_file_with_itself_changes_nothing(tmp_path, made, results):
    one = results("one", made.part([0, 1], **METHODS), Contents([], [made.failure(None)]), truth=made.truth([1]))
    shutil.copy(one, tmp_path / "copy.h5")
    merge([one, tmp_path / "copy.h5"], tmp_path / "merged.h5")
    with open_results(tmp_path / "merged.h5") as merged:
        assert len(merged.image_ids) == 2
    skip = ["runs", "failures"]  # whether two unread files are one, nobody can tell without the link table
    assert made.contents(tmp_path / "merged.h5", skip) == made.contents(one, skip)
    merge([one], tmp_path / "alone.h5")
    assert made.contents(tmp_path / "alone.h5") == made.contents(one)


def test_success_in_one_file_mends_failure_in_another(tmp_path, made, results):
    bad = results("bad", Contents([made.film(0, Status.FAILED, "No.")], [made.failure(0)]))
    good = results("good", made.part([0]))
    for i, pair in enumerate(([bad, good], [good, bad])):
        out = tmp_path / f"merged{i}.h5"
        merge(pair, out)
        with open_results(out) as merged:
            assert merged.images()["status"].tolist() == ["ok"]
            assert merged.failures().empty


def test_unread_files_keep_apart(tmp_path, made, results):
    a = results("a", Contents([], [made.failure(None, relative="a.dcm")]))
    b = results("b", Contents([], [made.failure(None, relative="b.dcm")]))
    merge([a, b], tmp_path / "merged.h5")
    with open_results(tmp_path / "merged.h5") as merged:
        assert merged.failures()["image_id"].tolist() == ["unread-0001", "unread-0002"]
        links = {row.image_id: row.relative for row in merged.links()}
    assert links == {"unread-0001": "a.dcm", "unread-0002": "b.dcm"}
    with (tmp_path / "merged.failures.csv").open(newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["a.dcm", "b.dcm"]


def test_patients_are_joined_across_files(tmp_path, made, results):
    a = results("a", Contents([made.film(0), made.film(2)]))
    b = results("b", Contents([made.film(1), made.film(3)]))
    merge([a, b], tmp_path / "merged.h5")
    with open_results(tmp_path / "merged.h5") as merged:
        table = merged.images().set_index("image_id")["patient"]
    for i, j in ((0, 1), (2, 3)):
        smallest = min(made.image_id(i), made.image_id(j))
        assert table[made.image_id(i)] == table[made.image_id(j)] == smallest


def shifted(made, films, by):
    block = made.predictions(films)
    block.arrays["logit"] = block.arrays["logit"] + np.float32(by)
    return block


def test_contradictions_are_refused_by_name(tmp_path, made, results):
    a = results("a", made.part([0, 1]), truth=made.truth([0]))
    bfloat = made.predictions([0], settings={"dtype": "bfloat16"})
    other_settings = results("b", Contents([made.film(0)], [], keyed(bfloat)))
    other_numbers = results("c", Contents([made.film(0)], [], keyed(shifted(made, [0], 0.1))))
    truth = made.truth([0])
    truth.labels[made.image_id(0)]["Effusion"] = 1
    other_label = results("d", made.part([0]), truth=truth)
    out = tmp_path / "merged.h5"
    for other, message in (
        (other_settings, 'predictions of tiny@0123abcd .* dtype: "float32" there, "bfloat16" now'),
        (other_numbers, "predictions of tiny@0123abcd differ on 1 films"),
        (other_label, f"the label Effusion of film {made.image_id(0)}"),
    ):
        with pytest.raises(UsageError, match=message):
            merge([a, other], out)
        assert not out.exists()
        assert not private_path(out).exists()


def test_rounding_is_no_contradiction(tmp_path, made, results):
    a = results("a", made.part([0, 1]))
    b = results("b", Contents([made.film(0), made.film(2)], [], keyed(shifted(made, [0, 2], 4e-7))))
    merge([a, b], tmp_path / "merged.h5")
    with open_results(tmp_path / "merged.h5") as merged:
        np.testing.assert_array_equal(merged.logits()[0], made.predictions([0]).arrays["logit"][0])


def test_what_cannot_be_merged(tmp_path, made, results):
    a = results("a", made.part([0]))
    with pytest.raises(UsageError, match="exists already"):
        merge([a], a)
    with pytest.raises(UsageError, match="nothing to merge"):
        merge([], tmp_path / "merged.h5")
    (tmp_path / "no.h5").write_text("no")
    with pytest.raises(ResultsError, match=r"no\.h5"):
        merge([a, tmp_path / "no.h5"], tmp_path / "merged.h5")


def id_of(name):
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def test_imported_files_merge_and_live_beside_others(tmp_path, store, made):
    rng, a, b = np.random.default_rng(0), tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    first_map = rng.normal(size=(20, 30)).astype(np.float32)
    np.save(a / "first__Mass.npy", first_map)
    np.save(a / "second__Mass.npy", rng.normal(size=(7, 9)))
    np.save(b / "third__Mass.npy", np.full((5, 5), 7.0))
    first, second = import_maps(a, out=tmp_path / "a.h5"), import_maps(b, out=tmp_path / "b.h5")
    store.write(made.part([0, 1]), 0)
    pack(store, store.out, truth=None, run={})
    out = tmp_path / "merged.h5"
    merge([first, second, store.out], out)
    store.write(made.part([2]), 2)
    added = type(store)(out)
    store.folder.rename(added.folder)
    pack(added, out, truth=None, run={})
    assert verify(out) == []
    with open_results(out) as results:
        assert len(results.image_ids) == 6
        maps = {
            name: results.maps("imported", "imported", image=id_of(name), finding="Mass") for name in ("first", "third")
        }
    np.testing.assert_array_equal(maps["first"], first_map)
    assert maps["third"].tolist() == [[7.0] * 5] * 5
    with pytest.raises(UsageError, match="both hold"):
        merge([first, out], tmp_path / "again.h5")
