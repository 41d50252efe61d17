"""Expected maps come from a second implementation: rules through autograd, whole matrices, one picture at a time."""

from __future__ import annotations

import weakref
from functools import partial

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn
from torch.nn import functional as F

from cxrx.errors import UsageError
from cxrx.explainers import relevance
from cxrx.explainers.attention import captured_attention
from cxrx.explainers.fit import check_fit
from cxrx.explainers.guard import guard
from cxrx.explainers.option_types import NoOptions
from cxrx.explainers.relevance import build_chefer_lrp, divide, linear_rule, product_rule, sum_rule
from cxrx.models.load import wrap_model
from cxrx.models.model import Model
from cxrx.registry import load
from cxrx.specs import InputSpec
from cxrx.testing import check_explainer

SIZE, GRID = (32, 48), (4, 6)
LABELS = ["a", "b", "c"]
SPEC = load().explainers.find("chefer-lrp")
KINDS = {
    "class-token": {},
    "mean": {"global_pool": "avg", "class_token": False, "fc_norm": True},
    "mean-beside-class-token": {"global_pool": "avg", "fc_norm": False},
    "mean-with-prefix": {"global_pool": "avg", "pool_include_prefix": True},
    "registers": {"reg_tokens": 4},
    "layer-scale": {"init_values": 0.1},
    "no-qkv-bias": {"qkv_bias": False},
    "norms": {"qk_norm": True, "scale_attn_norm": True, "scale_mlp_norm": True, "pre_norm": True},
}


def make_transformer(outputs=3, seed=0, **options):
    options = {"img_size": SIZE, "patch_size": 8, "in_chans": 1, "embed_dim": 24, "depth": 3, "num_heads": 2} | options
    torch.manual_seed(seed)
    transformer = timm.models.VisionTransformer(mlp_ratio=2, num_classes=outputs, **options)
    for parameter in transformer.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)  # biases, norms and tokens that matter
    nn.init.normal_(transformer.head.weight, std=50)  # gradients that stand out against the identities
    return transformer


def make_model(kind="class-token"):
    return wrap_model(make_transformer(**KINDS[kind]), LABELS, SIZE)


@pytest.fixture
def x():
    return torch.randn(3, 1, *SIZE, generator=torch.Generator().manual_seed(1))


def run(model, x, targets=None):
    targets = torch.arange(len(model.labels)).expand(len(x), -1) if targets is None else targets
    with guard(model.module):
        return build_chefer_lrp(NoOptions())(model, x, targets, torch.zeros(len(x), dtype=torch.int64)).values


# ---------------------------------------------------------------------------------------------------------------------
# The second implementation


def quotient(a, b):
    return np.divide(a, b + 1e-9 * np.sign(b), out=np.zeros_like(b), where=b != 0)


def back(f, inputs, r):
    """Return input * d<f(inputs), r / f(inputs)>/d(input) for all inputs: how a relevance passes any bilinear f."""
    leaves = [i.detach().clone().requires_grad_() for i in inputs]
    with torch.enable_grad():
        z = f(*leaves)
        s = torch.from_numpy(quotient(r.numpy(), z.detach().numpy()))
        gradients = torch.autograd.grad(z, leaves, s)
    return [leaf.detach() * gradient for leaf, gradient in zip(leaves, gradients, strict=True)]


def back_linear(layer, x, r):
    def positive_part(above, below):
        return F.linear(above, layer.weight.clamp(min=0)) + F.linear(below, layer.weight.clamp(max=0))

    return sum(back(positive_part, (x.clamp(min=0), x.clamp(max=0)), r))


def back_sum(a, b, r):
    ra, rb = back(torch.add, (a, b), r)
    whole = abs(ra.sum()) + abs(rb.sum())
    return [part * (abs(part.sum()) / whole * r.sum() / part.sum()) for part in (ra, rb)]


class Layer:
    """A block taken apart: its forward pass by hand, and the way back."""

    def __init__(self, block, x):
        attn, self.block, self.x = block.attn, block, x
        self.heads = lambda t: t.unflatten(2, (attn.num_heads, -1)).transpose(1, 2)
        self.normed = block.norm1(x)
        q, k, v = (self.heads(t) for t in attn.qkv(self.normed).tensor_split(3, dim=2))
        self.q, self.k, self.v = attn.q_norm(q), attn.k_norm(k), v
        self.a = torch.softmax(self.q @ self.k.mT / attn.head_dim**0.5, dim=3)
        self.a.retain_grad()
        self.mixed = attn.norm((self.a @ v).transpose(1, 2).flatten(2))
        self.branch1 = block.ls1(attn.proj(self.mixed))
        self.middle = x + self.branch1
        self.normed2 = block.norm2(self.middle)
        self.hidden = block.mlp.norm(block.mlp.act(block.mlp.fc1(self.normed2)))
        self.branch2 = block.ls2(block.mlp.fc2(self.hidden))
        self.out = self.middle + self.branch2

    def relevance(self, r):
        """Return the relevance of the input and of the attention."""
        mlp, attn = self.block.mlp, self.block.attn
        skip, branch = back_sum(self.middle, self.branch2, r)
        r = skip + back_linear(mlp.fc1, self.normed2, back_linear(mlp.fc2, self.hidden, branch))
        skip, branch = back_sum(self.x, self.branch1, r)
        ra, rv = (
            t / 2 for t in back(torch.matmul, (self.a, self.v), self.heads(back_linear(attn.proj, self.mixed, branch)))
        )
        rq, rk = (t / 2 for t in back(lambda q, k: torch.einsum("bhid,bhjd->bhij", q, k), (self.q, self.k), ra))
        joined = torch.cat([t.transpose(1, 2).flatten(2) for t in (rq, rk, rv)], dim=2)
        return skip + back_linear(attn.qkv, self.normed, joined), ra


def expected_map(transformer, picture, start):
    """Return the map ``GRID`` of the logit ``start @ scores`` of one picture ``(1, C, H, W)``."""
    vit = transformer.double()
    head = nn.Linear(vit.embed_dim, 1, bias=False)
    head.weight = nn.Parameter(start.double()[None] @ vit.head.weight.detach())
    with torch.enable_grad():
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(picture.double()))).detach().requires_grad_()
        layers = []
        for block in vit.blocks:
            layers.append(Layer(block, layers[-1].out if layers else tokens))
        normed = vit.norm(layers[-1].out)
        prefix = vit.num_prefix_tokens
        first = 0 if vit.pool_include_prefix else prefix
        pooled = normed[:, 0] if vit.global_pool == "token" else normed[:, first:].mean(dim=1)
        vector = vit.fc_norm(pooled)
        head(vector).sum().backward()
    count = normed.shape[1]
    with torch.no_grad():
        r = back_linear(head, vector, torch.ones(1, 1, dtype=torch.float64))
        read = torch.zeros(count, dtype=torch.float64)
        if vit.global_pool == "token":
            (r,) = back(lambda t: t[:, 0], [normed], r)
            read[0] = 1
        else:
            (r,) = back(lambda t: t[:, first:].mean(dim=1), [normed], r)
            read[first:] = 1 / (count - first)
        product = torch.eye(count, dtype=torch.float64)
        for layer in reversed(layers):
            r, ra = layer.relevance(r)
            product = product @ (torch.eye(count) + (layer.a.grad * ra).clamp(min=0).mean(dim=1)[0])
    return (read @ product)[prefix:].reshape(GRID).numpy()


def assert_same(ours, expected):
    assert np.ptp(expected) > 1e-3  # else there would be nothing to compare
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.ptp(expected))


# ---------------------------------------------------------------------------------------------------------------------
# Maps


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_second_implementation_one_by_one(kind, x):
    ours = run(make_model(kind), x)
    assert ours.shape == (3, 3, *GRID)
    for b in range(3):
        for k in range(3):
            start = F.one_hot(torch.tensor(k), 3)
            assert_same(ours[b, k], expected_map(make_transformer(**KINDS[kind]), x[b : b + 1], start))


def test_two_class_softmax_of_one_label_is_read_as_the_difference(x):
    spec = InputSpec(size=SIZE, channels=1)
    model = Model(make_transformer(outputs=2), ["a"], spec, name="pair", activation="softmax")
    ours = run(model, x)
    for b in range(3):
        expected = expected_map(make_transformer(outputs=2), x[b : b + 1], torch.tensor([-1.0, 1.0]))
        assert_same(ours[b, 0], expected)


class Wrapped(nn.Module):
    """Half the picture's contrast in front, and an operation in place behind, of a transformer."""

    def __init__(self, transformer):
        super().__init__()
        self.inner = transformer

    def forward(self, x):
        return self.inner(x.mul_(0.5)).mul_(torch.tensor([1.0, -2.0, 3.0]))


def test_a_wrapped_transformer_gets_what_its_wrapper_gives_it(x):
    ours = run(wrap_model(Wrapped(make_transformer()), LABELS, SIZE), x)
    for k, factor in enumerate([1.0, -2.0, 3.0]):
        start = factor * F.one_hot(torch.tensor(k), 3)
        assert_same(ours[1, k], expected_map(make_transformer(), 0.5 * x[1:2], start))


@pytest.mark.parametrize("kind", ["class-token", "mean"])
def test_a_batch_is_its_pictures_one_by_one_in_any_order(kind, x):
    model = make_model(kind)
    together = run(model, x)
    alone = torch.cat([run(model, picture[None]) for picture in x])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(run(model, x[[2, 0, 1]]), together[[2, 0, 1]], rtol=1e-6, atol=1e-9)


def test_findings_differ_and_do_not_depend_on_each_other(x):
    model = make_model()
    values = run(model, x)
    assert values.min() >= 0
    for k, other in ((0, 1), (0, 2), (1, 2)):
        assert (values[:, k] - values[:, other]).abs().max() > 0.1 * values[:, k].max()
        torch.testing.assert_close(run(model, x, torch.full((3, 1), k))[:, 0], values[:, k], rtol=1e-6, atol=1e-9)


def test_empty_targets(x):
    model = make_model()
    targets = torch.tensor([[0, -1, -1], [-1, 2, -1], [-1, -1, -1]])
    values, every = run(model, x, targets), run(model, x)
    assert values[targets < 0].abs().max() == 0
    torch.testing.assert_close(values[0, 0], every[0, 0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(values[1, 1], every[1, 2], rtol=1e-6, atol=1e-9)
    none = run(model, x, torch.full((3, 2), -1))
    assert none.shape == (3, 2, *GRID)
    assert none.abs().max() == 0


@pytest.mark.parametrize("kind", ["class-token", "mean"])
def test_constant_logits_have_no_relevance(kind, x):
    model = make_model(kind)
    nn.init.zeros_(model.module.head.weight)
    # Nothing but the identities is left: a class token then reads no patch, a mean all of them alike.
    everywhere = 0.0 if kind == "class-token" else 1 / (GRID[0] * GRID[1])
    torch.testing.assert_close(run(model, x), torch.full((3, 3, *GRID), everywhere))


def test_a_blank_picture_and_dead_weights_give_no_nan(x):
    transformer = make_transformer(qkv_bias=False)
    for parameter in transformer.parameters():
        parameter.data.zero_()
    assert run(wrap_model(transformer, LABELS, SIZE), torch.zeros_like(x)).abs().max() == 0


def test_the_network_is_left_as_it_was(x):
    model = make_model()
    weights = {name: value.clone() for name, value in model.module.state_dict().items()}
    given = x.clone()
    run(model, given)
    assert torch.equal(given, x)
    for name, value in model.module.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights[name])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.module.modules())


def test_one_block_at_a_time_is_in_memory(x, monkeypatch):
    alive, counts = weakref.WeakSet(), []

    class Rules(relevance.BlockRules):
        def __init__(self, *arguments):
            alive.add(self)
            counts.append(len(alive))
            super().__init__(*arguments)

    monkeypatch.setattr(relevance, "BlockRules", Rules)
    run(make_model(), x)
    assert counts == [1, 1, 1]


def test_conformance():
    outcomes = check_explainer(SPEC)
    assert {outcome.check for outcome in outcomes} >= {"alone", "batch order", "neighbours", "model intact"}
    assert not [outcome for outcome in outcomes if not outcome.passed]


# ---------------------------------------------------------------------------------------------------------------------
# What does not fit


def gated(transformer):
    for block in transformer.blocks:
        block.attn.gate = nn.Linear(24, 24)
    return transformer


def misfits():
    tiny = {"img_size": 32, "in_chans": 1, "num_classes": 3}
    vit = partial(timm.models.VisionTransformer, **tiny, patch_size=8, embed_dim=24, depth=2, num_heads=2)
    return {
        "swin": timm.models.SwinTransformer(
            **tiny, patch_size=2, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 1)
        ),
        "cnn": nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        "gated": gated(vit()),
        "attention-pooling": vit(global_pool="map"),
        "parallel": vit(block_fn=ParallelScalingBlock),
    }


@pytest.mark.parametrize("name", ["swin", "cnn", "gated", "attention-pooling", "parallel"])
def test_other_networks_are_refused(name):
    with pytest.raises(UsageError, match=r"chefer-lrp needs .*plain transformer blocks"):
        check_fit(wrap_model(misfits()[name], LABELS, 32), SPEC)


def test_plain_transformers_fit():
    check_fit(make_model(), SPEC)


class Twice(nn.Module):
    def __init__(self, transformer):
        super().__init__()
        self.inner = transformer

    def forward(self, x):
        return self.inner(x) + self.inner(x.flip(3))


class Detached(Twice):
    def forward(self, x):
        return self.inner(x).detach()


class Headless(Twice):
    def forward(self, x):
        return self.inner.forward_features(x)[:, 0, :3]


@pytest.mark.parametrize(("wrapper", "message"), [(Twice, "once"), (Headless, "once"), (Detached, "no gradient")])
def test_networks_that_use_their_transformer_otherwise_are_told(wrapper, message, x):
    with pytest.raises(UsageError, match=message):
        run(wrap_model(wrapper(make_transformer()), LABELS, SIZE), x)


# ---------------------------------------------------------------------------------------------------------------------
# Rules


def draw(seed, *shape):
    """Return values of both signs, none near zero."""
    noise = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, shape, generator=noise) * 2 - 1
    return sign * (0.1 + torch.rand(shape, generator=noise, dtype=torch.float64))


seeds, sizes = st.integers(0, 2**31), st.integers(1, 6)
quickly = settings(max_examples=40, deadline=None)


@quickly
@given(seeds, sizes, sizes, sizes)
def test_a_linear_layer_keeps_what_something_raised(seed, tokens, inputs, outputs):
    x, weight, r = draw(seed, 2, tokens, inputs), draw(seed + 1, outputs, inputs), draw(seed + 2, 2, tokens, outputs)
    raised = ((x[..., None, :] * weight) > 0).any(dim=-1)  # (2, tokens, outputs)
    passed = linear_rule(weight, x)(r)
    torch.testing.assert_close(passed.sum(dim=-1), (r * raised).sum(dim=-1), rtol=1e-6, atol=1e-6)


def test_a_linear_layer_by_hand():
    weight, x = torch.tensor([[2.0, -1.0, 1.0]]), torch.tensor([[3.0, -4.0, -5.0]])
    # contributions 6, 4 and -5: the last takes no part
    torch.testing.assert_close(linear_rule(weight, x)(torch.tensor([[5.0]])), torch.tensor([[3.0, 2.0, 0.0]]))


@quickly
@given(seeds, sizes, sizes, sizes)
def test_a_product_gives_each_factor_half(seed, rows, inner, columns):
    a, b, r = (
        draw(seed, 2, rows, inner).abs(),
        draw(seed + 1, 2, inner, columns).abs(),
        draw(seed + 2, 2, rows, columns),
    )
    for part in product_rule(a, b)(r):
        torch.testing.assert_close(part.sum(dim=(1, 2)), r.sum(dim=(1, 2)) / 2, rtol=1e-6, atol=1e-6)


def test_a_product_by_hand():
    a, b = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0], [1.0]])
    at_a, at_b = product_rule(a, b)(torch.tensor([[10.0]]))  # 2 + 3 = 5
    torch.testing.assert_close(at_a, torch.tensor([[2.0, 3.0]]))
    torch.testing.assert_close(at_b, torch.tensor([[2.0], [3.0]]))


@quickly
@given(seeds, sizes, sizes)
def test_a_sum_keeps_every_pictures_total(seed, tokens, channels):
    a, b, r = (draw(seed + i, 3, tokens, channels) for i in range(3))
    parts = sum_rule(a, b)(r)
    scale = max(1.0, *(float(part.abs().max()) for part in parts))
    torch.testing.assert_close(sum(parts).sum(dim=(1, 2)), r.sum(dim=(1, 2)), rtol=1e-6, atol=1e-9 * scale)
    for i in range(3):
        alone = sum_rule(a[i : i + 1], b[i : i + 1])(r[i : i + 1])
        for part, one in zip(parts, alone, strict=True):
            torch.testing.assert_close(part[i : i + 1], one)


def test_a_sum_by_hand():
    a, b = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, -2.0]])
    at_a, at_b = sum_rule(a, b)(torch.tensor([[4.0, 2.0]]))
    # s = 1 and -2; shares (3, -2) and (1, 4) sum to 1 and 5; scaled to 6 * 1/6 and 6 * 5/6
    torch.testing.assert_close(at_a, torch.tensor([[3.0, -2.0]]))
    torch.testing.assert_close(at_b, torch.tensor([[1.0, 4.0]]))
    at_a, at_b = sum_rule(a, b)(torch.tensor([[4.0, 4.0]]))
    # s = 1 and -4; shares (3, -4) and (1, 8) sum to -1 and 9; scaled to 8 * 1/10 and 8 * 9/10
    torch.testing.assert_close(at_a, torch.tensor([[-2.4, 3.2]]))
    torch.testing.assert_close(at_b, torch.tensor([[0.8, 6.4]]))


def test_division_by_nothing_is_nothing():
    a, b, expected = torch.tensor(
        [[1.0, -1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1e-9, -1e-9], [0.0, 0.0, 0.0, 5e8, -5e8]],
        dtype=torch.float64,
    )
    torch.testing.assert_close(divide(a, b), expected, rtol=1e-12, atol=0)


def test_attention_is_fused_elsewhere():
    transformer = make_transformer()
    with captured_attention(transformer.blocks[1]):
        assert not transformer.blocks[1].attn.fused_attn
        assert transformer.blocks[0].attn.fused_attn
