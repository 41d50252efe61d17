from __future__ import annotations

import numpy as np
import pytest
import torch

from cxrx.errors import UsageError
from cxrx.explainers.targets import find_label, resolve_targets

LABELS = ("Effusion", "Mass", "Nodule")
LOGITS = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 2.0]])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("all", [[0, 1, 2], [0, 1, 2]]),
        ("top", [[1], [0]]),
        ("Nodule", [[2], [2]]),
        ("nodule", [[2], [2]]),
        (["Mass", "Effusion"], [[1, 0], [1, 0]]),
        (2, [[2], [2]]),
        ([0, 2], [[0], [2]]),
        (np.array([1, -1]), [[1], [-1]]),
        (torch.tensor([[1, 2], [0, -1]]), [[1, 2], [0, -1]]),
        ([[1], [2]], [[1], [2]]),
    ],
)
def test_targets_become_indices(targets, expected):
    resolved = resolve_targets(targets, LABELS, LOGITS)
    assert resolved.dtype == torch.int64
    assert resolved.tolist() == expected


def test_a_finding_called_top_is_a_finding():
    assert resolve_targets("top", ("low", "top", "all"), LOGITS).tolist() == [[1], [1]]
    assert resolve_targets("all", ("low", "top", "all"), LOGITS).tolist() == [[2], [2]]


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        ("Masss", "no finding named 'Masss'"),
        (["Mass", "Edema"], "no finding named 'Edema'"),
        (3, "no logit 3"),
        (-2, "no logit -2"),
        ([0, 1, 2], "B = 2"),
        ([[0, 1], [1]], "filled up with -1"),
        ([[[0]], [[1]]], "B = 2"),
        ([], "float64"),
        ([0.5, 1.0], "float64"),
        ([True, False], "bool"),
        (torch.zeros(2, 0, dtype=torch.int64), "B = 2"),
        (["Mass", 1], "not"),
    ],
)
def test_what_does_not_fit_is_told(targets, sentence):
    with pytest.raises(UsageError, match=sentence):
        resolve_targets(targets, LABELS, LOGITS)


def test_the_nearest_names_are_told():
    with pytest.raises(UsageError) as caught:
        find_label("efusion", LABELS)
    assert caught.value.hint == "did you mean Effusion?"
    with pytest.raises(UsageError) as caught:
        find_label("xyz", LABELS)
    assert "Effusion, Mass, Nodule" in caught.value.hint


def test_letters_of_another_case_do_not_choose_between_two_findings():
    assert find_label("mass", ("Mass", "mass")) == 1
    with pytest.raises(UsageError):
        find_label("MASS", ("Mass", "mass"))
