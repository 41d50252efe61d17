"""Relevance of a vision transformer's attention: Chefer, Gur and Wolf, CVPR 2021 (``chefer-lrp``).

The relevance R of a finding starts as 1 at its logit and is carried back to the input by layer-wise relevance
propagation with alpha = 1 (section 3.1). A layer with attention A gives the matrix ``I + mean_heads ReLU(∇A ⊙ R_A)``
(equation 13), and the map is the row of the matrices' product that the head reads (equation 14), as in
:mod:`cxrx.explainers.attention`; rows are not normalised.

Every sum that the rules take is over one picture. (The authors' code takes those of the residual rule over the batch,
so that a picture's map depends on its neighbours; with one picture a batch the two are the same.)

Everything is computed in float64. The rules divide by sums whose terms cancel (residuals, queries times keys), and
that magnifies rounding: in float32 a map differs between batch sizes by up to 1e-3, at worst by as much as itself.

One block is in memory at a time: it runs again from its stored input, with a graph of its own, and all findings pass
through it before the block below. What does not depend on the finding, such as the denominators, is computed once.
B is the batch, N the tokens, D the channels, d those of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from cxrx.errors import UsageError
from cxrx.explainers.attention import captured_attention, first_pooled, readout, to_grid, transformer_of
from cxrx.explainers.fit import leads_back, no_gradient
from cxrx.explainers.gradient import column_gradients
from cxrx.explainers.targets import EMPTY
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from cxrx.explainers.option_types import NoOptions
    from cxrx.models.model import Model

STABILISER = 1e-9
"""Keeps denominators away from zero."""

Rule: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""From the relevance of an output to that of the input."""
InputOutput: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Input and output of a module in a forward pass."""
PairRule: TypeAlias = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From the relevance of an output to those of two inputs."""


def build_chefer_lrp(_options: NoOptions) -> Explainer:
    """Return the transformer attribution of Chefer et al., CVPR 2021 (equations 13 and 14)."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        transformer: Any = transformer_of(model)
        pictures, scores, logits = _run(model, transformer, x)
        passed = _run_exactly(transformer, pictures)
        findings = {t: _start(transformer, passed, at) for t, at in column_gradients(logits, targets, scores)}
        for number in reversed(range(len(passed.entered))):
            _descend(transformer.blocks[number], passed.entered[number], findings.values(), first=number == 0)
        rows = x.new_zeros(*targets.shape, passed.tokens.shape[1], dtype=torch.float32)  # (B, T, N)
        for t, finding in findings.items():
            rows[:, t] = finding.row[:, 0]
        values = torch.stack([to_grid(transformer, pictures, row) for row in rows[:, :, None].unbind(1)], dim=1)
        return Maps(values * (targets != EMPTY)[:, :, None, None])

    return explain


# ---------------------------------------------------------------------------------------------------------------------
# Rules


def divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a / b, and 0 where b is 0."""
    return torch.where(b == 0, 0.0, a / (b + STABILISER * b.sign()))


def linear_rule(weight: torch.Tensor, x: torch.Tensor) -> Rule:
    """Return the alpha = 1 rule of ``x @ weight.T``; the bias takes no part.

    R_in = x⁺ ⊙ (s W⁺) + x⁻ ⊙ (s W⁻) with s = R / z, z = x⁺ W⁺ᵀ + x⁻ W⁻ᵀ: every output hands its relevance to the inputs
    that raised it, in proportion. The sum is kept wherever z is not 0; where it is, nothing raised the output.

    Parameters
    ----------
    weight
        ``(out, in)``.
    x
        ``(..., in)``.
    """
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    z = x.clamp(min=0) @ positive.T + x.clamp(max=0) @ negative.T

    def rule(r: torch.Tensor) -> torch.Tensor:
        s = divide(r, z)
        return x * torch.where(x > 0, s @ positive, s @ negative)

    return rule


def product_rule(a: torch.Tensor, b: torch.Tensor) -> PairRule:
    """Return the rule of ``a @ b``: each factor takes half of what every product in it adds to the output.

    The sum of both is kept wherever the product is not 0, and each has half of it.
    """
    z = a @ b

    def rule(r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = divide(r, z)
        return a * (s @ b.transpose(-1, -2)) / 2, b * (a.transpose(-1, -2) @ s) / 2

    return rule


def sum_rule(a: torch.Tensor, b: torch.Tensor) -> PairRule:
    """Return the rule of a residual sum a + b, both ``(B, ...)``.

    Element by element the summands share in proportion, R_a = a s and R_b = b s with s = R / (a + b). Where they
    cancel, their shares grow without bound, so both are rescaled (section 3.2) to sum to their parts of ΣR, which are
    as |ΣR_a| to |ΣR_b|. ΣR of every picture is kept unless ΣR_a and ΣR_b are both 0.
    """
    z = a + b

    def rule(r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = divide(r, z)
        shares = a * s, b * s
        sums = [share.sum(dim=tuple(range(1, r.ndim)), keepdim=True) for share in shares]
        total = r.sum(dim=tuple(range(1, r.ndim)), keepdim=True)
        # |Σ| / (|Σa| + |Σb|) · ΣR / Σ, with |Σ| / Σ written as a sign: it holds when Σ is tiny.
        scale = divide(total, sums[0].abs() + sums[1].abs())
        return shares[0] * scale * sums[0].sign(), shares[1] * scale * sums[1].sign()

    return rule


def pool_relevance(transformer: nn.Module, tokens: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Return the relevance ``(B, N, D)`` of the tokens from that of the vector ``(B, D)`` they were pooled to.

    The class token has all of it; of a mean, every token has its share of the sum, channel by channel.
    """
    relevance = torch.zeros_like(tokens)
    if transformer.global_pool == "token":
        relevance[:, 0] = r
        return relevance
    first = first_pooled(transformer)
    pooled = tokens[:, first:]
    relevance[:, first:] = pooled * divide(r, pooled.sum(dim=1))[:, None]
    return relevance


# ---------------------------------------------------------------------------------------------------------------------
# A block


class BlockRules:
    """The rules of one pre-norm block, from what its parts saw in a forward pass.

    ``middle = x + attention(norm1(x))``, ``left = middle + mlp(norm2(middle))``. Norms, activations, the softmax and
    layer scales pass relevance on unchanged.

    Parameters
    ----------
    block
        timm's ``Block``.
    seen
        By the names of `block_parts`.
    attention
        ``(B, heads, N, N)``.
    """

    def __init__(self, block: Any, seen: Mapping[str, InputOutput], attention: torch.Tensor) -> None:
        entered = {name: before.detach() for name, (before, _) in seen.items()}
        left = {name: after.detach() for name, (_, after) in seen.items()}
        self.heads = attention.shape[1]
        v = self._split(left["qkv"].chunk(3, dim=2)[2])
        self._mlp_sum = sum_rule(entered["norm2"], left["drop_path2"])
        self._fc2 = linear_rule(exact(block.mlp.fc2.weight), entered["fc2"])
        self._fc1 = linear_rule(exact(block.mlp.fc1.weight), entered["fc1"])
        self._attention_sum = sum_rule(entered["norm1"], left["drop_path1"])
        self._proj = linear_rule(exact(block.attn.proj.weight), entered["proj"])
        self._values = product_rule(attention.detach(), v)
        self._scores = product_rule(left["q_norm"], left["k_norm"].transpose(2, 3))  # the scale cancels out
        self._qkv = linear_rule(exact(block.attn.qkv.weight), entered["qkv"])

    def at_attention(self, r: torch.Tensor) -> AttentionRelevance:
        """Carry the relevance ``(B, N, D)`` of the block's output down to the attention."""
        skipped, branch = self._mlp_sum(r)
        middle = skipped + self._fc1(self._fc2(branch))
        skipped, branch = self._attention_sum(middle)
        return AttentionRelevance(skipped, *self._values(self._split(self._proj(branch))))

    def at_input(self, r: AttentionRelevance) -> torch.Tensor:
        """Carry the relevance at the attention down to the block's input ``(B, N, D)``."""
        at_q, at_k = self._scores(r.attention)
        joined = torch.stack([at_q, at_k.transpose(2, 3), r.values])  # (3, B, heads, N, d)
        return r.skipped + self._qkv(joined.permute(1, 3, 0, 2, 4).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(B, heads, N, d)`` of ``(B, N, heads * d)``."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


@dataclass(frozen=True)
class AttentionRelevance:
    """Relevance in the middle of a block's attention.

    Attributes
    ----------
    skipped
        ``(B, N, D)``, of the block's input by way of the residual connection.
    attention
        ``(B, heads, N, N)``, of the softmaxed matrix.
    values
        ``(B, heads, N, d)``.
    """

    skipped: torch.Tensor
    attention: torch.Tensor
    values: torch.Tensor


def block_parts(block: Any) -> dict[str, nn.Module]:
    """Return the modules of timm's ``Block`` whose inputs and outputs the rules are made of."""
    attn, mlp = block.attn, block.mlp
    return {
        "norm1": block.norm1,
        "qkv": attn.qkv,
        "q_norm": attn.q_norm,
        "k_norm": attn.k_norm,
        "proj": attn.proj,
        "drop_path1": block.drop_path1,
        "norm2": block.norm2,
        "fc1": mlp.fc1,
        "fc2": mlp.fc2,
        "drop_path2": block.drop_path2,
    }


# ---------------------------------------------------------------------------------------------------------------------
# The way up


def exact(x: torch.Tensor) -> torch.Tensor:
    """Return `x` in float64, without its graph; on the CPU where its device has no float64 (Apple's)."""
    return x.detach().to(device="cpu" if x.device.type == "mps" else None, dtype=torch.float64)


def _exact_call(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the output of `module` for `x` in float64, whatever its parameters are in; they stay as they are."""
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    output: torch.Tensor = torch.func.functional_call(
        module, {name: exact(value) if value.is_floating_point() else value for name, value in state.items()}, (x,)
    )
    return output


def _run(model: Model, transformer: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run the model; return what the transformer is given, its scores ``(B, K')`` and the logits ``(B, K)`` of them."""
    given: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []

    def enter(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        given.append(inputs[0].detach().clone())

    def leave(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        scores.append(output.detach().requires_grad_())
        return scores[-1].clone()  # what follows may work in place

    handles = [transformer.patch_embed.register_forward_pre_hook(enter), transformer.head.register_forward_hook(leave)]
    try:
        logits = model.forward(x.clone())
    finally:
        for handle in handles:
            handle.remove()
    if len(given) != 1 or len(scores) != 1 or len(given[0]) != len(x):
        raise UsageError("relevance needs a network that runs its transformer once, from the pictures to its head")
    if not leads_back(logits):
        raise no_gradient("no gradient reaches the head of this network: something above it detaches")
    return given[0], scores[0], logits


@dataclass(frozen=True)
class _Pass:
    """A forward pass of the transformer in float64.

    Attributes
    ----------
    entered
        Input ``(B, N, D)`` of every block.
    tokens
        ``(B, N, D)`` above the last block, root of the graph to `scores`.
    pooled
        The same as they are pooled, after the norm.
    vector, scores
        Input ``(B, D)`` and output ``(B, K')`` of the head.
    """

    entered: list[torch.Tensor]
    tokens: torch.Tensor
    pooled: torch.Tensor
    vector: torch.Tensor
    scores: torch.Tensor


def _run_exactly(transformer: Any, pictures: torch.Tensor) -> _Pass:
    """Run the transformer, with a graph from the last block's output on only."""
    entered: list[torch.Tensor] = []
    roots: list[torch.Tensor] = []

    def enter(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        entered.append(inputs[0].detach())

    def cut(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        roots.append(inputs[0].detach().requires_grad_())
        return roots[-1]

    handles = [block.register_forward_pre_hook(enter) for block in transformer.blocks]
    handles.append(transformer.norm.register_forward_pre_hook(cut))
    try:
        with _watched({"norm": transformer.norm, "head": transformer.head}) as seen:
            _exact_call(transformer, exact(pictures))
    finally:
        for handle in handles:
            handle.remove()
    return _Pass(entered, roots[0], seen["norm"][1].detach(), seen["head"][0].detach(), seen["head"][1])


@contextmanager
def _watched(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, InputOutput]]:
    """Collect the first input and the output of modules, by name, in a forward pass inside the block."""
    seen: dict[str, InputOutput] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[name] = inputs[0], output

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


# ---------------------------------------------------------------------------------------------------------------------
# The way down


@dataclass
class _Finding:
    """Where a finding has got to on its way down.

    Attributes
    ----------
    gradient, relevance
        ``(B, N, D)``, of the logit at the tokens.
    row
        ``(B, 1, N)``, the row that the head reads of the matrices so far.
    """

    gradient: torch.Tensor
    relevance: torch.Tensor
    row: torch.Tensor


def _start(transformer: Any, passed: _Pass, at_scores: torch.Tensor) -> _Finding:
    """Return a finding above the last block, from the gradient ``(B, K')`` of its logit at the scores.

    The head and what the model makes of its scores are taken as one linear layer to the logit, of weights
    ``Σ_k ∂z/∂score_k W_k``. For a plain head that is one row of W, as published. For z1 - z0 it is W_1 - W_0:
    relevances of 1 and -1 at the two scores would cancel in ΣR, by which the residual rule scales everything below.
    """
    at_scores = exact(at_scores)
    (gradient,) = torch.autograd.grad(passed.scores, passed.tokens, at_scores, retain_graph=True)
    raises = (passed.vector * (at_scores @ exact(transformer.head.weight))).clamp(min=0)  # (B, D)
    at_vector = divide(raises, raises.sum(dim=1, keepdim=True))  # `linear_rule`, with weights for every picture
    relevance = pool_relevance(transformer, passed.pooled, at_vector)
    return _Finding(gradient, relevance, readout(transformer, passed.pooled).expand(len(relevance), -1, -1))


def _descend(block: Any, entered: torch.Tensor, findings: Iterable[_Finding], *, first: bool) -> None:
    """Take all findings from the output of a block to its input; below the first block nothing is left to do."""
    entered = entered.requires_grad_()
    with _watched(block_parts(block)) as seen, captured_attention(block) as layers:
        left = _exact_call(block, entered)
    rules = BlockRules(block, seen, layers[0])
    for finding in findings:
        at_attention, gradient = torch.autograd.grad(left, (layers[0], entered), finding.gradient, retain_graph=True)
        relevance = rules.at_attention(finding.relevance)
        matrix = (at_attention * relevance.attention).clamp(min=0).mean(dim=1)
        finding.row = finding.row + finding.row @ matrix
        if not first:
            finding.gradient, finding.relevance = gradient, rules.at_input(relevance)
