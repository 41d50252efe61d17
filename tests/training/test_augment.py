"""Augmentation depends on seed, epoch and film alone, and each kind does what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cxrx.training.augment import augment, build_transform
from cxrx.training.films import FilmStore
from cxrx.training.loader import Loader, TrainingFilms
from cxrx.training.recipes import make_recipe
from cxrx.training.seeds import seed_of

OFF = {"rotate": 0, "shear": 0, "shift": 0, "zoom": 0, "crop": 1, "brightness": 0, "contrast": 0, "flip": 0}
KINDS = [{"rotate": 20}, {"shift": 0.2}, {"zoom": 0.3}, {"shear": 10}, {"crop": 0.5}, {"brightness": 0.4},
         {"contrast": 0.4}, {"randaugment": 6}, {"clahe": 1}]  # fmt: skip


@pytest.fixture
def films():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (6, 32, 24)).astype(np.uint8))


def changed(films, options, *, ids="abcdef", seed=0, epoch=0):
    transform = build_transform(make_recipe("default", OFF | options), (32, 24))
    return augment(films, [seed_of(seed, "augment", epoch, image_id) for image_id in ids], transform)


def test_nothing_asked_nothing_done():
    assert build_transform(make_recipe("default", OFF), (32, 24)) is None


@pytest.mark.parametrize("options", KINDS, ids=lambda o: next(iter(o)))
def test_only_seed_epoch_and_film_matter(films, options):
    whole = changed(films, options)
    assert whole.shape == films.shape
    assert whole.dtype == torch.uint8
    assert not torch.equal(whole, films)
    order = [4, 1, 5]
    assert torch.equal(changed(films[order], options, ids=[*"ebf"]), whole[order])
    if options != {"clahe": 1}:  # which draws nothing but whether
        assert not torch.equal(changed(films, options, epoch=1), whole)
        assert not torch.equal(changed(films, options, seed=1), whole)


def test_the_random_numbers_of_the_training_are_left_alone(films):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    changed(films, {"rotate": 20, "randaugment": 6})
    assert torch.equal(torch.rand(4), expected)


def test_flips_mirror_left_and_right(films):
    assert torch.equal(changed(films, {"flip": 1}), films.flip(2))


def test_films_are_equalised_as_often_as_asked(films):
    import cv2

    expected = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(7, 7)).apply(films[0].numpy())
    assert np.array_equal(changed(films, {"clahe": 1})[0].numpy(), expected)
    many = films[:1].expand(200, -1, -1)
    told = changed(many, {"clahe": 0.3}, ids=[str(i) for i in range(200)])
    assert (told != many).any(dim=(1, 2)).float().mean() == pytest.approx(0.3, abs=0.1)


def test_brightness_is_a_factor_within_its_range():
    flat = torch.full((200, 4, 4), 100, dtype=torch.uint8)
    ids = [str(i) for i in range(200)]
    transform = build_transform(make_recipe("default", OFF | {"brightness": 0.2}), (4, 4))
    means = augment(flat, [seed_of(image_id) for image_id in ids], transform).float().mean((1, 2))
    assert 79 <= means.min() < 85
    assert 115 < means.max() <= 120


@pytest.mark.slow
def test_workers_do_not_matter(tmp_path, films):
    np.save(tmp_path / "pixels.npy", films.numpy())
    recipe = make_recipe("default", {"rotate": 20, "brightness": 0.2})
    batches = [np.array([5, 0]), np.array([3, 1])]

    def drawn(workers):
        torch.manual_seed(0)
        source = TrainingFilms(FilmStore(tmp_path / "pixels.npy"), list("abcdef"), recipe, (32, 24))
        loader = Loader(source, workers, torch.device("cpu"))
        batches_of = [(f.clone(), r.tolist()) for epoch in (0, 1) for f, r in loader.epoch(epoch, batches)]
        assert torch.equal(torch.rand(3), untouched)  # those of dropout: the same whoever loads, and after a resume
        return batches_of

    torch.manual_seed(0)
    untouched = torch.rand(3)
    here, there = drawn(0), drawn(1)
    assert [rows for _, rows in here] == [rows for _, rows in there] == [[5, 0], [3, 1]] * 2
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(here, there, strict=True))
    assert not torch.equal(here[0][0], here[2][0])
