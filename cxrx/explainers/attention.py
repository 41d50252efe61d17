"""The attention family: which patches a vision transformer's logit is read from, through its attention matrices.

A is a layer's attention ``(B, heads, N, N)`` after the softmax, N counting prefix tokens and patches. Each method
makes one non-negative matrix M ``(B, N, N)`` of every layer, and the map is the row of their product that the head
reads. Only that row is kept: ``r ← r M`` from the last layer to the first costs O(L·N²), the product O(L·N³).

What the head reads is its pooling: ``token``, the class token, row 0, or the mean of rows 0 and 1 where a
distillation token has a head of its own; ``avg``, the mean of the patches' rows; ``map``,
attention pooling, the rows weighed by the pool's own attention. Any other pooling is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cxrx.errors import UsageError
from cxrx.explainers.fit import fitting, leads_back, no_gradient
from cxrx.explainers.gradient import column_gradients
from cxrx.explainers.targets import EMPTY
from cxrx.models.layers import find_transformer, patch_grid, token_grid
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from cxrx.explainers.option_types import AttentionOptions, NoOptions, RolloutOptions
    from cxrx.models.model import Model


def build_attention(options: AttentionOptions) -> Explainer:
    """Return the last layer's attention to the patches; the same for every finding."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        transformer = transformer_of(model)
        last_block: nn.Module = transformer.blocks[-1]  # type: ignore[index, assignment]
        with torch.no_grad(), captured_pool(transformer) as pool, captured_attention(last_block) as layers:
            model.forward(x.clone())
        _check_layout(model, transformer, layers, x)
        last = _fuse(layers[-1].float(), options.fuse)
        return Maps(_for_all(targets, to_grid(transformer, x, readout(transformer, last, pool) @ last)))

    return explain


def build_rollout(options: RolloutOptions) -> Explainer:
    """Return attention rollout (Abnar and Zuidema 2020, equation 1); the same for every finding."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        transformer = transformer_of(model)
        with torch.no_grad(), captured_pool(transformer) as pool, captured_attention(transformer) as layers:
            model.forward(x.clone())
        _check_layout(model, transformer, layers, x)
        matrices = [_with_residual(_fuse(a.float(), options.fuse), transformer, options.discard) for a in layers]
        return Maps(_for_all(targets, to_grid(transformer, x, _read(transformer, matrices, pool))))

    return explain


def build_chefer(_options: NoOptions) -> Explainer:
    """Return the generic relevance of Chefer et al., ICCV 2021 (equations 5 and 6): R ← R + mean_h ReLU(∇A ⊙ A) R."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        transformer = transformer_of(model)
        relevance: dict[int, torch.Tensor] = {}

        def reduce(layer: int, attention: torch.Tensor) -> torch.Tensor:
            # The graph begins at the first attention: below it there is nothing to find. Every gradient is reduced
            # to one matrix the moment it exists; kept for all heads and layers they would fill the memory.
            root = attention if attention.requires_grad else attention.detach().requires_grad_()
            hook = partial(_keep_reduced, relevance, layer, root.detach())
            root.register_hook(hook)  # type: ignore[no-untyped-call]
            return root

        with captured_pool(transformer) as pool, captured_attention(transformer, reduce) as layers:
            logits = model.forward(x.clone())
            _check_layout(model, transformer, layers, x)
            if not leads_back(logits):
                raise no_gradient(_DETACHED)
            empty = layers[0].new_zeros(len(x), 1, layers[0].shape[2], dtype=torch.float32)
            values = _for_all(targets, to_grid(transformer, x, empty))
            for t, _ in column_gradients(logits, targets, layers[0]):
                if len(relevance) < len(layers):
                    raise no_gradient(_DETACHED)
                matrices = [_add_identity(relevance[layer]) for layer in range(len(layers))]
                values[:, t] = to_grid(transformer, x, _read(transformer, matrices, pool))
        return Maps(values * (targets != EMPTY)[:, :, None, None])

    return explain


_DETACHED = "no gradient reaches the attention of this network: something above it detaches"

# ---------------------------------------------------------------------------------------------------------------------
# Matrices of a layer


def _fuse(attention: torch.Tensor, how: str) -> torch.Tensor:
    """Return ``(B, N, N)`` of heads fused by mean, max or min."""
    if how == "mean":
        return attention.mean(dim=1)
    return attention.amax(dim=1) if how == "max" else attention.amin(dim=1)


def _with_residual(attention: torch.Tensor, transformer: nn.Module, discard: float) -> torch.Tensor:
    """Return row_norm(A + I) ``(B, N, N)``, the lowest part `discard` of every row's patches set to 0 before.

    What a token gives itself and what prefix tokens give is never discarded.
    """
    count = attention.shape[1]
    if discard > 0:
        prefix = _prefix(transformer)
        loose = ~torch.eye(count, dtype=torch.bool, device=attention.device)
        loose[:, :prefix] = False
        lowest = int(discard * (count - prefix - 1))
        order = attention.masked_fill(~loose, torch.inf).argsort(dim=2)
        attention = attention.scatter(2, order[:, :, :lowest], 0.0)
    total = _add_identity(attention)
    return total / total.sum(dim=2, keepdim=True)


def _keep_reduced(
    kept: dict[int, torch.Tensor], layer: int, attention: torch.Tensor, gradient: torch.Tensor | None
) -> None:
    if gradient is None:  # an operation above has none
        raise no_gradient(_DETACHED)
    kept[layer] = (gradient.float() * attention.float()).clamp(min=0).mean(dim=1)


def _add_identity(matrix: torch.Tensor) -> torch.Tensor:
    return matrix + torch.eye(matrix.shape[1], device=matrix.device, dtype=matrix.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# From matrices to a map


def _read(transformer: nn.Module, matrices: Sequence[torch.Tensor], pool: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the row ``(B, 1, N)`` of the matrices' product M_L ... M_1 that the head reads."""
    row = readout(transformer, matrices[-1], pool)
    for matrix in reversed(matrices):
        row = row @ matrix
    return row


def readout(transformer: nn.Module, tokens: torch.Tensor, pool: Sequence[torch.Tensor] = ()) -> torch.Tensor:
    """Return how the head weighs the N tokens, ``(1, 1, N)`` or, with attention pooling, ``(B, 1, N)``.

    Parameters
    ----------
    tokens
        ``(B, N, ...)``; the row is on its device and of its type.
    pool
        What `captured_pool` collected.
    """
    check_pooling(transformer)
    count = tokens.shape[1]
    if transformer.global_pool == "map":
        weights = pool[-1].to(tokens)  # (B, n), the last n tokens: timm's ViT leaves the prefix out, its EVA does not
        return nn.functional.pad(weights, (count - weights.shape[1], 0))[:, None]
    weight = tokens.new_zeros(1, 1, count)
    if transformer.global_pool == "token":
        heads = 2 if hasattr(transformer, "head_dist") else 1  # DeiT's distilled: the mean of two tokens' heads
        weight[..., :heads] = 1 / heads
    else:
        first = first_pooled(transformer)
        weight[..., first:] = 1 / (count - first)
    return weight


def _check_layout(model: Model, transformer: nn.Module, layers: Sequence[torch.Tensor], x: torch.Tensor) -> None:
    """Raise UsageError, naming the methods that fit, unless every layer attends to all patches and prefix tokens."""
    h, w = patch_grid(transformer, (x.shape[2], x.shape[3])) or (0, 0)
    count = _prefix(transformer) + h * w
    odd = next((tuple(a.shape) for a in layers if (len(a), *a.shape[2:]) != (len(x), count, count)), None)
    if odd is not None:
        tokens = f"{h}x{w} patches and {_prefix(transformer)} more" if h else "whose grid the network does not tell"
        raise UsageError(
            f"attention of shape {odd} is not that of all tokens to each other, {tokens}",
            fitting(model.offers() - {"attention"}),
        )


def check_pooling(transformer: nn.Module) -> None:
    """Raise UsageError unless it is known how the head's pooling weighs the tokens."""
    from timm.layers.attention_pool import AttentionPoolLatent

    pooling: Any = getattr(transformer, "global_pool", None)
    if pooling in ("token", "avg") or (pooling == "map" and isinstance(transformer.attn_pool, AttentionPoolLatent)):
        return
    raise UsageError(
        f"attention methods read class tokens, mean pooling and attention pooling, not the pooling {pooling!r}",
        "use a CAM or a gradient method, which do with any",
    )


def pool_weights(pool: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return the attention ``(B, heads, latents, n)`` of timm's ``AttentionPoolLatent`` to its input ``(B, n, C)``."""

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:2], pool.num_heads, -1).transpose(1, 2)  # (B, heads, length, C / heads)

    tokens = tokens if pool.pos_embed is None else tokens + pool.pos_embed
    q = pool.q_norm(split(pool.q(pool.latent)))
    k = pool.k_norm(split(pool.kv(tokens).chunk(2, dim=2)[0]))
    attention: torch.Tensor = pool.scale * (q @ k.transpose(2, 3))
    return attention.softmax(dim=3)


def to_grid(transformer: nn.Module, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Return the patches of a row ``(B, 1, N)`` as a grid ``(B, h, w)``."""
    patches = row[:, 0, _prefix(transformer) :]
    h, w = token_grid(transformer, (x.shape[2], x.shape[3]), patches.shape[1])
    return patches.reshape(-1, h, w)


def _prefix(transformer: nn.Module) -> int:
    """Return how many tokens (class token, registers) stand before the patches."""
    return int(transformer.num_prefix_tokens)  # type: ignore[arg-type]


def first_pooled(transformer: nn.Module) -> int:
    """Return the first token that mean pooling takes."""
    return 0 if getattr(transformer, "pool_include_prefix", False) else _prefix(transformer)


def _for_all(targets: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Return a map ``(B, h, w)`` for all columns of targets, ``(B, T, h, w)``."""
    return (targets != EMPTY)[:, :, None, None] * grid[:, None]


# ---------------------------------------------------------------------------------------------------------------------
# Capturing


def transformer_of(model: Model) -> nn.Module:
    """Return the vision transformer that the model is or holds; UsageError where there is none."""
    transformer = find_transformer(model.module)
    if transformer is None:
        raise UsageError(f"{model.name} is no vision transformer, so it has no attention to read")
    return transformer


@contextmanager
def captured_attention(
    network: nn.Module, replace: Callable[[int, torch.Tensor], torch.Tensor] | None = None
) -> Iterator[list[torch.Tensor]]:
    """Collect the attention ``(B, heads, N, N)`` of all layers, first to last, of a forward pass inside the block.

    Parameters
    ----------
    network
        A transformer, or those of its blocks that are to be read; elsewhere attention stays fused.
    replace
        ``replace(layer, attention)`` returns what the network goes on with.
    """
    layers: list[torch.Tensor] = []

    def hook(_module: nn.Module, _inputs: Any, attention: torch.Tensor) -> torch.Tensor:
        if attention.ndim != 4:
            raise UsageError(f"attention of shape {tuple(attention.shape)} is not that of all tokens to each other")
        attention = attention if replace is None else replace(len(layers), attention)
        layers.append(attention)
        return attention

    modules = [module for module in network.modules() if isinstance(getattr(module, "attn_drop", None), nn.Module)]
    if not modules:
        raise UsageError("the last block of this network has no attention that can be read")
    fused = [(module, module.fused_attn) for module in modules if hasattr(module, "fused_attn")]
    handles = []
    try:
        for module in modules:
            # Fused kernels never form the matrix. The flag is read at every call; timm's environment switch is not.
            module.fused_attn = False  # type: ignore[assignment]
            handles.append(module.attn_drop.register_forward_hook(hook))  # type: ignore[union-attr]
        yield layers
    finally:
        for handle in handles:
            handle.remove()
        for module, flag in fused:
            module.fused_attn = flag


@contextmanager
def captured_pool(transformer: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect how attention pooling weighs its tokens, ``(B, n)`` float32, in a forward pass inside the block.

    The mean over heads, and over the latents that the pool's output is made of. Empty where the head pools otherwise.

    Raises
    ------
    UsageError
        The pooling cannot be read; raised before the network runs.
    """
    check_pooling(transformer)
    weights: list[torch.Tensor] = []

    def hook(pool: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        with torch.no_grad():
            attention = pool_weights(pool, inputs[0]).float()
        latents = slice(1) if pool.pool == "token" else slice(None)
        weights.append(attention[:, :, latents].mean(dim=(1, 2)))

    if transformer.global_pool != "map":
        yield weights
        return
    handle = transformer.attn_pool.register_forward_pre_hook(hook)  # type: ignore[union-attr]
    try:
        yield weights
    finally:
        handle.remove()
