from __future__ import annotations

import pytest
import torch
from torch import nn

from cxrx.explainers.guard import guard
from cxrx.explainers.option_types import OcclusionOptions, RiseOptions
from cxrx.explainers.sweep import build_occlusion, build_rise, random_masks, sliding_windows
from cxrx.models.load import wrap_model

FINDINGS = ("a", "b", "c")
ALL = torch.arange(3)


def run(model, explainer, x, targets, seeds=None):
    with guard(model.module):
        return explainer(model, x, targets, torch.arange(len(x)) if seeds is None else seeds).values


def linear_model(size=(20, 28), channels=1):
    """Return a model whose logits are sums of weighted pixels, and these weights ``(3, H, W)``."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], 3))
    model = wrap_model(module, FINDINGS, size, in_chans=channels)
    return model, module[1].weight.detach().view(3, channels, *size)


class Planted(nn.Module):
    """Logit b reads the brightness of one patch, and nothing else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patch = x[:, :, 20:28, 8:16].mean(dim=(1, 2, 3))
        return torch.stack([0 * patch - 3, 10 * patch - 3, -10 * patch], dim=1)


@pytest.fixture
def planted():
    return wrap_model(Planted(), FINDINGS, 48, in_chans=1)


@pytest.fixture
def picture(planted):
    pixels = 0.3 * torch.ones(1, 48, 48)
    pixels[:, 20:28, 8:16] = 0.9
    return planted.prepare(pixels)


# ---------------------------------------------------------------------------------------------------------------------
# Occlusion


@pytest.mark.parametrize("size", [(32, 32), (20, 28)])
@pytest.mark.parametrize("baseline", ["black", "mean"])
def test_occlusion_is_captums(cnn, size, baseline):
    from captum.attr import Occlusion

    x = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(1))
    options = OcclusionOptions(window=80, stride=35, baseline=baseline)
    window, stride = (round(80 * min(size) / 224), round(35 * min(size) / 224))
    values = run(cnn, build_occlusion(options), x, ALL.expand(3, 3))
    what = cnn.prepare(torch.zeros(3, *size)) if baseline == "black" else x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    for k in range(3):
        peer = Occlusion(cnn.module).attribute(
            x, (1, window, window), (1, stride, stride), baselines=what, target=k, show_progress=False
        )
        torch.testing.assert_close(values[:, k], peer[:, 0], rtol=1e-5, atol=1e-5)


def test_occlusion_of_a_linear_model_is_the_mean_of_window_sums():
    model, weight = linear_model()
    x = torch.randn(2, 1, 20, 28, generator=torch.Generator().manual_seed(2))
    part = (weight * (x[:, None] - x.mean(dim=(2, 3))[:, None, :, None, None])).sum(dim=2)  # (B, K, H, W)
    expected, covered = torch.zeros_like(part), torch.zeros(20, 28)
    for top in range(0, 20, 2):
        for left in range(0, 28, 2):
            if top - 2 < 20 - 3 and left - 2 < 28 - 3:  # up to the first window that reaches the edge
                window = (..., slice(top, top + 3), slice(left, left + 3))
                expected[window] += part[window].sum(dim=(2, 3), keepdim=True)
                covered[window] += 1
    values = run(model, build_occlusion(OcclusionOptions(window=34, stride=22)), x, ALL.expand(2, 3))
    torch.testing.assert_close(values, expected / covered, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "window", "stride"), [((20, 28), 6, 4), ((7, 7), 7, 3), ((5, 9), 8, 8), ((10, 10), 1, 1)]
)
def test_windows_cover_every_pixel_and_none_is_empty(size, window, stride):
    covered = torch.zeros(size)
    for rows, columns in sliding_windows(size, window, stride):
        assert covered[rows, columns].numel() > 0
        covered[rows, columns] += 1
    assert covered.min() >= 1


def test_occlusion_takes_one_sweep_for_all_findings(cnn, pictures):
    counts = []
    handle = cnn.module.register_forward_hook(lambda _module, inputs, _output: counts.append(len(inputs[0])))
    explainer = build_occlusion(OcclusionOptions())
    run(cnn, explainer, pictures[:1], torch.tensor([[0]]))
    one = list(counts)
    counts.clear()
    run(cnn, explainer, pictures[:1], ALL.expand(1, 3))
    handle.remove()
    windows = len(sliding_windows((32, 32), 5, 2))
    assert counts == one
    assert set(counts) == {8}
    assert windows + 1 <= sum(counts) < windows + 1 + 8


# ---------------------------------------------------------------------------------------------------------------------
# RISE


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_rise_is_its_formula_over_the_same_masks(cnn, pictures, score):
    options = RiseOptions(masks=21, score=score, baseline="black")
    values = run(cnn, build_rise(options), pictures[:2], ALL.expand(2, 3), torch.tensor([5, 6]))
    black = cnn.prepare(torch.zeros(1, 32, 32)).double()
    network = cnn.module.double()
    for b, seed in enumerate((5, 6)):
        masks = torch.cat(list(random_masks((32, 32), seed, 8, options))).double()  # (21, 32, 32)
        picture = pictures[b : b + 1].double()
        z = network(masks[:, None] * picture + (1 - masks[:, None]) * black).detach()  # (21, 3)
        s = z.sigmoid() if score == "probability" else z - z.mean(dim=0)
        expected = torch.einsum("nk,nhw->khw", s, masks) / (21 * 0.5)
        torch.testing.assert_close(values[b], expected.float(), rtol=1e-4, atol=1e-6)
    cnn.module.float()


def test_masks_are_those_of_the_paper():
    options = RiseOptions(masks=400, cells=4)
    chunks = list(random_masks((32, 48), 0, 16, options))
    assert [len(chunk) for chunk in chunks] == [16] * 25
    masks = torch.cat(chunks)
    assert masks.shape == (400, 32, 48)
    assert masks.min() >= 0
    assert masks.max() <= 1
    # each cell stays with probability 1/2, and so does every pixel on average, wherever it lies
    assert masks.mean().item() == pytest.approx(0.5, abs=0.02)
    assert masks.mean(dim=0).std() < 4 * masks.std() / 20
    # 6 cells on 7 times 8 pixels: two pixels of a row differ by at most 6/56
    assert masks.diff(dim=2).abs().max() <= 6 / 56 + 1e-6


def test_the_masks_of_a_picture_do_not_depend_on_how_many_are_made_at_once():
    options = RiseOptions(masks=10, keep=0.3)
    first, second = (torch.cat(list(random_masks((16, 16), 3, rows, options))) for rows in (10, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.cat(list(random_masks((16, 16), 4, 10, options))))


@pytest.mark.parametrize(
    "build", [lambda: build_rise(RiseOptions(masks=300)), lambda: build_occlusion(OcclusionOptions())]
)
def test_the_planted_patch_is_found(planted, picture, build):
    values = run(planted, build(), picture, ALL.expand(1, 3))[0]
    row, column = divmod(int(values[1].argmax()), 48)
    assert 17 <= row < 31
    assert 5 <= column < 19
    assert values[1, 20:28, 8:16].mean() > 5 * values[1].abs().mean()
    torch.testing.assert_close(values[2], -values[1], rtol=1e-3, atol=1e-4)  # the patch speaks against c
    assert values[0].abs().max() == 0  # which never changes


def test_rise_with_logits_is_less_noisy_than_as_published(planted, picture):
    """An offset of the score, which says nothing about places, must not show."""

    def noise(score):
        options = RiseOptions(masks=200, score=score)
        maps = [run(planted, build_rise(options), picture, torch.tensor([[1]]), torch.tensor([s])) for s in range(4)]
        stack = torch.stack(maps)
        return float(stack.std(dim=0).mean() / stack.mean(dim=0).amax())

    assert noise("logit") < noise("probability")


# ---------------------------------------------------------------------------------------------------------------------
# Both

METHODS = {
    "rise": lambda: build_rise(RiseOptions(masks=20)),
    "occlusion": lambda: build_occlusion(OcclusionOptions(window=64, stride=64)),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_the_same_bit_for_bit_alone_and_among_others(cnn, pictures, method):
    seeds = torch.tensor([7, 8, 9, 10])
    together = run(cnn, METHODS[method](), pictures, ALL.expand(4, 3), seeds)
    alone = run(cnn, METHODS[method](), pictures[2:3], torch.tensor([[1]]), seeds[2:3])
    assert torch.equal(alone[0, 0], together[2, 1])


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_computed_for_empty_targets(cnn, pictures, method):
    counts = []
    handle = cnn.module.register_forward_hook(lambda *_: counts.append(1))
    values = run(cnn, METHODS[method](), pictures, torch.full((4, 2), -1))
    handle.remove()
    assert values.shape == (4, 2, 32, 32)
    assert values.abs().max() == 0
    assert not counts


@pytest.mark.parametrize("method", METHODS)
def test_they_need_no_gradients(method):
    class Detached(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.detach().flatten(1)[:, :3]

    model = wrap_model(Detached(), FINDINGS, 16, in_chans=1)
    values = run(model, METHODS[method](), torch.rand(1, 1, 16, 16), torch.tensor([[0]]))
    assert values.abs().max() > 0
