from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from timm.layers import AttentionPoolLatent
from torch import nn
from torch.nn import functional as F

import cxrx
from cxrx.errors import UsageError
from cxrx.explainers.attention import build_attention, build_chefer, build_rollout, captured_pool, pool_weights
from cxrx.explainers.guard import guard
from cxrx.explainers.option_types import AttentionOptions, NoOptions, RolloutOptions
from cxrx.models.load import wrap_model

SIZE = (48, 32)  # a grid of 6 x 4: not square
KINDS = {
    "class-token": {"global_pool": "token"},
    "mean": {"global_pool": "avg", "class_token": False, "fc_norm": True},
    "mean-beside-class-token": {"global_pool": "avg"},
    "registers": {"global_pool": "token", "reg_tokens": 4},
    "attention-pooling": {"global_pool": "map", "class_token": False},
    "attention-pooling-beside-registers": {"global_pool": "map", "reg_tokens": 4},
}
PREFIX = {
    "class-token": 1,
    "mean": 0,
    "mean-beside-class-token": 1,
    "registers": 5,
    "attention-pooling": 0,
    "attention-pooling-beside-registers": 5,
}


def make_model(kind):
    torch.manual_seed(0)
    module = timm.models.VisionTransformer(
        img_size=SIZE, patch_size=8, in_chans=1, embed_dim=24, depth=3, num_heads=2, num_classes=3, **KINDS[kind]
    )
    for block in module.blocks:
        block.attn.qkv.weight.data.mul_(20)  # else attention is nearly uniform
    if module.attn_pool is not None:
        module.attn_pool.latent.data.mul_(20)
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


def readouts(module, x):
    """Return the row ``(B, N)`` with which the head reads the tokens of each picture, in float64."""
    tokens = module.double().forward_features(x.double()).detach()
    rows = np.zeros(tokens.shape[:2])
    patches = tokens[:, module.num_prefix_tokens :]
    if module.global_pool == "token":
        rows[:, 0] = 1
    elif module.global_pool == "avg":
        rows[:, -patches.shape[1] :] = 1 / patches.shape[1]
    else:
        rows[:, -patches.shape[1] :] = pooled_by(module.attn_pool, patches).mean(dim=(1, 2)).numpy()
    return rows


@torch.no_grad()
def pooled_by(pool, tokens):
    """Return the weights ``(B, heads, latents, N)`` of attention pooling: what it makes of unit vectors as values."""
    tokens = tokens if pool.pos_embed is None else tokens + pool.pos_embed
    width = pool.num_heads * pool.head_dim
    q = F.linear(pool.latent.expand(len(tokens), -1, -1), pool.q.weight, pool.q.bias)
    k = F.linear(tokens, pool.kv.weight[:width], None if pool.kv.bias is None else pool.kv.bias[:width])
    q, k = (t.unflatten(2, (pool.num_heads, pool.head_dim)).permute(0, 2, 1, 3) for t in (q, k))
    units = torch.eye(tokens.shape[1], dtype=tokens.dtype).expand(*k.shape[:2], -1, -1)
    return F.scaled_dot_product_attention(pool.q_norm(q), pool.k_norm(k), units)


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
    rows = readouts(model.module, x)
    last = getattr(attention_of(model.module, x)[-1].detach().numpy(), fuse)(axis=1)
    expected = np.stack([(row @ a)[prefix:].reshape(6, 4) for row, a in zip(rows, last, strict=True)])
    for t in range(3):
        np.testing.assert_allclose(ours[:, t], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("fuse", ["mean", "max", "min"])
def test_rollout_is_the_product_of_matrices(vit, x, fuse):
    model, prefix = vit
    ours = run(model, build_rollout(RolloutOptions(fuse)), x)
    rows = readouts(model.module, x)
    layers = [getattr(a.detach().numpy(), fuse)(axis=1) for a in attention_of(model.module, x)]
    count = layers[0].shape[1]
    for b in range(3):
        matrices = [a[b] + np.eye(count) for a in layers]
        matrices = [m / m.sum(axis=1, keepdims=True) for m in matrices]
        expected = product_row(matrices, rows[b])[prefix:].reshape(6, 4)
        np.testing.assert_allclose(ours[b, 0], expected, rtol=1e-4, atol=1e-6)


def test_discarding_keeps_self_and_prefix_and_normalises_again(vit, x):
    model, prefix = vit
    ours = run(model, build_rollout(RolloutOptions(discard=0.5)), x)
    rows = readouts(model.module, x)
    layers = [a.detach().numpy().mean(axis=1) for a in attention_of(model.module, x)]
    count = layers[0].shape[1]
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
        expected = product_row(matrices, rows[b])[prefix:].reshape(6, 4)
        np.testing.assert_allclose(ours[b, 0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_chefer_is_the_product_of_matrices(x, kind):
    prefix = PREFIX[kind]
    ours = run(make_model(kind), build_chefer(NoOptions()), x)
    for k in range(3):
        module = make_model(kind).module
        rows = readouts(module, x)
        layers = attention_of(module, x, target=k)
        relevance = [(a.grad * a).clamp(min=0).mean(dim=1).detach().numpy() for a in layers]
        count = relevance[0].shape[1]
        for b in range(3):
            expected = product_row([np.eye(count) + r[b] for r in relevance], rows[b])[prefix:].reshape(6, 4)
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


def test_raw_attention_unfuses_the_last_block_only(x):
    model = make_model("attention-pooling")
    blocks = [block.attn for block in model.module.blocks]
    flags = []
    for module in [*blocks, model.module.attn_pool]:
        module.fused_attn = True
        module.register_forward_pre_hook(lambda module, _: flags.append(module.fused_attn))
    run(model, build_attention(AttentionOptions()), x)
    assert flags == [True, True, False, True]
    flags.clear()
    run(model, build_rollout(RolloutOptions()), x)
    assert flags == [False, False, False, True]


POOLS = {
    "plain": {},
    "latents": {"latent_len": 3, "pool_type": "avg"},
    "first-latent": {"latent_len": 3, "pool_type": "token"},
    "position": {"pos_embed": "abs", "feat_size": 7},
    "norms": {"qk_norm": True},
    "no-bias": {"qkv_bias": False},
}


def make_pool(name):
    torch.manual_seed(0)
    pool = AttentionPoolLatent(24, num_heads=3, **POOLS[name]).double().eval()
    for parameter in pool.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return pool, torch.randn(2, 7, 24, dtype=torch.float64)


@pytest.mark.parametrize("name", POOLS)
def test_weights_of_attention_pooling_make_its_own_output(name):
    pool, tokens = make_pool(name)
    mixed = []
    pool.proj.register_forward_pre_hook(lambda _module, inputs: mixed.append(inputs[0]))
    pool(tokens)
    weights = pool_weights(pool, tokens)  # (B, heads, latents, N)
    torch.testing.assert_close(weights, pooled_by(pool, tokens))
    assert weights.std(dim=3).min() > 0.01  # not uniform
    v = pool.kv(tokens if pool.pos_embed is None else tokens + pool.pos_embed)[..., 24:]
    v = v.unflatten(2, (3, 8)).transpose(1, 2)
    torch.testing.assert_close((weights @ v).transpose(1, 2).flatten(2), mixed[0])


@pytest.mark.parametrize("name", POOLS)
def test_the_weights_read_are_of_the_latents_that_come_out(name):
    model = make_model("attention-pooling")
    model.module.attn_pool, tokens = make_pool(name)
    with captured_pool(model.module) as pool:
        model.module.attn_pool(tokens)
    latents = pooled_by(model.module.attn_pool, tokens).mean(dim=1)
    expected = latents[:, 0] if name == "first-latent" else latents.mean(dim=1)
    assert len(pool) == 1
    torch.testing.assert_close(pool[0], expected.float())
    assert not model.module.attn_pool._forward_pre_hooks


def test_what_has_no_attention_is_told(cnn, pictures):
    with pytest.raises(UsageError, match="no vision transformer"):
        run(cnn, build_rollout(RolloutOptions()), pictures)


@pytest.mark.parametrize("explainer", [build_attention(AttentionOptions()), build_chefer(NoOptions())])
@pytest.mark.parametrize("pooling", ["max", "avgmax", "prr"])
def test_other_pooling_is_refused_before_the_network_runs(pooling, explainer, pictures):
    module = timm.models.VisionTransformer(
        img_size=32, patch_size=8, in_chans=1, embed_dim=24, depth=1, num_heads=2, num_classes=3, global_pool=pooling
    )
    calls = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(UsageError, match=f"pooling '{pooling}'"):
        run(wrap_model(module, ["a", "b", "c"], 32), explainer, pictures)
    assert not calls


# ---------------------------------------------------------------------------------------------------------------------
# Tokens that are not the plain ones


def test_two_class_tokens_are_read_half_each(x):
    torch.manual_seed(0)
    module = timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=SIZE, patch_size=8, in_chans=1, embed_dim=24, depth=2, num_heads=2,
        num_classes=3,
    )  # fmt: skip
    for block in module.blocks:
        block.attn.qkv.weight.data.mul_(20)
    model = wrap_model(module, ["a", "b", "c"], SIZE)
    found = run(model, build_rollout(RolloutOptions()), x[:1])[0, 0]
    product = identity = torch.eye(26, dtype=torch.float64)
    for a in attention_of(model.module, x[:1]):
        matrix = a.mean(dim=1)[0] + identity
        product = matrix / matrix.sum(dim=1, keepdim=True) @ product
    expected = product[:2].mean(dim=0)[2:].view(6, 4).detach()
    torch.testing.assert_close(torch.as_tensor(found).double(), expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(product[0, 2:], product[1, 2:], rtol=1e-2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tnt_s_patch16_224", {"depth": 2}),  # attends to pixels too
        ("cait_xxs24_224", {"depth": 2}),  # class token in blocks of its own
        ("xcit_nano_12_p16_224", {"depth": 2}),  # of channels to channels
        ("convit_tiny", {"depth": 3, "local_up_to_layer": 2}),  # the class token joins later
        ("vit_small_patch16_18x2_224", {"depth": 1, "embed_dim": 48, "num_heads": 2}),  # two beside each other
    ],
)
@pytest.mark.parametrize("method", ["attention", "rollout", "chefer"])
def test_attention_of_other_kinds_is_refused_naming_what_fits(name, options, method):
    network = timm.create_model(
        name, in_chans=1, num_classes=2, **({} if "xcit" in name else {"img_size": 64}), **options
    )
    model = wrap_model(network, ["a", "b"], 64)
    if (name, method) == ("convit_tiny", "attention"):
        return  # its last layer is a plain one
    with pytest.raises(UsageError, match="attention") as error:
        cxrx.explain(model, torch.zeros(1, 1, 64, 64), method)
    assert "saliency" in error.value.hint
    assert "rollout" not in error.value.hint
