"""The kit sees every breach of the contract: an offender for every check."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from cxrx.specs import ExplainerSpec, Maps
from cxrx.testing import ExplainerConformance, check_explainer
from cxrx.testing.explainers import CHECKS, DECLARATION
from cxrx.testing.networks import tiny_cnn
from cxrx.testing.placement import PLACEMENT


@dataclass(frozen=True)
class Options:
    scale: float = 1.0


def gradient(model, x, targets, seeds):
    """Return input times gradient, written plainly: what the offenders spoil."""
    x = x.detach().clone().requires_grad_()
    values = x.new_zeros(*targets.shape, *x.shape[2:])
    for t in range(targets.shape[1]):
        logits = model.forward(x).gather(1, targets[:, t : t + 1].clamp(min=0))
        (g,) = torch.autograd.grad(logits.sum(), x)
        values[:, t] = (g * x.detach()).sum(dim=1)
    return Maps(values)


def spec_of(explain, **changes):
    spec = ExplainerSpec("offender", lambda options: explain, Options, signed=True, space="input")
    return replace(spec, **changes)


def failed(spec, **options):
    return {outcome.check for outcome in check_explainer(spec, tiny_cnn(), **options) if not outcome.passed}


def test_a_sound_explainer_passes_everything():
    outcomes = check_explainer(spec_of(gradient))
    assert {outcome.check for outcome in outcomes} == {DECLARATION, *CHECKS, *PLACEMENT}
    assert {outcome.subject for outcome in outcomes[1:]} == {
        "explainer offender on tiny-cnn",
        "explainer offender on tiny-vit",
        "explainer offender on square-cnn",
    }
    assert [outcome for outcome in outcomes if not outcome.passed] == []


def spoilt(spoil):
    """Return an explainer whose values `spoil` changes."""

    def explain(model, x, targets, seeds):
        return Maps(spoil(gradient(model, x, targets, seeds).values, x, targets, seeds))

    return explain


def changes_weights(model, x, targets, seeds):
    with torch.no_grad():
        next(model.module.parameters()).mul_(1.01)
    return gradient(model, x, targets, seeds)


def replaces_a_layer(model, x, targets, seeds):
    model.module[2] = torch.nn.ReLU()
    return gradient(model, x, targets, seeds)


def changes_the_input(model, x, targets, seeds):
    maps = gradient(model, x, targets, seeds)
    x += 1
    return maps


def asks_for_gradients(model, x, targets, seeds):
    x.requires_grad_()
    return gradient(model, x, targets, seeds)


def swallows(model, x, targets, seeds):
    try:
        return gradient(model, x, targets, seeds)
    except Exception:  # noqa: BLE001 - the offence
        return Maps(torch.zeros(*targets.shape, *x.shape[2:]))


def forgets_weights_when_interrupted(model, x, targets, seeds):
    bias = list(model.module.parameters())[-1]
    kept = bias.detach().clone()
    with torch.no_grad():
        bias.zero_()
        maps = model.forward(x)
        bias.copy_(kept)
    assert maps.isfinite().all()
    return gradient(model, x, targets, seeds)


def seeded_noise(values, x, targets, seeds):
    """Noise as it should be: from each film's own seed."""
    noise = [torch.randn(values.shape[2:], generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return values + torch.stack(noise)[:, None]


OFFENDERS = {
    "returns a tensor": (lambda model, x, targets, seeds: torch.zeros(1), "output", {}),
    "float64": (spoilt(lambda v, *_: v.double()), "output", {}),
    "without findings": (spoilt(lambda v, *_: v[:, 0]), "output", {}),
    "not a number": (spoilt(lambda v, *_: v / 0), "output", {}),
    "with a graph": (spoilt(lambda v, *_: v.requires_grad_()), "output", {}),
    "another grid than declared": (spoilt(lambda v, *_: v[..., ::2, ::2]), "output", {}),
    "sides swapped": (spoilt(lambda v, *_: v.mT.contiguous()), "output", {"space": "native"}),
    "negative but not signed": (gradient, "output", {"signed": False}),
    "extras of another shape": (
        lambda *call: Maps(gradient(*call).values, {"area": torch.zeros(3)}), "output", {}
    ),
    "global random state": (spoilt(lambda v, *_: v + torch.rand_like(v)), "same seed", {"stochastic": True}),
    "stochastic in name only": (gradient, "other seed", {"stochastic": True}),
    "stochastic in secret": (spoilt(seeded_noise), "other seed", {}),
    "position in the batch": (
        spoilt(lambda v, *_: v * torch.arange(1.0, len(v) + 1)[:, None, None, None]), "batch order", {}
    ),
    "one generator for the batch": (
        spoilt(lambda v, x, t, seeds: v + torch.randn(v.shape, generator=torch.Generator().manual_seed(int(seeds[0])))),
        "batch order", {"stochastic": True},
    ),
    "normalised over the batch": (spoilt(lambda v, *_: v / v.abs().max()), "neighbours", {}),
    "normalised by the batch size": (spoilt(lambda v, *_: v / len(v)), "alone", {}),
    "normalised over findings": (
        spoilt(lambda v, *_: v / v.abs().amax(dim=(1, 2, 3), keepdim=True)), "other findings", {}
    ),
    "chokes on empty targets": (
        spoilt(lambda v, x, targets, s: v / (targets >= 0)[..., None, None]), "empty targets", {}
    ),
    "counts empty targets": (
        spoilt(lambda v, x, targets, s: v * (targets >= 0).sum()), "empty targets", {}
    ),
    "changes the input": (changes_the_input, "input intact", {}),
    "asks the input for gradients": (asks_for_gradients, "input intact", {}),
    "changes weights": (changes_weights, "model intact", {}),
    "replaces a layer": (replaces_a_layer, "model intact", {}),
    "swallows exceptions": (swallows, "model intact after an exception", {}),
    "leaves weights changed": (forgets_weights_when_interrupted, "model intact after an exception", {}),
    "divides by the largest value": (
        spoilt(lambda v, *_: v / v.abs().amax(dim=(2, 3), keepdim=True)), "constant model", {}
    ),
    "sees evidence where there is none": (spoilt(lambda v, *_: v + 1), "constant model", {}),
}  # fmt: skip


@pytest.mark.parametrize("offence", OFFENDERS)
def test_an_offender_is_caught(offence):
    explain, check, changes = OFFENDERS[offence]
    assert check in failed(spec_of(explain, **changes))


def test_every_check_has_an_offender():
    assert {check for _, check, _ in OFFENDERS.values()} == set(CHECKS)


def test_noise_from_each_films_own_seed_passes():
    assert failed(spec_of(spoilt(seeded_noise), stochastic=True, needs=frozenset())) == set()


@dataclass
class Thawed:
    scale: float = 1.0


@dataclass(frozen=True)
class Bare:
    scale: float


@dataclass(frozen=True)
class Odd:
    scale: complex = 1j


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Grad CAM"}, "name 'Grad CAM' must be made of"),
        ({"aliases": ("a/b",)}, "name 'a/b' must be made of"),
        ({"summary": "two\nlines"}, "one line"),
        (
            {"needs": frozenset({"gradient"})},
            "convolutions, gradients, relevance, not gradient",
        ),
        ({"needs": {"gradients"}}, "frozenset"),
        ({"space": "pixels"}, "space must be"),
        ({"options": dict}, "dataclass"),
        ({"options": Thawed}, "frozen"),
        ({"options": Bare}, "every option needs a default; these have none: scale"),
        ({"options": Odd}, "must be"),
        ({"evaluations": lambda options: "many"}, "must be a number"),
        ({"evaluations": lambda options: options.steps}, "AttributeError"),
    ],
)
def test_an_unsound_declaration_is_reported_and_nothing_is_run(changes, message):
    (outcome,) = check_explainer(spec_of(gradient, **changes))
    assert (outcome.check, outcome.passed) == (DECLARATION, False)
    assert message in outcome.message


def test_a_build_that_raises_is_reported():
    def build(options):
        raise OSError("no weights")

    outcomes = check_explainer(replace(spec_of(gradient), build=build), tiny_cnn(), only=[DECLARATION, *CHECKS])
    assert [(o.check, o.passed) for o in outcomes] == [(DECLARATION, True), ("build", False)]
    assert "OSError: no weights" in outcomes[1].message


def test_options_and_single_checks_can_be_chosen():
    seen = []

    def build(options):
        seen.append(options.scale)
        return gradient

    outcomes = check_explainer(replace(spec_of(gradient), build=build), tiny_cnn(), {"scale": 2.0}, only=["output"])
    assert [outcome.check for outcome in outcomes] == ["output"]
    assert seen == [2.0]


def test_needs_choose_the_networks():
    outcomes = check_explainer(spec_of(gradient, needs=frozenset({"attention"})), only=["output"])
    assert {outcome.subject for outcome in outcomes} == {"explainer offender on tiny-vit"}


def test_needs_that_no_network_meets_are_reported():
    needs = frozenset({"attention", "convolutions"})
    (outcome,) = check_explainer(spec_of(gradient, needs=needs), only=["output"])
    assert outcome.message == "not tried: no network of the kit offers attention and convolutions; give a model"


def test_the_number_of_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        check_explainer(spec_of(gradient), only=["output"])
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_the_pytest_class_fails_with_what_is_wrong():
    class Offender(ExplainerConformance):
        spec = spec_of(gradient, stochastic=True)

    Offender().test_contract("output")
    with pytest.raises(AssertionError, match="on tiny-vit: other seed: the spec says stochastic=True"):
        Offender().test_contract("other seed")
