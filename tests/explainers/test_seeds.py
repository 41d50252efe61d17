from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from cxrx.explainers.seeds import derive_seed, generator, tensor_id


def test_the_seed_is_the_same_on_every_machine():
    # Part of the contract: a resumed run, on whatever machine, must find the same noise.
    assert derive_seed(0, "smoothgrad", "0123456789abcdef") == 8105369721747744521


@given(st.integers(), st.text(max_size=20), st.text(max_size=20))
def test_seeds_fit_a_generator(seed, method, image):
    value = derive_seed(seed, method, image)
    assert 0 <= value < 2**63
    assert generator(value).initial_seed() == value


def test_every_part_counts_and_borders_between_parts_do():
    seeds = [
        derive_seed(0, "a", "b"),
        derive_seed(1, "a", "b"),
        derive_seed(0, "b", "a"),
        derive_seed(0, "ab", ""),
        derive_seed(0, "ab"),
        derive_seed(0, "", "ab"),
    ]
    assert len(set(seeds)) == len(seeds)


def test_a_picture_is_known_by_its_values_and_its_shape():
    x = torch.arange(12.0).view(1, 3, 4)
    assert tensor_id(x) == tensor_id(x.clone())
    assert tensor_id(x) == tensor_id(x.transpose(1, 2).contiguous().transpose(1, 2))  # strides do not count
    assert tensor_id(x) != tensor_id(x.view(1, 4, 3))
    assert tensor_id(x) != tensor_id(x + 1e-3)
