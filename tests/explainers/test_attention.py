from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from cxrx.errors import UsageError
from cxrx.explainers.attention import build_attention, build_chefer, build_rollout
from cxrx.explainers.guard import guard
from cxrx.explainers.specs import AttentionOptions, NoOptions, RolloutOptions
from cxrx.models.load import wrap_model

SIZE = (48, 32)  # a grid of 6 x 4: not square
KINDS = {
    "class-token": {"global_pool": "token"},
    "mean": {"global_pool": "avg", "class_token": False, "fc_norm": True},
    "mean-beside-class-token": {"global_pool": "avg"},
    "registers": {"global_pool": "token", "reg_tokens": 4},
}
PREFIX = {"class-token": 1, "mean": 0, "mean-beside-class-token": 1, "registers": 5}


def make_model(kind):
    torch.manual_seed(0)
    module = timm.models.VisionTransformer(
        img_size=SIZE, patch_size=8, in_chans=1, embed_dim=24, depth=3, num_heads=2, num_classes=3, **KINDS[kind]
    )
    for block in module.blocks:
        block.attn.qkv.weight.data.mul_(20)  # else attention is nearly uniform
    nn.init.normal_(module.head.weight)
    return wrap_model(module, ["a", "b", "c"], SIZE)


@pytest.fixture(params=KINDS)
def vit(request):
    return make_model(request.param), PREFIX[request.param]


@pytest.fixture
def x():
    return torch.randn(3, 1, *SIZE, generator=torch.Generator().manual_seed(1))


def run(model, explainer, x, targets=None):
    targets = torch.arange(3).expand(len(x), 3) if targets is None else targets
    with guard(model.module):
        return explainer(model, x, targets, torch.zeros(len(x), dtype=torch.int64)).values


def attention_of(module, x, target=None):
    """Return the softmax of every layer, computed from its input, and the gradients of a logit by it, in float64."""
    found = []

    def hook(_module, _inputs, output):
        output.retain_grad()
        found.append(output)

    for block in module.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(hook)
    logits = module.double()(x.double())
    if target is not None:
        logits[:, target].sum().backward()
    return found


def readout(kind_prefix, pooling, count):
    row = np.zeros(count)
    if pooling == "token":
        row[0] = 1
    else:
        row[kind_prefix:] = 1 / (count - kind_prefix)
    return row


def product_row(matrices, row):
    """Multiply the whole matrices, first layer first, and read the row."""
    whole = np.eye(len(row))
    for matrix in matrices:
        whole = matrix @ whole
    return row @ whole


@pytest.mark.parametrize("fuse", ["mean", "max"])
def test_attention_is_the_row_of_the_last_layer(vit, x, fuse):
    model, prefix = vit
    ours = run(model, build_attention(AttentionOptions(fuse)), x)
    last = getattr(attention_of(model.module, x)[-1].detach().numpy(), fuse)(axis=1)
    row = readout(prefix, model.module.global_pool, last.shape[1])
    expected = np.stack([(row @ a)[prefix:].reshape(6, 4) for a in last])
    for t in range(3):
        np.testing.assert_allclose(ours[:, t], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("fuse", ["mean", "max", "min"])
def test_rollout_is_the_product_of_matrices(vit, x, fuse):
    model, prefix = vit
    ours = run(model, build_rollout(RolloutOptions(fuse)), x)
    layers = [getattr(a.detach().numpy(), fuse)(axis=1) for a in attention_of(model.module, x)]
    count = layers[0].shape[1]
    row = readout(prefix, model.module.global_pool, count)
    for b in range(3):
        matrices = [a[b] + np.eye(count) for a in layers]
        matrices = [m / m.sum(axis=1, keepdims=True) for m in matrices]
        expected = product_row(matrices, row)[prefix:].reshape(6, 4)
        np.testing.assert_allclose(ours[b, 0], expected, rtol=1e-4, atol=1e-6)


def test_discarding_keeps_self_and_prefix_and_normalises_again(vit, x):
    model, prefix = vit
    ours = run(model, build_rollout(RolloutOptions(discard=0.5)), x)
    layers = [a.detach().numpy().mean(axis=1) for a in attention_of(model.module, x)]
    count = layers[0].shape[1]
    row = readout(prefix, model.module.global_pool, count)
    for b in range(3):
        matrices = []
        for a in layers:
            m = a[b].copy()
            for i in range(count):
                loose = [j for j in range(prefix, count) if j != i]
                lowest = sorted(loose, key=lambda j: m[i, j])[: int(0.5 * (count - prefix - 1))]
                m[i, lowest] = 0
            m += np.eye(count)
            matrices.append(m / m.sum(axis=1, keepdims=True))
        expected = product_row(matrices, row)[prefix:].reshape(6, 4)
        np.testing.assert_allclose(ours[b, 0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_chefer_is_the_product_of_matrices(x, kind):
    prefix = PREFIX[kind]
    ours = run(make_model(kind), build_chefer(NoOptions()), x)
    for k in range(3):
        module = make_model(kind).module
        layers = attention_of(module, x, target=k)
        relevance = [(a.grad * a).clamp(min=0).mean(dim=1).detach().numpy() for a in layers]
        count = relevance[0].shape[1]
        row = readout(prefix, module.global_pool, count)
        for b in range(3):
            expected = product_row([np.eye(count) + r[b] for r in relevance], row)[prefix:].reshape(6, 4)
            scale = expected.max() - expected.min()
            np.testing.assert_allclose(ours[b, k], expected, rtol=1e-4, atol=1e-5 * scale + 1e-9)


@pytest.mark.parametrize(
    "explainer", [build_attention(AttentionOptions()), build_rollout(RolloutOptions()), build_chefer(NoOptions())]
)
def test_empty_targets_and_order(x, explainer):
    model = make_model("registers")
    targets = torch.tensor([[0, -1, -1], [-1, 2, -1], [-1, -1, -1]])
    values = run(model, explainer, x, targets)
    assert values.shape == (3, 3, 6, 4)
    assert values[targets < 0].abs().max() == 0
    assert (values[targets >= 0].amax(dim=(1, 2)) > 0).all()
    order = [2, 0, 1]
    torch.testing.assert_close(run(model, explainer, x[order], targets[order]), values[order], rtol=1e-5, atol=1e-7)
    none = run(model, explainer, x, torch.full((3, 1), -1))
    assert none.shape == (3, 1, 6, 4)
    assert none.abs().max() == 0


def test_attention_is_fused_again_afterwards(x):
    model = make_model("class-token")
    flags = [block.attn.fused_attn for block in model.module.blocks]
    run(model, build_chefer(NoOptions()), x)
    assert [block.attn.fused_attn for block in model.module.blocks] == flags
    assert not any(block.attn.attn_drop._forward_hooks for block in model.module.blocks)


def test_what_has_no_attention_is_told(cnn, pictures):
    with pytest.raises(UsageError, match="no vision transformer"):
        run(cnn, build_rollout(RolloutOptions()), pictures)
    pooled = timm.models.VisionTransformer(
        img_size=32, patch_size=8, in_chans=1, embed_dim=24, depth=1, num_heads=2, num_classes=3, global_pool="max"
    )
    with pytest.raises(UsageError, match="pooling 'max'"):
        run(wrap_model(pooled, ["a", "b", "c"], 32), build_chefer(NoOptions()), pictures)
