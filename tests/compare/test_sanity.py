from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import entropy, spearmanr
from skimage.metrics import structural_similarity
from torch import nn
from torch.nn import functional

import cxrx
from cxrx.compare.sanity.check import TESTS, check_sanity
from cxrx.compare.sanity.experiment import Experiment
from cxrx.compare.sanity.judge import CONVENTION, judge, sentence_of, summarise
from cxrx.compare.sanity.robustness import RADIUS, SAMPLES, SIGMA, max_sensitivity, noisy
from cxrx.errors import UsageError
from cxrx.explainers.option_types import NoOptions
from cxrx.explainers.seeds import derive_seed, generator
from cxrx.metrics.agreement import common_grid, other_film, score_agreement
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.similarity import (
    COLUMNS,
    METRICS,
    SIMILARITIES,
    compare_maps,
    map_entropy,
    prepare,
    random_pairs,
)
from cxrx.metrics.similarity import (
    rows_of as long_rows,
)
from cxrx.models.model import Model
from cxrx.options import parse_options
from cxrx.phantom import make_film
from cxrx.registry import load
from cxrx.specs import ExplainerSpec, InputSpec, Maps
from cxrx.testing.networks import tiny_cnn

IDS = ("a", "b", "c", "d", "e")
TARGETS = torch.tensor([[0, 1], [2, -1], [1, 0], [0, -1], [-1, 2]])


def pictures(count=5, size=(32, 48)):
    return torch.stack([torch.rand(1, *size, generator=generator(i)) for i in range(count)]) * 4 - 2


def seeds_of(spec, ids=IDS):
    return torch.tensor([derive_seed(0, spec.name, image_id) for image_id in ids])


def pairs_of(image_ids, patients, findings):
    return pd.DataFrame({"image_id": list(image_ids), "patient": list(patients), "finding": list(findings)})


def check(method, model=None, x=None, targets=TARGETS, ids=IDS, batch_size=2, **options):
    model = tiny_cnn() if model is None else model
    x = pictures() if x is None else x
    given = {"draws": 2, "tests": ("randomisation",)} | options
    return check_sanity(experiment_of(model, method, x, targets, ids, batch_size), **given)


def experiment_of(model, method, x, targets, ids=IDS, batch_size=3):
    spec = load().explainers.find(method) if isinstance(method, str) else method
    settings = parse_options(spec.options, {"n": 2} if spec.name.startswith("smoothgrad") else {}, spec.name)
    made = Experiment.make(
        model, spec, settings, x, targets, seeds_of(spec, ids), image_ids=ids, patients=ids, findings=model.labels
    )
    return replace(made, size=min(batch_size, len(x)))


# ---------------------------------------------------------------------------------------------------------------------
# Similarities


def test_similarities_against_scipy_and_scikit_image():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 7, 7)), rng.standard_normal((4, 24, 16))
    found = compare_maps(prepare(a), prepare(b))
    assert tuple(found) == SIMILARITIES
    for i in range(4):
        one, two = common_grid(a[i]), common_grid(b[i])
        assert found["spearman"][i] == pytest.approx(spearmanr(one.ravel(), two.ravel()).statistic, abs=1e-6)
        scaled = [(grid - grid.min()) / (grid.max() - grid.min()) for grid in (one, two)]
        assert found["ssim"][i] == pytest.approx(structural_similarity(*scaled, data_range=1), abs=1e-12)
        assert found["iou_top_10"][i] == score_agreement(a[i], b[i])["iou_top_10"]


def test_a_map_that_orders_nothing_is_like_no_other():
    maps = np.stack([np.eye(8), np.zeros((8, 8)), np.full((8, 8), np.nan), np.eye(8)[::-1]])
    found = compare_maps(prepare(maps), prepare(np.stack([np.eye(8)] * 4)))
    for metric in SIMILARITIES:
        np.testing.assert_array_equal(np.isnan(found[metric]), [False, True, True, False])
        assert found[metric][0] == pytest.approx(1)
        assert found[metric][3] < 0.3


def test_entropy_by_hand():
    quarters = np.repeat(np.repeat([[0.0, 1.0], [2.0, 3.0]], 32, axis=0), 32, axis=1)
    assert map_entropy(quarters) == pytest.approx(np.log(4))
    assert map_entropy(quarters * 7 - 3) == pytest.approx(np.log(4))
    assert map_entropy(np.full((9, 9), 0.3)) == 0
    assert np.isnan(map_entropy(np.array([[0.0, np.inf], [1.0, 2.0]])))
    noise = np.random.default_rng(0).standard_normal((64, 64))
    assert map_entropy(noise) == pytest.approx(entropy(np.histogram(noise, 100)[0]))


def test_random_pairs_are_maps_of_other_patients():
    rng = np.random.default_rng(0)
    maps = rng.random((6, 8, 8))
    pairs = pairs_of("abcdef", "ppqrst", ["Mass"] * 5 + ["Nodule"])
    rows = random_pairs(prepare(maps), pairs, seed=3, draws=2)
    assert tuple(rows.columns) == COLUMNS
    assert len(rows) == 6 * 3 * 2
    for draw in (0, 1):
        partner = other_film(pairs["finding"], pairs["patient"], 3 + draw)
        part = rows[(rows["draw"] == draw) & (rows["metric"] == "spearman")].set_index("image_id")["value"]
        for i, j in enumerate(partner[:5]):
            expected = score_agreement(maps[i], maps[j])["spearman"]
            assert part[pairs["image_id"][i]] == pytest.approx(expected, abs=1e-6)
        assert np.isnan(part["f"])  # the only patient with that finding


# ---------------------------------------------------------------------------------------------------------------------
# The whole check


def test_edge_does_not_change_and_fails():
    result = check("edge")
    changed = result.rows[result.rows["test"] == "randomisation"]
    np.testing.assert_allclose(changed["value"], 1, atol=1e-6)
    (verdict, *_) = judge(result.rows, result.random_pairs, PatientBootstrap(IDS, 100, 0))
    assert verdict[:2] == ("randomisation", False)
    assert verdict[2] == "fails"
    assert verdict[3].startswith("its map does not change when the whole network is randomised (rank corr")
    assert "1.00, n = 7; maps of different patients: -0.01" in verdict[3]


def test_rows_hold_every_stage_draw_and_pair():
    model = tiny_cnn()
    before = model.weights_sha256
    result = check("gradcam", model, tests=TESTS)
    assert result.stages == ("9", "5", "3", "0")
    assert not result.stochastic
    randomised = result.rows[result.rows["test"] == "randomisation"]
    assert list(dict.fromkeys(randomised["stage"])) == list(result.stages)
    assert len(randomised) == 4 * 2 * 3 * 7
    counts = result.rows.groupby(["test", "metric"]).size().to_dict()
    assert counts["entropy", "entropy_rise"] == 2 * 7
    assert counts["noise", "ssim"] == 2 * 7
    assert counts["sensitivity", "max_sensitivity"] == 7
    assert "repeatability" not in set(result.rows["test"])
    assert set(result.rows["metric"]) == set(METRICS)
    asked = {(i, model.labels[t]) for i, row in zip(IDS, TARGETS.tolist(), strict=True) for t in row if t >= 0}
    assert set(zip(result.rows["image_id"], result.rows["finding"], strict=True)) == asked
    del model.__dict__["weights_sha256"]
    assert model.weights_sha256 == before


def test_the_map_of_a_stage_is_that_of_the_network_randomised_so_far():
    from cxrx.compare.sanity.randomise import randomisation
    from cxrx.models.stages import stages

    model, spec = tiny_cnn(), load().explainers.find("saliency")
    x, targets = pictures(), TARGETS[:, :1].clamp(min=0)
    result = check("saliency", model, x, targets, draws=1, seed=4)
    original = cxrx.explain(model, x, "saliency", targets, image_ids=IDS, batch_size=2).values[:, 0]
    with randomisation(model.module) as randomise:
        for stage in stages(model.module)[:2]:
            randomise(stage, derive_seed(4, "randomisation", 0))
        changed = cxrx.explain(model, x, "saliency", targets, image_ids=IDS, batch_size=2).values[:, 0]
    expected = compare_maps(prepare(original), prepare(changed))
    for metric, values in expected.items():
        part = result.rows[(result.rows["stage"] == "5") & (result.rows["metric"] == metric)]
        np.testing.assert_allclose(part["value"], values, atol=1e-12)
    assert spec.signed


def test_the_last_stage_alone_is_the_same_network():
    whole, last = check("gradcam"), check("gradcam", every_stage=False)
    part = whole.rows[(whole.rows["stage"] == whole.stages[-1]) | (whole.rows["test"] == "entropy")]
    assert last.rows.equals(part.reset_index(drop=True))
    assert last.stages == whole.stages


def test_maps_are_compared_in_their_published_form():
    model = tiny_cnn()
    explained = cxrx.explain(model, pictures(), "gradcam", TARGETS, image_ids=IDS, batch_size=2)
    assert explained.values.min() < 0
    own = experiment_of(model, "gradcam", pictures(), TARGETS)
    np.testing.assert_allclose(own.maps(), np.maximum(explained.values, 0)[own.asked()], atol=1e-6)


def test_nothing_depends_on_the_batch():
    ids, targets = ("z", "c", "a"), torch.tensor([[1, 0], [1, 0], [0, 1]])
    x = pictures()
    one = check("smoothgrad", x=x, tests=TESTS).rows
    other = check("smoothgrad", x=torch.stack([x[4], x[2], x[0]]), targets=targets, ids=ids, tests=TESTS).rows
    keys = ["test", "stage", "metric", "image_id", "finding", "draw"]
    both = one.merge(other, on=keys, suffixes=("", "_other"))
    assert set(both["image_id"]) == {"a", "c"}
    assert set(both["test"]) == {*TESTS, "entropy"}
    np.testing.assert_array_equal(both["value"], both["value_other"])


def test_reseeded_runs_of_a_stochastic_method():
    rows = check("smoothgrad", tests=("repeatability",)).rows
    values = rows[rows["metric"] == "spearman"]["value"]
    assert values.between(0.2, 0.9999).all()
    noise = check("random", tests=("repeatability",)).rows
    assert noise[noise["metric"] == "spearman"]["value"].abs().mean() < 0.3


@pytest.mark.parametrize("test", TESTS)
def test_the_network_is_whole_after_a_method_breaks(test):
    calls = []

    def explain(model, x, targets, seeds):
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("broken")
        return Maps(x.new_ones(*targets.shape, 4, 4))

    model, broken = tiny_cnn(), ExplainerSpec("broken", lambda _: explain, NoOptions, stochastic=True)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    with pytest.raises(RuntimeError, match="broken"):
        check(broken, model, tests=(test,), x=pictures())
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_what_does_not_fit_is_told():
    with pytest.raises(UsageError, match=r"no sanity test 'magic'$"):
        check("edge", tests=("magic",))
    with pytest.raises(UsageError, match="equally many"):
        check("edge", ids=("a", "b"))


def test_no_tests_no_rows():
    result = check("edge", tests=())
    assert tuple(result.rows.columns) == COLUMNS
    assert judge(result.rows, result.random_pairs, PatientBootstrap(IDS, 10, 0)) == []


@pytest.fixture(scope="module")
def demo():
    """The demo DenseNet and twelve phantoms of twelve patients, with their two highest logits."""
    model = cxrx.load_model("demo-densenet")
    films = [torch.from_numpy(make_film(77, i, size=(128, 112)).pixels.astype(np.float32) / 255) for i in range(12)]
    x = model.prepare(torch.stack([functional.pad(film, (8, 8)) for film in films]))
    return model, x, model.logits(x).topk(2, dim=1).indices, tuple(f"film{i}" for i in range(12))


@pytest.mark.parametrize(("method", "passed"), [("gradcam", True), ("saliency", True), ("edge", False)])
def test_a_trained_network(demo, method, passed):
    model, x, targets, ids = demo
    result = check(method, model, x, targets, ids, every_stage=False, draws=1, batch_size=8)
    bootstrap = PatientBootstrap(ids, 500, 0)
    table = summarise(result.rows, result.random_pairs, bootstrap)
    similar = table[table["test"] == "randomisation"]
    assert len(similar) == 3
    assert ((similar["value"] < similar["random_pair"]) == passed).all()
    ((test, decided, *_),) = judge(result.rows, result.random_pairs, bootstrap)
    assert (test, decided) == ("randomisation", passed)


# ---------------------------------------------------------------------------------------------------------------------
# Noise


def linear(size=(6, 8), scale=1.0):
    net = nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1], 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(2, size[0] * size[1], generator=generator(1)) * scale)
    return Model(net, ("A", "B"), InputSpec(size=size, channels=1, mean=(0.5,), std=(0.25,)), name="linear")


def test_max_sensitivity_of_a_linear_model():
    x, targets = pictures(3, (6, 8)), torch.tensor([[0, 1], [-1, 1], [-1, -1]])
    model, ids = linear(), ("a", "b", "c")
    np.testing.assert_allclose(max_sensitivity(experiment_of(model, "saliency", x, targets, ids)), 0, atol=1e-6)
    found = max_sensitivity(experiment_of(model, "inputxgrad", x, targets, ids))
    expected = []
    for b, t in ((0, 0), (0, 1), (1, 1)):
        weight = model.module[1].weight[t].detach().reshape(6, 8)
        drawn = generator(derive_seed(0, "sensitivity", ids[b]))
        noise = (2 * torch.rand(SAMPLES, 6, 8, generator=drawn) - 1) * RADIUS * (x[b].max() - x[b].min())
        assert noise.abs().max() <= 0.02 * (x[b].max() - x[b].min())
        expected.append(float((weight * noise).flatten(1).norm(dim=1).max() / (weight * x[b, 0]).norm()))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_max_sensitivity_of_an_empty_map_is_none():
    class Negative(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x):
            return -self.body(x).relu().mean(dim=(2, 3))  # Grad-CAM's weights are negative: nothing is left of its map

    model = Model(Negative(), ("A", "B"), InputSpec(size=(8, 8), channels=1), name="negative", cam_layer="body")
    with torch.no_grad():
        model.module.body.bias.fill_(10)
    found = max_sensitivity(experiment_of(model, "gradcam", pictures(2, (8, 8)), torch.tensor([[0], [1]]), ("a", "b")))
    assert np.isnan(found).all()


def test_noise_that_moves_the_prediction_is_left_out():
    x, targets, ids = pictures(3, (6, 8)), torch.tensor([[0, 1]] * 3), ("a", "b", "c")
    still = experiment_of(linear(scale=0.01), "inputxgrad", x, targets, ids)
    values = noisy(still, prepare(still.maps()), 0)
    assert all(np.isfinite(values[metric]).all() for metric in SIMILARITIES)
    changed = x.clone()
    for b, image_id in enumerate(ids):
        noise = torch.randn(1, 6, 8, generator=generator(derive_seed(0, "noise", image_id)))
        changed[b] += noise * SIGMA * (x[b].max() - x[b].min())
    expected = compare_maps(prepare(still.maps()), prepare(still.maps(x=changed)))
    np.testing.assert_allclose(values["spearman"], expected["spearman"], atol=1e-12)
    jumpy = experiment_of(linear(), "inputxgrad", x, targets, ids)
    with torch.no_grad():  # the first picture is one that the network cannot decide on
        jumpy.model.module[1].bias.copy_(-jumpy.model.module[1].weight @ x[0].flatten())
    before, after = (jumpy.model.probabilities(jumpy.model.logits(one)) for one in (x, changed))
    moved = ((before - after).abs() > 0.05).flatten().numpy()
    assert 0 < moved.sum() < len(moved)
    np.testing.assert_array_equal(np.isnan(noisy(jumpy, prepare(jumpy.maps()), 0)["ssim"]), moved)


# ---------------------------------------------------------------------------------------------------------------------
# Verdicts


PATIENTS = tuple(f"p{i:02d}" for i in range(16))
BOOTSTRAP = PatientBootstrap(PATIENTS, 500, 0)


def rows_of(test, value, *, stage="", spread=0.02, patients=PATIENTS, metrics=SIMILARITIES):
    pairs = pairs_of(patients, patients, ["Mass"] * len(patients))
    offsets = np.random.default_rng(0).permutation(np.linspace(-1.7, 1.7, len(patients)))  # mean 0
    values = {metric: value[metric] if isinstance(value, dict) else value for metric in metrics}
    scores = {metric: mean + spread * offsets for metric, mean in values.items()}
    return pd.concat([part for draw in (0, 1) for part in long_rows(pairs, test, scores, draw, stage)])


LINE = rows_of("random_pairs", 0.4)


@pytest.mark.parametrize(
    ("test", "value", "spread", "passed", "said"),
    [
        ("randomisation", 0.1, 0.02, True, "m passes: once the whole network is randomised, its map is no more like"),
        ("randomisation", 0.7, 0.02, False, "m fails: even when the whole network is randomised, its map stays more"),
        ("randomisation", 1.0, 0.0, False, "m fails: its map does not change when the whole network is randomised"),
        ("randomisation", 0.4, 0.5, None, "m: the randomisation is not decidable with these films (rank correlation"),
        ("randomisation", 0.4, 0.0, True, "m passes"),
        ("randomisation", np.nan, 0.0, None, "m cannot be tested: of a random network all its maps are constant"),
        ("randomisation", {"spearman": 0.1, "ssim": 0.6, "iou_top_10": 0.1}, 0.02, False, "(SSIM 0.6"),
        ("repeatability", 0.9, 0.02, True, "m passes: with another seed its map changes less than"),
        ("repeatability", 0.3, 0.02, False, "m fails: with another seed its map changes as much as"),
        ("repeatability", 1.0, 0.0, True, "m passes: with another seed its map is the same"),
        ("noise", 0.9, 0.02, True, "m passes: with a noisy copy of the film its map changes less than"),
        ("noise", 0.4, 0.5, None, "m: the test with a noisy copy of the film is not decidable with these films"),
        ("noise", np.nan, 0.0, None, "m cannot be tested with a noisy copy of the film"),
    ],
)
def test_verdicts(test, value, spread, passed, said):
    ((named, decided, outcome, reason),) = judge(rows_of(test, value, spread=spread), LINE, BOOTSTRAP)
    assert (named, decided) == (test, passed)
    sentence = sentence_of("m", outcome, reason)
    assert said in sentence
    if isinstance(value, float) and np.isfinite(value):
        assert "maps of different patients: 0.40" in sentence


@pytest.mark.parametrize(("ssim", "passed"), [(0.53, None), (0.56, False)])
def test_one_of_three_measures_fails_a_method_at_a_third_of_the_level(ssim, passed):
    """Of 16 patients' SSIM: t = 2.4 (p = .03) and 3.0 (p = .009), where .05 / 3 = .017 is needed."""
    rows = rows_of("randomisation", {"spearman": 0.1, "ssim": ssim, "iou_top_10": 0.1}, spread=0.22)
    ((_, decided, _, reason),) = judge(rows, LINE, BOOTSTRAP)
    assert decided is passed
    assert "(SSIM 0.5" in reason


def test_one_of_three_measures_fails_a_reseeded_method_at_a_third_of_the_level():
    for value, passed in ((0.29, None), (0.25, False)):
        rows = rows_of("noise", {"spearman": 0.9, "ssim": value, "iou_top_10": 0.9}, spread=0.22)
        ((_, decided, *_),) = judge(rows, LINE, BOOTSTRAP)
        assert decided is passed


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 15])
@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_sound_methods_fail_in_at_most_one_run_of_twenty(n, rho):
    """Maps of random networks that are exactly as like the original as strangers' maps are: 2.5 % of 200 runs are 5."""
    rng, patients = np.random.default_rng([n, round(10 * rho)]), [f"p{i}" for i in range(n)]
    pairs = pairs_of(patients, patients, ["Mass"] * n)

    def drawn(test):
        noise = [rng.standard_normal(n), *(rng.standard_normal((2, 3, n)))]
        own = [np.sqrt(rho) * noise[0] + np.sqrt(1 - rho) * noise[1][m] for m in range(3)]
        scores = {metric: 0.2 + 0.2 * values for metric, values in zip(SIMILARITIES, own, strict=True)}
        return pd.concat(long_rows(pairs, test, scores))

    bootstrap = PatientBootstrap(patients, 10, 0)
    found = [judge(drawn("randomisation"), drawn("random_pairs"), bootstrap)[0][1] for _ in range(200)]
    assert sum(passed is False for passed in found) <= 10


def test_the_last_stage_decides_and_what_became_constant_is_counted():
    rows = pd.concat([rows_of("randomisation", 0.9, stage="head"), rows_of("randomisation", 0.1, stage="stem")])
    rows.loc[(rows["stage"] == "stem") & (rows["image_id"] == "p03"), "value"] = np.nan
    ((_, passed, _, sentence),) = judge(rows, LINE, BOOTSTRAP)
    assert passed is True
    assert "; 2 of 32 maps became constant and are left out" in sentence
    table = summarise(rows, LINE, BOOTSTRAP).set_index(["stage", "metric"])
    assert table.loc[("stem", "ssim"), "n"] == 15
    assert table.loc[("head", "ssim"), "value"] == pytest.approx(0.9, abs=0.02)
    assert table.loc[("head", "ssim"), "low"] < 0.9 < table.loc[("head", "ssim"), "high"] + 0.02
    assert table.loc[("head", "ssim"), "random_pair"] == pytest.approx(0.4, abs=0.02)


def test_few_patients_decide_nothing_but_that_a_map_stays():
    few = PATIENTS[:6]
    bootstrap = PatientBootstrap(few, 500, 0)
    line = rows_of("random_pairs", 0.4, patients=few)
    ((_, passed, _, sentence),) = judge(rows_of("randomisation", 0.1, patients=few), line, bootstrap)
    assert passed is None
    assert "; 6 patients to set against others are too few)" in sentence
    ((_, passed, *_),) = judge(rows_of("randomisation", 1.0, spread=0, patients=few), line, bootstrap)
    assert passed is False


def test_patients_without_a_map_to_be_set_against_are_not_counted():
    """Of 16 patients with maps, 12 are alone with their finding: four differences are no interval."""
    line = rows_of("random_pairs", 0.4)
    line.loc[line["patient"].isin(PATIENTS[4:]), "value"] = np.nan
    ((_, passed, _, sentence),) = judge(rows_of("randomisation", 0.1), line, BOOTSTRAP)
    assert passed is None
    assert "; 4 patients to set against others are too few)" in sentence


def test_deterministic_methods_are_said_to_be_so():
    verdicts = judge(rows_of("noise", 0.9), LINE, BOOTSTRAP, stochastic=False)
    assert ("repeatability", True, "is deterministic", "it gives the same map whatever the seed") in verdicts


def test_conventions_are_sentences():
    assert all(len(sentence) > 20 for sentence in METRICS.values())
    assert "0.02" in CONVENTION
