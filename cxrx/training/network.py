"""The network that learns: built by name, with initial weights from nowhere, from timm or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cxrx.errors import UsageError
from cxrx.models.architectures import is_code
from cxrx.models.checkpoints import file_sha256, read_checkpoint
from cxrx.models.download import offline
from cxrx.models.load import build_module, change_input, find_spec, load_model, pick_device
from cxrx.models.model import Model
from cxrx.models.own import look
from cxrx.training.data import Task
from cxrx.training.recipes import Recipe
from cxrx.training.run import RunConfig
from cxrx.training.schedule import set_drop_path
from cxrx.training.seeds import seed_of

INITS = ("random", "supervised", "mae", "dino")


def make_network(config: RunConfig, findings: Sequence[str], task: Task, recipe: Recipe, init: str = "random") -> Model:
    """Return a network whose head has an output for each finding.

    Parameters
    ----------
    config
        Tells its name, its input and its device.
    findings, task, recipe
        What it is to learn, and how.
    init
        ``"random"``; ``"supervised"``, ``"mae"`` or ``"dino"``: weights that timm publishes for this network; or a
        checkpoint file, all of which but its head must fit.

    Raises
    ------
    UsageError
        There is no such network, or no such weights for it; or they do not fit.
    """
    activation: Literal["sigmoid", "softmax"] = "softmax" if task == "multi-class" else "sigmoid"
    torch.manual_seed(seed_of(recipe.seed, "weights"))  # what is random is drawn here
    if init in INITS:
        model = _without_weights(config, findings, activation)
        notes = [] if init == "random" else [_load_published(model.module, init)]
        notes += [f"--init {init} is not the folder of that name, which is {folder}" for folder in _folder(init)]
    else:
        model = load_model(
            config.model, init_file(init), findings, config.device,
            input_size=config.input_size, in_chans=config.in_chans, activation=activation, new_head=True,
        )  # fmt: skip
        notes = list(model.notes)
    if recipe.drop_path and not set_drop_path(model.module, recipe.drop_path):
        notes.append(f"{model.name} has no residual blocks with stochastic depth: drop_path does nothing")
    model.notes = tuple(notes)
    if model.output != "logits":
        raise UsageError(
            f"{model.name} ends in probabilities; what learns must end in logits",
            "leave out its last sigmoid or softmax; cxrx puts one behind the logits where it is needed",
        )
    return model


def init_file(init: str) -> Path:
    """Return the checkpoint that ``--init`` names: a file, or a folder that train or pretrain wrote."""
    path = Path(init)
    if path.is_dir():
        known = [path / name for name in ("encoder.safetensors", "model.safetensors") if (path / name).is_file()]
        if not known:
            raise UsageError(f"the folder {path.name} holds no encoder.safetensors and no model.safetensors")
        return known[0]
    if not path.is_file():
        raise UsageError(f"--init is {', '.join(INITS)} or a checkpoint file, and there is no file {init!r}")
    return path


def _folder(init: str) -> list[str]:
    """Return how to name a folder that is called like an initialisation, where there is one."""
    return [f"./{init}"] if Path(init).is_dir() else []


def _without_weights(config: RunConfig, findings: Sequence[str], activation: Literal["sigmoid", "softmax"]) -> Model:
    """Build a network with random weights, also where the spec has weights of its own."""
    spec = find_spec(config.model)
    seen = change_input(spec.input, config.input_size, config.in_chans)
    variant: dict[str, Any] = {"in_chans": seen.channels, "img_size": seen.size}
    if spec.build_variant is None and seen != spec.input:
        raise UsageError(f"{spec.name} is built for one input only", "leave out --input-size and --in-chans")
    module = build_module(spec, findings, variant).eval()
    squashed = look(module, seen, spec.name).squashed if is_code(config.model) else None  # a network of the user's own
    return Model(
        module, findings, seen, name=spec.name, output=spec.output if squashed is None else "probabilities",
        activation=activation, cam_layer=spec.cam_layer, device=pick_device(config.device),
    )  # fmt: skip


def _load_published(network: nn.Module, kind: str) -> str:
    """Load weights that timm publishes for this network, all but the head; return what they are."""
    import timm

    architecture = (getattr(network, "pretrained_cfg", None) or {}).get("architecture", "")
    tags = [str(tag) for tag in timm.list_pretrained(f"{architecture}.*")] if architecture else []
    others = [tag for tag in tags if any(word in tag.partition(".")[2] for word in ("mae", "dino"))]
    fitting = [tag for tag in tags if tag not in others] if kind == "supervised" else [t for t in tags if kind in t]
    if not fitting:
        offered = [init for init in INITS[1:] if any(init in tag for tag in others)]
        offered += ["supervised"] if len(tags) > len(others) else []
        raise UsageError(
            f"timm publishes no {kind} weights for {architecture or 'this network'}",
            f"--init {', '.join([*offered, *_folder(kind), 'random'])} or a file",
        )
    # the first by timm's own order of preference, where that is of the kind
    default = getattr(timm.get_pretrained_cfg(architecture), "tag", "")
    tag = next((tag for tag in fitting if tag == f"{architecture}.{default}"), fitting[0])
    if offline():
        raise UsageError(
            f"the weights {tag} must be downloaded, and CXRX_OFFLINE forbids it", "--init random or a file"
        )
    own = network.state_dict()
    channels = next((m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d)), 3)
    size: dict[str, Any] = {"img_size": network.patch_embed.img_size} if hasattr(network, "patch_embed") else {}  # type: ignore[union-attr]  # timm's
    try:
        # timm's own networks: weights by safetensors, positions resampled to the size
        source = timm.create_model(tag, pretrained=True, num_classes=0, in_chans=channels, **size)
    except Exception as error:
        raise UsageError(
            f"the weights {tag} could not be fetched ({type(error).__name__})", "--init random, or a file"
        ) from error
    state = source.state_dict()
    head = str(network.pretrained_cfg["classifier"])  # type: ignore[index]  # timm's
    missing = sorted(key for key in own.keys() - state.keys() if not key.startswith(f"{head}."))
    if missing or state.keys() - own.keys():
        raise UsageError(f"the weights {tag} do not fit this network (missing: {', '.join(missing[:5]) or 'nothing'})")
    network.load_state_dict(own | state, strict=True)
    return f"starts from {tag} of timm; its head is new and random"


def weights_digest(init: str) -> str:
    """Return what tells one initialisation from another: the name, or the sha256 of a file that can be read."""
    if init in INITS:
        return init
    path = init_file(init)
    read_checkpoint(path)
    return file_sha256(path)
