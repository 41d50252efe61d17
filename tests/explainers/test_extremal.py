from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional

from cxrx.errors import UsageError
from cxrx.explainers.extremal import Active, Problem, Row, build_extremal, optimise
from cxrx.explainers.guard import guard
from cxrx.explainers.option_types import ExtremalOptions
from cxrx.explainers.specs import BUILTIN_EXPLAINERS
from cxrx.models.load import wrap_model
from cxrx.options import parse_options

SPEC = next(spec for spec in BUILTIN_EXPLAINERS if spec.name == "extremal")
SIZE = 64
SHORT = {"steps": 100, "every": 2}


class ReadsPatches(nn.Module):
    """Logit k is the contrast of stripes inside square k of a picture, and nothing else."""

    SQUARES = ((8, 12), (36, 30), (14, 40))
    SIDE = 20  # a tenth of the picture

    def __init__(self) -> None:
        super().__init__()
        self.stripes = torch.sin(2 * torch.pi * torch.arange(SIZE) / 14).expand(SIZE, SIZE)
        reads = torch.zeros(3, SIZE, SIZE)
        for k, (top, left) in enumerate(self.SQUARES):
            reads[k, top : top + self.SIDE, left : left + self.SIDE] = 1
        self.reads = reads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 60 * torch.einsum("bchw,khw->bk", x, self.reads * self.stripes) / self.SIDE**2


@pytest.fixture(scope="module")
def patches():
    """Return a model that reads patches, and pictures full of the stripes it looks for."""
    module = ReadsPatches()
    noise = 0.1 * torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return wrap_model(module, ["a", "b", "c"], SIZE), module.stripes + noise


def run(model, x, targets, **options):
    explainer = build_extremal(parse_options(SPEC.options, options, SPEC.name))
    with guard(model.module):
        return explainer(model, x, targets, torch.zeros(len(x), dtype=torch.int64))


def masks_of(model, x, rows, options, at_once=None):
    with guard(model.module):
        return dict(optimise(model, x, rows, options, at_once))


def all_rows(pictures=4, areas=(0.1,)):
    return [Row(b, k, k, a, area) for b in range(pictures) for k in range(3) for a, area in enumerate(areas)]


# ---------------------------------------------------------------------------------------------------------------------
# The published algorithm, transcribed


def transcription(module, picture, target, area, start, steps):
    """Run the published algorithm on one picture (side 64: step 2, sigma 6): parameters after every step, rewards."""
    step, sigma, cells = 2, 6, 32
    canvas = step * (cells + 6) - step + 1
    u = torch.arange(canvas)
    weight = torch.zeros(81, canvas, canvas, dtype=torch.float64)
    for k in range(81):
        y = sigma + step * (u // step + k // 9 - 7)  # where the k-th cell around a pixel lies
        x = sigma + step * (u // step + k % 9 - 7)
        distance = ((u - y)[:, None] ** 2 + (u - x)[None, :] ** 2).double().sqrt()
        weight[k] = torch.exp(-2 * (distance / sigma - 0.5).clamp(min=0) ** 2)
    levels = []
    for level in range(8):
        s = 20 * 64 / 224 * (1 - level / 7)
        blurred = gaussian_filter(picture.double().numpy(), s, mode="constant", radius=int(np.ceil(4 * s)), axes=(1, 2))
        levels.append(torch.from_numpy(blurred) if s else picture.double())
    pyramid = torch.stack(levels)  # (8, C, H, W)
    p = start.double().view(1, 1, cells, cells).clone().requires_grad_()
    optimiser = torch.optim.SGD([p], lr=0.01, momentum=0.9, dampening=0.9)
    reference = torch.ones(canvas**2, dtype=torch.float64)
    reference[: int(canvas**2 * (1 - area))] = 0
    history, rewards = [], []
    for t in range(steps):
        near = functional.unfold(p, 9, padding=7).view(1, 81, cells + 6, cells + 6)
        v = weight * functional.interpolate(near, scale_factor=step, mode="nearest")[:, :, :canvas, :canvas]
        mask = (v * functional.softmax(20 * v, dim=1)).sum(1).clamp(0, 1)[0]
        seen = mask[sigma : sigma + 64, sigma : sigma + 64]
        low = (7 * seen).detach().floor().long().clamp(max=6)
        low_picture = pyramid.gather(0, low.expand(1, 1, -1, -1).expand(1, len(picture), -1, -1))[0]
        high_picture = pyramid.gather(0, (low + 1).expand(1, 1, -1, -1).expand(1, len(picture), -1, -1))[0]
        part = 7 * seen - low
        reward = module(((1 - part) * low_picture + part * high_picture)[None])[0, target]
        penalty = ((mask.flatten().sort().values - reference) ** 2).mean()
        loss = 300 * 1.0035**t * penalty - reward
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            p.clamp_(0, 1)
        history.append(p.detach()[0, 0].clone())
        rewards.append(reward.item())
    return torch.stack(history), rewards


def test_the_first_steps_are_those_of_the_published_algorithm():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 6, 5, 2), nn.Softplus(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 3)
    )
    with torch.no_grad():
        module[-1].weight.mul_(20)
    x = torch.randn(1, 1, SIZE, SIZE)
    # Not from p = 1: there most pixels are equal, and a sort would tell them apart by rounding.
    start = 0.3 + 0.7 * torch.rand(32, 32)
    expected, rewards = transcription(module.double(), x[0], 1, 0.2, start, 20)
    model = wrap_model(module.float(), ["a", "b", "c"], SIZE)
    with guard(model.module):
        active = Active(Problem(model, x, parse_options(SPEC.options, {"preset": "published"}, SPEC.name)), x, 1)
        active.fill(deque([Row(0, 0, 1, 0, 0.2)]))
        active.parameters = start[None]
        for t in range(20):
            mask = active.problem.generator.visible(active.problem.generator(active.parameters, active.problem.kernels))
            reward = active.problem.reward(mask, active.rows, torch.zeros(1, dtype=torch.bool))
            assert reward.item() == pytest.approx(rewards[t], abs=1e-4)
            active.step()
            assert (active.parameters[0] - expected[t]).abs().max() < 1e-5


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def test_rows_together_are_rows_one_by_one(cnn, pictures):
    options = ExtremalOptions(steps=6, stop=False)
    rows = all_rows()
    together = masks_of(cnn, pictures, rows, options, at_once=12)
    for row in rows[::5]:
        alone = masks_of(cnn, pictures, [row], options)[row]
        torch.testing.assert_close(together[row].mask, alone.mask, rtol=0, atol=1e-5)
        torch.testing.assert_close(together[row].reward, alone.reward, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_queue_changes_no_mask(patches, stop):
    """With as many rows in every pass, to the last bit."""
    model, x = patches
    options = ExtremalOptions(steps=20, stop=stop, areas=(0.05, 0.2))
    rows = all_rows(1, options.areas)
    queued = masks_of(model, x, rows, options, at_once=4)
    assert set(queued) == set(rows)
    for some in (rows[:3], rows[3:]):
        for row, found in masks_of(model, x, some, options, at_once=4).items():
            assert torch.equal(queued[row].mask, found.mask)
            assert queued[row].steps == found.steps


@pytest.mark.slow
def test_a_row_that_has_settled_stops_early_and_loses_nothing(patches):
    """Which rows settle, and when, hangs on the last bits of a processor; what is found must not."""
    model, x = patches
    rows = all_rows(1)
    full = masks_of(model, x, rows, ExtremalOptions(steps=60, every=1, stop=False))
    early = masks_of(model, x, rows, ExtremalOptions(steps=60, every=2))
    assert all(found.steps == found.evaluations == 60 for found in full.values())
    for row in rows:
        assert early[row].evaluations == 1 + math.ceil((early[row].steps - 1) / 2)
        assert float(early[row].reward) > 0.9 * float(full[row].reward)
        assert float(early[row].mask.mean()) == pytest.approx(row.area, rel=0.15)
        pair = torch.stack([early[row].mask.flatten(), full[row].mask.flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.5
    assert min(found.steps for found in early.values()) < 60


def test_the_model_is_evaluated_at_every_nth_step_only(patches):
    model, x = patches
    counts = []
    handle = model.module.register_forward_hook(lambda *_: counts.append(1))
    ((_, found),) = masks_of(model, x, all_rows(1)[:1], ExtremalOptions(steps=20, every=5, stop=False)).items()
    handle.remove()
    assert found.steps == 20
    assert found.evaluations == len(counts) == 5  # at steps 0, 5, 10, 15, and at the last one


@pytest.mark.slow
def test_a_permuted_batch_gives_permuted_maps(patches):
    model, x = patches
    targets = torch.tensor([[0, 2], [1, -1]])
    straight = run(model, x, targets, steps=16)
    permuted = run(model, x.flip(0), targets.flip(0), steps=16)
    torch.testing.assert_close(permuted.values, straight.values.flip(0), rtol=0, atol=1e-4)
    torch.testing.assert_close(permuted.extras["reward"], straight.extras["reward"].flip(0), rtol=1e-3, atol=1e-3)


def test_shapes_and_empty_targets(patches):
    model, x = patches
    maps = run(model, x, torch.tensor([[0, -1], [-1, -1]]), steps=5, areas="0.1 0.2")
    assert maps.values.shape == (2, 2, SIZE, SIZE)
    assert maps.extras["masks"].shape == (2, 2, 2, SIZE, SIZE)
    assert maps.extras["steps"].tolist() == [[[5, 5], [0, 0]], [[0, 0], [0, 0]]]
    assert maps.values[0, 1].abs().max() == maps.values[1].abs().max() == 0
    none = run(model, x, torch.full((2, 1), -1), steps=5)
    assert none.values.shape == (2, 1, SIZE, SIZE)
    assert none.values.abs().max() == 0


# ---------------------------------------------------------------------------------------------------------------------
# What the masks find


@pytest.mark.parametrize(
    ("variant", "perturbation"),
    [
        ("preserve", "blur"),
        *(
            pytest.param(variant, perturbation, marks=pytest.mark.slow)
            for variant, perturbation in product(("preserve", "delete", "dual"), ("blur", "fade"))
            if (variant, perturbation) != ("preserve", "blur")
        ),
    ],
)
def test_the_patch_that_the_model_reads_is_recovered(patches, variant, perturbation):
    model, x = patches
    maps = run(model, x[:1], torch.arange(3)[None], variant=variant, perturbation=perturbation, **SHORT)
    inside = model.module.reads.bool()
    for b, k in np.ndindex(1, 3):
        mask = maps.extras["masks"][b, k, 0]
        assert mask[inside[k]].mean() > 0.75
        assert mask[~inside[k]].mean() < 0.04
        assert inside[k].flatten()[maps.values[b, k].argmax()]


@pytest.mark.slow
def test_the_contrastive_reward_finds_it_too(patches):
    model, x = patches
    maps = run(model, x, torch.tensor([[0], [1]]), reward="contrastive", **SHORT)
    for b, k in ((0, 0), (1, 1)):
        assert maps.extras["masks"][b, 0, 0][model.module.reads[k].bool()].mean() > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
def test_the_visible_area_is_the_one_asked_for(patches, variant):
    model, x = patches
    maps = run(model, x[:1], torch.arange(3)[None], areas="0.05,0.1,0.2", variant=variant, **SHORT)
    achieved = maps.extras["achieved_area"]
    torch.testing.assert_close(achieved, maps.extras["masks"].mean(dim=(3, 4)))
    assert ((achieved / torch.tensor([0.05, 0.1, 0.2]) - 1).abs() < 0.1).all()


@pytest.mark.slow
def test_the_published_area_is_that_of_the_padded_canvas(patches):
    model, x = patches
    achieved = run(model, x[:1], torch.tensor([[1]]), area_on="padded", steps=50).extras["achieved_area"]
    assert (achieved > 0.115).all()  # of the picture, where 0.1 of the larger canvas was asked for


def test_the_recorded_reward_and_penalty_are_those_of_the_mask(patches):
    model, x = patches
    maps = run(model, x, torch.tensor([[0], [1]]), steps=30, perturbation="fade")
    for b, k in ((0, 0), (1, 1)):
        mask = maps.extras["masks"][b, 0, 0]
        assert float(maps.extras["reward"][b, 0, 0]) == pytest.approx(
            float(model.logits(mask * x[b : b + 1])[0, k]), rel=1e-4
        )
    assert (maps.extras["penalty"] > 0).all()


def test_the_map_is_the_smoothed_sum_over_areas(patches):
    model, x = patches
    maps = run(model, x, torch.tensor([[0], [1]]), steps=10, areas="0.1,0.3")
    sigma = 0.09 * SIZE
    summed = maps.extras["masks"].sum(dim=2)[0, 0].numpy()
    expected = gaussian_filter(summed, sigma, mode="constant", radius=int(np.ceil(4 * sigma)))
    np.testing.assert_allclose(maps.values[0, 0], expected, atol=1e-5)
    plain = run(model, x, torch.tensor([[0], [1]]), steps=10, areas="0.1,0.3", smooth=0)
    torch.testing.assert_close(plain.values, plain.extras["masks"].sum(dim=2))


def test_mirrored_steps_show_the_mirrored_picture(patches):
    model, x = patches
    problem = Problem(model, x, ExtremalOptions(flip=True))
    rows = [Row(0, 0, 0, 0, 0.1), Row(1, 0, 0, 0, 0.1)]
    with torch.no_grad():
        rewards = problem.reward(torch.ones(2, SIZE, SIZE), rows, torch.tensor([True, False]))
        mirrored, straight = model.forward(x.flip(3))[0, 0], model.forward(x)[1, 0]
    torch.testing.assert_close(rewards, torch.stack([mirrored, straight]))


def test_a_contrast_needs_something_to_contrast_with():
    model = wrap_model(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), ["a"], 8)
    with pytest.raises(UsageError, match="at least two findings"):
        run(model, torch.randn(1, 1, 8, 8), torch.tensor([[0]]), reward="contrastive")


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
def test_constant_logits_give_a_finite_mask(cnn, pictures, variant):
    nn.init.zeros_(cnn.module[-1].weight)
    maps = run(cnn, pictures, torch.zeros(4, 1, dtype=torch.int64), variant=variant, steps=10)
    assert maps.values.isfinite().all()


def test_a_larger_film_has_the_same_constants_in_proportion(patches):
    model, x = patches
    problem = Problem(model, x, ExtremalOptions())
    larger = Problem(model, functional.interpolate(x, scale_factor=2), ExtremalOptions())
    assert larger.generator.grid == problem.generator.grid
    assert larger.generator.step == 2 * problem.generator.step
    assert replace(larger.generator, size=problem.generator.size) == problem.generator


def test_a_mask_is_the_same_to_the_last_bit_whatever_is_optimised_beside_it(cnn, pictures):
    rows = [Row(b, 0, b % 3, 0, 0.2) for b in range(4)]
    options = parse_options(SPEC.options, {"steps": 12}, SPEC.name)
    with guard(cnn.module):
        together = dict(optimise(cnn, pictures, rows, options))
        for row in rows[::2]:
            ((_, alone),) = optimise(cnn, pictures, [row], options)
            assert torch.equal(together[row].mask, alone.mask)
            assert together[row].steps == alone.steps
