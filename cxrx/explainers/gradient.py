"""The gradient family: gradients of a logit with respect to the pixels, averaged or integrated.

A prepared picture repeats one grey picture in its channels, so the gradient with respect to a pixel is the sum over
channels. All findings of a picture share the forward passes, the noise and the path.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from cxrx.explainers.baselines import make_baseline
from cxrx.explainers.fit import UNREACHED, leads_back, no_gradient
from cxrx.explainers.seeds import generator
from cxrx.explainers.steps import told
from cxrx.explainers.targets import EMPTY
from cxrx.models.inference import auto_batch_size, autocast
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from cxrx.explainers.option_types import Dtype, IntegratedGradientsOptions, NoOptions, SmoothGradOptions
    from cxrx.models.model import Model

# ---------------------------------------------------------------------------------------------------------------------
# Gradients of all findings


def column_gradients(
    logits: torch.Tensor, targets: torch.Tensor, wrt: torch.Tensor
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (t, gradient of the logits in column t of `targets` with respect to `wrt`), leaving out empty columns.

    Pictures do not depend on each other, so the gradient of the sum over the batch is every picture's own. It is zero
    where a target is empty. The graph is freed with the last column.

    Parameters
    ----------
    logits
        ``(B, K)``.
    targets
        ``(B, T)``, -1 = empty.
    wrt
        ``(B, ...)``, from which the logits were computed.
    """
    present = targets != EMPTY
    filled = [t for t in range(targets.shape[1]) if bool(present[:, t].any())]
    chosen = logits.gather(1, targets.clamp(min=0))  # (B, T)
    for t in filled:
        weight = torch.zeros_like(chosen)
        weight[:, t] = present[:, t].to(chosen.dtype)
        yield t, differentiate(chosen, wrt, weight, retain_graph=t != filled[-1])


def differentiate(
    outputs: torch.Tensor, wrt: torch.Tensor, weight: torch.Tensor | None = None, *, retain_graph: bool = False
) -> torch.Tensor:
    """Return the gradient of Σ weight·outputs; UsageError where there is none.

    Parameters
    ----------
    outputs, weight
        Of one shape; None: `outputs` is one number.
    wrt
        With respect to what; the gradient has its shape.
    retain_graph
        Keep the graph for another gradient.
    """
    (gradient,) = torch.autograd.grad(outputs, wrt, weight, retain_graph=retain_graph, allow_unused=True)
    if gradient is None:  # not 0: nobody knows it
        raise no_gradient(UNREACHED)
    return gradient


def input_gradients(
    model: Model, x: torch.Tensor, targets: torch.Tensor, dtype: Dtype = "fp32"
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (t, gradient ``(B, C, H, W)``) as `column_gradients` does, with respect to the network's input.

    Parameters
    ----------
    model, x, targets
        ``(B, C, H, W)``, and ``(B, T)`` with -1 = empty.
    dtype
        Of the passes.
    """
    leaf = x.detach().requires_grad_()
    with autocast(model.device, dtype):  # the backward pass takes the types of the forward
        logits = model.forward(leaf.clone())  # a clone, because a network may begin with an in-place operation
    return column_gradients(with_graph(logits), targets, leaf)


def with_graph(outputs: torch.Tensor) -> torch.Tensor:
    """Return `outputs`; UsageError where they do not lead back to the network's input."""
    if not leads_back(outputs):
        raise no_gradient(UNREACHED)
    return outputs


def rows_at_once(device: torch.device) -> int:
    """Return how many pictures to run through the network at once; beyond 8, CPUs get slower, not faster."""
    return min(64, auto_batch_size(device))


def build_saliency(_options: NoOptions) -> Explainer:
    """Return the gradient itself, signed."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        values = x.new_zeros(*targets.shape, *x.shape[2:])
        for t, gradient in input_gradients(model, x, targets):
            values[:, t] = gradient.sum(dim=1)
        return Maps(values)

    return explain


def build_inputxgrad(_options: NoOptions) -> Explainer:
    """Return the prepared pixel times its gradient."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        values = x.new_zeros(*targets.shape, *x.shape[2:])
        for t, gradient in input_gradients(model, x, targets):
            values[:, t] = (x * gradient).sum(dim=1)
        return Maps(values)

    return explain


# ---------------------------------------------------------------------------------------------------------------------
# SmoothGrad


def build_smoothgrad(statistic: Literal["mean", "square", "variance"], options: SmoothGradOptions) -> Explainer:
    """Return SmoothGrad (mean), SmoothGrad-squared (square) or VarGrad (variance)."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:
        mean = x.new_zeros(*targets.shape, *x.shape[2:])  # (B, T, H, W)
        deviation = torch.zeros_like(mean)  # sum of squared deviations from the mean so far
        for i, gradient in enumerate(_noisy_gradients(model, x, targets, seeds, options)):
            value = gradient**2 if statistic == "square" else gradient
            # Welford: one pass, one sample after the other, so that chunks do not change the order of the additions.
            delta = value - mean
            mean += delta / (i + 1)
            if statistic == "variance":
                deviation += delta * (value - mean)
        return Maps(deviation / options.n if statistic == "variance" else mean)

    return explain


def noise_scale(x: torch.Tensor, options: SmoothGradOptions) -> torch.Tensor:
    """Return the standard deviation of the noise for each picture, ``(B,)``."""
    values = x.flatten(1).float()
    fractions = (0.0, 1.0) if options.range == "minmax" else (0.01, 0.99)
    low, high = torch.quantile(values, values.new_tensor(fractions), dim=1)
    scale: torch.Tensor = options.sigma * (high - low)
    return scale


def _noisy_gradients(
    model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor, options: SmoothGradOptions
) -> Iterator[torch.Tensor]:
    """Yield, for one noise sample after the other, the gradients ``(B, T, H, W)``, summed over channels.

    The noise of a picture comes from its own generator and is the same for all findings and channels.
    """
    pictures, _, height, width = x.shape
    generators = [generator(int(seed)) for seed in seeds]
    scale = noise_scale(x, options).view(-1, 1, 1, 1)
    chunk = max(1, rows_at_once(x.device) // pictures)
    for start in told(range(0, options.n, chunk), -(-options.n // chunk)):
        count = min(chunk, options.n - start)
        draws = [torch.randn(1, height, width, generator=g) for _ in range(count) for g in generators]
        noise = torch.stack(draws).to(x.device).view(count, pictures, 1, height, width)
        noisy = (x + scale * noise).flatten(0, 1)  # (count * B, C, H, W)
        gradients = x.new_zeros(count, *targets.shape, height, width)
        for t, gradient in input_gradients(model, noisy, targets.repeat(count, 1), options.dtype):
            gradients[:, :, t] = gradient.sum(dim=1).view(count, pictures, height, width)
        yield from gradients


# ---------------------------------------------------------------------------------------------------------------------
# Integrated gradients


def build_integrated_gradients(options: IntegratedGradientsOptions) -> Explainer:
    """Return integrated gradients; extras: ``completeness``, what the map's sum misses of z(x) - z(baseline)."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        baseline = make_baseline(model, x, options.baseline)
        points, weights = quadrature(options.rule, options.steps)
        values = x.new_zeros(*targets.shape, *x.shape[2:])  # (B, T, H, W)
        chunk = max(1, rows_at_once(x.device) // x.shape[0])
        for start in told(range(0, options.steps, chunk), -(-options.steps // chunk)):
            alphas = x.new_tensor(points[start : start + chunk]).view(-1, 1, 1, 1, 1)
            count = alphas.shape[0]
            path = (baseline + alphas * (x - baseline)).flatten(0, 1)  # (count * B, C, H, W)
            for t, gradient in input_gradients(model, path, targets.repeat(count, 1), options.dtype):
                for i, part in enumerate(gradient.view(count, *x.shape)):  # one by one, as without chunks
                    values[:, t] += weights[start + i] * ((x - baseline) * part).sum(dim=1)
        with torch.no_grad():
            change = (model.forward(x.clone()) - model.forward(baseline.clone())).gather(1, targets.clamp(min=0))
        missing = (values.sum(dim=(2, 3)) - change) * (targets != EMPTY)
        return Maps(values, {"completeness": missing})

    return explain


def quadrature(rule: Literal["gausslegendre", "midpoint"], steps: int) -> tuple[list[float], list[float]]:
    """Return points and weights of a quadrature rule on [0, 1]."""
    if rule == "midpoint":
        return [(i + 0.5) / steps for i in range(steps)], [1 / steps] * steps
    points, weights = np.polynomial.legendre.leggauss(steps)
    return ((1 + points) / 2).tolist(), (weights / 2).tolist()
