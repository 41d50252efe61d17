"""Conformance of explainers, tried on tiny networks (or on a model of your own)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cxrx.specs import ExplainerSpec
from cxrx.testing.outcome import (
    Breach,
    Outcome,
    attempt,
    attempt_all,
    require,
    require_names,
    require_options,
)
from cxrx.testing.placement import PLACEMENT, SquareTrial
from cxrx.testing.trial import Trial

if TYPE_CHECKING:
    import torch
    from torch import nn

    from cxrx.models.model import Model

NEEDS = frozenset({"gradients", "cam", "attention", "relevance", "convolutions"})
TOLERANCE = 1e-5  # of the largest value of a map
ROUNDING = 1e-6  # of the largest logit: where a map is made of differences of logits, their rounding is in it


def check_explainer(
    spec: ExplainerSpec,
    model: Model | None = None,
    options: Mapping[str, Any] | None = None,
    only: Iterable[str] | None = None,
) -> list[Outcome]:
    """Check an explainer against the contract of its hook.

    Parameters
    ----------
    spec
        The explainer.
    model
        Try it on this model; default: a tiny CNN and a tiny vision transformer, as far as they offer what it needs.
    options
        Values that replace defaults of its options, e.g. fewer steps.
    only
        Names of the checks to run, of :data:`CHECKS` and :data:`PLACEMENT`; default: all.

    Returns
    -------
    One outcome for every check and model.
    """
    name = f"explainer {spec.name}"
    wanted = {DECLARATION, *CHECKS, *PLACEMENT} if only is None else set(only)
    outcomes = [attempt(name, DECLARATION, lambda: _declared(spec))] if DECLARATION in wanted else []
    if wanted == {DECLARATION} or not all(outcome.passed for outcome in outcomes):
        return outcomes
    if model is not None:
        remark = "not tried: it needs a network of the kit, whose places are known"
        untried = [Outcome(name, check, passed=True, message=remark) for check in PLACEMENT if check in wanted]
        return outcomes + _tried(spec, model, options or {}, wanted) + untried
    from cxrx.testing.networks import one_thread, square_cnn, square_vit, tiny_cnn, tiny_vit

    with one_thread():
        for network in (tiny_cnn(), tiny_vit()):
            if spec.needs <= network.offers():
                outcomes += _tried(spec, network, options or {}, wanted)
        squares = [network for network in (square_cnn(), square_vit()) if spec.needs <= network.offers()]
        for network in squares[:1]:  # one is enough: pictures and targets are the explainer's own affair
            outcomes += _tried(spec, network, options or {}, wanted, PLACEMENT, SquareTrial)
    if not squares:
        remark = f"not tried: no network of the kit offers {' and '.join(sorted(spec.needs))}; give a model"
        outcomes.append(Outcome(name, "build", passed=True, message=remark))
    return outcomes


def _tried(
    spec: ExplainerSpec,
    model: Model,
    options: Mapping[str, Any],
    wanted: set[str],
    checks: Mapping[str, Callable[[Any], str | None]] | None = None,
    kind: type[Trial] = Trial,
) -> list[Outcome]:
    """Run those of `checks` (default: :data:`CHECKS`) that are `wanted` on one trial of `kind`."""
    checks = CHECKS if checks is None else checks
    if not wanted & set(checks):
        return []
    subject = f"explainer {spec.name} on {model.name}"
    trials: list[Trial] = []
    built = attempt(subject, "build", lambda: trials.append(kind(spec, model, spec.options(**options))))
    return attempt_all(subject, checks, trials[0], wanted) if built.passed else [built]


# ---------------------------------------------------------------------------------------------------------------------
# The checks


def _declared(spec: ExplainerSpec) -> None:
    """Check names, needs and options."""
    require_names(spec)
    require(isinstance(spec.needs, frozenset), "needs must be a frozenset")
    require(
        spec.needs <= NEEDS, f"needs may hold {', '.join(sorted(NEEDS))}, not {', '.join(sorted(spec.needs - NEEDS))}"
    )
    require(spec.space in ("native", "input"), f"space must be 'native' or 'input', not {spec.space!r}")
    options = spec.options
    require_options(options)
    if spec.evaluations is not None:
        cost = spec.evaluations(options())
        require(isinstance(cost, int | float) and cost >= 0, f"evaluations(options) must be a number, not {cost!r}")


def _output(trial: Trial) -> None:
    """Check that maps are finite float32 of shape (B, T, h, w) without a graph, on the grid that the spec names."""
    import torch

    values, (height, width) = trial.maps.values, trial.x.shape[2:]
    require(isinstance(values, torch.Tensor), f"values must be a tensor, not {type(values).__name__}")
    require(values.dtype == torch.float32, f"values must be float32, not {values.dtype}")
    expected = tuple(trial.targets.shape)
    require(
        values.ndim == 4 and tuple(values.shape[:2]) == expected,
        f"values must have shape ({expected[0]}, {expected[1]}, h, w), not {tuple(values.shape)}",
    )
    require(not values.requires_grad, "values must not carry a graph: detach them")
    require(bool(values.isfinite().all()), "values hold NaN or infinity")
    grid = tuple(values.shape[2:])
    if trial.spec.space == "input":
        require(grid == (height, width), f"space is 'input', but the grid is {grid} for an input of {height} x {width}")
    require(grid[0] <= height and grid[1] <= width, f"the grid {grid} is finer than the input of {height} x {width}")
    if not trial.spec.signed and not trial.spec.relu:
        require(bool((values >= 0).all()), "the spec says signed=False, but there are negative values")
    for name, extra in trial.maps.extras.items():
        require(
            isinstance(extra, torch.Tensor) and tuple(extra.shape[:2]) == expected,
            f"extra {name!r} must be a tensor of shape ({expected[0]}, {expected[1]}, ...)",
        )


def _same_seed(trial: Trial) -> None:
    """Check that the same call gives the same map, bit for bit, whatever the global random state."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = trial.run().values
        torch.manual_seed(2)
        second = trial.run().values
    require(
        torch.equal(first, second),
        "two calls with the same seeds differ: draw noise from torch.Generator().manual_seed(seed), one for each film",
    )


def _other_seed(trial: Trial) -> None:
    """Check that another seed gives another map if, and only if, the spec says stochastic."""
    import torch

    equal = [torch.equal(a, b) for a, b in zip(trial.values, trial.run(seeds=trial.seeds + 100).values, strict=True)]
    if trial.spec.stochastic:
        require(not any(equal), "the spec says stochastic=True, but another seed gives the same map")
    else:
        require(all(equal), "the spec says stochastic=False, but another seed gives another map")


def _permuted(trial: Trial) -> None:
    """Check that permuting the batch permutes the maps and changes nothing else."""
    order = [2, 0, 1]
    permuted = trial.run(x=trial.x[order], targets=trial.targets[order], seeds=trial.seeds[order])
    _require_close(trial, permuted.values, trial.values[order], "the maps depend on the order of the batch")


def _neighbours(trial: Trial) -> None:
    """Check that a film's map does not depend on the films beside it."""
    x, seeds = trial.x.clone(), trial.seeds.clone()
    x[1:], seeds[1:] = x[1:].flip(-1) * 1.5, seeds[1:] + 100
    _require_close(
        trial, trial.run(x=x, seeds=seeds).values[:1], trial.values[:1], "a film's map depends on its neighbours"
    )


def _alone(trial: Trial) -> None:
    """Check that a film alone has the map that it has in a batch."""
    one = trial.run(x=trial.x[1:2], targets=trial.targets[1:2], seeds=trial.seeds[1:2])
    _require_close(trial, one.values, trial.values[1:2], "a film alone gets another map than in a batch")


def _findings(trial: Trial) -> None:
    """Check that a finding's map depends neither on its column nor on the other findings asked for."""
    one = trial.run(targets=trial.targets[:, -1:])
    _require_close(
        trial, one.values[:, 0], trial.values[:, -1], "a finding's map depends on the other findings asked for"
    )


def _empty_targets(trial: Trial) -> None:
    """Check that empty targets (-1) are tolerated, in part and throughout, and leave the others alone."""
    targets = trial.targets.clone()
    targets[0] = -1
    targets[1, 0] = -1
    values = trial.run(targets=targets).values
    require(tuple(values.shape[:2]) == tuple(targets.shape), "empty targets (-1) must keep their place in the maps")
    require(bool(values.isfinite().all()), "empty targets (-1) give NaN or infinity")
    _require_close(trial, values[2], trial.values[2], "an empty target (-1) changes the maps of others")
    none = trial.run(targets=targets.fill_(-1)).values
    require(bool(none.isfinite().all()), "a batch of empty targets (-1) gives NaN or infinity")


def _input_intact(trial: Trial) -> None:
    """Check that the caller's tensors are as before."""
    import torch

    given = {"x": trial.x.clone(), "targets": trial.targets.clone(), "seeds": trial.seeds.clone()}
    kept = {name: tensor.clone() for name, tensor in given.items()}
    trial.run(x=given["x"], targets=given["targets"], seeds=given["seeds"])
    for name, tensor in given.items():
        require(torch.equal(tensor, kept[name]), f"the explainer changed {name} in place: clone it first")
        require(
            not tensor.requires_grad and tensor.grad is None, f"the explainer left gradients on {name}: detach it first"
        )


class _InterruptedError(Exception):
    """Stands for whatever ends an explanation midway."""


def _model_intact(trial: Trial) -> None:
    """Check that the model is left as it was found."""
    model = _used_copy(trial.model)
    before = _state(model.module)
    trial.run(model=model)
    _require_state(model.module, before, "")


def _interrupted(trial: Trial) -> str | None:
    """Check that the model is left as it was found even if its forward pass raises."""
    model = _used_copy(trial.model)
    calls = []

    def interrupt(*_: Any) -> None:
        calls.append(1)
        raise _InterruptedError

    handle = model.module.register_forward_hook(interrupt)
    before = _state(model.module)
    raised = False
    try:
        trial.run(model=model)
    except _InterruptedError:
        raised = True
    require(raised or not calls, "an exception raised inside the model was swallowed")
    _require_state(model.module, before, " after an exception")
    handle.remove()
    return None if calls else "it never runs the model"


def _constant(trial: Trial) -> str | None:
    """Check that constant logits give finite maps, and maps of zeros where a signed method needs gradients."""
    from cxrx.testing.networks import constant_copy

    model = constant_copy(trial.model)
    if model is None:
        return "not tried: the model has no linear head"
    values = trial.run(model=model).values
    require(bool(values.isfinite().all()), "a model with constant logits gives NaN or infinity")
    if trial.spec.signed and "gradients" in trial.spec.needs:
        require(float(values.abs().max()) <= TOLERANCE, "a model with constant logits gives a map that is not zero")
    return None


def _require_close(trial: Trial, got: torch.Tensor, expected: torch.Tensor, message: str) -> None:
    require(got.shape == expected.shape, f"{message}: shape {tuple(got.shape)} instead of {tuple(expected.shape)}")
    scale = float(expected.abs().max())
    worst = float((got - expected).abs().max())
    allowed = TOLERANCE * scale + ROUNDING * float(trial.model.logits(trial.x).abs().max())
    require(worst <= allowed, f"{message}: by {worst:.2g} where the largest value is {scale:.2g}")


DECLARATION = "declaration"
CHECKS: dict[str, Callable[[Trial], str | None]] = {
    "output": _output,
    "same seed": _same_seed,
    "other seed": _other_seed,
    "batch order": _permuted,
    "neighbours": _neighbours,
    "alone": _alone,
    "other findings": _findings,
    "empty targets": _empty_targets,
    "input intact": _input_intact,
    "model intact": _model_intact,
    "model intact after an exception": _interrupted,
    "constant model": _constant,
}
"""Checks by name, run on every model; before them comes the declaration, which needs none, after them the placement."""


# ---------------------------------------------------------------------------------------------------------------------
# The state of a network


def _used_copy(model: Model) -> Model:
    """Return a copy as if in use elsewhere: in training mode, partly frozen, with a gradient and a hook of its own."""
    used = copy.deepcopy(model)
    used.module.train()
    parameters = list(used.module.parameters())
    if parameters:
        parameters[0].requires_grad = False
        parameters[-1].grad = parameters[-1].detach().clone()
    next(iter(used.module.children()), used.module).register_forward_hook(_no_hook)
    return used


def _no_hook(*_: Any) -> None:
    return None


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _state(network: nn.Module) -> dict[str, Any]:
    """Return what an explainer could leave changed, in words, with values that can be compared."""
    modules = dict(network.named_modules())
    parameters = dict(network.named_parameters())
    return {
        "submodules": {name: id(module) for name, module in modules.items()},
        "training flags": {name: module.training for name, module in modules.items()},
        "hooks": {name: [len(getattr(module, table)) for table in _HOOKS] for name, module in modules.items()},
        "fused_attn flags": {name: getattr(module, "fused_attn", None) for name, module in modules.items()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in parameters.items()},
        "gradients": {name: _bytes(parameter.grad) for name, parameter in parameters.items()},
        "weights": {name: _bytes(tensor) for name, tensor in network.state_dict().items()},
    }


def _bytes(tensor: torch.Tensor | None) -> bytes | None:
    import torch

    return None if tensor is None else tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()


def _require_state(network: nn.Module, before: Mapping[str, Any], when: str) -> None:
    after = _state(network)
    changed = [what for what in before if before[what] != after[what]]
    if changed:
        raise Breach(f"the model's {', '.join(changed)} changed{when}")
