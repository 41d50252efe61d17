from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cxrx.errors import UsageError
from cxrx.explainers import gradient
from cxrx.explainers.baselines import make_baseline
from cxrx.explainers.gradient import (
    build_inputxgrad,
    build_integrated_gradients,
    build_saliency,
    build_smoothgrad,
    noise_scale,
    quadrature,
)
from cxrx.explainers.guard import guard
from cxrx.explainers.option_types import IntegratedGradientsOptions, NoOptions, SmoothGradOptions
from cxrx.models.load import wrap_model
from cxrx.options import parse_options
from cxrx.registry import load

EVERY = torch.arange(3).expand(4, 3)
SEEDS = torch.tensor([5, 6, 7, 8])
EXPLAINERS = {
    "saliency": build_saliency(NoOptions()),
    "inputxgrad": build_inputxgrad(NoOptions()),
    "smoothgrad": build_smoothgrad("mean", SmoothGradOptions(n=5)),
    "smoothgrad-squared": build_smoothgrad("square", SmoothGradOptions(n=5)),
    "vargrad": build_smoothgrad("variance", SmoothGradOptions(n=5)),
    "integrated-gradients": build_integrated_gradients(IntegratedGradientsOptions(steps=5)),
}


def run(model, explainer, x, targets=EVERY, seeds=SEEDS):
    with guard(model.module):
        return explainer(model, x, targets, seeds)


def rgb_model() -> object:
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2), nn.Softplus(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)
    )
    return wrap_model(module, ["a", "b", "c"], (20, 28), in_chans=3)


@pytest.fixture
def rgb():
    return rgb_model(), torch.randn(4, 3, 20, 28, generator=torch.Generator().manual_seed(9))


def test_saliency_and_inputxgrad_are_captums(rgb):
    from captum.attr import InputXGradient, Saliency

    model, x = rgb
    for k in range(3):
        column = torch.full((4, 1), k)
        theirs = Saliency(model.module).attribute(x.clone().requires_grad_(), target=k, abs=False).sum(1)
        ours = run(model, EXPLAINERS["saliency"], x, column).values[:, 0]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
        theirs = InputXGradient(model.module).attribute(x.clone().requires_grad_(), target=k).sum(1).detach()
        ours = run(model, EXPLAINERS["inputxgrad"], x, column).values[:, 0]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_integrated_gradients_are_captums(rgb):
    from captum.attr import IntegratedGradients

    model, x = rgb
    black = make_baseline(model, x, "black")
    maps = run(model, build_integrated_gradients(IntegratedGradientsOptions(steps=20)), x)
    for k in range(3):
        theirs, delta = IntegratedGradients(model.module).attribute(
            x, black, target=k, n_steps=20, return_convergence_delta=True
        )
        torch.testing.assert_close(maps.values[:, k], theirs.sum(1).float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(maps.extras["completeness"][:, k], delta.float(), atol=1e-5, rtol=0)


def test_integrated_gradients_are_complete(rgb):
    model, x = rgb
    for baseline in ("black", "white", "mean", "blur"):
        options = IntegratedGradientsOptions(steps=60, baseline=baseline)
        missing = run(model, build_integrated_gradients(options), x).extras["completeness"]
        assert missing.abs().max() < 1e-4


def test_baselines(rgb):
    model, x = rgb
    torch.testing.assert_close(make_baseline(model, x, "black"), model.prepare(torch.zeros(4, 20, 28)))
    torch.testing.assert_close(make_baseline(model, x, "white"), model.prepare(torch.ones(4, 20, 28)))
    torch.testing.assert_close(make_baseline(model, x, "mean")[:, :, 3, 5], x.mean(dim=(2, 3)))
    blurred = make_baseline(model, x, "blur")
    assert blurred.shape == x.shape
    assert blurred.std() < x.std()


@pytest.mark.parametrize("rule", ["gausslegendre", "midpoint"])
def test_quadrature_integrates(rule):
    points, weights = quadrature(rule, 40)
    assert np.dot(weights, np.exp(points)) == pytest.approx(np.e - 1, rel=1e-4)


def plain_loop(model, x, n, sigma, low, high):
    """Take the gradients of noisy copies, one picture and one sample after the other: ``(n, B, K, H, W)``."""
    out = torch.zeros(n, len(x), 3, *x.shape[2:], dtype=torch.float64)
    for b, (picture, seed) in enumerate(zip(x, SEEDS.tolist(), strict=True)):
        g = torch.Generator().manual_seed(seed)
        values = np.quantile(picture.numpy(), [low, high])
        for i in range(n):
            noise = torch.randn(1, *picture.shape[1:], generator=g)
            noisy = (picture + sigma * float(values[1] - values[0]) * noise)[None].requires_grad_()
            for k in range(3):
                (grad,) = torch.autograd.grad(model.module(noisy)[0, k], noisy)
                out[i, b, k] = grad[0].sum(0)
    return out


@pytest.mark.parametrize(("kind", "low", "high"), [("minmax", 0, 1), ("p1p99", 0.01, 0.99)])
def test_smoothgrad_is_a_plain_loop_over_the_same_noise(rgb, kind, low, high):
    model, x = rgb
    gradients = plain_loop(model, x, 11, 0.2, low, high)
    options = SmoothGradOptions(n=11, sigma=0.2, range=kind)
    expected = {"mean": gradients.mean(0), "square": (gradients**2).mean(0), "variance": gradients.var(0, correction=0)}
    for statistic, values in expected.items():
        ours = run(model, build_smoothgrad(statistic, options), x).values
        torch.testing.assert_close(ours, values.float(), rtol=1e-4, atol=1e-4 * float(values.abs().max()))


def test_noise_is_scaled_per_picture():
    x = torch.stack([torch.linspace(0, 1, 100).view(1, 10, 10), torch.linspace(-5, 5, 100).view(1, 10, 10)])
    x[1, 0, 0, 0] = -1000  # a marker
    assert noise_scale(x, SmoothGradOptions(sigma=0.1, range="minmax")).tolist() == pytest.approx([0.1, 100.5])
    robust = noise_scale(x, SmoothGradOptions(sigma=0.1))
    assert robust[0] == pytest.approx(0.098)
    assert robust[1] < 12


@pytest.mark.parametrize("rows", [1, 3, 8, 100])
@pytest.mark.parametrize("name", ["smoothgrad", "vargrad", "integrated-gradients"])
def test_chunks_change_nothing(cnn, pictures, monkeypatch, name, rows):
    expected = run(cnn, EXPLAINERS[name], pictures).values
    monkeypatch.setattr(gradient, "rows_at_once", lambda _: rows)
    torch.testing.assert_close(
        run(cnn, EXPLAINERS[name], pictures).values, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max())
    )


def test_findings_of_a_picture_share_its_noise(cnn, pictures):
    same = torch.zeros(4, 2, dtype=torch.int64)
    values = run(cnn, EXPLAINERS["smoothgrad"], pictures, same).values
    assert torch.equal(values[:, 0], values[:, 1])


def test_no_sample_more_than_asked_for(cnn, pictures):
    seen = []
    handle = cnn.module.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    run(cnn, EXPLAINERS["smoothgrad"], pictures)
    handle.remove()
    assert sum(seen) == 4 * 5


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_permuted_batch_gives_permuted_maps(cnn, pictures, name):
    order = [2, 0, 3, 1]
    targets = torch.tensor([[0, 1], [2, -1], [1, 0], [2, 0]])
    straight = run(cnn, EXPLAINERS[name], pictures, targets).values
    permuted = run(cnn, EXPLAINERS[name], pictures[order], targets[order], SEEDS[order]).values
    torch.testing.assert_close(permuted, straight[order], rtol=1e-5, atol=1e-6 * float(straight.abs().max()))


@pytest.mark.parametrize("name", EXPLAINERS)
def test_empty_targets_give_zeros(cnn, pictures, name):
    targets = torch.tensor([[0, -1, -1], [-1, 1, -1], [-1, -1, -1], [2, 2, -1]])
    values = run(cnn, EXPLAINERS[name], pictures, targets).values
    present = targets >= 0
    assert values[~present].abs().max() == 0
    assert (values[present].abs().amax(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("name", EXPLAINERS)
def test_constant_logits_give_zeros_and_doubled_ones_double(cnn, pictures, name):
    once = run(cnn, EXPLAINERS[name], pictures).values
    with torch.no_grad():
        cnn.module[-1].weight.mul_(2)
    factor = 4 if name in ("smoothgrad-squared", "vargrad") else 2
    torch.testing.assert_close(run(cnn, EXPLAINERS[name], pictures).values, factor * once)
    nn.init.zeros_(cnn.module[-1].weight)
    assert run(cnn, EXPLAINERS[name], pictures).values.abs().max() == 0


class StartsInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.mul_(2).flatten(1))


class Rounds(StartsInPlace):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.detach().flatten(1))


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_network_may_begin_in_place(name):
    module = StartsInPlace()
    model = wrap_model(module, ["a", "b", "c"], 8)
    x = torch.randn(1, 1, 8, 8)
    before = x.clone()
    values = run(model, EXPLAINERS[name], x, torch.tensor([[1]]), SEEDS[:1]).values
    assert torch.equal(x, before)
    if name == "saliency":
        torch.testing.assert_close(values[0, 0], 2 * module.layer.weight.detach()[1].view(8, 8))


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_network_without_gradients_is_told(name):
    model = wrap_model(Rounds(), ["a", "b", "c"], 8)
    with pytest.raises(UsageError, match="no gradient reaches"):
        run(model, EXPLAINERS[name], torch.randn(1, 1, 8, 8), torch.tensor([[1]]), SEEDS[:1])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("smoothgrad", {"n": 4}),
        ("integrated-gradients", {"steps": 4}),
        ("occlusion", {"window": 120, "stride": 60, "baseline": "black"}),
        ("rise", {"masks": 40}),
        pytest.param("extremal", {"preset": "published", "areas": "0.1", "steps": 8}, marks=pytest.mark.slow),
    ],
)
def test_bf16_is_much_the_same_and_not_the_same(cnn, pictures, method, options):
    spec = load().explainers.find(method)
    maps = {}
    for dtype in ("fp32", "bf16"):
        explainer = spec.build(parse_options(spec.options, {**options, "dtype": dtype}, spec.name))
        with guard(cnn.module):
            maps[dtype] = explainer(cnn, pictures, torch.arange(3).expand(4, 3), torch.arange(4)).values
    assert maps["bf16"].dtype == torch.float32
    assert not torch.equal(maps["bf16"], maps["fp32"])
    pairs = zip(maps["bf16"].flatten(2).flatten(0, 1), maps["fp32"].flatten(2).flatten(0, 1), strict=True)
    assert min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs) > 0.9
