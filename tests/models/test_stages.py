from __future__ import annotations

import pytest
import timm
import torch
from timm.models import VGG, MlpMixer, ResNet, SwinTransformer, VisionTransformer
from timm.models.resnet import BasicBlock
from torch import nn

from cxrx.compare.sanity.randomise import randomisation
from cxrx.models.stages import FEW, MANY, Stage, stages

TINY_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 2, "num_classes": 3}

NETWORKS = {
    "densenet": lambda: timm.create_model("densenet121", num_classes=3, growth_rate=4, block_config=(2, 2, 2, 2)),
    "resnet": lambda: ResNet(BasicBlock, (1, 1, 1, 1), num_classes=3, channels=(4, 8, 8, 16), stem_width=4),
    "vgg": lambda: VGG([4, "M", 8, 8, "M", 8, 8, 8, "M", 8, "M", 8, "M"], num_classes=3, norm_layer=nn.BatchNorm2d),
    "vit": lambda: VisionTransformer(**TINY_VIT, depth=12),
    "registers": lambda: VisionTransformer(**TINY_VIT, depth=4, reg_tokens=4),
    "mixer": lambda: MlpMixer(num_classes=3, img_size=32, patch_size=8, num_blocks=4, embed_dim=16),
    "mobilenet": lambda: timm.create_model("mobilenetv3_small_050", num_classes=3),
    "swin": lambda: SwinTransformer(
        img_size=56, num_classes=3, embed_dim=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)
    ),
}


@pytest.fixture
def network():
    def make(name):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return NETWORKS[name]().eval()

    return make


def bits(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same_bits(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[name].flatten().view(torch.uint8), b[name].flatten().view(torch.uint8)) for name in a
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_in_one_stage(network, name):
    net = network(name)
    found = stages(net)
    held = [parameter for stage in found for parameter in stage.parameters]
    assert sorted(held) == sorted(parameter for parameter, _ in net.named_parameters())
    assert len({stage.name for stage in found}) == len(found)
    assert FEW - 1 <= len(found) <= MANY
    assert all(stage.parameters for stage in found)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("densenet", "classifier", "features.conv0"),
        ("resnet", "fc", "conv1"),
        ("vgg", "head", "features.0"),
        ("vit", "head", "patch_embed"),
        ("mixer", "head", "stem"),
    ],
)
def test_they_go_from_the_output_to_the_input(network, name, first, last):
    names = [stage.name for stage in stages(network(name))]
    assert (names[0], names[-1]) == (first, last)


def test_the_blocks_of_a_transformer_and_its_raw_parameters(network):
    found = {stage.name: stage.parameters for stage in stages(network("vit"))}
    assert list(found)[1:-1] == [f"blocks.{i}-{i + 1}" for i in range(10, -2, -2)]
    assert {"cls_token", "pos_embed"} < set(found["patch_embed"])
    assert "norm.weight" in found["blocks.10-11"]
    assert "reg_token" in next(s.parameters for s in stages(network("registers")) if s.name == "patch_embed")


def test_dense_blocks_and_transitions(network):
    names = [stage.name for stage in stages(network("densenet"))]
    blocks = [f"features.{kind}{i}" for i in (3, 2, 1) for kind in ("transition", "denseblock")]
    assert names == ["classifier", "features.denseblock4", *blocks, "features.conv0"]


class Backwards(nn.Module):
    """Registers its layers in the reverse of the order in which they run."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.body = nn.Conv2d(1, 4, 3)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.head(self.body(x).mean(dim=(2, 3))) * self.scale[0]


def test_a_forward_pass_tells_the_order():
    net = Backwards()
    assert [stage.name for stage in stages(net)] == ["body", "head"]
    found = stages(net, torch.zeros(1, 1, 8, 8))
    assert [stage.name for stage in found] == ["head", "body"]
    assert found[1].parameters == ("scale", "body.weight", "body.bias")
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_wrapped_network_is_opened_and_a_shared_weight_counts_once(network):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network("densenet")
            self.again = nn.Linear(4, 4, bias=False)
            self.tied = nn.Linear(4, 4, bias=False)
            self.tied.weight = self.again.weight

    net = Wrapped()
    found = stages(net)
    held = [parameter for stage in found for parameter in stage.parameters]
    assert sorted(held) == sorted(parameter for parameter, _ in net.named_parameters())
    assert "net.features.denseblock3" in [stage.name for stage in found]


def test_a_single_layer_is_one_stage():
    assert stages(nn.Linear(3, 2)) == [Stage("Linear", ("",), ("weight", "bias"))]


# ---------------------------------------------------------------------------------------------------------------------
# Randomisation


@pytest.mark.parametrize("name", NETWORKS)
def test_all_parameters_change_and_come_back(network, name):
    net = network(name)
    with torch.no_grad():  # as after training: nothing is at its initial value
        for tensor in [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]:
            tensor.add_(torch.rand_like(tensor) * 0.1 + 0.01)
    before = bits(net)
    objects = dict(net.named_parameters())
    with randomisation(net) as randomise:
        for stage in stages(net):
            randomise(stage, 1)
            changed = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
            assert set(stage.parameters) <= changed
        assert changed == set(objects)
        assert all(bool(value.isfinite().all()) for value in net.parameters())
        logits = net(torch.rand(4, 3, *INPUTS.get(name, (64, 64))).round())
        assert (logits.std(dim=0) > 1e-3 * logits.abs().mean()).all()  # a random network still tells films apart
    assert same_bits(before, bits(net))
    assert all(parameter is objects[name] for name, parameter in net.named_parameters())


INPUTS = {"vit": (32, 32), "registers": (32, 32), "mixer": (32, 32), "swin": (56, 56)}


def test_the_network_comes_back_after_an_error(network):
    net = network("densenet")
    with torch.no_grad():
        net.classifier.bias[0] = float("nan")
    before = bits(net)

    def fail():
        with randomisation(net) as randomise:
            for stage in stages(net):
                randomise(stage, 0)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert same_bits(before, bits(net))


def test_stages_are_independent_and_seeded(network):
    net = network("densenet")
    cascade = stages(net)

    def drawn(order, seed):
        with randomisation(net) as randomise:
            for stage in order:
                randomise(stage, seed)
            return bits(net)

    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = drawn(cascade, 0)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(6)
    assert same_bits(one, drawn(cascade[::-1], 0))
    other = drawn(cascade, 1)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])
    assert torch.equal(one["features.norm5.weight"], other["features.norm5.weight"])


def test_only_the_stages_asked_for_change(network):
    net = network("resnet")
    before = bits(net)
    with randomisation(net) as randomise:
        randomise(stages(net)[0], 0)
        changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_normalisation_becomes_the_identity():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("weight", "bias", "running_mean", "running_var"):
                self.register_buffer(name, torch.rand(3))

    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), Frozen(), nn.BatchNorm2d(3, affine=False))
    for tensor in (net[1].weight, net[1].bias, net[1].running_mean, net[1].running_var, net[3].running_mean):
        tensor.data.copy_(torch.rand(3))
    with randomisation(net) as randomise:
        for stage in stages(net):
            randomise(stage, 0)
        for layer in net[1:]:
            state = layer.state_dict()
            for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
                assert name not in state or (state[name] == value).all(), name


class Odd(nn.Module):
    """Its own reset fills a matrix with zeros and forgets a parameter."""

    def __init__(self):
        super().__init__()
        self.head = nn.Parameter(torch.randn(40, 50) * 3 + 1)
        self.token = nn.Parameter(torch.randn(2000) * 0.5 - 2)

    def reset_parameters(self):
        nn.init.zeros_(self.head)


def test_raw_parameters_keep_mean_and_deviation():
    net = Odd()
    head, token = net.head.clone(), net.token.clone()
    with randomisation(net) as randomise:
        randomise(stages(net)[0], 0)
        for drawn, was in ((net.head, head), (net.token, token)):
            assert drawn.mean().item() == pytest.approx(was.mean().item(), abs=0.15)
            assert drawn.std().item() == pytest.approx(was.std().item(), rel=0.1)
            assert abs(torch.corrcoef(torch.stack([drawn.flatten(), was.flatten()]))[0, 1]) < 0.1


def test_what_layers_draw():
    net = nn.Sequential(nn.Conv2d(30, 200, 3), nn.Linear(300, 200))
    with randomisation(net) as randomise:
        for stage in stages(net):
            randomise(stage, 0)
        assert net[0].weight.std().item() == pytest.approx((2 / (9 * 30)) ** 0.5, rel=0.01)
        assert net[1].weight.std().item() == pytest.approx(300**-0.5, rel=0.01)
        assert not net[0].bias.any()
        assert not net[1].bias.any()


def test_a_deep_network_without_normalisation_still_passes_a_signal():
    net = VGG([8, 8, "M", 8, 8, "M", *[8] * 6, "M", *[8] * 6, "M"], num_classes=3).eval()
    with randomisation(net) as randomise, torch.no_grad():
        for stage in stages(net):
            randomise(stage, 0)
        logits = net(torch.rand(4, 3, 64, 64).round())
        assert (logits.std(dim=0) > 1e-3 * logits.abs().mean()).all()


def test_a_normalised_weight_is_randomised_too():
    net = nn.Sequential(nn.Linear(20, 20), torch.nn.utils.parametrizations.weight_norm(nn.Linear(20, 20)))
    before = {name: value.clone() for name, value in net.named_parameters()}
    with randomisation(net) as randomise:
        for stage in stages(net):
            randomise(stage, 0)
        assert not any(torch.equal(value, before[name]) for name, value in net.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())
