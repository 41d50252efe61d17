"""Every method on every kind of network: a map that is no map of zeros, or one sentence."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import cxrx
from cxrx.errors import CxrxError
from cxrx.models.load import wrap_model
from cxrx.registry import load

FAST = {
    "extremal": {"steps": 4, "every": 2},
    "rise": {"masks": 16},
    "lime": {"samples": 16, "segments": 6},
    "kernelshap": {"samples": 16, "segments": 6},
    "smoothgrad": {"n": 2},
    "smoothgrad-squared": {"n": 2},
    "vargrad": {"n": 2},
    "integrated-gradients": {"steps": 2},
    "gradientshap": {"n": 2},
}
CAM = {"gradcam", "gradcam++", "hirescam", "layercam", "xgradcam"}
GRADIENT = {
    "saliency", "inputxgrad", "smoothgrad", "smoothgrad-squared", "vargrad", "integrated-gradients", "gradientshap",
    "deeplift", "extremal",
}  # fmt: skip
FORWARD_CAM = {"eigencam", "scorecam", "ablationcam"}
FORWARD = {"rise", "occlusion", "lime", "kernelshap"}


class Net(nn.Module):
    def __init__(self, between=None, above=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 8, 3, 2)
        self.fc = nn.Linear(8, 2)
        self.between, self.above = between, above

    def forward(self, x):
        h = torch.relu(self.conv(x))
        z = self.fc((h if self.between is None else self.between(h)).mean((2, 3)))
        return z if self.above is None else self.above(z)


class Plain(nn.Module):  # without attributes that TorchScript does not know
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 8, 3, 2)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


class Ungraded(Net):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


class Cached(Net):
    grid = None

    def forward(self, x):
        if self.grid is None:
            self.grid = torch.linspace(0.5, 1.5, x.shape[-1])
        return super().forward(x * self.grid)


class Builds(Plain):
    def __init__(self):
        super().__init__()
        self.conv = None

    def forward(self, x):
        if self.conv is None:
            self.conv = nn.Conv2d(x.shape[1], 8, 3, 2)
        return super().forward(x)


class Constant(Net):
    def forward(self, x):
        return self.fc.bias.expand(len(x), 2) * 1


class WithoutBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x


def quantised():
    return torch.ao.quantization.quantize_dynamic(Plain(), {nn.Linear})


def statically_quantised():
    quantization = torch.ao.quantization
    network = nn.Sequential(quantization.QuantStub(), *lazy()[:-1], nn.Linear(8, 2), quantization.DeQuantStub()).eval()
    network(torch.rand(4, 1, 32, 32))
    network.qconfig = quantization.get_default_qconfig("fbgemm")
    prepared = quantization.prepare(network)
    prepared(torch.rand(4, 1, 32, 32))
    return quantization.convert(prepared)


def scripted():
    return torch.jit.script(Plain().eval())


def lazy():
    return nn.Sequential(nn.LazyConv2d(8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(2))


EVERYTHING = CAM | GRADIENT | FORWARD_CAM | FORWARD
KINDS = {
    "plain": (Plain, EVERYTHING),
    "cached tensor": (Cached, EVERYTHING),
    "layer built in the first pass": (Builds, EVERYTHING),
    "lazy": (lazy, EVERYTHING),
    "fp16": (lambda: Net().half(), EVERYTHING),
    "bf16": (lambda: Net().bfloat16(), EVERYTHING),
    "float64": (lambda: Net().double(), EVERYTHING),
    "quantised head": (quantised, FORWARD | FORWARD_CAM),
    "quantised throughout": (statically_quantised, FORWARD),
    "scripted": (scripted, GRADIENT | FORWARD),
    "frozen": (lambda: torch.jit.freeze(scripted()), GRADIENT | FORWARD),
    "traced": (lambda: torch.jit.trace(Plain().eval(), torch.rand(2, 1, 32, 32)), GRADIENT | FORWARD),
    "scripted body": (
        lambda: nn.Sequential(torch.jit.script(nn.Conv2d(1, 8, 3, 2)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                              nn.Linear(8, 2)),
        EVERYTHING,
    ),
    "detached features": (lambda: Net(lambda h: h.detach()), FORWARD | FORWARD_CAM),
    "detached logits": (lambda: Net(above=lambda z: z.detach()), FORWARD | FORWARD_CAM),
    "no_grad": (Ungraded, FORWARD | FORWARD_CAM),
    "numpy": (lambda: Net(lambda h: torch.from_numpy(h.numpy().copy())), FORWARD | FORWARD_CAM),
    "signs": (lambda: Net(torch.sign), FORWARD | FORWARD_CAM),
    "floor division": (lambda: Net(above=lambda z: torch.div(z, 1e-4, rounding_mode="floor")), FORWARD | FORWARD_CAM),
    "whole numbers": (lambda: Net(above=lambda z: (1e4 * z).round()), FORWARD | FORWARD_CAM),
    "without a backward": (lambda: Net(WithoutBackward.apply), FORWARD | FORWARD_CAM),
    "constant": (Constant, set()),
}  # fmt: skip


def attempt(model, x, name):
    try:
        return cxrx.explain(model, x, name, targets="all", **FAST.get(name, {})).values, None
    except CxrxError as error:
        return None, error


@pytest.mark.parametrize("kind", KINDS)
def test_maps_or_one_sentence(kind):
    build, expected = KINDS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantisation and TorchScript are deprecated
        model = wrap_model(build(), ["a", "b"], 32)
    assert len(model.slug.rpartition("@")[2]) == 8
    x = model.prepare(torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(1)))
    drawn = set()
    for name in EVERYTHING | {"fullgrad", "attention", "rollout", "chefer", "chefer-lrp"}:
        values, error = attempt(model, x, name)
        if error is None:
            assert np.isfinite(values).all()
            drawn |= {name} if values.any() else set()
        else:
            assert "\n" not in str(error)
            assert error.hint
    if kind == "constant":
        drawn -= FORWARD_CAM | {"lime", "kernelshap"}  # of rounding at most
    assert drawn == expected


def test_every_method_was_tried():
    methods = {spec.name for spec in load().explainers.values() if not spec.control} - {"tiles"}
    assert methods <= EVERYTHING | {"fullgrad", "attention", "rollout", "chefer", "chefer-lrp"}
