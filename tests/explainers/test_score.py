"""What is explained: the log-odds of the finding, by every method; its raw logit on request."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import cxrx
from cxrx.errors import UsageError
from cxrx.registry import load

METHODS = {
    name: spec for name, spec in load().explainers.items() if name.startswith("cxrx/") and not spec.control
}  # fmt: skip
QUICK = {
    "smoothgrad": {"n": 3}, "smoothgrad-squared": {"n": 3}, "vargrad": {"n": 3}, "gradientshap": {"n": 3},
    "integrated-gradients": {"steps": 4}, "extremal": {"steps": 6, "areas": (0.2,)}, "rise": {"masks": 16},
    "lime": {"samples": 32, "segments": 9, "shape": "grid"}, "occlusion": {"window": 56, "stride": 56},
    "kernelshap": {"samples": 32, "segments": 9, "shape": "grid"},
}  # fmt: skip


def formula(z, k):
    """Return z_k minus the logarithm of the sum of the others' exponentials, as it is written."""
    others = [j for j in range(z.shape[1]) if j != k]
    return z[:, k] - z[:, others].exp().sum(dim=1).log()


class LogOdds(nn.Module):
    """A network whose outputs are the formula of another's."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        z = self.network(x)
        return torch.stack([formula(z, k) for k in range(z.shape[1])], dim=1)


class Picked(nn.Module):
    """A network with some of another's outputs, in another order."""

    def __init__(self, network, order):
        super().__init__()
        self.network, self.order = network, order

    def forward(self, x):
        return self.network(x)[:, self.order]


def network_of(kind, classes):
    torch.manual_seed(3)
    if kind == "vit":
        vit = VisionTransformer(32, 8, in_chans=1, num_classes=classes, embed_dim=16, depth=2, num_heads=2)
        nn.init.normal_(vit.head.weight)
        return vit
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes),
    )  # fmt: skip


def wrap(network, labels, activation="softmax"):
    return cxrx.wrap_model(network, labels, input_size=32, in_chans=1, activation=activation)


def films(count=2):
    return torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def explained(model, method, target, **options):
    return cxrx.explain(model, films(), method, targets=[target], **QUICK.get(method, {}), **options)


def close(found, expected, method):
    scale = float(torch.from_numpy(expected.values).abs().max())
    assert scale > 0, "nothing to compare"
    loose = 1e-2 if method == "chefer-lrp" else 2e-4  # its rules divide by sums that cancel
    torch.testing.assert_close(
        torch.from_numpy(found.values), torch.from_numpy(expected.values), rtol=0, atol=loose * scale
    )
    torch.testing.assert_close(torch.from_numpy(found.scores), torch.from_numpy(expected.scores), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [spec.name for spec in METHODS.values()])
def test_every_method_explains_the_log_odds_and_the_raw_logit_on_request(method):
    kind = "vit" if "attention" in METHODS[f"cxrx/{method}"].needs else "cnn"
    three, two = network_of(kind, 3), network_of(kind, 2)
    cases = [
        (three, ["Normal", "Mass", "Nodule"], "Nodule", LogOdds(three), ["Normal", "Mass", "Nodule"]),
        (two, ["Normal", "Mass"], "Mass", LogOdds(two), ["Normal", "Mass"]),
    ]
    for network, labels, target, expected, names in cases:
        close(explained(wrap(network, labels), method, target),
              explained(wrap(expected, names, "sigmoid"), method, target), method)  # fmt: skip
        close(explained(wrap(network, labels), method, target, score="logit"),
              explained(wrap(network, labels, "sigmoid"), method, target), method)  # fmt: skip


@pytest.mark.parametrize("method", ["gradcam", "saliency", "occlusion", "rise"])
@pytest.mark.parametrize("score", ["log-odds", "logit"])
def test_the_ways_of_naming_two_classes_give_one_map(method, score):
    network = network_of("cnn", 2)
    both = explained(wrap(network, ["Normal", "Mass"]), method, "Mass", score=score)
    assert both.score == score
    close(explained(wrap(network, ["Mass"]), method, "Mass", score=score), both, method)
    close(explained(wrap(Picked(network, [1, 0]), ["Mass", "Normal"]), method, "Mass", score=score), both, method)
    if score == "log-odds":
        other = explained(wrap(network, ["Normal", "Mass"]), method, "Normal", score=score)
        assert other.scores == pytest.approx(-both.scores)
    probability = wrap(network, ["Mass"]).probabilities(wrap(network, ["Mass"]).logits(films()))
    model = wrap(network, ["Mass"]).explaining(score)
    torch.testing.assert_close(model.probabilities(model.logits(films()))[:, 0], probability[:, 0])


def test_the_order_of_three_classes_does_not_matter():
    network = network_of("cnn", 3)
    plain = explained(wrap(network, ["Normal", "Mass", "Nodule"]), "inputxgrad", "Mass")
    close(explained(wrap(Picked(network, [2, 0, 1]), ["Nodule", "Normal", "Mass"]), "inputxgrad", "Mass"), plain, "")


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_gradients_are_those_of_the_formula_in_double_precision(classes):
    network = network_of("cnn", classes)
    labels = [f"finding{k}" for k in range(classes)]
    found = cxrx.explain(wrap(network, labels), films(), "saliency", targets="all").values
    exact = network.double()
    for k in range(classes):
        x = films().double().requires_grad_()
        (gradient,) = torch.autograd.grad(formula(exact(x), k).sum(), x)
        torch.testing.assert_close(torch.from_numpy(found[:, k]).double(), gradient.sum(1), rtol=1e-4, atol=1e-7)


def test_what_no_probability_depends_on_has_no_relevance():
    class Shared(nn.Module):
        def forward(self, x):
            common = x[:, 0, :16].sum((1, 2))
            return torch.stack([common, common + x[:, 0, 16:].sum((1, 2))], dim=1)

    for labels in (["Normal", "Pneumonia"], ["Pneumonia"]):
        found = explained(wrap(Shared(), labels), "inputxgrad", "Pneumonia").values[0, 0]
        assert not found[:16].any()
        assert found[16:].any()


@pytest.mark.parametrize("method", ["gradcam", "saliency", "rise", "extremal", "lime"])
def test_a_sigmoid_has_one_score_bit_for_bit(method):
    model = wrap(network_of("cnn", 3), ["a", "b", "c"], "sigmoid")
    first, second = (explained(model, method, "b", score=score) for score in ("log-odds", "logit"))
    assert (first.values == second.values).all()
    assert (first.scores == second.scores).all()
    assert (second.scores[:, 0] == model.logits(films())[:, 1].numpy()).all()


def test_the_contrastive_reward_is_of_raw_logits_as_published():
    network, labels = network_of("cnn", 3), ["a", "b", "c"]
    found = explained(wrap(network, labels), "extremal", "b", reward="contrastive")
    plain = explained(wrap(network, labels, "sigmoid"), "extremal", "b", reward="contrastive")
    assert (found.extras["reward"] == plain.extras["reward"]).all()


def test_rise_takes_its_own_score_too_and_others_are_refused():
    model = wrap(network_of("cnn", 3), ["a", "b", "c"])
    assert explained(model, "rise", "b", score="probability").options["score"] == "probability"
    for method, score in (("gradcam", "probability"), ("gradcam", "logits")):
        with pytest.raises(UsageError, match=f"log-odds or logit, not '{score}'"):
            explained(model, method, "b", score=score)
