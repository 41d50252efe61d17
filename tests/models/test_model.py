"""The wrapper: whatever the network returns, raw float32 logits come out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cxrx.errors import UsageError
from cxrx.models.load import wrap_model
from cxrx.models.model import Model, log_odds
from cxrx.specs import InputSpec

SPEC = InputSpec(size=(4, 6), channels=1, mean=(0.5,), std=(0.25,))


class Fixed(nn.Module):
    """Returns given numbers, one row a film, whatever it sees."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.as_tensor(rows))

    def forward(self, x):
        return self.rows[: x.shape[0]] + 0 * x.sum()


def model(rows, labels, **options):
    return Model(Fixed(rows), labels, SPEC, name="fixed", **options)


def logits(rows, labels, **options):
    return model(rows, labels, **options).logits(torch.zeros(len(rows), 1, 4, 6))


def test_logits_pass_through_untouched():
    z = torch.tensor([[3.0, -2.0], [0.5, 88.0]])
    assert torch.equal(logits(z, ["a", "b"]), z)


@given(st.lists(st.floats(-14, 14), min_size=1, max_size=5))
def test_probabilities_are_taken_back_to_logits(z):
    z = torch.tensor([z], dtype=torch.float64)
    labels = [str(i) for i in range(z.shape[1])]
    back = logits(z.sigmoid().float(), labels, output="probabilities")
    # a float32 probability near 1 has steps of 2**-24, which is a step of 2**-24 * e**z in the logit
    assert torch.all((back.double() - z).abs() <= 2**-23 * (1 + z.exp()) + 1e-5 * z.abs())


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_saturated_probabilities_have_finite_logits_of_the_right_sign(p):
    z = logits(torch.tensor([[p]]), ["a"], output="probabilities")
    assert bool(z.isfinite().all())
    assert bool((z > 15).all() if p else (z < -15).all())


def test_a_two_class_softmax_with_one_label_has_the_logit_z1_minus_z0():
    z = torch.tensor([[1.0, 4.0], [2.0, -1.0]])
    one = model(z, ["Pneumonia"], activation="softmax")
    found = one.logits(torch.zeros(2, 1, 4, 6))
    assert torch.equal(found, torch.tensor([[3.0], [-3.0]]))
    assert torch.allclose(one.probabilities(found)[:, 0], z.softmax(dim=1)[:, 1])
    from_probabilities = logits(z.softmax(dim=1), ["Pneumonia"], activation="softmax", output="probabilities")
    assert torch.allclose(from_probabilities, found, atol=1e-5)


def test_a_softmax_over_classes_keeps_its_logits_and_its_probabilities():
    z = torch.tensor([[1.0, 4.0, 0.0]])
    three = model(z, ["a", "b", "c"], activation="softmax")
    assert torch.equal(three.logits(torch.zeros(1, 1, 4, 6)), z)
    assert torch.allclose(three.probabilities(z), z.softmax(dim=1))
    back = logits(z.softmax(dim=1), ["a", "b", "c"], activation="softmax", output="probabilities")
    assert torch.allclose(back.softmax(dim=1), z.softmax(dim=1))


@given(st.integers(2, 6), st.floats(0.1, 60), st.integers(0, 99))
def test_log_odds_are_those_of_the_probability_however_certain(classes, scale, seed):
    z = scale * torch.randn(3, classes, generator=torch.Generator().manual_seed(seed))
    found = log_odds(z.clone().requires_grad_())
    exact = z.double().requires_grad_()
    others = exact[:, None].expand(-1, classes, -1).masked_fill(torch.eye(classes, dtype=torch.bool), -torch.inf)
    expected = exact - others.logsumexp(dim=2)
    assert torch.allclose(found.double(), expected, atol=1e-6 * (1 + scale), rtol=1e-5)
    for k in range(classes):
        leaf = z.clone().requires_grad_()
        (ours,) = torch.autograd.grad(log_odds(leaf)[:, k].sum(), leaf)
        (theirs,) = torch.autograd.grad(expected[:, k].sum(), exact, retain_graph=True)
        assert torch.allclose(ours.double(), theirs, atol=1e-4)


def test_the_log_odds_of_two_classes_are_their_difference_to_the_last_bit():
    z = torch.randn(50, 2)
    assert torch.equal(log_odds(z), torch.stack([z[:, 0] - z[:, 1], z[:, 1] - z[:, 0]], dim=1))


def test_what_is_explained_belongs_to_the_same_probability():
    z = torch.tensor([[1.0, 4.0, 0.0], [20.0, -20.0, 1.0]])
    three = model(z, ["a", "b", "c"], activation="softmax")
    x = torch.zeros(2, 1, 4, 6)
    for score in ("log-odds", "logit"):
        view = three.explaining(score)
        assert torch.allclose(view.probabilities(view.logits(x)), z.softmax(dim=1))
        assert torch.equal(three.explaining(score).scored(z), view.logits(x))
    assert torch.equal(three.logits(x), z)  # predictions stay what they are
    assert torch.equal(three.explaining("logit").logits(x), z)


def test_one_output_without_a_column_becomes_one():
    assert torch.equal(logits(torch.tensor([1.0, 2.0]), ["a"]), torch.tensor([[1.0], [2.0]]))


def test_half_precision_comes_out_as_float32():
    assert logits(torch.ones(1, 2, dtype=torch.bfloat16), ["a", "b"]).dtype == torch.float32


def test_forward_is_differentiable_and_logits_carry_no_graph():
    wrapped = wrap_model(nn.Sequential(nn.Flatten(), nn.Linear(24, 2)), ["a", "b"], (4, 6))
    x = torch.rand(1, 1, 4, 6, requires_grad=True)
    wrapped.forward(x).sum().backward()
    assert bool((x.grad != 0).any())
    assert not wrapped.logits(x).requires_grad


@pytest.mark.parametrize(("channels", "mean", "std"), [(1, (0.5,), (0.25,)), (3, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))])
def test_prepare_normalises_each_channel(channels, mean, std):
    spec = InputSpec(size=(4, 6), channels=channels, mean=mean, std=std)
    pixels = torch.rand(2, 4, 6)
    x = Model(nn.Identity(), ["a"], spec, name="m").prepare(pixels)
    assert x.shape == (2, channels, 4, 6)
    for c in range(channels):
        assert torch.allclose(x[:, c], (pixels - mean[c]) / std[c])


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (torch.zeros(1, 3), ["a", "b"], "3 outputs, but 2 labels"),
        (torch.zeros(1, 3, 2), ["a"], r"one \(B, K\) tensor, not a tensor of shape \(1, 3, 2\)"),
    ],
)
def test_an_output_that_does_not_fit_is_told(rows, labels, message):
    with pytest.raises(UsageError, match=message):
        logits(rows, labels)


def test_two_findings_of_one_name_are_refused():
    with pytest.raises(UsageError, match="differ"):
        model(torch.zeros(1, 2), ["a", "a"])


def test_the_weights_hash_tells_any_change_and_nothing_else():
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(16, 2))

    def digest(network):
        return Model(network, ["a", "b"], SPEC, name="m").weights_sha256

    reference = digest(make())
    assert digest(make()) == reference
    seen = {reference}
    for key in make().state_dict():
        changed = make()
        tensor = changed.state_dict()[key]
        tensor.view(-1)[-1] += 1  # state_dict shares memory with the network
        seen.add(digest(changed))
    assert len(seen) == 1 + len(make().state_dict())
    transposed = make()
    transposed[3].weight = nn.Parameter(transposed[3].weight.reshape(16, 2))
    assert digest(transposed) not in seen
    renamed = nn.Sequential(*make(), nn.Identity())
    assert digest(renamed) == reference  # a layer without weights is none of the weights' business


def test_the_slug_names_model_and_weights():
    wrapped = model(torch.zeros(1, 1), ["a"])
    assert wrapped.slug == f"fixed@{wrapped.weights_sha256[:8]}"


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(3, 2), r"does not take an input of shape \(B, 1, 224, 224\)"),
        (nn.Identity(), r"one \(B, K\) tensor, not a tensor of shape"),
    ],
)
def test_wrapping_a_network_that_does_not_fit_is_a_sentence(network, message):
    with pytest.raises(UsageError, match=message):
        wrap_model(network)


def test_wrapping_without_labels_counts_the_outputs_and_says_so():
    wrapped = wrap_model(nn.Sequential(nn.Flatten(), nn.Linear(24, 3)), input_size=(4, 6))
    assert wrapped.labels == ("class0", "class1", "class2")
    assert "class0 to class2" in wrapped.notes[0]


def test_wrapping_leaves_dropout_off():
    wrapped = wrap_model(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(24, 1)), ["a"], (4, 6))
    x = torch.rand(1, 1, 4, 6)
    assert torch.equal(wrapped.logits(x), wrapped.logits(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_is_given_its_pictures_in_it(dtype):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    wrapped = wrap_model(network.to(dtype), ["a", "b"], 16)
    x = wrapped.prepare(torch.rand(2, 16, 16))
    assert (x.dtype, wrapped.dtype) == (torch.float32, dtype)
    assert torch.equal(wrapped.logits(x), network(x.to(dtype)).detach().float())


def test_a_network_that_converts_its_pictures_itself_gets_them_as_they_are():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(24, 2).half()

        def forward(self, x):
            assert x.dtype == torch.float32
            return self.layer(x.flatten(1).half())

    assert wrap_model(Own(), ["a", "b"], (4, 6)).dtype == torch.float32


def test_what_a_network_kept_from_a_pass_in_inference_mode_is_copied():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", None)
            self.grid = None

        def forward(self, x):
            if self.grid is None:
                self.grid, self.seen = torch.linspace(0, 1, 6), torch.ones(6)
            return (x * self.grid * self.seen).flatten(1)[:, :2]

    network = Cached()
    with torch.inference_mode():
        network(torch.zeros(1, 1, 4, 6))
    x = torch.rand(1, 1, 4, 6, requires_grad=True)
    wrap_model(network, ["a", "b"], (4, 6)).forward(x).sum().backward()
    assert x.grad.flatten()[:3].tolist() == pytest.approx([0, 0.2, 0])


def test_weights_that_two_layers_share_stay_shared_behind_inference_mode():
    with torch.inference_mode():
        network = nn.Sequential(nn.Flatten(), nn.Linear(24, 24), nn.Linear(24, 24))
        network[2].weight = network[1].weight
    wrap_model(network, [f"f{i}" for i in range(24)], (4, 6))
    assert network[2].weight is network[1].weight
    assert not network[1].weight.is_inference()


def test_what_the_network_itself_raises_is_a_sentence():
    class Fails(nn.Module):
        def forward(self, x):
            if len(x) == 2:
                raise ValueError("two\nare too many")
            return x.flatten(1)[:, :2]

    with pytest.raises(UsageError, match=r"net cannot run on an input of \(2, 1, 4, 6\): ValueError: two are too many"):
        wrap_model(Fails(), ["a", "b"], (4, 6), name="net").logits(torch.zeros(2, 1, 4, 6))


@pytest.mark.filterwarnings("ignore")  # both are deprecated
@pytest.mark.parametrize("kind", ["quantised", "frozen"])
def test_packed_and_frozen_weights_are_part_of_the_hash(kind):
    class Net(nn.Module):
        def __init__(self, factor):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(24, 2)
            self.layer.weight.data[0, 0] *= factor

        def forward(self, x):
            return self.layer(x.flatten(1))

    def digest(factor):
        network = Net(factor).eval()
        if kind == "quantised":
            packed = torch.ao.quantization.quantize_dynamic(network, {nn.Linear})
            return wrap_model(packed, ["a", "b"], (4, 6)).weights_sha256
        return wrap_model(torch.jit.freeze(torch.jit.script(network)), ["a", "b"], (4, 6)).weights_sha256

    assert digest(1) == digest(1)
    assert digest(1) != digest(-1)
