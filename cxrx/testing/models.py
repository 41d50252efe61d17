"""Conformance of models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxrx.errors import OfflineError, UsageError
from cxrx.specs import InputSpec, ModelSpec
from cxrx.testing.outcome import Outcome, attempt, attempt_all, require, require_names

if TYPE_CHECKING:
    import torch

    from cxrx.models.model import Model

FILMS = 2
TOLERANCE = 1e-4  # of the largest logit; kernels may differ with the batch size


@dataclass(frozen=True)
class Built:
    """A spec and the model made from it."""

    spec: ModelSpec
    model: Model


def check_model(spec: ModelSpec, only: Iterable[str] | None = None) -> list[Outcome]:
    """Check a model against the contract of its hook: declared soundly, built with its labels, run on its input.

    Parameters
    ----------
    spec
        The model. Its own weights are loaded if it names some; those that ``CXRX_OFFLINE`` forbids to fetch are left
        out, and the checks are made with random ones.
    only
        Names of the checks to run, of :data:`CHECKS`; default: all.
    """
    subject = f"model {spec.name}"
    wanted = {DECLARATION, "build", "weights", *CHECKS} if only is None else set(only)
    built: list[Built] = []
    outcomes = [
        attempt(subject, DECLARATION, lambda: _declared(spec)),
        attempt(subject, "build", lambda: built.append(Built(spec, _build(spec)))),
    ]
    if built and spec.weights is not None:
        outcomes.append(attempt(subject, "weights", lambda: _load(built[0])))
    if all(outcome.passed for outcome in outcomes[1:]):
        outcomes += attempt_all(subject, CHECKS, built[0], wanted)
    return [outcome for outcome in outcomes if outcome.check in wanted or not outcome.passed]


def _declared(spec: ModelSpec) -> None:
    """Check names, labels and input."""
    require_names(spec)
    require(all(isinstance(label, str) and label for label in spec.labels), "labels must be text")
    require(len(set(spec.labels)) == len(spec.labels), "labels must differ from one another")
    require(isinstance(spec.input, InputSpec), f"input must be a cxrx.InputSpec, not {type(spec.input).__name__}")
    require(spec.output in ("logits", "probabilities"), f"output is 'logits' or 'probabilities', not {spec.output!r}")
    require(spec.activation in ("sigmoid", "softmax"), f"activation is 'sigmoid' or 'softmax', not {spec.activation!r}")
    for name in ("mean", "std"):
        count = len(getattr(spec.input, name))
        require(count in (1, spec.input.channels), f"{name} has {count} values for {spec.input.channels} channels")
    require(all(value > 0 for value in spec.input.std), "std must be positive")


def _build(spec: ModelSpec) -> Model:
    from torch import nn

    from cxrx.models.model import Model

    labels = spec.labels or ("Effusion", "Nodule")
    module = spec.build(labels)
    require(isinstance(module, nn.Module), f"build returned {type(module).__name__}, not a torch.nn.Module")
    return Model(
        module,
        labels,
        spec.input,
        name=spec.name,
        output=spec.output,
        activation=spec.activation,
        cam_layer=spec.cam_layer,
        demo=spec.demo,
    )


def _load(built: Built) -> str:
    """Check that the model's own weights fit, where they are at hand or may be fetched."""
    from cxrx.models.checkpoints import read_checkpoint
    from cxrx.models.load import own_weights

    try:
        file = own_weights(built.spec)
    except OfflineError as error:
        return f"left out, random ones take their place: {error}"
    if file is not None:
        read_checkpoint(file).load_into(built.model.module, built.spec.name)
    return ""


def _films(model: Model) -> torch.Tensor:
    import torch

    return model.prepare(torch.rand(FILMS, *model.input.size, generator=torch.Generator().manual_seed(0)))


def _logits(built: Built) -> None:
    """Check that there is one finite float32 logit for every film and label."""
    import torch

    model = built.model
    z = model.logits(_films(model))
    require(tuple(z.shape) == (FILMS, len(model.labels)), f"logits have shape {tuple(z.shape)}")
    require(z.dtype == torch.float32, f"logits are {z.dtype}, not float32")
    require(bool(z.isfinite().all()), "logits hold NaN or infinity")


def _repeatable(built: Built) -> None:
    """Check that the same film gives the same logits."""
    import torch

    x, model = _films(built.model), built.model
    require(torch.equal(model.logits(x), model.logits(x)), "two forward passes differ in eval mode")


def _batch(built: Built) -> None:
    """Check that a film's logits do not depend on the films beside it."""
    x, model = _films(built.model), built.model
    together, alone = model.logits(x)[:1], model.logits(x[:1])
    scale = max(float(together.abs().max()), 1.0)
    require(float((together - alone).abs().max()) <= TOLERANCE * scale, "a film's logits depend on its neighbours")


def _gradients(built: Built) -> None:
    """Check that logits are differentiable with respect to the input."""
    import torch

    x = _films(built.model)[:1].requires_grad_()
    with torch.enable_grad():
        z = built.model.forward(x)
    require(z.requires_grad, "no gradient reaches the input: the network detaches it or runs under no_grad")
    (gradient,) = torch.autograd.grad(z.sum(), x)
    require(bool(gradient.isfinite().all()), "gradients hold NaN or infinity")


def _cam(built: Built) -> str:
    """Check that the layer for CAM methods is found and gives a grid, or is refused with a sentence."""
    model = built.model
    try:
        layer = model.cam_layer()
    except UsageError as error:
        require(built.spec.cam_layer is None, f"cam_layer={built.spec.cam_layer!r} cannot be used: {error}")
        return f"no CAM: {error}"
    outputs: list[torch.Tensor] = []
    handle = layer.module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        model.logits(_films(model))
    finally:
        handle.remove()
    require(outputs, f"layer {layer.name!r} is not reached")
    grid = layer.to_grid(outputs[-1], model.input.size)
    require(grid.ndim == 4 and grid.shape[0] == FILMS, f"layer {layer.name!r} gives no (B, C, h, w) grid")
    return f"{layer.name}, {grid.shape[2]} x {grid.shape[3]}"


DECLARATION = "declaration"
CHECKS: dict[str, Callable[[Built], str | None]] = {
    "logits": _logits,
    "repeatable": _repeatable,
    "batch": _batch,
    "gradients": _gradients,
    "cam layer": _cam,
}
"""Checks by name; before them come the declaration and the build."""
