"""Values, schedules, parameter groups and losses against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm
import torch

from cxrx.errors import UsageError
from cxrx.specs import InputSpec
from cxrx.training.losses import class_weights, loss_of, masked_bce, sampling_weights
from cxrx.training.recipes import NO_FLIPS, Recipe, differences, make_recipe, notes_on
from cxrx.training.schedule import (
    Plateau,
    Schedule,
    freeze,
    make_optimiser,
    make_scheduler,
    parameter_groups,
    schedule_of,
    set_drop_path,
)
from cxrx.training.seeds import epoch_order, in_batches


def test_presets_and_overrides():
    mae = make_recipe("medical-mae", {"batch": "64", "lr": "1e-3"})
    assert (mae.optimiser, mae.layer_decay, mae.drop_path, mae.warmup, mae.epochs) == ("adamw", 0.55, 0.2, 5.0, 75)
    assert mae.peak_lr == pytest.approx(1e-3 * 64 / 256)
    assert differences(mae) == {"batch": 64, "lr": 1e-3}
    assert make_recipe("rsna", {}).lr == 2e-5
    assert make_recipe("chexnet", {}).schedule == "plateau"
    assert make_recipe("vit-pneumonia", {}).frozen == 6


@pytest.mark.parametrize("preset", list(Recipe.PRESETS))
def test_no_preset_mirrors_films_and_the_reason_is_said(preset):
    recipe = make_recipe(preset, {})
    assert recipe.flip == 0
    assert NO_FLIPS in notes_on(recipe, InputSpec())
    assert NO_FLIPS not in notes_on(make_recipe(preset, {"flip": 0.5}), InputSpec())


@pytest.mark.parametrize(
    ("given", "word"),
    [({"lrr": "1"}, "did you mean lr"), ({"lr": "fast"}, "a number"), ({"lr": "-1"}, "lr cannot be -1"),
     ({"optimiser": "lion"}, "adamw"), ({"layer_decay": "0"}, "layer_decay"), ({"epochs": "0"}, "epochs")],
)  # fmt: skip
def test_wrong_values_are_refused_by_name(given, word):
    with pytest.raises(UsageError) as caught:
        make_recipe("default", given)
    assert word in f"{caught.value} {caught.value.hint}"


def test_schedule_is_the_closed_form():
    recipe = make_recipe("default", {"lr": 0.1, "min_lr": 0.01, "warmup": 2, "epochs": 10})
    schedule = schedule_of(recipe, steps=5)
    assert [schedule.at(s) for s in range(10)] == pytest.approx([0.1 * (s + 1) / 10 for s in range(10)])
    for step in range(10, 50):
        expected = 0.01 + 0.09 / 2 * (1 + math.cos(math.pi * (step - 10) / 40))
        assert schedule.at(step) == pytest.approx(expected)
    assert schedule.at(50) == pytest.approx(0.01)
    assert Schedule("constant", 0.1, 0, 0, 10).at(7) == 0.1


def test_a_warmup_that_outlasts_the_training_is_told():
    long = make_recipe("medical-mae", {"epochs": 3})
    assert any("rises over 5 epochs, and there are 3" in note for note in notes_on(long, InputSpec()))
    for sound in (make_recipe("medical-mae", {}), make_recipe("default", {"epochs": 1})):
        assert not any("rises over" in note for note in notes_on(sound, InputSpec()))


def test_plateau_lowers_the_rate_after_too_many_epochs_without_a_better_score():
    plateau = Plateau(0.1, patience=1)
    scales = []
    for score in (0.5, 0.6, 0.6, 0.59, 0.58, 0.57, 0.9):
        plateau.update(score)
        scales.append(plateau.scale)
    assert scales == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_layer_decay_is_a_power_of_the_distance_from_the_head():
    network = timm.create_model("test_vit", num_classes=2)  # layers: stem, each block, head
    depth = len(network.blocks)
    groups = parameter_groups(network, weight_decay=0.05, layer_decay=0.7)
    share = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        layer = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else depth if "norm" in name else depth + 1
        layer = 0 if name.startswith(("cls_token", "pos_embed", "patch_embed")) else layer  # the last norm is a block's
        assert share[id(parameter)] == pytest.approx(0.7 ** (depth + 1 - layer)), name
        exempt = parameter.ndim <= 1 or name in {"cls_token", "pos_embed"}
        assert decay[id(parameter)] == (0.0 if exempt else 0.05), name
    optimiser = make_optimiser(make_recipe("default", {}), groups)
    schedule = Schedule("cosine", 2.0, 0.1, 3, 10)
    rates = make_scheduler(optimiser, schedule, 0.5, 4)
    for step in (4, 5, 6):  # to the bit, whatever was done before
        assert [g["lr"] for g in optimiser.param_groups] == [schedule.at(step) * 0.5 * g["lr_scale"] for g in groups]
        optimiser.step()
        rates.step()


@pytest.mark.parametrize("weight_decay", [0.05, 0.0])
def test_without_layer_decay_groups_stand_in_the_order_of_the_network(weight_decay):
    """The sum by which gradients are clipped is taken in this order."""
    for name, first_decays in (("test_resnet", True), ("test_vit", False)):
        network = timm.create_model(name, num_classes=2)
        exempt = network.no_weight_decay() if hasattr(network, "no_weight_decay") else set()
        decays = {k: p.ndim > 1 and k not in exempt for k, p in network.named_parameters()}
        groups = parameter_groups(network, weight_decay, 1.0)
        assert [group["weight_decay"] for group in groups] == [
            weight_decay if kind else 0.0 for kind in (first_decays, not first_decays)
        ]
        for group, kind in zip(groups, (first_decays, not first_decays), strict=True):
            expected = [p for k, p in network.named_parameters() if decays[k] == kind]
            assert [id(p) for p in group["params"]] == [id(p) for p in expected]


def test_frozen_blocks_keep_weights_and_statistics():
    vit = timm.create_model("test_vit", num_classes=2)
    freeze(vit, 2)
    learning = {name for name, p in vit.named_parameters() if p.requires_grad}
    assert not any(
        name.startswith(("patch_embed", "cls_token", "pos_embed", "blocks.0.", "blocks.1.")) for name in learning
    )
    assert {"blocks.2.norm1.weight", "norm.weight", "head.weight"} <= learning
    resnet = timm.create_model("test_resnet", num_classes=2)
    norms = freeze(resnet, 1)
    assert resnet.bn1 in norms
    assert resnet.layer1[0].bn1 in norms
    assert resnet.layer2[0].bn1 not in norms
    with pytest.raises(UsageError, match="blocks"):
        freeze(timm.create_model("test_vit", num_classes=2), 50)


def test_networks_that_tell_no_layers_are_refused():
    plain = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten())
    with pytest.raises(UsageError, match="layers"):
        parameter_groups(plain, 0.05, 0.7)
    with pytest.raises(UsageError, match="layers"):
        freeze(plain, 1)


def test_stochastic_depth_rises_linearly():
    vit = timm.create_model("test_vit", num_classes=2)
    keys = set(vit.state_dict())
    assert set_drop_path(vit, 0.2)
    last = len(vit.blocks) - 1
    for i, block in enumerate(vit.blocks):
        rate = getattr(block.drop_path1, "drop_prob", 0.0)
        assert rate == pytest.approx(0.2 * i / last)
        assert getattr(block.drop_path2, "drop_prob", 0.0) == pytest.approx(rate)
    assert set(vit.state_dict()) == keys
    assert not set_drop_path(torch.nn.Sequential(torch.nn.Linear(2, 2)), 0.2)


# ---------------------------------------------------------------------------------------------------------------------
# Losses


@pytest.mark.parametrize(("smoothing", "weights"), [(0.0, None), (0.1, None), (0.0, [3.0, 0.5, 1.0])])
def test_masked_loss_is_the_formula(smoothing, weights):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((6, 3)), rng.choice([1, 0, -1, -2], (6, 3)).astype(np.int8)
    total, count = 0.0, 0
    for i, k in np.ndindex(6, 3):
        if labels[i, k] >= 0:
            p, w = 1 / (1 + math.exp(-logits[i, k])), 1.0 if weights is None else weights[k]
            t = labels[i, k] * (1 - smoothing) + smoothing / 2
            total -= w * t * math.log(p) + (1 - t) * math.log(1 - p)
            count += 1
    pos_weight = None if weights is None else torch.tensor(weights)
    found = masked_bce(torch.tensor(logits), torch.from_numpy(labels), pos_weight, smoothing)
    assert float(found) == pytest.approx(total / count, rel=1e-6)


def test_unknown_labels_have_no_gradient():
    logits = torch.zeros(2, 2, requires_grad=True)
    masked_bce(logits, torch.tensor([[1, -2], [-1, 0]])).backward()
    assert logits.grad.tolist() == [[-0.25, 0.0], [0.0, 0.25]]
    nothing = masked_bce(torch.randn(2, 2), torch.full((2, 2), -2))
    assert float(nothing) == 0


def test_classes_that_exclude_each_other_take_cross_entropy():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 2, 1, 1, 0])
    labels = torch.nn.functional.one_hot(classes, 3)
    expected = -logits.log_softmax(1)[torch.arange(5), classes].mean()
    assert float(loss_of("multi-class", logits, labels, None, 0.0)) == pytest.approx(float(expected))


def test_balance_gives_both_sides_the_same_weight():
    labels = np.array([[1], [0], [0], [0]], np.int8)
    assert class_weights("binary", labels).tolist() == [3.0]
    weights = sampling_weights("binary", labels)
    assert weights[0] == pytest.approx(weights[1:].sum())
    classes = np.eye(3, dtype=np.int8)[[0, 0, 0, 1, 1, 2]]
    drawn = sampling_weights("multi-class", classes)
    assert [drawn[:3].sum(), drawn[3:5].sum(), drawn[5]] == pytest.approx([6, 6, 6])
    assert class_weights("multi-class", classes).tolist() == pytest.approx([2 / 3, 1, 2])
    unknown = np.array([[1, -2], [0, 1], [0, 0], [0, 0]], np.int8)
    # first film: 1 / (1/4); second: (1 / (3/4) + 1 / (1/3)) / 2
    assert sampling_weights("multi-label", unknown)[:2] == pytest.approx([4, (4 / 3 + 3) / 2])


def test_order_depends_on_seed_and_epoch_only():
    rows = np.array([3, 5, 8, 9, 12])
    first = epoch_order(rows, 0, 0, None)
    assert sorted(first) == sorted(rows)
    assert np.array_equal(first, epoch_order(rows, 0, 0, None))
    many = np.arange(200)
    assert not np.array_equal(epoch_order(many, 0, 0, None), epoch_order(many, 0, 1, None))
    assert not np.array_equal(epoch_order(many, 0, 0, None), epoch_order(many, 1, 0, None))
    weights = np.where(many < 20, 9.0, 1.0)  # a tenth of the films, half of the draws
    share = np.mean([(epoch_order(many, 0, epoch, weights) < 20).mean() for epoch in range(20)])
    assert share == pytest.approx(0.5, abs=0.04)
    assert [len(b) for b in in_batches(many[:10], 4)] == [4, 4]
    assert [len(b) for b in in_batches(many[:3], 4)] == [3]
