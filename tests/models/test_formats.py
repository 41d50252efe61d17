"""Everybody's checkpoints: a file in each published layout gives the logits of the network that was saved."""

from __future__ import annotations

import argparse
import os
import re
from collections import OrderedDict
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models.vgg import ConvMlp
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cxrx.errors import UsageError
from cxrx.models import load
from cxrx.models.architectures import timm_builder
from cxrx.models.checkpoints import read_checkpoint
from cxrx.models.formats import count_outputs, find_variant, guess_architecture
from cxrx.models.load import load_model
from cxrx.models.recipes import CHEXNET_INPUT, MAE_INPUT, NIH_LABELS, PNEUMONIA_INPUT, XRV_INPUT
from cxrx.registry import Registry
from cxrx.registry import load as load_registry
from cxrx.specs import InputSpec, ModelSpec

CLOSE = 1e-5


def seeded(module, seed=0):
    """Give every parameter and statistic a value of its own, small enough for logits of order one."""
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            if key.endswith("running_var"):
                tensor.copy_(1 + 0.3 * noise.abs())
            elif tensor.ndim > 1:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            else:
                tensor.copy_((1 if key.endswith("weight") else 0) + 0.1 * noise)
    return module.eval()


def films(size, channels=3, count=2):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(7))


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def check(model, expected, x):
    with torch.inference_mode():
        z = model.logits(x)
    assert z.shape == expected.shape
    assert expected.std() > 1e-3  # logits that tell films and findings apart
    assert (z - expected).abs().max() <= CLOSE
    return z


# ---------------------------------------------------------------------------------------------------------------------
# CheXNet


class CheXNet(nn.Module):
    """Torchvision's DenseNet with a linear layer and a sigmoid in place of its classifier."""

    def __init__(self, depth=121, outputs=14):
        super().__init__()
        network = getattr(torchvision.models, f"densenet{depth}")(weights=None)
        network.classifier = nn.Sequential(nn.Linear(network.classifier.in_features, outputs), nn.Sigmoid())
        setattr(self, f"densenet{depth}", network)
        self.network = [network]  # in a list: not a submodule of its own

    def forward(self, x):
        return self.network[0](x)


def before_torch_04(state):
    """Name the layers as torchvision did until 0.2, and leave out the counters that came later."""
    old = re.compile(r"(denselayer\d+)\.(norm|relu|conv)([12])\.")
    return {old.sub(r"\1.\2.\3.", k): v for k, v in state.items() if not k.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def chexnet():
    network = seeded(CheXNet())
    x = films(64)
    with torch.inference_mode():
        return network, x, network(x)  # probabilities


def arnoweng(network):
    state = {f"module.{key}": value for key, value in before_torch_04(network.state_dict()).items()}
    return {"state_dict": state}


def zoogzog(network):
    return arnoweng(network) | {"epoch": 12, "best_loss": np.float64(0.2), "optimizer": {"state": {}}}


@pytest.mark.parametrize("content", [arnoweng, zoogzog])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_chexnet_gives_logits_and_its_probabilities_are_squashed_once(content, zipped, chexnet, tmp_path):
    network, x, probabilities = chexnet
    path = saved(tmp_path / "model.pth.tar", content(network), _use_new_zipfile_serialization=zipped)
    model = load_model("densenet121", path, device="cpu")
    z = check(model, torch.logit(probabilities), x)
    assert (model.probabilities(z) - probabilities).abs().max() < 1e-6
    assert z.min() < 0  # no probability is
    assert model.labels == NIH_LABELS
    assert model.input == CHEXNET_INPUT
    assert "CheXNet" in model.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [169, 201])
def test_zoogzogs_deeper_networks(depth, tmp_path):
    network, x = seeded(CheXNet(depth)), films(64, count=1)
    with torch.inference_mode():
        expected = torch.logit(network(x))
    path = saved(tmp_path / "m.pth.tar", zoogzog(network))
    assert read_checkpoint(path).architecture == f"densenet{depth}"
    check(load_model(f"densenet{depth}", path, device="cpu"), expected, x)
    with pytest.raises(UsageError, match="does not fit densenet121") as error:
        load_model("densenet121", path, device="cpu")
    assert error.value.hint == f"its keys are those of densenet{depth}: -m densenet{depth}"


def test_two_names_for_one_tensor_are_told(chexnet, tmp_path):
    content = arnoweng(chexnet[0])
    first = "module.densenet121.features.denseblock1.denselayer1.norm.1.weight"
    content["state_dict"][first.replace("norm.1", "norm1")] = torch.ones(64)
    with pytest.raises(UsageError, match=r"left over: densenet121\.features\.denseblock1\.denselayer1\.norm1\.weight$"):
        load_model("densenet121", saved(tmp_path / "model.pth.tar", content), device="cpu")


def test_jrzechs_tensors(chexnet, tmp_path):
    network, x, probabilities = chexnet
    path = saved(tmp_path / "state.pth", before_torch_04(network.densenet121.state_dict()))
    model = load_model("densenet121", path, device="cpu")
    check(model, torch.logit(probabilities), x)
    assert model.input == InputSpec(resize=224)
    assert model.labels == NIH_LABELS


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_jrzechs_pickled_network_is_refused_and_the_converter_named(zipped, tmp_path):
    content = {"model": nn.Sequential(nn.Linear(2, 2)), "best_loss": 0.1, "epoch": 3, "rng_state": torch.zeros(3)}
    path = saved(tmp_path / "checkpoint", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=r"a whole network \(a pickled module\)") as error:
        load_model("densenet121", path, device="cpu")
    assert "cxrx xrv convert checkpoint" in error.value.hint


def test_a_users_own_network_keeps_its_own_names(chexnet, tmp_path):
    network, x, probabilities = chexnet
    source = "import torch\nimport torchvision\nfrom torch import nn\n"
    source += "class CheXNet(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    source += "        self.densenet121 = torchvision.models.densenet121(weights=None)\n"
    source += "        self.densenet121.classifier = nn.Sequential(nn.Linear(1024, 14))\n"
    source += "    def forward(self, x):\n        return self.densenet121(x)\n"
    (tmp_path / "own.py").write_text(source)
    path = saved(tmp_path / "model.pth.tar", {"state_dict": network.state_dict()})
    model = load_model(f"{tmp_path}/own.py:CheXNet", path, device="cpu")
    check(model, torch.logit(probabilities), x)


# ---------------------------------------------------------------------------------------------------------------------
# medical_mae, MAE, DINO


def mean_of_patches(vit, x):
    """Read a ViT as MAE's fine-tuning does: the mean of the patches, then fc_norm, then the head."""
    tokens = torch.cat([vit.cls_token.expand(len(x), -1, -1), vit.patch_embed(x)], dim=1) + vit.pos_embed
    for block in vit.blocks:
        tokens = block(tokens)
    return vit.head(vit.fc_norm(tokens[:, 1:].mean(dim=1)))


def class_token(vit, x, head):
    """Read a ViT by its class token, after the norm."""
    tokens = torch.cat([vit.cls_token.expand(len(x), -1, -1), vit.patch_embed(x)], dim=1) + vit.pos_embed
    for block in vit.blocks:
        tokens = block(tokens)
    return head(vit.norm(tokens)[:, 0])


def wrapped(state):
    """Wrap a state dict as MAE's training scripts do."""
    args = argparse.Namespace(lr=None, model="vit_small_patch16", nested=argparse.Namespace(seed=np.int64(3)))
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([{"params": [weight], "lr_scale": 0.55}], lr=np.float64(1e-3))
    weight.grad = torch.ones(2)
    optimizer.step()
    scaler = torch.amp.GradScaler("cpu").state_dict()
    return {"model": state, "optimizer": optimizer.state_dict(), "epoch": 74, "scaler": scaler, "args": args}


def test_a_fine_tuned_medical_mae_is_read_by_the_mean_of_its_patches(tmp_path):
    source = seeded(timm.create_model("vit_small_patch16_224", num_classes=14, global_pool="avg"))
    assert source.state_dict()["pos_embed"].shape == (1, 197, 384)
    assert source.fc_norm.eps == 1e-6
    x = films(224, count=1)
    with torch.inference_mode():
        expected = mean_of_patches(source, x)
        by_token = class_token(source, x, nn.Sequential(source.fc_norm, source.head))
    path = saved(tmp_path / "checkpoint-74.pth", wrapped(source.state_dict()))
    model = load_model("vit_small", path, device="cpu")
    z = check(model, expected, x)
    assert (z - by_token).abs().max() > 100 * CLOSE  # the trap
    assert model.labels == NIH_LABELS
    assert model.input == MAE_INPUT
    state = source.state_dict()
    state["norm.weight"], state["norm.bias"] = state.pop("fc_norm.weight"), state.pop("fc_norm.bias")
    renamed = saved(tmp_path / "renamed.pth", wrapped(state))
    assert load_model("vit_small", renamed, device="cpu").module.global_pool == "token"  # never taken for the mean


def mae(depth=2, dim=768):
    """A thin masked autoencoder's tensors: an encoder of the names of a ViT, and a decoder."""
    encoder = seeded(thin_vit(0, depth=depth, dim=dim))
    state = dict(encoder.state_dict())
    state |= {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 197, 8)}
    for key in ("decoder_embed.weight", "decoder_blocks.0.norm1.weight", "decoder_norm.bias", "decoder_pred.bias"):
        state[key] = torch.zeros(8)
    return encoder, state


def thin_vit(outputs, depth=2, dim=768, **options):
    """A ViT-B/16 in all but its depth."""
    return VisionTransformer(depth=depth, embed_dim=dim, num_heads=12, num_classes=outputs, **options)


@pytest.fixture
def thin(monkeypatch):
    """Register thin variants of a ViT-B and its pneumonia classifier beside the built-in models."""

    def build(labels, outputs=None, in_chans=3, img_size=(224, 224), global_pool="token", head=None):
        count = len(labels) if outputs is None else outputs
        network = thin_vit(count, in_chans=in_chans, img_size=img_size, global_pool=global_pool)
        if head == "norm-linear":
            network.head = nn.Sequential(nn.Dropout(0.2), nn.LayerNorm(768), nn.Linear(768, count))
        return network

    registry = Registry("model", ModelSpec)
    registry.add("cxrx", load_registry().models.find("densenet121"))
    for name, labels, activation in (("thin", NIH_LABELS, "sigmoid"), ("pneumonia", ("Pneumonia",), "softmax")):
        spec = ModelSpec(name, build, labels, InputSpec(), build_variant=build, activation=activation)
        registry.add("test", spec)
    monkeypatch.setattr(load, "load_registry", lambda: SimpleNamespace(models=registry))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["medical_mae pre-trained", "MAE base", "DINO base"])
def test_a_base_without_a_head_is_to_train_from_and_not_to_predict_with(kind, thin, tmp_path):
    encoder, state = mae()
    content = {
        "medical_mae pre-trained": wrapped(state),
        "MAE base": {"model": encoder.state_dict()},
        "DINO base": encoder.state_dict(),
    }[kind]
    path = saved(tmp_path / "base.pth", content)
    with pytest.raises(UsageError, match=r"a base without the head .* \(missing: head\.bias, head\.weight\)") as error:
        load_model("thin", path, device="cpu")
    assert "--init base.pth" in error.value.hint
    model = load_model("thin", path, ["a", "b", "c"], device="cpu", new_head=True)
    assert model.labels == ("a", "b", "c")
    assert "its head is new and random" in model.notes[0]
    x = films(224, count=1)
    with torch.inference_mode():
        assert (class_token(encoder, x, nn.Identity()) - model.module.forward_features(x)[:, 0]).abs().max() <= CLOSE
    decoder = state.keys() - encoder.state_dict().keys()
    assert set(read_checkpoint(path).dropped) == (decoder if "medical" in kind else set())


@pytest.mark.slow
def test_a_base_with_fc_norm_is_read_by_the_mean(thin, tmp_path):
    source = seeded(thin_vit(5, global_pool="avg"))
    path = saved(tmp_path / "base.pth", {"model": source.state_dict()})
    x = films(224, count=1)
    with torch.inference_mode():
        check(load_model("thin", path, device="cpu"), mean_of_patches(source, x), x)
    model = load_model("thin", path, ["a"], device="cpu", new_head=True)
    assert model.module.head.weight.shape == (1, 768)
    assert torch.equal(model.module.fc_norm.weight, source.fc_norm.weight)


def test_a_decoder_key_that_nobody_declared_is_named(thin, tmp_path):
    _, state = mae()
    path = saved(tmp_path / "base.pth", wrapped(state | {"teacher.weight": torch.zeros(1)}))
    with pytest.raises(UsageError, match=r"missing: head\.bias, head\.weight; left over: teacher\.weight"):
        load_model("thin", path, device="cpu")
    with pytest.raises(UsageError, match=r"left over: teacher\.weight"):
        load_model("thin", path, device="cpu", new_head=True)


@pytest.mark.slow
def test_the_encoder_of_a_pretrained_densenet(tmp_path):
    network = seeded(torchvision.models.densenet121(weights=None))
    encoder = {f"model.encoder.{k}": v for k, v in network.state_dict().items() if not k.startswith("classifier")}
    decoder = {
        f"model.{name}": torch.zeros(1) for name in ("decoder.blocks.0.conv1.0.weight", "segmentation_head.0.bias")
    }
    path = saved(tmp_path / "densenet121_CXR_0.3M_mae.pth", wrapped(encoder | decoder))
    with pytest.raises(UsageError, match=r"a base without the head .* \(missing: classifier\.bias, classifier\.weight"):
        load_model("densenet121", path, device="cpu")
    model = load_model("densenet121", path, ["a"], device="cpu", new_head=True)
    assert model.input == MAE_INPUT
    x = films(64, count=1)
    with torch.inference_mode():
        expected = torch.relu(network.features(x))
        assert (model.module.forward_features(x) - expected).abs().max() <= CLOSE * expected.abs().max()


# ---------------------------------------------------------------------------------------------------------------------
# Attention maps, the pneumonia classifier, torchxrayvision


@pytest.mark.slow
def test_attention_maps(thin, tmp_path):
    source, x = seeded(thin_vit(2)), films(224)
    with torch.inference_mode():
        expected = class_token(source, x, source.head)
    model = load_model("thin", saved(tmp_path / "rsna_mae.pth", source.state_dict()), device="cpu")
    z = check(model, expected, x)
    assert torch.allclose(model.probabilities(z).sum(dim=1), torch.ones(2))
    assert model.labels == ("class0", "class1")
    assert "attention-maps" in model.notes[-1]
    one = load_model("thin", tmp_path / "rsna_mae.pth", ["Pneumonia"], device="cpu")
    check(one, expected[:, 1:] - expected[:, :1], x)
    start = load_model("thin", tmp_path / "rsna_mae.pth", ["Mass"], device="cpu", new_head=True)
    assert (start.activation, start.module.head.out_features) == ("sigmoid", 1)


class PneumoniaViT(nn.Module):
    """A ViT without a head, and a head of dropout, layer norm and linear."""

    def __init__(self, outputs):
        super().__init__()
        self.vit = thin_vit(0)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.LayerNorm(768), nn.Linear(768, outputs))

    def forward(self, x):
        return self.head(self.vit(x))


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 2])
def test_the_vit_pneumonia_classifier(outputs, thin, tmp_path):
    source, x = seeded(PneumoniaViT(outputs)), films(224)
    with torch.inference_mode():
        z = source(x)
    path = saved(tmp_path / "best.pth", source.state_dict())
    model = load_model("pneumonia", path, device="cpu")
    check(model, z if outputs == 1 else z[:, 1:] - z[:, :1], x)
    assert model.labels == ("Pneumonia",)
    assert model.input == PNEUMONIA_INPUT
    worse = saved(tmp_path / "worse.pth", source.state_dict() | {"head.3.weight": torch.zeros(1)})
    with pytest.raises(UsageError, match=r"left over: head\.3\.weight"):
        load_model("pneumonia", worse, device="cpu")


def test_the_built_in_pneumonia_model_has_that_head():
    spec = load_registry().models.find("vit_pneumonia")
    with torch.device("meta"):
        network = spec.build(spec.labels)
    assert {"head.1.weight", "head.2.weight"} <= network.state_dict().keys()
    assert network.head[2].out_features == 1


def test_torchxrayvisions_tensors(tmp_path):
    source = seeded(timm.create_model("densenet121", num_classes=18, in_chans=1))
    state = source.state_dict() | {"op_threshs": torch.rand(18)}
    x = films(64, channels=1)
    with torch.inference_mode():
        expected = source(x)
    model = load_model("densenet121", saved(tmp_path / "xrv.pt", state), device="cpu")
    check(model, expected, x)
    assert model.input == XRV_INPUT
    assert torch.equal(model.prepare(torch.tensor([[[0.0, 0.5, 1.0]]])).flatten(), torch.tensor([-1024.0, 0, 1024.0]))


# ---------------------------------------------------------------------------------------------------------------------
# timm, torchvision, safetensors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "build", "suffix"),
    [
        ("densenet121", torchvision.models.densenet121, ".pth"),
        ("resnet50", torchvision.models.resnet50, ".safetensors"),
        ("timm/resnet18", partial(timm.create_model, "resnet18"), ".pth"),
        ("timm/resnet18", partial(timm.create_model, "resnet18"), ".safetensors"),
    ],
    ids=["densenet121 of torchvision", "resnet50 of torchvision", "resnet18 of timm", "resnet18 as safetensors"],
)
def test_flat_files_of_timm_and_torchvision(name, build, suffix, tmp_path):
    source, x = seeded(build(num_classes=5)), films(64)
    with torch.inference_mode():
        expected = source(x)
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(source.state_dict(), path)
    model = load_model(name, path, ["a", "b", "c", "d", "e"], "cpu")
    check(model, expected, x)
    assert "does not tell its input" in model.notes[0]
    state = source.state_dict()
    first = next(iter(state))
    state["renamed"] = state.pop(first)
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    with pytest.raises(UsageError, match=rf"missing: {re.escape(first)}; left over: renamed$"):
        load_model(name, path, ["a", "b", "c", "d", "e"], "cpu")


def test_torchvisions_vit(thin, tmp_path):
    source = seeded(
        torchvision.models.VisionTransformer(
            image_size=224, patch_size=16, num_layers=2, num_heads=12, hidden_dim=768, mlp_dim=3072, num_classes=3
        )
    )
    x = films(224)
    with torch.inference_mode():
        expected = source(x)
    check(load_model("thin", saved(tmp_path / "w.pth", source.state_dict()), device="cpu"), expected, x)


@pytest.mark.slow
def test_torchvisions_vgg(monkeypatch, tmp_path):
    """With 8 features in place of 4096, which are 400 MB; the layers and their order are VGG-16's."""
    source = torchvision.models.vgg11(num_classes=3, init_weights=False)
    source.classifier[0], source.classifier[3] = nn.Linear(512 * 49, 8), nn.Linear(8, 8)
    source.classifier[6] = nn.Linear(8, 3)
    source, x = seeded(source), films(224, count=1)
    with torch.inference_mode():
        expected = source(x)

    def build(labels):
        with torch.device("meta"):
            network = timm.create_model("vgg11", num_classes=len(labels))
        network.pre_logits = ConvMlp(512, 8, kernel_size=7, mlp_ratio=1.0)
        network.head.fc = nn.Linear(8, len(labels))
        return network.to_empty(device="cpu")

    registry = Registry("model", ModelSpec)
    registry.add("test", ModelSpec("thin-vgg", build, ("a", "b", "c"), InputSpec()))
    monkeypatch.setattr(load, "load_registry", lambda: SimpleNamespace(models=registry))
    check(load_model("thin-vgg", saved(tmp_path / "w.pth", source.state_dict()), device="cpu"), expected, x)


def test_a_lightning_checkpoint(tmp_path):
    source, x = seeded(timm.create_model("resnet18", num_classes=2)), films(64)
    state = OrderedDict((f"model.{key}", value) for key, value in source.state_dict().items())
    path = saved(tmp_path / "last.ckpt", {"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 1e-3}})
    with torch.inference_mode():
        check(load_model("timm/resnet18", path, ["a", "b"], "cpu"), source(x), x)


@pytest.mark.parametrize("name", ["densenet121", "densenet169", "densenet201", "resnet50", "vit_small", "vit_base",
                                  "mixer_b16", "gmixer_24", "vgg16"])  # fmt: skip
def test_the_tensors_tell_the_architecture_and_its_channels(name):
    spec = load_registry().models.find(name)
    with torch.device("meta"):
        network = spec.build_variant(("a", "b"), in_chans=1)
    tensors = network.state_dict()
    assert guess_architecture(tensors) == name
    assert find_variant(tensors)["in_chans"] == 1
    assert count_outputs(tensors) == 2


def test_a_vit_of_another_size_and_one_channel_is_built_as_its_tensors_say(tmp_path):
    source = seeded(timm.create_model("vit_small_patch16_224", num_classes=2, img_size=64, in_chans=1))
    x = films(64, channels=1)
    path = saved(tmp_path / "w.pth", source.state_dict())
    with torch.inference_mode():
        expected = source(x)
    model = load_model("vit_small", path, ["a", "b"], "cpu")
    check(model, expected, x)
    assert (model.input.size, model.input.channels, model.input.resize) == ((64, 64), 1, None)


@pytest.mark.parametrize("name", ["densenet121", "resnet50", "vgg16", "vit_small", "vit_base", "vit_pneumonia",
                                  "mixer_b16", "gmixer_24", "timm/swin_tiny_patch4_window7_224"])  # fmt: skip
def test_size_and_channels_that_the_user_asks_for_are_built(name):
    spec = load.find_spec(name)
    with torch.device("meta"):
        network = spec.build_variant(("a", "b"), in_chans=1, img_size=(64, 64)).eval()
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 2)


# ---------------------------------------------------------------------------------------------------------------------
# One key too few, one too many, one of another name: each row of the table is loaded strictly


def contents(row, chexnet):
    """Return the file of a row: the network it is for, its content, and where the tensors lie in that."""
    densenet = chexnet[0].densenet121.state_dict()
    linear = {k.replace("classifier.0.", "classifier."): v for k, v in densenet.items()}
    encoder = {f"model.encoder.{k}": v for k, v in densenet.items() if not k.startswith("classifier")}
    return ROWS[row](chexnet[0], densenet, linear, encoder)


def flat():
    return timm.create_model("resnet18", num_classes=14).state_dict()


def calibrated():
    return timm.create_model("densenet121", num_classes=14, in_chans=1).state_dict() | {"op_threshs": torch.rand(14)}


ROWS = {
    "arnoweng": lambda network, *_: ("densenet121", arnoweng(network), "state_dict"),
    "zoogzog": lambda network, *_: ("densenet121", zoogzog(network), "state_dict"),
    "jrzech": lambda _, densenet, *__: ("densenet121", before_torch_04(densenet), ""),
    "medical_mae": lambda *_: ("thin", wrapped(thin_vit(14, global_pool="avg").state_dict()), "model"),
    "medical_mae DenseNet": lambda _, __, linear, ___: ("densenet121", wrapped(linear), "model"),
    "medical_mae pre-trained": lambda *_: ("thin", wrapped(mae()[1]), "model"),
    "medical_mae pre-trained DenseNet": lambda *states: ("densenet121", wrapped(states[-1]), "model"),
    "attention-maps": lambda *_: ("thin", thin_vit(2).state_dict(), ""),
    "MAE base": lambda *_: ("thin", {"model": thin_vit(0).state_dict()}, "model"),
    "DINO base": lambda *_: ("thin", thin_vit(0).state_dict(), ""),
    "system C": lambda *_: ("pneumonia", PneumoniaViT(1).state_dict(), ""),
    "torchxrayvision": lambda *_: ("densenet121", calibrated(), ""),
    "flat": lambda *_: ("timm/resnet18", flat(), ""),
    "lightning": lambda *_: (
        "timm/resnet18",
        {"state_dict": {f"model.{k}": v for k, v in flat().items()}},
        "state_dict",
    ),
}
SHORT = re.compile(r"^(module\.|densenet121\.|model\.encoder\.|model\.|vit\.)+")


QUICK = ("arnoweng", "medical_mae", "flat")  # a network of each kind; what the others hold is read above


@pytest.mark.parametrize("row", [row if row in QUICK else pytest.param(row, marks=pytest.mark.slow) for row in ROWS])
def test_one_key_that_does_not_fit_is_named(row, chexnet, thin, tmp_path):
    """A file is refused for one missing, one more and one renamed key, whichever layout it has; without, it loads."""
    name, content, where = contents(row, chexnet)
    headless = "base" in row or "pre-trained" in row
    state = content[where] if where else content
    victim = next(key for key in reversed(state) if key.endswith("weight") and not re.search("head|class|decoder", key))
    called = re.sub(r"(norm|conv)\.(\d)", r"\1\2", SHORT.sub("", victim))

    labels = ["a"] if headless else [f"f{i}" for i in range(14)] if name.startswith("timm/") else None

    def load_changed(state):
        path = saved(tmp_path / "w.pth", content | {where: state} if where else state)
        return load_model(name, path, labels, "cpu", new_head=headless)

    load_changed(state)
    without = {key: value for key, value in state.items() if key != victim}
    for changed, message in (
        (without, rf"missing: {re.escape(called)}$"),
        (state | {"extra.weight": torch.zeros(1)}, r"left over: extra\.weight$"),
        (without | {f"{victim}s": state[victim]}, rf"missing: {re.escape(called)}; left over: \S*weights$"),
    ):
        with pytest.raises(UsageError, match=message):
            load_changed(changed)


@pytest.mark.slow
@pytest.mark.parametrize("network", [torchvision.models.resnet50, torchvision.models.densenet121])
def test_fine_tuned_convolutional_networks_of_medical_mae(network, tmp_path):
    source, x = seeded(network(num_classes=14)), films(64)
    with torch.inference_mode():
        expected = source(x)
    path = saved(tmp_path / "checkpoint-74.pth", wrapped(source.state_dict()))
    model = load_model(network.__name__, path, device="cpu")
    check(model, expected, x)
    assert (model.labels, model.input) == (NIH_LABELS, MAE_INPUT)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_the_builder_of_the_built_in_models_makes_the_head_of_the_pneumonia_classifier(pool, monkeypatch, tmp_path):
    """Tiny, and of the layers that that system has: LayerNorm of eps 1e-5 in the head, 1e-6 everywhere else."""
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool=pool, img_size=64)
    source = PneumoniaViT(2)
    source.vit, source.head = vit, nn.Sequential(nn.Dropout(0.2), nn.LayerNorm(192), nn.Linear(192, 2))
    source, x = seeded(source), films(64)
    with torch.inference_mode():
        z = source(x)
    build = partial(timm_builder("vit_tiny_patch16_224"), head="norm-linear")
    spec = ModelSpec("tiny", build, ("Pneumonia",), PNEUMONIA_INPUT, build_variant=build, activation="softmax")
    registry = Registry("model", ModelSpec)
    registry.add("test", spec)
    monkeypatch.setattr(load, "load_registry", lambda: SimpleNamespace(models=registry))
    model = load_model("tiny", saved(tmp_path / "best.pth", source.state_dict()), device="cpu")
    check(model, z[:, 1:] - z[:, :1], x)
    assert model.module.global_pool == pool


# ---------------------------------------------------------------------------------------------------------------------
# What may not be in a file


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"mkdir {self.path}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("place", ["args", "nested", "numpy"])
def test_a_trap_inside_what_is_let_through_does_not_run(place, zipped, tmp_path):
    trap = tmp_path / "it-ran"
    args = argparse.Namespace(lr=1, callback=Trap(trap))
    if place == "nested":
        args = argparse.Namespace(inner=args)
    content = wrapped({"w": torch.zeros(1)}) | {"args": args}
    if place == "numpy":
        content = {"state_dict": {"w": torch.zeros(1)}, "best": np.array([Trap(trap)], dtype=object)}
    path = saved(tmp_path / "w.pth", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match="without running code"):
        read_checkpoint(path)
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists()  # the trap was a real one


@pytest.mark.parametrize("value", [np.float64(0.25), np.float32(0.25), np.int64(3), np.bool_(True)])
def test_numpy_scalars_are_let_through_as_numbers(value, tmp_path):
    content = {"state_dict": {"w": torch.zeros(1)}, "best": value}
    assert read_checkpoint(saved(tmp_path / "w.pth", content)).others["best"] == str(value.item())


def test_numpys_old_name_is_let_through_too(tmp_path):
    path = saved(tmp_path / "w.pth", {"state_dict": {"w": torch.zeros(1)}, "best": np.float64(0.25)})
    old = path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert old != path.read_bytes()
    legacy = saved(
        tmp_path / "legacy.pth",
        {"state_dict": {"w": torch.zeros(1)}, "best": np.float64(0.25)},
        _use_new_zipfile_serialization=False,
    )
    legacy.write_bytes(legacy.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert read_checkpoint(legacy).others["best"] == "0.25"


def test_other_numpy_objects_are_not(tmp_path):
    content = {"state_dict": {"w": torch.zeros(1)}, "best": np.zeros(3)}
    with pytest.raises(UsageError, match="without running code"):
        read_checkpoint(saved(tmp_path / "w.pth", content))
