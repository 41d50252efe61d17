from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cxrx.compare.corpus import open_corpus
from cxrx.reading.record import ImageRecord, Link, Status
from cxrx.results.contents import Contents
from cxrx.results.pack import pack
from cxrx.results.parts import PartStore
from cxrx.results.plan import smallest_of

ONE, TWO, THREE, FOUR = ("1" * 16, "2" * 16, "3" * 16, "4" * 16)


def write(path, films):
    """Write a results file of films, image_id to the patient's name."""
    store = PartStore(path)
    path.parent.mkdir(exist_ok=True)
    images = [
        ImageRecord(i * 4, "PA", 10, 8, "", Status.OK, "", False, Link("film", i, f"{i}.png", f"/{i}.png", "", "", who))
        for i, who in films.items()
    ]  # fmt: skip
    store.write(Contents(images), 0)
    pack(store, path, truth=None, run={})
    return path


def test_a_patient_is_one_unit_over_all_files(tmp_path):
    """Each file names a patient by the smallest of its own films; together that would make two of one."""
    first = write(tmp_path / "one" / "results.h5", {TWO: "a", FOUR: "b"})
    second = write(tmp_path / "two" / "results.h5", {ONE: "a", TWO: "a", THREE: "b"})
    with open_corpus([first, second]) as corpus:
        patients = {image_id: film.patient for image_id, film in corpus.films.items()}
    assert patients == {TWO: ONE, FOUR: THREE, ONE: ONE, THREE: THREE}
    for path in (first, second):
        path.with_name("results.private.csv").unlink()
    with open_corpus([first, second]) as corpus:  # films in both files still join what they can
        patients = {image_id: film.patient for image_id, film in corpus.films.items()}
    assert patients == {TWO: ONE, FOUR: FOUR, ONE: ONE, THREE: THREE}


def test_a_file_that_meets_any_before_it_is_no_stranger(tmp_path):
    paths = [
        write(tmp_path / name / "results.h5", dict.fromkeys(films, ""))
        for name, films in (("a", [ONE]), ("b", [TWO]), ("c", [TWO, THREE]))
    ]
    with open_corpus(paths) as corpus:
        assert len([said for said in corpus.warnings if "no film in common" in said]) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_smallest_of_is_the_smallest_that_can_be_reached(links):
    found = smallest_of((str(a), str(b)) for a, b in links)
    for start in found:
        reached, edge = {start}, True
        while edge:
            edge = {str(x) for a, b in links for x in (a, b) if {str(a), str(b)} & reached} - reached
            reached |= edge
        assert found[start] == min(reached)
