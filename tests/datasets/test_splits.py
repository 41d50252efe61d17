from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrx.datasets import make_splits
from cxrx.errors import UsageError

patients = st.lists(st.integers(0, 30).map(str), max_size=60)
words = st.sampled_from(["", "train", "valid", "test", "train+valid"])


def splits_of(patients, splits):
    found = {}
    for patient, split in zip(patients, splits.of, strict=True):
        if split:
            found.setdefault(patient, set()).add(split)
    return found


@given(patients, st.integers(0, 5))
def test_a_patient_is_never_in_two_splits(patients, seed):
    splits = make_splits([""] * len(patients), patients, seed)
    assert splits.kind == "patient-wise"
    assert all(len(found) == 1 for found in splits_of(patients, splits).values())
    assert set(splits.of) <= {"train", "valid", "test"}
    if len(set(patients)) >= 3:
        assert set(splits.of) == {"train", "valid", "test"}


@given(st.lists(st.tuples(st.integers(0, 8).map(str), words), max_size=40), st.integers(0, 3))
def test_nor_are_they_where_the_published_split_puts_them_there(rows, seed):
    patients, official = [p for p, _ in rows], [w for _, w in rows]
    splits = make_splits(official, patients, seed)
    assert all(len(found) == 1 for found in splits_of(patients, splits).values())
    if splits.kind != "patient-wise":
        for word, split in zip(official, splits.of, strict=True):
            assert split in {"", word} or (word in {"train", "train+valid"} and split in {"train", "valid"})
            assert word or not split  # what has no published split has none
        tested = {p for p, w in rows if w == "test"}
        assert all(
            s == "test" for p, w, s in zip(patients, official, splits.of, strict=True) if p in tested and w == "test"
        )


@given(patients, st.integers(0, 3))
def test_order_and_repetition_do_not_matter(patients, seed):
    once = dict(zip(patients, make_splits([""] * len(patients), patients, seed).of, strict=True))
    turned = patients[::-1] * 2
    again = make_splits([""] * len(turned), turned, seed)
    assert dict(zip(turned, again.of, strict=True)) == once


def test_films_added_later_move_nobody():
    few, many = [str(n) for n in range(300)], [str(n) for n in range(900)]
    before, after = (dict(zip(p, make_splits([""] * len(p), p).of, strict=True)) for p in (few, many))
    assert before.items() <= after.items()


def test_shares_and_seeds():
    patients = [str(n) for n in range(4000)]
    first, second = (make_splits([""] * 4000, patients, seed, (0.6, 0.15, 0.25)).of for seed in (0, 1))
    shares = [first.count(name) / 4000 for name in ("train", "valid", "test")]
    assert shares == pytest.approx([0.6, 0.15, 0.25], abs=0.03)  # four standard deviations
    assert first != second
    assert first == make_splits([""] * 4000, patients, 0, (0.6, 0.15, 0.25)).of


def test_validation_films_are_drawn_from_the_training_films():
    patients = [str(n) for n in range(4000)]
    official = ["test" if n % 5 == 0 else "train+valid" for n in range(4000)]
    splits = make_splits(official, patients)
    assert splits.kind == "official, valid drawn"
    assert [s == "test" for s in splits.of] == [w == "test" for w in official]
    assert splits.of.count("valid") / 3200 == pytest.approx(1 / 8, abs=0.025)


def test_one_published_split_is_none():
    assert make_splits(["train"] * 9, [str(n) for n in range(9)]).kind == "patient-wise"


def test_patients_in_two_published_splits_are_counted_and_kept_in_test():
    splits = make_splits(["train", "test", "train", "valid", "train"], ["a", "a", "b", "b", "c"])
    assert splits.of == ("", "test", "", "valid", "train")
    assert (splits.kind, splits.shared_patients) == ("official", 2)


def test_no_validation_films_where_none_are_wanted():
    assert make_splits(["train", "test"], ["a", "b"], fractions=(0.8, 0, 0.2)).of == ("train", "test")
    assert "valid" not in make_splits([""] * 50, [str(n) for n in range(50)], fractions=(0.8, 0, 0.2)).of


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.6, 0.1), (1.2, -0.1, -0.1), (0, 0.5, 0.5)])
def test_shares_that_are_none_are_refused(fractions):
    with pytest.raises(UsageError, match="add up to 1"):
        make_splits(["", ""], ["a", "b"], fractions=fractions)
