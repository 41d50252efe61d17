"""The kit sees maps that lie in the wrong place, belong to another finding or have the wrong sign."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from cxrx.registry import load
from cxrx.specs import Maps
from cxrx.testing import check_explainer
from cxrx.testing.networks import GRID, square_cnn, square_vit, tiny_cnn
from cxrx.testing.placement import PLACEMENT

ENOUGH = {
    "extremal": {"steps": 20, "areas": (0.05, 0.1)},
    "rise": {"masks": 400},
    "lime": {"samples": 200},
    "kernelshap": {"samples": 200},
    "smoothgrad": {"n": 10},
    "smoothgrad-squared": {"n": 10},
    "integrated-gradients": {"steps": 10},
    "gradientshap": {"n": 10},
}
"""Options with which a map is cheap and still points somewhere."""

REGISTRY = load().explainers
BUILTIN = [spec.name for name, spec in REGISTRY.items() if name.startswith("cxrx/")]


def placed(spec):
    return check_explainer(spec, options=ENOUGH.get(spec.name), only=PLACEMENT)


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_explainer_points_where_the_network_looks(name):
    outcomes = placed(REGISTRY.find(name))
    assert [outcome.check for outcome in outcomes] == list(PLACEMENT)
    assert [outcome for outcome in outcomes if not outcome.passed] == []


def shift(values, rows, columns):
    """Shift by cells of the native grid; maps of input size by as many pixels as such a cell has."""
    down, across = (max(1, side // GRID) for side in values.shape[2:])
    return values.roll((rows * down, columns * across), dims=(2, 3))


SPOILT = {
    "upside down": lambda v: v.flip(2),
    "mirrored left to right": lambda v: v.flip(3),
    "turned by half": lambda v: v.flip(2, 3),
    "transposed": lambda v: v.mT,
    "turned by a quarter": lambda v: v.rot90(-1, (2, 3)),
    "turned back by a quarter": lambda v: v.rot90(1, (2, 3)),
    "transposed along the other diagonal": lambda v: v.flip(2, 3).mT,
    "a cell too low": lambda v: shift(v, 1, 0),
    "a cell too high": lambda v: shift(v, -1, 0),
    "a cell to the right": lambda v: shift(v, 0, 1),
    "a cell to the left": lambda v: shift(v, 0, -1),
    "negated": lambda v: -v,
    "flat": torch.ones_like,
}
METHODS = ("gradcam", "saliency", "occlusion", pytest.param("extremal", marks=pytest.mark.slow), "rise", "chefer")


@pytest.fixture(scope="module")
def sound():
    """Return maps by method and by the finding of every target, computed once: what is spoilt is cheap."""
    found = {}

    def maps(name, model, x, targets, seeds):
        key = name, targets.numpy().tobytes()
        if key not in found:
            spec = REGISTRY.find(name)
            explainer = spec.build(spec.options(**ENOUGH.get(name, {})))
            found[key] = explainer(model, x, targets, seeds).values
        return found[key].clone()

    return maps


def failed(name, sound, spoil, targets_of=lambda targets: targets):
    def explain(model, x, targets, seeds):
        return Maps(spoil(sound(name, model, x, targets_of(targets), seeds)).contiguous())

    spec = replace(REGISTRY.find(name), build=lambda options: explain)
    return {o.check: o.message for o in check_explainer(spec, only=PLACEMENT) if not o.passed}


@pytest.mark.parametrize("name", METHODS)
def test_unspoilt_they_pass(name, sound):
    assert failed(name, sound, lambda v: v) == {}


@pytest.mark.parametrize("offence", SPOILT)
@pytest.mark.parametrize("name", METHODS)
def test_a_spoilt_map_is_caught(name, offence, sound):
    found = failed(name, sound, SPOILT[offence])
    if offence == "negated" and not REGISTRY.find(name).signed:
        assert found == {}  # placement has nothing to say: negative values of an unsigned method fail its output
        return
    assert found
    if offence.split()[0] in ("upside", "mirrored", "turned", "transposed"):
        assert f"it seems to be {offence}" in found["place"]
    if offence == "negated":
        assert "evidence for a finding is positive" in found["sign"]


@pytest.mark.parametrize("name", ["extremal", "chefer"])
def test_negative_values_of_a_method_without_a_sign_are_caught(name):
    def explain(model, x, targets, seeds):
        return Maps(-torch.rand(*targets.shape, 4, 6))

    spec = replace(REGISTRY.find(name), build=lambda options: explain, space="native")
    outcomes = check_explainer(spec, only=["output"])
    assert outcomes
    assert all("signed=False, but there are negative values" in outcome.message for outcome in outcomes)


@pytest.mark.parametrize("offence", ["first finding of the model", "first finding asked for", "findings swapped"])
@pytest.mark.parametrize("name", METHODS)
def test_a_map_of_another_finding_is_caught(name, offence, sound):
    if offence == "first finding of the model":
        assert failed(name, sound, lambda v: v, lambda t: torch.zeros_like(t).where(t >= 0, t))
    elif offence == "first finding asked for":
        assert "two findings have the same map" in failed(name, sound, lambda v: v[:, :1].expand_as(v))["finding"]
    else:
        assert failed(name, sound, lambda v: v, lambda t: (1 - t).where(t >= 0, t)).keys() >= {"place", "finding"}


@pytest.mark.parametrize("name", ["eigencam", "attention", "rollout"])
def test_a_method_that_knows_no_findings_has_to_say_so(name):
    (found,) = [o for o in placed(replace(REGISTRY.find(name), per_finding=True)) if not o.passed]
    assert "or say per_finding=False" in found.message


def test_a_method_that_says_it_knows_no_findings_must_not_know_any(sound):
    spec = replace(REGISTRY.find("gradcam"), per_finding=False)
    (found,) = [o for o in placed(spec) if not o.passed]
    assert "two findings have different maps" in found.message


@pytest.mark.parametrize(
    "picture",
    [lambda x: x.mean(dim=1), lambda x: x.abs().amax(dim=1), lambda x: x.new_ones(len(x), *x.shape[2:])],
    ids=["mean of the colours", "brightest colour", "nothing at all"],
)
def test_a_map_of_the_picture_alone_is_caught_unless_it_is_a_control(picture):
    def explain(model, x, targets, seeds):
        return Maps(picture(x)[:, None].expand(*targets.shape, -1, -1).contiguous())

    spec = replace(REGISTRY.find("edge"), build=lambda options: explain)
    assert all(outcome.passed for outcome in placed(spec))
    assert not all(outcome.passed for outcome in placed(replace(spec, control=False)))


@pytest.mark.parametrize("grid", [5, 8, 12, 14, 16])
def test_tiles_of_any_number_pass_and_one_tile_off_does_not(grid):
    def explain(model, x, targets, seeds, shift=(0, 0)):
        cells = torch.zeros(*targets.shape, grid, grid)
        for b, wanted in enumerate(targets.tolist()):
            for t, target in enumerate(wanted):
                cells[b, t] = functional.adaptive_avg_pool2d(x[b, target][None], grid)[0] * (target >= 0)
        return Maps(cells.roll(shift, dims=(2, 3)))

    spec = replace(REGISTRY.find("gradcam"), build=lambda options: explain)
    assert [o for o in placed(spec) if not o.passed] == []
    for off in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        spec = replace(spec, build=lambda options, off=off: lambda *call: explain(*call, shift=off))
        assert not placed(spec)[0].passed


def test_a_pixel_off_is_seen_in_a_map_that_is_sharp():
    saliency = REGISTRY.find("saliency")

    def explain(*call):
        return Maps(saliency.build(saliency.options())(*call).values.roll(1, dims=3))

    assert not placed(replace(saliency, build=lambda options: explain))[0].passed


def test_the_networks_read_what_they_are_said_to_read():
    for model in (square_cnn(), square_vit()):
        size = model.input.size
        x = torch.zeros(4, 3, *size)
        for colour in range(3):
            x[colour, colour, 16:32, 48:64] = 1.5
        red, green, blue, nothing = model.logits(x)
        assert red[0] > 5 * abs(red[1])
        assert green[1] > 5 * abs(green[0])
        assert min(red[0], green[1]) > 0.05
        torch.testing.assert_close(blue, nothing, atol=0.01, rtol=0)


def test_on_a_model_of_ones_own_places_are_not_tried():
    outcomes = check_explainer(REGISTRY.find("saliency"), tiny_cnn(), only=["place"])
    assert [(outcome.check, outcome.passed) for outcome in outcomes] == [("place", True)]
    assert outcomes[0].message.startswith("not tried")
