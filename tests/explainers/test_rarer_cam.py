from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from cxrx.errors import UsageError
from cxrx.explainers.guard import guard
from cxrx.explainers.option_types import ChannelSweepOptions, LayerOptions, NoOptions, ScoreCamOptions
from cxrx.explainers.rarer_cam import build_rarer_cam
from cxrx.models.load import wrap_model
from cxrx.registry import load
from cxrx.testing import check_explainer

FINDINGS = ("a", "b", "c")
METHODS = ("eigencam", "scorecam", "ablationcam", "fullgrad")
SWEEPS = ("scorecam", "ablationcam")
EVERY = torch.arange(3).expand(2, 3)


def options(name, **given):
    kinds = {"eigencam": LayerOptions, "fullgrad": NoOptions, "ablationcam": ChannelSweepOptions}
    return kinds.get(name, ScoreCamOptions)(**given)


def run(model, name, x, targets=EVERY, **given):
    explainer = build_rarer_cam(name, options(name, **given))
    with guard(model.module):
        return explainer(model, x, targets, torch.zeros(len(x), dtype=torch.int64)).values


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 10, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 3),
    )


def torchvision_densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3)


def vit(**given) -> nn.Module:
    return timm.models.VisionTransformer(
        img_size=(48, 32), patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=3, **given
    )


def mixer() -> nn.Module:
    return timm.models.MlpMixer(num_classes=3, img_size=32, patch_size=8, num_blocks=1, embed_dim=16)


def swin() -> nn.Module:
    return timm.models.SwinTransformer(
        img_size=32, patch_size=4, window_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 2), num_classes=3
    )


NETWORKS = {
    "cnn": (small_cnn, (32, 48)),
    "densenet": (torchvision_densenet, (64, 96)),
    "vit": (lambda: vit(reg_tokens=2), (48, 32)),
    "mixer": (mixer, (32, 32)),
    "swin": (swin, (32, 32)),
}


@pytest.fixture(scope="module")
def networks():
    """Build each network once, with batch norms that have seen something and a head that is not zero."""
    built = {}

    def get(name):
        if name not in built:
            torch.manual_seed(0)
            make, size = NETWORKS[name]
            module = make().eval()
            linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            for layer in module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    nn.init.normal_(layer.bias, std=0.3)
                    nn.init.normal_(layer.running_mean, std=0.3)
            built[name] = wrap_model(module, FINDINGS, size, in_chans=3)
        return built[name]

    return get


def pictures(model, count=2, seed=3):
    return torch.randn(count, 3, *model.input.size, generator=torch.Generator().manual_seed(seed))


def activation(model, x, layer=None):
    """Return the grid ``(B, C, h, w)`` by a plain hook."""
    found = model.cam_layer(layer)
    kept = []
    handle = found.module.register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        model.forward(x)
    handle.remove()
    return found.to_grid(kept[0], tuple(x.shape[2:]))


def peer(name, model, x, targets):
    """Return what pytorch-grad-cam shows ``(B, H, W)`` for one target a picture."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer = model.cam_layer()
    kind = {"eigencam": "EigenCAM", "scorecam": "ScoreCAM", "ablationcam": "AblationCAM", "fullgrad": "FullGrad"}[name]
    size = tuple(x.shape[2:])
    arguments = {} if name == "fullgrad" else {"reshape_transform": lambda output: layer.to_grid(output, size)}
    cam = getattr(pytorch_grad_cam, kind)(model.module, [] if name == "fullgrad" else [layer.module], **arguments)
    try:
        return cam(x.clone(), [ClassifierOutputTarget(int(t)) for t in targets])
    finally:
        cam.activations_and_grads.release()
        model.module.zero_grad()


def stretch(values):
    values = values - values.amin(dim=(1, 2), keepdim=True)
    return values / (1e-7 + values.amax(dim=(1, 2), keepdim=True))


def as_shown(values, size):
    """Bring maps ``(B, h, w)`` to the form that pytorch-grad-cam returns: ReLU, min-max, bilinear, min-max."""
    up = nn.functional.interpolate(stretch(values.clamp(min=0))[:, None], size, mode="bilinear")[:, 0]
    return stretch(up).numpy()


# ---------------------------------------------------------------------------------------------------------------------
# Against the library and against the formulas


@pytest.mark.parametrize("network", ["cnn", "densenet", "vit"])
def test_scorecam_is_that_of_pytorch_grad_cam(networks, network):
    model = networks(network)
    x, targets = pictures(model), torch.tensor([2, 0])
    values = run(model, "scorecam", x, targets[:, None], batch=4, align_corners=True)[:, 0]
    np.testing.assert_allclose(as_shown(values, x.shape[2:]), peer("scorecam", model, x, targets), atol=1e-4)


@pytest.mark.parametrize("network", ["cnn", "densenet"])
def test_ablationcam_is_that_of_pytorch_grad_cam_where_logits_are_positive(networks, network):
    model = copy.deepcopy(networks(network))
    head = [layer for layer in model.module.modules() if isinstance(layer, nn.Linear)][-1]
    nn.init.constant_(head.bias, 3.0)
    x = pictures(model)
    assert model.logits(x).min() > 0
    every = run(model, "ablationcam", x, batch=4)
    targets = every.amax(dim=(2, 3)).argmax(dim=1)  # one with a positive side, which is all that the peer shows
    values = every[torch.arange(2), targets]
    assert (values.amax(dim=(1, 2)) > 0).all()
    np.testing.assert_allclose(as_shown(values, x.shape[2:]), peer("ablationcam", model, x, targets), atol=1e-4)


@pytest.mark.parametrize("network", ["cnn", "densenet", "vit"])
def test_eigencam_is_that_of_pytorch_grad_cam_but_for_its_sign(networks, network):
    model = networks(network)
    x = pictures(model)
    values = run(model, "eigencam", x)
    assert torch.equal(values[:, 0], values[:, 2])
    theirs = peer("eigencam", model, x, torch.tensor([0, 1]))
    for b in range(2):
        shown = [as_shown(sign * values[b : b + 1, 0], x.shape[2:])[0] for sign in (1, -1)]
        assert min(np.abs(picture - theirs[b]).max() for picture in shown) < 1e-4


@pytest.mark.parametrize("network", ["cnn", "vit"])
def test_eigencam_is_a_principal_component_that_goes_up_where_the_layer_is_excited(networks, network):
    model = networks(network)
    x = pictures(model, 6)
    grid = activation(model, x)
    values = run(model, "eigencam", x, torch.zeros(6, 1, dtype=torch.int64))[:, 0]
    centred = grid.flatten(2) - grid.flatten(2).mean(dim=2, keepdim=True)  # (B, C, n)
    _, singular, right = torch.linalg.svd(centred, full_matrices=False)
    component = singular[:, 0, None] * right[:, 0]  # (B, n)
    excited = grid.clamp(min=0).sum(dim=1).flatten(1)
    sign = ((component * (excited - excited.mean(dim=1, keepdim=True))).sum(dim=1, keepdim=True) > 0) * 2.0 - 1
    torch.testing.assert_close(values.flatten(1), sign * component, rtol=1e-3, atol=1e-4 * float(component.abs().max()))


@pytest.mark.parametrize("network", ["cnn", "densenet"])
def test_fullgrad_is_that_of_pytorch_grad_cam(networks, network):
    model = networks(network)
    x, targets = pictures(model), torch.tensor([2, 0])
    values = run(model, "fullgrad", x, targets[:, None])[:, 0]
    assert values.shape == (2, *x.shape[2:])
    assert values.min() >= 0
    np.testing.assert_allclose(stretch(values).numpy(), peer("fullgrad", model, x, targets), atol=1e-4)


def test_fullgrad_counts_the_biases_of_batch_norms_that_hold_their_activation(networks):
    """timm's DenseNet has no others, and the library passes over them."""
    plain = networks("cnn")
    joint = BatchNormAct2d(6).eval()
    joint.load_state_dict(plain.module[1].state_dict())
    layers = list(plain.module)
    model = wrap_model(nn.Sequential(layers[0], joint, *layers[3:]).eval(), FINDINGS, plain.input.size, in_chans=3)
    x = pictures(plain)
    torch.testing.assert_close(model.logits(x), plain.logits(x))
    torch.testing.assert_close(run(model, "fullgrad", x), run(plain, "fullgrad", x))


class BackToFront(nn.Module):
    """Registers its layers in another order than it runs them, and one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 3, 1)
        self.first = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.last(self.first(x)).tanh()).mean(dim=(2, 3))


def test_fullgrad_pairs_every_bias_with_its_own_gradient():
    torch.manual_seed(0)
    module = BackToFront()
    x = torch.randn(1, 1, 6, 9)
    leaf = x.clone().requires_grad_()
    outputs = [module.first(leaf)]
    outputs.append(module.last(outputs[0]))
    outputs.append(module.last(outputs[1].tanh()))
    gradients = torch.autograd.grad(outputs[2].mean(dim=(2, 3))[0, 1], [leaf, *outputs])
    biases = [module.first.bias, module.last.bias, module.last.bias]
    parts = [x * gradients[0]] + [b.view(1, 3, 1, 1) * g for b, g in zip(biases, gradients[1:], strict=True)]
    expected = sum(stretch(channel).detach() for part in parts for channel in part.abs().unbind(dim=1))
    model = wrap_model(module, FINDINGS, (6, 9))
    torch.testing.assert_close(run(model, "fullgrad", x, torch.tensor([[1]]))[:, 0], expected)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_scorecam_by_hand(networks, network, align_corners):
    model = networks(network)
    x = pictures(model, 1)
    grid = activation(model, x)[0]  # (C, h, w)
    logits = []
    for channel in grid:
        up = nn.functional.interpolate(channel[None, None], x.shape[2:], mode="bilinear", align_corners=align_corners)
        logits.append(model.logits(x * (up - up.min()) / (1e-8 + up.max() - up.min()))[0])
    weights = torch.stack(logits).softmax(dim=0)  # (C, K)
    expected = torch.einsum("ck,chw->khw", weights, grid)
    values = run(model, "scorecam", x, EVERY[:1], batch=7, align_corners=align_corners)[0]
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_ablationcam_by_hand(networks, network):
    model = networks(network)
    x = pictures(model)
    grid = activation(model, x)  # (B, C, h, w)
    axis = {"cnn": 1, "densenet": 1, "swin": 3}.get(network, 2)  # of the layer's channels
    z = model.logits(x)
    assert (z < 0).any()
    weights = []
    for channel in range(grid.shape[1]):

        def without(_module, _inputs, output, channel=channel):
            output = output.clone()
            output.select(axis, channel).zero_()
            return output

        handle = model.cam_layer().module.register_forward_hook(without)
        weights.append((z - model.logits(x)) / z.abs())
        handle.remove()
    expected = torch.einsum("cbk,bchw->bkhw", torch.stack(weights), grid)
    values = run(model, "ablationcam", x, batch=5)
    torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_a_negative_logit_does_not_turn_ablationcam_round(networks):
    maps, scores = [], []
    for bias in (-9.0, 9.0):
        model = copy.deepcopy(networks("cnn"))
        nn.init.constant_(model.module[-1].bias, bias)
        maps.append(run(model, "ablationcam", pictures(model)))
        scores.append(model.logits(pictures(model))[:, :, None, None])
    assert (scores[0] < 0).all()
    assert (scores[1] > 0).all()
    # What a channel takes away does not depend on the bias: only the length of the weights does.
    difference = maps[0] * scores[0].abs() - maps[1] * scores[1].abs()
    assert difference.abs().max() < 1e-4 * (maps[1] * scores[1]).abs().max()


# ---------------------------------------------------------------------------------------------------------------------
# Pictures, findings, layers


@pytest.mark.parametrize("name", SWEEPS)
def test_findings_share_one_sweep_and_empty_pictures_have_none(networks, name):
    model = networks("cnn")
    x = pictures(model, 3)
    rows = []
    handle = model.module.register_forward_hook(lambda _m, inputs, _o: rows.append(len(inputs[0])))
    together = run(model, name, x, torch.tensor([[0, 1, 2], [2, -1, 1], [-1, -1, -1]]), batch=4)
    several = list(rows)
    rows.clear()
    alone = run(model, name, x, torch.tensor([[2], [-1], [-1]]), batch=4)
    handle.remove()
    channels = 10
    passes = -(-channels // 4) + (name == "ablationcam")
    assert several == [3] + [4] * 2 * passes  # of one shape, whatever is left at the end
    assert rows == [3] + [4] * passes
    assert torch.equal(together[0, 2], alone[0, 0])
    assert together[1, 1].abs().max() == together[2].abs().max() == alone[1:].abs().max() == 0


@pytest.mark.parametrize("name", METHODS)
def test_empty_targets_give_zeros(networks, name):
    model = networks("cnn")
    values = run(model, name, pictures(model), torch.tensor([[0, -1, -1], [-1, 2, -1]]))
    empty = torch.tensor([[False, True, True], [True, False, True]])
    assert values[empty].abs().max() == 0
    assert (values[~empty].abs().amax(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("name", METHODS[:3])
def test_another_layer_may_be_named(networks, name):
    model = networks("cnn")
    x = pictures(model)
    assert run(model, name, x).shape[2:] == (8, 12)
    earlier = run(model, name, x, layer="2")
    assert earlier.shape[2:] == (16, 24)
    assert earlier.abs().amax(dim=(2, 3)).min() > 0
    with pytest.raises(UsageError, match="no layer named 'nowhere'"):
        run(model, name, x, layer="nowhere")


@pytest.mark.parametrize(
    ("name", "network"), [(name, "cnn") for name in METHODS] + [(name, "vit") for name in METHODS[:3]]
)
def test_pictures_and_models_of_one_value_give_finite_maps(networks, name, network):
    model = copy.deepcopy(networks(network))
    flat = torch.full((2, 3, *model.input.size), 0.25)
    assert run(model, name, flat).isfinite().all()
    assert run(model, name, torch.zeros_like(flat)).isfinite().all()
    head = [layer for layer in model.module.modules() if isinstance(layer, nn.Linear)][-1]
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)  # a logit of exactly 0, which Ablation-CAM divides by
    values = run(model, name, pictures(model))
    assert values.isfinite().all()
    if name in ("ablationcam", "fullgrad"):
        assert values.abs().max() == 0


class Squashed(nn.Module):
    """A network that ends in a sigmoid, and begins in place."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.mul_(2)).sigmoid()


@pytest.mark.parametrize("name", METHODS)
def test_probabilities_are_explained_as_logits(networks, name):
    plain = networks("cnn")
    squashed = wrap_model(Squashed(plain.module), FINDINGS, plain.input.size, in_chans=3, output="probabilities")
    x = pictures(plain)
    kept = x.clone()
    given = {"batch": 1} if name in SWEEPS else {}  # nothing to pad: the network is given what the library has
    torch.testing.assert_close(run(squashed, name, x, **given), run(plain, name, 2 * x), rtol=1e-3, atol=1e-4)
    assert torch.equal(x, kept)


class TwoClasses(nn.Module):
    """The same network with two outputs, whose difference is its finding."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.network(x)
        return torch.stack([z[:, 1], z[:, 0] + z[:, 1]], dim=1)


@pytest.mark.parametrize("name", METHODS)
def test_two_classes_are_explained_by_their_difference(networks, name):
    plain = networks("cnn")
    pair = wrap_model(TwoClasses(plain.module), ["a"], plain.input.size, in_chans=3, activation="softmax")
    x = pictures(plain)
    ours = run(pair, name, x, torch.zeros(2, 1, dtype=torch.int64))[:, 0]
    torch.testing.assert_close(ours, run(plain, name, x)[:, 0], rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# What is left behind


class Fails(Exception):  # noqa: N818
    """Raised by a network on a certain pass."""


@pytest.mark.parametrize(
    ("name", "last"), [("eigencam", 1), ("fullgrad", 1)] + [(name, last) for name in SWEEPS for last in (1, 2, 3)]
)
def test_everything_is_in_its_place_after_an_exception(networks, name, last):
    import pytorch_grad_cam

    model = copy.deepcopy(networks("cnn"))
    before = [(path, id(module)) for path, module in model.module.named_modules()]
    passes = []

    def fail(*_):
        passes.append(1)
        if len(passes) == last:
            raise Fails

    handle = model.module.register_forward_hook(fail)
    given = {"batch": 4} if name in SWEEPS else {}
    with pytest.raises(Fails):
        run(model, name, pictures(model), **given)
    handle.remove()
    assert [(path, id(module)) for path, module in model.module.named_modules()] == before
    assert not any(module._forward_hooks for module in model.module.modules())
    assert pytorch_grad_cam.score_cam.tqdm.tqdm is pytorch_grad_cam.ablation_cam.tqdm.tqdm
    assert callable(pytorch_grad_cam.score_cam.tqdm.tqdm.write)  # the real one


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_printed(networks, name, capfd):
    run(networks("cnn"), name, pictures(networks("cnn")))
    assert capfd.readouterr() == ("", "")


class Twice(nn.Module):
    """Runs a layer twice, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 1)
        self.spare = nn.Conv2d(1, 3, 1)
        self.again = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.again(self.layer(x)).relu()).mean(dim=(2, 3))


class Elsewhere(Twice):
    """Reaches its layer by another way than the tree of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [self.layer]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.hidden[0](x).mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("module", "layer", "name", "sentence"),
    [
        (Twice, "spare", "eigencam", "not reached"),
        (Twice, "spare", "scorecam", "not reached"),
        (Twice, "again", "ablationcam", "does not run exactly once"),
        (Elsewhere, "layer", "ablationcam", "does not run exactly once"),
    ],
)
def test_layers_that_cannot_be_read_are_told(module, layer, name, sentence):
    model = wrap_model(module(), FINDINGS, 8, cam_layer=layer)
    with pytest.raises(UsageError, match=sentence):
        run(model, name, torch.randn(1, 1, 8, 8), torch.tensor([[0]]))
    assert model.module.get_submodule(layer) is getattr(model.module, layer)
    assert isinstance(model.module.get_submodule(layer), nn.Conv2d)


@pytest.mark.parametrize("name", METHODS)
def test_the_contract_is_kept(name):
    outcomes = check_explainer(load().explainers.find(name))
    assert outcomes
    assert not [outcome for outcome in outcomes if not outcome.passed]
