"""Scores of the whole batch: hand formulas, a planted patch, large findings, invariance, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import cxrx
from cxrx.compare.faithfulness import (
    DEFAULT,
    FAMILIES,
    MEASURES,
    ROAD,
    aopc,
    deletion,
    infidelity,
    insertion,
    sensitivity_n,
)
from cxrx.compare.faithfulness.score import score_faithfulness
from cxrx.errors import UsageError
from cxrx.explainers.baselines import make_baseline
from cxrx.registry import load as load_registry

SIZE = 32
QUICK = (deletion(16), insertion(16), ROAD, aopc(28, 8), sensitivity_n(16, "grid", 16), infidelity(32))
PRIMARY = ("deletion", "insertion", "road", "road_morf", "road_lerf", "aopc", "degradation", "sensitivity_n")


class Linear(nn.Module):
    """Logit k is Σ weights[k] · grey + bias, grey being the sum over the channels."""

    def __init__(self, weights, bias=0.0):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights, dtype=torch.float32))
        self.bias = bias

    def forward(self, x):
        return torch.einsum("bhw,khw->bk", x.sum(dim=1), self.weights) + self.bias


class Region(nn.Module):
    """Logit k rises with the brightness of region k, and saturates: 8 tanh(gain · mean over it) - 4."""

    def __init__(self, regions, gain=1.0):
        super().__init__()
        self.gain = gain
        self.regions = torch.as_tensor(np.asarray(regions), dtype=torch.float32)

    def forward(self, x):
        inside = torch.einsum("bhw,khw->bk", x.mean(dim=1), self.regions) / self.regions.sum(dim=(1, 2))
        return 8 * torch.tanh(self.gain * inside.clamp(min=0)) - 4


def wrap(module, labels=2, channels=1, size=SIZE):
    findings = [f"finding{k}" for k in range(labels)]
    return cxrx.wrap_model(module, findings, size, channels, mean=(0.5,), std=(0.25,))


def region(top, left, height, width, size=SIZE):
    mask = np.zeros((size, size))
    mask[top : top + height, left : left + width] = 1
    return mask


def pictures(n=3, channels=1, seed=0, size=SIZE):
    grey = torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return ((grey - 0.5) / 0.25).repeat(1, channels, 1, 1)


def with_patch(mask, seed=0, size=SIZE):
    """A noisy dark picture with a bright region, prepared."""
    noise = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(seed)) * 0.2
    grey = (noise + 0.7 * torch.as_tensor(mask, dtype=torch.float32)).clamp(0, 1)
    return (grey - 0.5) / 0.25


# ---------------------------------------------------------------------------------------------------------------------
# Hand formulas


def test_deletion_and_insertion_of_a_linear_model_have_a_closed_form():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((2, SIZE, SIZE))
    x = pictures(1)
    model = wrap(Linear(weights, 0.5))
    maps = rng.standard_normal((1, 2, SIZE, SIZE))  # no ties
    found = score_faithfulness(model, x, maps, [[0, 1]], (deletion(10), insertion(10)), seeds=[1])
    grey = x[0, 0].double().numpy()
    blur = make_baseline(model, x, "blur")[0, 0].double().numpy()
    taken = np.rint(np.arange(11) * SIZE * SIZE / 10).astype(int)
    share = taken / SIZE**2
    for t in range(2):
        order = np.argsort(-maps[0, t].ravel())
        effect = (weights[t] * (grey - grey.mean())).ravel()[order]  # what each pixel takes away, in order
        gain = (weights[t] * (grey - blur)).ravel()[order]
        f = (weights[t] * grey).sum() + 0.5 - np.append(0, np.cumsum(effect))[taken]
        g = (weights[t] * blur).sum() + 0.5 + np.append(0, np.cumsum(gain))[taken]
        for name, curve in (("deletion", f), ("insertion", g)):
            seen_share, seen = found.curves[name]
            np.testing.assert_allclose(seen_share, share)
            np.testing.assert_allclose(seen[0, t], curve, atol=1e-3)
            np.testing.assert_allclose(found.scores[name][0, t], np.trapezoid(curve, share), atol=1e-3)
            p = 1 / (1 + np.exp(-curve))
            np.testing.assert_allclose(found.scores[f"{name}_probability"][0, t], np.trapezoid(p, share), atol=1e-3)
        scaled = (f - f[-1]) / (f[0] - f[-1])
        wanted = np.trapezoid(scaled, share) if f[0] - f[-1] >= 0.1 else np.nan
        np.testing.assert_allclose(found.scores["deletion_normalised"][0, t], wanted, atol=1e-3)
        np.testing.assert_allclose(found.normalised("deletion")[1][0, t, 0], np.nan if np.isnan(wanted) else 1)


def test_the_map_of_a_linear_model_explains_it_exactly():
    """Σ map over any pixels is what hiding them takes away: sensitivity-n is 1, infidelity 0."""
    weights = np.random.default_rng(0).standard_normal((1, SIZE, SIZE))
    x = pictures(1)
    grey = x[0, 0].double().numpy()
    model = wrap(Linear(weights), labels=1)
    exact = (weights[0] * (grey - grey.mean()))[None, None]
    found = score_faithfulness(model, x, exact, [[0]], (sensitivity_n(16, "grid", 16),), seeds=[1])
    assert found.scores["sensitivity_n"][0, 0] == pytest.approx(1, abs=1e-5)
    against = score_faithfulness(model, x, -exact, [[0]], (sensitivity_n(16, "grid", 16),), seeds=[1])
    assert against.scores["sensitivity_n"][0, 0] == pytest.approx(-1, abs=1e-5)
    # infidelity perturbs with noise: the gradient explains that, in any scale
    for factor in (1, 1e-3, -7):
        found = score_faithfulness(model, x, factor * weights[None], [[0]], (infidelity(32),), seeds=[1])
        assert found.scores["infidelity_share"][0, 0] < 1e-6
    nothing = score_faithfulness(model, x, 0 * weights[None], [[0]], (infidelity(32),), seeds=[1])
    assert nothing.scores["infidelity_share"][0, 0] == pytest.approx(1)
    scale = 0.1 * (grey.max() - grey.min())
    expected = scale**2 * (weights**2).sum()  # E[(Σ w I)²]
    assert nothing.scores["infidelity"][0, 0] == pytest.approx(expected, rel=0.7)  # 32 draws of a chi-squared


def test_aopc_and_degradation_of_a_linear_model():
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((1, SIZE, SIZE))
    x = pictures(1, seed=2)
    grey = x[0, 0].double().numpy()
    map_2d = rng.standard_normal((SIZE, SIZE))
    family = aopc(28, 100)  # tiles of 4 px at 32: 8 x 8 of them
    found = score_faithfulness(wrap(Linear(weights), 1), x, map_2d[None, None], [[0]], (family,), seeds=[0])

    def of_tiles(a):
        return a.reshape(8, 4, 8, 4).sum(axis=(1, 3)).ravel()

    drop = of_tiles(weights[0] * (grey - grey.mean()))[np.argsort(-of_tiles(map_2d))]
    full = (weights[0] * grey).sum()
    morf, lerf = (full - np.append(0, np.cumsum(part)) for part in (drop, drop[::-1]))
    share = np.arange(65) / 64
    np.testing.assert_allclose(found.curves["aopc_morf"][0], share)
    np.testing.assert_allclose(found.curves["aopc_morf"][1][0, 0], morf, atol=1e-3)
    np.testing.assert_allclose(found.curves["aopc_lerf"][1][0, 0], lerf, atol=1e-3)
    assert found.scores["aopc"][0, 0] == pytest.approx((full - morf).mean(), abs=1e-3)
    assert found.scores["degradation"][0, 0] == pytest.approx(np.trapezoid(lerf - morf, share), abs=1e-3)


def test_road_scores_are_means_of_their_curves():
    model, x = wrap(Region([region(4, 4, 8, 8), region(20, 20, 6, 6)])), pictures(1)
    maps = np.random.default_rng(0).standard_normal((1, 2, 8, 8))
    found = score_faithfulness(model, x, maps, [[0, 1]], ("road",), seeds=[0])
    x_axis, morf = found.curves["road_morf"]
    _, lerf = found.curves["road_lerf"]
    np.testing.assert_allclose(x_axis, np.arange(10) / 10)
    np.testing.assert_allclose(morf[..., 0], found.full)
    np.testing.assert_allclose(found.scores["road_morf"], morf[..., 1:].mean(axis=-1))
    np.testing.assert_allclose(found.scores["road"], (lerf - morf)[..., 1:].mean(axis=-1) / 2)


# ---------------------------------------------------------------------------------------------------------------------
# Does a perfect map win?


@pytest.mark.parametrize(
    "family", [deletion(16), insertion(16), ROAD, aopc(28), sensitivity_n(64, "grid"), infidelity()],
    ids=lambda family: family.name,
)  # fmt: skip
def test_a_perfect_map_beats_a_wrong_one(family):
    patch = region(6, 18, 8, 8)
    model, x = wrap(Region([patch]), labels=1), with_patch(patch)
    maps = np.stack([patch, np.roll(patch, (14, -14), axis=(0, 1))])[None]
    found = score_faithfulness(model, x, maps, [[0, 0]], (family,), seeds=[3])
    judged = {name: measure for name, measure in family.measures.items() if measure.higher_is_better is not None}
    assert len(judged) >= 2
    for name, measure in judged.items():
        perfect, wrong = found.scores[name][0]
        assert (perfect > wrong) == measure.higher_is_better, (name, perfect, wrong)


def test_blur_fails_on_a_large_finding_and_is_flagged_where_the_mean_orders_right():
    """A blur leaves a large bright region as it is: deleting it takes nothing away."""
    large = region(2, 2, 28, 22)
    model, x = wrap(Region([large], gain=2.0), labels=1), with_patch(large)
    maps = np.stack([large, 1 - large])[None]

    def deleted(kind):
        scores = score_faithfulness(model, x, maps, [[0, 0]], (deletion(baseline=kind),), seeds=[0]).scores
        return scores["deletion_probability"][0], scores["baseline_share"][0], scores["flagged"][0]

    (perfect, wrong), share, flagged = deleted("mean")
    assert perfect < wrong - 0.1
    assert (share < 0.5).all()
    assert (flagged == 0).all()
    (perfect, wrong), share, flagged = deleted("blur")
    assert perfect > 0.9
    assert abs(perfect - wrong) < 0.05  # cannot tell them apart
    assert (share > 0.5).all()
    assert (flagged == 1).all()


def test_share_of_the_baseline_is_of_probabilities():
    x = pictures(1)
    model = wrap(Linear(np.full((1, SIZE, SIZE), 1 / SIZE**2), -3.0), labels=1)  # logit: mean - 3, as of the baseline
    found = score_faithfulness(model, x, np.ones((1, 1, 2, 2)), [[0]], ("deletion",), seeds=[0])
    assert found.full[0, 0] < 0
    assert found.scores["baseline_share"][0, 0] == pytest.approx(1, abs=1e-5)
    assert found.scores["flagged"][0, 0] == 1
    assert np.isnan(found.scores["deletion_normalised"][0, 0])  # nothing to share out
    assert found.baselines["deletion"][0, 0] == pytest.approx(found.full[0, 0], abs=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# What scores may depend on


def small_cnn(channels=1):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ReLU(inplace=True),  # overwrites its input
        nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def test_scores_do_not_depend_on_the_batch():
    model, x = wrap(small_cnn(), 3), pictures(4)
    rng = np.random.default_rng(0)
    maps = np.maximum(rng.standard_normal((4, 3, 7, 7)), 0).astype(np.float32)
    maps[1, 2] = maps[1, 0]  # shares its passes
    targets = np.array([[0, 1, 2], [2, -1, 1], [-1, -1, -1], [1, 0, -1]])
    seeds = np.array([2**62, 6, 7, 8])
    kept = x.clone()
    every = score_faithfulness(model, x, maps, targets, QUICK, seeds=seeds)
    torch.testing.assert_close(x, kept, rtol=0, atol=0)
    assert set(every.scores) == set(MEASURES)
    order = [2, 0, 3, 1]
    moved = score_faithfulness(
        model, x[order], torch.from_numpy(maps[order]), torch.from_numpy(targets[order]), QUICK,
        seeds=torch.from_numpy(seeds[order]),
    )  # fmt: skip
    alone = score_faithfulness(model, x[1:2], maps[1:2, ::-1], targets[1:2, ::-1], QUICK, seeds=seeds[1:2])
    single = score_faithfulness(model, x, maps, targets, ("road",), seeds=seeds)
    for name, values in every.scores.items():
        assert (np.isnan(values)[targets == -1]).all()
        np.testing.assert_array_equal(moved.scores[name], values[order], err_msg=name)
        np.testing.assert_array_equal(alone.scores[name][:, ::-1], values[1:2], err_msg=name)
    for name, values in single.scores.items():
        np.testing.assert_array_equal(values, every.scores[name])
    for name, (share, values) in every.curves.items():
        np.testing.assert_array_equal(moved.curves[name][0], share)
        np.testing.assert_array_equal(moved.curves[name][1], values[order])
        assert np.isfinite(values[targets != -1]).all()
    assert every.scores["deletion"][1, 0] != every.scores["deletion"][1, 2]  # other findings of the same map


def test_another_seed_breaks_ties_otherwise():
    model, x = wrap(small_cnn(), 3), pictures(1)
    flat = np.zeros((1, 1, 4, 4))
    one, two, again = (
        score_faithfulness(model, x, flat, [[0]], ("deletion",), seeds=[seed]).scores["deletion"] for seed in (1, 2, 1)
    )
    assert one != two
    assert one == again


def test_a_control_needs_its_passes_only_once():
    model, x = wrap(small_cnn(), 3), pictures(1)
    rows = []
    model.module.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    maps = np.random.default_rng(0).random((1, 3, 4, 4))
    score_faithfulness(model, x, maps, [[0, 1, 2]], (deletion(16),), seeds=[0])
    different = len(rows)
    score_faithfulness(model, x, np.repeat(maps[:, :1], 3, axis=1), [[0, 1, 2]], (deletion(16),), seeds=[0])
    assert len(set(rows)) == 1  # one fixed shape
    assert different == -(-(3 + 3 * 15) // rows[0])
    assert len(rows) - different == -(-(3 + 15) // rows[0])


def test_a_grey_picture_in_three_channels_scores_as_in_one():
    patch = np.stack([region(6, 18, 8, 8), region(0, 0, 20, 10)])
    maps = np.random.default_rng(1).standard_normal((2, 2, 7, 7))
    grey, three = (
        score_faithfulness(
            wrap(Region(patch), channels=channels),
            pictures(2, channels),
            maps,
            [[0, 1], [1, -1]],
            (deletion(8), insertion(8), ROAD, aopc(28), sensitivity_n(16, "grid"), infidelity()),
            seeds=[4, 5],
        )
        for channels in (1, 3)
    )
    for name, values in grey.scores.items():
        np.testing.assert_allclose(three.scores[name], values, atol=2e-4, err_msg=name)


def test_channels_of_different_scale_are_still_one_grey_picture():
    """ImageNet's mean and std differ by channel: the same grey picture, the same scores."""
    maps = np.random.default_rng(1).standard_normal((1, 1, 7, 7))
    grey = torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    class Grey(nn.Module):
        """Takes the first channel back to grey and judges that."""

        def forward(self, x):
            std, mean = (0.229, 0.485) if x.shape[1] == 3 else (0.25, 0.5)
            return 10 * (((x[:, 0] * std + mean)[:, 6:14, 18:26] - 0.4) ** 2).mean(dim=(1, 2))[:, None]

    one = wrap(Grey(), 1)
    three = cxrx.wrap_model(Grey(), ["finding0"], SIZE, 3)
    found = [
        score_faithfulness(model, model.prepare(grey), maps, [[0]], QUICK, seeds=[4]).scores for model in (one, three)
    ]
    for name in MEASURES:
        if "insertion" not in name:  # zeros around the blurred picture are another grey
            np.testing.assert_allclose(found[0][name], found[1][name], atol=1e-4, err_msg=name)


# ---------------------------------------------------------------------------------------------------------------------
# Maps without an order, bad input


def test_a_map_that_is_not_finite_is_nan_and_a_constant_one_is_scored_in_random_order():
    model, x = wrap(small_cnn(), 3), pictures(1)
    maps = np.random.default_rng(0).random((1, 3, 5, 5))
    maps[0, 0, 2, 2] = np.nan
    maps[0, 1] = 0.1
    found = score_faithfulness(model, x, maps, [[0, 1, 2]], QUICK, seeds=[0])
    for name, values in found.scores.items():
        assert np.isnan(values[0, 0]), name
    assert np.isnan(found.curves["deletion"][1][0, 0]).all()
    for name in PRIMARY[:-1]:
        assert np.isfinite(found.scores[name][0, 1:]).all(), name
    assert np.isnan(found.scores["sensitivity_n"][0, 1])  # the same for all subsets of a size: no correlation
    alone = score_faithfulness(model, x, maps[:, 2:], [[2]], QUICK, seeds=[0])
    for name, values in alone.scores.items():
        np.testing.assert_array_equal(values[0, 0], found.scores[name][0, 2])


def test_nothing_asked_for_gives_nan():
    found = score_faithfulness(wrap(small_cnn(), 3), pictures(2), np.ones((2, 1, 3, 3)), [[-1], [-1]], seeds=[0, 1])
    assert set(found.scores) == {name for family in FAMILIES[: len(DEFAULT)] for name in family.measures}
    assert all(np.isnan(values).all() for values in found.scores.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": ("deletoin",)}, "no faithfulness metric 'deletoin'$"),
        ({"maps": np.ones((2, 2, 3, 3))}, r"maps \(B, T, h, w\)"),
        ({"targets": [[0], [3]]}, "indices of 3 findings"),
        ({"targets": [[0], [-2]]}, "indices of 3 findings"),
        ({"seeds": [0]}, "2 pictures"),
        ({"x": torch.full((2, 1, SIZE, SIZE), torch.nan)}, "not finite"),
    ],
)
def test_bad_input_is_told(changes, said):
    given = {
        "x": pictures(2),
        "maps": np.ones((2, 1, 3, 3)),
        "targets": [[0], [1]],
        "metrics": ("deletion",),
        "seeds": [0, 1],
    } | changes
    with pytest.raises(UsageError, match=said):
        score_faithfulness(wrap(small_cnn(), 3), **given)


def test_the_registered_metrics_return_what_they_promise():
    model, x = wrap(small_cnn(), 3), pictures(2)
    maps = np.random.default_rng(0).random((2, 1, 4, 4)).astype(np.float32)
    targets = torch.tensor([[0], [-1]])
    specs = load_registry().metrics
    for family in FAMILIES:
        assert specs.find(family.name) is family
        assert family.kind == "faithfulness"
        assert family.summary
        assert family.citation
    for family in ("deletion", "sensitivity_n"):
        scores = specs.find(family).compute(model, x, torch.from_numpy(maps), targets)
        again = specs.find(family).compute(model, x[:1], maps[:1], targets[:1])
        assert set(scores) == set(specs.find(family).measures)
        for name, values in scores.items():
            assert values.shape == (2, 1)
            assert np.isnan(values[1, 0])
            np.testing.assert_array_equal(again[name][0], values[0])


def test_every_score_says_what_it_is():
    assert DEFAULT == ("deletion", "insertion", "road")
    for name, measure in MEASURES.items():
        assert len(measure.sentence) > 20
        describes = name.endswith(("baseline_share", "flagged"))
        lower = name.startswith(("deletion", "road_morf", "infidelity"))
        assert measure.higher_is_better is (None if describes else not lower)
    in_logits = {"deletion", "insertion", "road", "road_morf", "road_lerf", "aopc", "degradation"}
    assert {name: measure.unit for name, measure in MEASURES.items() if measure.unit} == {
        **dict.fromkeys(in_logits, "logits"), "infidelity": "squared logits"
    }  # fmt: skip


def softmax(weights, labels):
    return cxrx.wrap_model(Linear(weights), labels, SIZE, 1, mean=(0.5,), std=(0.25,), activation="softmax")


@pytest.mark.parametrize("named", ["three classes", "two classes", "one of two"])
def test_the_score_that_was_explained_is_the_one_that_is_measured(named):
    weights = np.random.default_rng(0).normal(0, 0.02, (2 if "two" in named else 3, SIZE, SIZE))
    labels = ["Normal", "Mass", "Nodule"][: len(weights)]
    model = softmax(weights, labels[1:] if named == "one of two" else labels)
    k = 1  # Mass, among the logits
    column = model.labels.index("Mass")
    x = torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    maps = np.random.default_rng(1).random((1, 2, SIZE, SIZE))
    scores = ("log-odds", "logit")
    found_by = {
        score: score_faithfulness(model, x, maps, [[column] * 2], QUICK, seeds=[1], score=score) for score in scores
    }

    def f(pictures, score):
        z = torch.einsum("bhw,khw->bk", pictures.sum(dim=1).double(), torch.from_numpy(weights))
        others = [j for j in range(len(weights)) if j != k]
        return (z[:, k] - (z[:, others].logsumexp(dim=1) if score == "log-odds" else 0)).numpy()

    for t, score in itertools.product(range(2), scores):
        found = found_by[score]
        assert found.full[0, t] == pytest.approx(f(x, score)[0], abs=1e-4)
        for curve, end in found.baselines.items():
            kind = next(family.baseline for family in QUICK if {curve, curve[:4]} & {family.name, *family.measures})
            assert end[0, t] == pytest.approx(f(make_baseline(model, x, kind), score)[0], abs=1e-4)
        start = found.curves["deletion"][1][0, t]
        assert start[0] == pytest.approx(found.full[0, t])
        assert start[-1] == pytest.approx(found.baselines["deletion"][0, t])
    found, raw = (found_by[score] for score in scores)
    assert abs(raw.scores["deletion"][0, 0] - found.scores["deletion"][0, 0]) > 0.01
    assert found.scores["deletion_probability"][0, 0] == pytest.approx(raw.scores["deletion_probability"][0, 0])
    probability = 1 / (1 + np.exp(-found.curves["deletion"][1][0, 0]))
    assert found.scores["deletion_probability"][0, 0] == pytest.approx(
        np.trapezoid(probability, found.curves["deletion"][0]), abs=1e-5
    )
    # a model that already answers with what is explained, as plugins' metrics are given it, is not taken for logits
    again = score_faithfulness(model.explaining("log-odds"), x, maps[:, :1], [[column]], QUICK, seeds=[1])
    for name, values in again.scores.items():
        np.testing.assert_allclose(values[0, 0], found.scores[name][0, 0], rtol=1e-4, atol=1e-5, err_msg=name)
