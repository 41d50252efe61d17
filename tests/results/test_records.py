from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrx.reading.record import Status
from cxrx.results.contents import Contents
from cxrx.results.parts import check_part
from cxrx.results.records import differences, fingerprint, keyed, plain

scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5)
settings = st.recursive(
    st.dictionaries(st.text(max_size=4), scalars, max_size=4),
    lambda inner: st.dictionaries(st.text(max_size=4), inner | scalars | st.lists(scalars, max_size=3), max_size=3),
    max_leaves=6,
)


@given(settings)
def test_fingerprint_does_not_depend_on_the_order_of_keys(mapping):
    assert fingerprint(mapping) == fingerprint(dict(reversed(mapping.items())))


@given(settings, settings)
def test_differences_are_empty_exactly_when_fingerprints_agree(a, b):
    flat = not any("." in str(key) or value == {} for m in (a, b) for key, value in _walk(m))
    if flat:
        assert (differences(a, b) == []) == (fingerprint(a) == fingerprint(b))
    assert differences(a, a) == []


def _walk(mapping):
    for key, value in mapping.items():
        yield key, value
        if isinstance(value, dict):
            yield from _walk(value)


def test_differences_name_keys_and_both_values():
    old = {"dtype": "float32", "options": {"steps": 200, "areas": (0.1,)}, "same": 1}
    new = {"dtype": "bfloat16", "options": {"steps": 800, "areas": [0.1]}, "same": 1, "seed": 0}
    assert differences(old, new) == [
        'dtype: "float32" there, "bfloat16" now',
        "options.steps: 200 there, 800 now",
        "seed: unset there, 0 now",
    ]


def test_fingerprint_is_the_sha256_of_the_json_and_knows_types_apart():
    import hashlib

    spelled = json.dumps({"a": [1, 2.5, None], "b": True}, sort_keys=True, separators=(",", ":"))
    given_ = {"b": np.bool_(True), "a": (np.int64(1), np.float64(2.5), None)}
    assert fingerprint(given_) == hashlib.sha256(spelled.encode()).hexdigest()[:16]
    assert len({fingerprint({"a": value}) for value in (1, 1.0, True, "1", None, [1])}) == 6


def test_plain_refuses_what_json_has_no_word_for():
    assert plain({1: {"b", "a"}, "x": np.arange(2)}) == {"1": ["a", "b"], "x": [0, 1]}
    with pytest.raises(TypeError, match="object"):
        plain({"a": object()})


def add(part, block):
    part.blocks[block.key] = block


def predictions(part):
    return next(block for block in part.blocks.values() if not block.method)


def maps(part):
    return next(block for block in part.blocks.values() if block.method)


def test_a_model_or_method_stands_once_in_a_part(made):
    with pytest.raises(ValueError, match="came twice"):
        keyed(made.maps([5]), made.maps([6]))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda made, p: p.images.append(made.film(7, sha256="film7")), "16 hex digits"),
        (lambda made, p: p.failures.append(made.failure(1, stage="compare")), "is no stage"),
        (lambda made, p: add(p, made.maps([5, 5], "x")), "came twice in a block"),
        (lambda made, p: add(p, made.maps([5], "a/b")), "cannot name a group"),
        (lambda made, p: add(p, made.maps([5], "..")), "cannot name a group"),
        (lambda made, p: predictions(p).arrays.update(affine=np.zeros((2, 3))), "affine is"),
        (lambda made, p: setattr(predictions(p), "findings", ("a", "a", "b")), "names a finding twice"),
        (lambda made, p: maps(p).arrays.update(values=np.zeros((2, 3, 4))), "values is"),
        (lambda made, p: setattr(maps(p), "present", np.zeros((2, 2), bool)), "present is"),
        (lambda made, p: setattr(maps(p), "attrs", {"space": "source"}), "space is native or input"),
        (lambda made, p: maps(p).arrays.update({"extras/names": np.full((2, 3), "x")}), "of type"),
    ],
)
def test_a_part_that_breaks_the_contract_is_refused(made, broken, message):
    part = made.part([0, 1])
    check_part(part)
    broken(made, part)
    with pytest.raises(ValueError, match=message):
        check_part(part)


def test_an_empty_part_is_fine_and_status_knows_what_was_processed():
    check_part(Contents())
    assert [status.name for status in Status if status.processed] == ["OK", "FLAGGED"]


def test_records_cannot_be_changed(made):
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.film(0).message = "other"
