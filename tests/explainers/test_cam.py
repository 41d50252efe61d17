from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from cxrx.errors import UsageError
from cxrx.explainers.cam import build_cam
from cxrx.explainers.guard import guard
from cxrx.explainers.option_types import CamOptions, GradCamPlusOptions
from cxrx.models.load import wrap_model

FINDINGS = ("a", "b", "c")
METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam")
PEERS = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "xgradcam": "XGradCAM",
}

NETWORKS = {
    "densenet121": (lambda: timm.create_model("densenet121", num_classes=3), (96, 64)),
    "vgg16": (
        lambda: timm.create_model("vgg16", num_classes=3, mlp_ratio=1 / 64),
        (64, 64),
    ),  # 4096 features take seconds
    "vit-token": (lambda: vit(global_pool="token"), (48, 32)),
    "vit-average": (lambda: vit(global_pool="avg", class_token=False, fc_norm=True), (48, 32)),
    "vit-registers": (lambda: vit(global_pool="token", reg_tokens=4), (48, 32)),
    "mixer": (lambda: timm.create_model("mixer_s16_224", img_size=64, num_classes=3), (64, 64)),
}


def vit(**options) -> nn.Module:
    return timm.models.VisionTransformer(
        img_size=(48, 32), patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=3, **options
    )


@pytest.fixture(scope="module")
def networks():
    """Build each network once; heads are drawn anew, since some are zero or too small to see a map."""
    built = {}

    def get(name):
        if name not in built:
            torch.manual_seed(0)
            make, size = NETWORKS[name]
            module = make().eval()
            head = module.get_classifier()
            nn.init.normal_(head.weight, std=head.in_features**-0.5)
            built[name] = wrap_model(module, FINDINGS, size, in_chans=3)
        return built[name]

    return get


def run(model, x, targets, method="gradcam", **options):
    explainer = build_cam(method, (GradCamPlusOptions if method == "gradcam++" else CamOptions)(**options))
    with guard(model.module):
        return explainer(model, x, targets, torch.zeros(len(x), dtype=torch.int64)).values


def peer(model, x, targets, method):
    """Return what pytorch-grad-cam shows ``(B, H, W)`` for one target a picture."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer = model.cam_layer()
    size = tuple(x.shape[2:])
    cam = getattr(pytorch_grad_cam, PEERS[method])(
        model.module, [layer.module], reshape_transform=lambda output: layer.to_grid(output, size)
    )
    with cam:
        return cam(x.clone().requires_grad_(), [ClassifierOutputTarget(int(t)) for t in targets])


def as_shown(values, size):
    """Bring maps ``(B, h, w)`` to the form that pytorch-grad-cam returns: ReLU, min-max, bilinear, min-max."""

    def stretch(v):
        v = v - v.amin(dim=(1, 2), keepdim=True)
        return v / (1e-7 + v.amax(dim=(1, 2), keepdim=True))

    up = nn.functional.interpolate(stretch(values.clamp(min=0))[:, None], size, mode="bilinear")[:, 0]
    return stretch(up).numpy()


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradcam_is_that_of_pytorch_grad_cam(networks, name, batch):
    model = networks(name)
    x = torch.randn(batch, 3, *model.input.size, generator=torch.Generator().manual_seed(3))
    every = run(model, x, torch.arange(3).expand(batch, 3))
    targets = every.amax(dim=(2, 3)).argmax(dim=1)  # one with a positive side, which is all that the peer shows
    values = every[torch.arange(batch), targets]
    assert values.max() > 0
    np.testing.assert_allclose(as_shown(values, x.shape[2:]), peer(model, x, targets, "gradcam"), atol=1e-4)


@pytest.mark.parametrize("batch", [1, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_others_are_those_of_pytorch_grad_cam(networks, name, method, batch):
    model = networks(name)
    x = torch.randn(batch, 3, *model.input.size, generator=torch.Generator().manual_seed(3))
    targets = torch.arange(batch) % 3
    values = run(model, x, targets[:, None], method)[:, 0]
    np.testing.assert_allclose(as_shown(values, x.shape[2:]), peer(model, x, targets, method), atol=1e-4)


@pytest.mark.parametrize("name", ["densenet121", "vit-token"])
@pytest.mark.parametrize("method", METHODS)
def test_eigen_smooth_is_that_of_pytorch_grad_cam(networks, name, method):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = networks(name)
    x = torch.randn(2, 3, *model.input.size, generator=torch.Generator().manual_seed(3))
    values = run(model, x, torch.tensor([[0], [2]]), method, eigen_smooth=True)[:, 0]
    layer, size = model.cam_layer(), tuple(x.shape[2:])
    cam = getattr(pytorch_grad_cam, PEERS[method])(
        model.module, [layer.module], reshape_transform=lambda output: layer.to_grid(output, size)
    )
    with cam:
        shown = cam(x.clone().requires_grad_(), [ClassifierOutputTarget(0), ClassifierOutputTarget(2)], False, True)
    for ours, theirs in zip(values, shown, strict=True):
        # The peer leaves the sign to its decomposition.
        both = [as_shown(sign * ours[None], size)[0] for sign in (1, -1)]
        assert min(np.abs(one - theirs).max() for one in both) < 1e-3


def test_the_sign_of_eigen_smooth_is_that_of_the_plain_map(networks):
    model = networks("densenet121")
    x = torch.randn(4, 3, *model.input.size, generator=torch.Generator().manual_seed(3))
    every = torch.arange(3).expand(4, 3)
    smooth, plain = run(model, x, every, eigen_smooth=True), run(model, x, every)
    plain = plain - plain.mean(dim=(2, 3), keepdim=True)
    assert ((smooth * plain).sum(dim=(2, 3)) >= 0).all()


def test_aug_smooth_is_the_mean_over_six_versions(networks):
    model = networks("vit-token")
    x = torch.randn(2, 3, 48, 32, generator=torch.Generator().manual_seed(3))
    targets = torch.tensor([[0, 1], [2, -1]])
    expected = torch.zeros(2, 2, 6, 4)
    for factor in (0.9, 1.0, 1.1):
        expected += run(model, factor * x, targets) / 6
        expected += run(model, factor * torch.flip(x, dims=[3]), targets).flip(3) / 6
    torch.testing.assert_close(run(model, x, targets, aug_smooth=True), expected)


def test_another_layer_can_be_named(networks):
    model = networks("densenet121")
    x = torch.randn(2, 3, *model.input.size, generator=torch.Generator().manual_seed(3))
    targets = torch.tensor([[0], [2]])
    values = run(model, x, targets, layer="features.denseblock3")
    assert values.shape == (2, 1, 6, 4)
    named = wrap_model(model.module, FINDINGS, model.input.size, in_chans=3, cam_layer="features.denseblock3")
    assert torch.equal(values, run(named, x, targets))
    with pytest.raises(UsageError, match="no layer named"):
        run(model, x, targets, layer="features.nothing")


def test_formulas_on_a_network_whose_gradient_is_known():
    """Mean pooling and a linear head: the gradient of logit k at every cell is W_kc / (h w)."""
    torch.manual_seed(0)
    features = nn.Conv2d(1, 5, 3, stride=4, padding=1)
    head = nn.Linear(5, 3)
    module = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    model = wrap_model(module, FINDINGS, (16, 24), cam_layer="0")
    x = torch.randn(2, 1, 16, 24)
    a = features(x).detach()  # (2, 5, 4, 6)
    weight = head.weight.detach() / 24
    linear = torch.einsum("kc,bchw->bkhw", weight, a)
    every = torch.arange(3).expand(2, 3)
    torch.testing.assert_close(run(model, x, every, "gradcam"), linear)
    torch.testing.assert_close(run(model, x, every, "hirescam"), linear)
    positive = torch.einsum("kc,bchw->bkhw", weight.clamp(min=0), a)
    torch.testing.assert_close(run(model, x, every, "layercam"), positive)
    torch.testing.assert_close(run(model, x, every, "xgradcam"), linear, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_all_findings_from_one_forward_are_those_asked_for_one_by_one(networks, method):
    model = networks("vit-token")
    x = torch.randn(3, 3, 48, 32, generator=torch.Generator().manual_seed(4))
    calls = []
    handle = model.module.register_forward_hook(lambda *_: calls.append(1))
    together = run(model, x, torch.arange(3).expand(3, 3), method)
    handle.remove()
    assert len(calls) == 1
    assert together.shape == (3, 3, 6, 4)
    for k in range(3):
        torch.testing.assert_close(together[:, k : k + 1], run(model, x, torch.full((3, 1), k), method))


@pytest.mark.parametrize("method", METHODS)
def test_empty_targets_give_zeros(networks, method):
    model = networks("vit-token")
    x = torch.randn(2, 3, 48, 32)
    values = run(model, x, torch.tensor([[0, -1, -1], [-1, 2, -1]]), method)
    empty = torch.tensor([[False, True, True], [True, False, True]])
    assert values[empty].abs().max() == 0
    assert (values[~empty].abs().amax(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_permuted_batch_gives_permuted_maps(networks, method):
    model = networks("vit-average")
    x = torch.randn(4, 3, 48, 32, generator=torch.Generator().manual_seed(5))
    targets = torch.tensor([[0, 1], [2, -1], [1, 0], [2, 0]])
    order = [2, 0, 3, 1]
    torch.testing.assert_close(run(model, x[order], targets[order], method), run(model, x, targets, method)[order])


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam", "xgradcam"])
def test_doubled_logits_double_the_map(cnn, pictures, method):
    targets = torch.arange(3).expand(4, 3)
    once = run(cnn, pictures, targets, method)
    with torch.no_grad():
        cnn.module[-1].weight.mul_(2)
    torch.testing.assert_close(run(cnn, pictures, targets, method), 2 * once)


@pytest.mark.parametrize("method", METHODS)
def test_constant_logits_give_zeros(cnn, pictures, method):
    nn.init.zeros_(cnn.module[-1].weight)
    assert run(cnn, pictures, torch.arange(3).expand(4, 3), method).abs().max() == 0


def test_an_inplace_relu_behind_the_layer_is_part_of_what_is_captured():
    """torchvision's DenseNet applies ReLU to norm5 in place, outside of any module."""
    from torchvision.models import DenseNet

    torch.manual_seed(0)
    module = DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3).eval()
    model = wrap_model(module, FINDINGS, 64, in_chans=3)
    assert model.cam_layer().name == "features.norm5"
    x = torch.randn(2, 3, 64, 64)
    activation = module.features(x).relu().detach()
    weight = module.classifier.weight.detach() / activation[0, 0].numel()
    expected = torch.einsum("kc,bchw->bkhw", weight, activation)
    torch.testing.assert_close(run(model, x, torch.arange(3).expand(2, 3)), expected)


class Twice(nn.Module):
    """A layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x).relu()).flatten(1)[:, :3]


def test_the_last_call_of_a_layer_counts():
    torch.manual_seed(0)
    module = Twice()
    model = wrap_model(module, FINDINGS, 8, cam_layer="layer")
    x = torch.randn(1, 1, 8, 8)
    last = module.layer(module.layer(x).relu()).detach()
    # The logit is one cell of the output: the gradient is 1 there, its mean 1/64.
    torch.testing.assert_close(run(model, x, torch.tensor([[1]])), last / 64)


class Unreached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Conv2d(1, 1, 1)
        self.used = nn.Conv2d(1, 3, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x).flatten(1)


class Detached(Unreached):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x).detach().flatten(1)


class Pair(Unreached):
    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.LSTM(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pair(x[:, 0])[0].mean(1)


@pytest.mark.parametrize(
    ("module", "layer", "sentence"),
    [
        (Unreached(), "spare", "not reached"),
        (Detached(), "used", "no gradient reaches layer 'used'"),
        (Pair(), "pair", "returns tuple"),
    ],
)
def test_layers_that_cannot_be_read_are_told(module, layer, sentence):
    model = wrap_model(module, FINDINGS, 8, cam_layer=layer)
    with pytest.raises(UsageError, match=sentence):
        run(model, torch.randn(1, 1, 8, 8), torch.tensor([[0]]))
    assert not module.get_submodule(layer)._forward_hooks
