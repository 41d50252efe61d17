from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import cxrx
from cxrx.errors import PluginError, UsageError
from cxrx.explainers.run import explain, run_explainer
from cxrx.explainers.seeds import derive_seed, tensor_id
from cxrx.models.inference import auto_batch_size
from cxrx.models.load import wrap_model
from cxrx.specs import Maps


def test_what_comes_back(cnn, pictures):
    a = cxrx.explain(cnn, pictures, "gradcam", targets="all")
    assert a.values.shape == (4, 3, 8, 8)
    assert a.values.dtype == np.float32
    assert a.present.all()
    assert a.targets.tolist() == [[0, 1, 2]] * 4
    np.testing.assert_allclose(a.scores, cnn.logits(pictures), rtol=1e-6)
    assert (a.method, a.input_size, a.labels) == ("gradcam", (32, 32), ("Effusion", "Mass", "Nodule"))
    assert a.options == {"layer": None, "aug_smooth": False, "eigen_smooth": False}
    assert a.relu
    assert a.signed


def test_absent_targets(cnn, pictures):
    a = explain(cnn, pictures, "saliency", targets=[[0, -1], [-1, -1], [1, 2], [2, -1]])
    assert a.present.tolist() == [[True, False], [False, False], [True, True], [True, False]]
    assert np.isnan(a.scores[~a.present]).all()
    assert np.isfinite(a.scores[a.present]).all()
    assert (a.values[~a.present] == 0).all()
    assert (np.abs(a.values[a.present]).max(axis=(1, 2)) > 0).all()


@pytest.mark.parametrize("method", ["gradcam", "smoothgrad", "random", "integrated-gradients"])
def test_batches_change_nothing(cnn, method):
    x = torch.randn(7, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    options = {"smoothgrad": {"n": 3}, "integrated-gradients": {"steps": 3}}.get(method, {})
    whole = explain(cnn, x, method, targets="all", batch_size=7, **options)
    parts = explain(cnn, x, method, targets="all", batch_size=3, **options)
    np.testing.assert_allclose(parts.values, whole.values, rtol=1e-4, atol=1e-6)
    alone = explain(cnn, x[4:5], method, targets="all", **options)
    np.testing.assert_allclose(alone.values[0], whole.values[4], rtol=1e-4, atol=1e-6)


def test_tail_batches_have_the_full_shape(cnn):
    seen = []
    handle = cnn.module.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    explain(cnn, torch.randn(7, 1, 32, 32), "gradcam", batch_size=3)
    handle.remove()
    assert set(seen) - {1} == {3}  # single pictures only while the layer is looked for


def test_noise_depends_on_seed_method_and_picture_and_on_nothing_else(cnn, pictures):
    def values(x, seed=0, **options):
        return explain(cnn, x, "smoothgrad", targets=[0] * len(x), seed=seed, n=3, **options).values

    first = values(pictures)
    np.testing.assert_array_equal(values(pictures), first)
    np.testing.assert_allclose(values(pictures.flip(0))[::-1], first, rtol=1e-5, atol=1e-7)
    assert not np.allclose(values(pictures, seed=1), first)
    named = values(pictures, image_ids=["a", "b", "c", "d"])
    assert not np.allclose(named, first)
    own = [tensor_id(picture) for picture in pictures]
    np.testing.assert_array_equal(values(pictures, image_ids=own), first)


def test_the_seed_of_a_picture(cnn, pictures):
    seen = []

    def explainer(model, x, targets, seeds):
        seen.extend(seeds.tolist())
        return Maps(torch.zeros(*targets.shape, 1, 1))

    seeds = torch.tensor([derive_seed(3, "mine", tensor_id(picture)) for picture in pictures])
    run_explainer(cnn, explainer, pictures, torch.zeros(4, 1, dtype=torch.int64), seeds, 6)
    assert seen == [*seeds.tolist(), 0, 0]


def test_the_callers_picture_and_model_are_left_alone(cnn, pictures):
    cnn.module.train()
    before = pictures.clone()
    weights = {name: tensor.clone() for name, tensor in cnn.module.state_dict().items()}
    cnn.module.eval()
    explain(cnn, pictures.requires_grad_(), "integrated-gradients", steps=2)
    assert pictures.grad is None
    assert torch.equal(pictures.detach(), before)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in cnn.module.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in cnn.module.parameters())


def test_pictures_made_in_inference_mode_can_be_explained(cnn, pictures):
    with torch.inference_mode():
        inside = pictures * 1.0
        values = explain(cnn, inside, "saliency").values
    np.testing.assert_array_equal(values, explain(cnn, pictures, "saliency").values)


class StartsInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.mul_(2).flatten(1))


def test_a_network_that_works_in_place_sees_the_picture_once():
    model = wrap_model(StartsInPlace(), ["a", "b"], 8)
    x = torch.randn(2, 1, 8, 8)
    before = x.clone()
    a = explain(model, x, "inputxgrad", targets=0)
    assert torch.equal(x, before)
    weight = model.module.layer.weight.detach()[0].view(8, 8)
    np.testing.assert_allclose(a.values[:, 0], (2 * x * weight)[:, 0], rtol=1e-5)
    np.testing.assert_allclose(
        a.scores[:, 0],
        (2 * before).flatten(1) @ model.module.layer.weight.detach()[0] + model.module.layer.bias.detach()[0],
        rtol=1e-4,
        atol=1e-5,
    )


def test_out_of_memory_is_tried_on_halves(cnn):
    def explainer(model, x, targets, seeds):
        if len(x) > 2:
            raise torch.cuda.OutOfMemoryError
        return Maps(x.mean(dim=1, keepdim=True).expand(-1, targets.shape[1], -1, -1), {"size": targets * 0 + len(x)})

    x = torch.randn(5, 1, 4, 4)
    pieces = run_explainer(cnn, explainer, x, torch.zeros(5, 2, dtype=torch.int64), torch.arange(5), 8)
    assert [len(piece.values) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([piece.values for piece in pieces])[:, 1], x[:, 0])
    assert torch.cat([piece.extras["size"] for piece in pieces]).shape == (5, 2)


@pytest.mark.parametrize("shape", [(3, 1, 2, 2), (4, 2, 2, 2), (4, 1, 2)])
def test_maps_of_another_shape_are_refused(cnn, pictures, shape):
    with pytest.raises(PluginError, match="an explainer returned maps"):
        run_explainer(
            cnn, lambda *_: Maps(torch.zeros(shape)), pictures, torch.zeros(4, 1, dtype=torch.int64), torch.arange(4), 4
        )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": "gradcan"}, "gradcan"),
        ({"method": "saliency", "n": 5}, "saliency has no options"),
        ({"method": "smoothgrad", "n": "many"}, "n must be a whole number"),
        ({"method": "gradcam", "targets": "Edema"}, "no finding named 'Edema'"),
        ({"method": "gradcam", "batch_size": 0}, "batch_size must be at least 1"),
        ({"method": "gradcam", "image_ids": ["a"]}, "1 image ids for 4 pictures"),
        ({"method": "gradcam", "x": torch.zeros(4, 3, 32, 32)}, r"\(B, 1, H, W\), not \(4, 3, 32, 32\)"),
        ({"method": "gradcam", "x": torch.zeros(0, 1, 32, 32)}, "not"),
        ({"method": "gradcam", "x": torch.full((1, 1, 32, 32), torch.nan)}, "not finite"),
    ],
)
def test_what_does_not_fit_is_told(cnn, pictures, arguments, sentence):
    arguments = {"x": pictures, **arguments}
    with pytest.raises(UsageError, match=sentence):
        explain(cnn, **arguments)


def test_a_method_that_the_model_cannot_support_is_refused_naming_those_that_fit():
    model = wrap_model(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), ["a", "b"], 8)
    with pytest.raises(UsageError, match="gradcam needs a spatial layer") as caught:
        explain(model, torch.zeros(1, 1, 8, 8), "gradcam")
    assert "smoothgrad" in caught.value.hint
    assert "gradcam" not in caught.value.hint


def test_upsampling(cnn, pictures):
    a = explain(cnn, pictures, "gradcam", targets="all")
    assert a.upsample().shape == (4, 3, 32, 32)
    expected = nn.functional.interpolate(torch.from_numpy(a.values).clamp(min=0), (48, 40), mode="bilinear")
    np.testing.assert_allclose(a.upsample((48, 40), relu=True), expected, rtol=1e-6)
    smaller = nn.functional.interpolate(torch.from_numpy(a.values), (4, 4), mode="bilinear", antialias=True)
    np.testing.assert_allclose(a.upsample((4, 4)), smaller, rtol=1e-6)


@pytest.mark.parametrize("method", ["gradcam", "saliency", "centre"])
def test_a_picture_for_every_present_target(cnn, pictures, method):
    figure = explain(cnn, pictures[:2], method, targets=[[0, 1], [2, -1]]).show()
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.split()[0] if title else "" for title in titles] == ["Effusion", "Mass", "Nodule", ""]
    figure.canvas.draw()


@pytest.mark.parametrize(("gib", "expected"), [(139, 128), (16, 32), (8, 16), (2, 4), (0.2, 1)])
def test_a_gpu_takes_what_its_memory_holds(monkeypatch, gib, expected):
    properties = SimpleNamespace(total_memory=int(gib * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    assert auto_batch_size(torch.device("cuda", 0)) == expected
    assert auto_batch_size(torch.device("cpu")) == 8
