from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cxrx.errors import UsageError
from cxrx.results.truth import Mask, TruthTable, check_truth


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_masks_come_back_and_runs_alternate(mask):
    coded = Mask.encode("a" * 16, "Mass", mask)
    np.testing.assert_array_equal(coded.decode(), mask)
    assert coded.runs.sum() == mask.size
    assert (coded.runs[1:] > 0).all() or not mask.any()
    assert coded.runs[1::2].sum() == mask.sum()


@pytest.mark.parametrize(
    "table",
    [
        TruthTable(labels={"a": {"Mass": 2}}),
        TruthTable(boxes=[("a", "Mass", 0, 0, 0, 5)]),
        TruthTable(boxes=[("a", "Mass", 0, float("nan"), 3, 5)]),
    ],
)
def test_labels_and_boxes_that_are_none_are_refused(table):
    with pytest.raises(UsageError):
        check_truth(table)


labels = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(st.sampled_from(["Mass", "Nodule"]), st.sampled_from([1, 0, -1]))
)
boxes = st.lists(st.tuples(st.sampled_from("abc"), st.just("Mass"), *[st.integers(1, 3)] * 4), max_size=3)
tables = st.builds(TruthTable, st.just(("Mass",)), labels, boxes)


@given(tables, tables)
def test_an_update_counts_once_and_wins(old, new):
    once = old.updated(new)
    assert once.updated(new).normalised("abc").same(once.normalised("abc"))
    for image_id, row in new.labels.items():
        assert once.labels[image_id].items() >= row.items()
    for image_id in {box[0] for box in new.boxes}:
        assert {b for b in once.boxes if b[0] == image_id} == {b for b in new.boxes if b[0] == image_id}
    assert once.updated(TruthTable()).normalised("abc").same(once.normalised("abc"))


@given(tables)
def test_the_normal_form_is_one_and_knows_only_the_films_asked_for(table):
    normal = table.normalised("ab")
    assert normal.normalised("ab").same(normal)
    assert set(normal.labels) | {box[0] for box in normal.boxes} <= {"a", "b"}
    shuffled = TruthTable(table.findings, dict(reversed(table.labels.items())), table.boxes[::-1])
    assert shuffled.normalised("ab").same(normal)
