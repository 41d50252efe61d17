"""Make a :class:`Model` from a registered name, the user's own function, or any ``nn.Module``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cxrx.errors import UsageError
from cxrx.models.architectures import TIMM, is_code, timm_spec
from cxrx.models.checkpoints import Checkpoint, read_checkpoint, refuse_keras
from cxrx.models.download import fetch
from cxrx.models.model import Model
from cxrx.models.own import IMAGENET, Seen, first_channels, look, own_spec, refusing
from cxrx.models.unsteady import is_plain
from cxrx.registry import load as load_registry
from cxrx.specs import InputSpec, ModelSpec

_GREY = InputSpec(channels=1, mean=(0.5,), std=(0.25,))


def pick_device(device: str) -> torch.device:
    """Return the torch device called `device`; only ``"auto"`` may fall back (cuda, mps, cpu)."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen: torch.device | None = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in {"cpu", "cuda", "mps"}:
        raise UsageError(f"{device!r} is no device (auto, cpu, cuda, cuda:1, mps)")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[chosen.type]
    if (chosen.index or 0) >= count:
        raise UsageError(f"device {device!r} is not available here", "use --device auto or --device cpu")
    return chosen


def load_model(
    name: str,
    weights: str | Path | None = None,
    labels: Sequence[str] | None = None,
    device: str = "auto",
    *,
    input_size: int | tuple[int, int] | None = None,
    in_chans: Literal[1, 3] | None = None,
    cam_layer: str | None = None,
    input: InputSpec | None = None,  # noqa: A002 - the name of the field in ModelSpec
    activation: Literal["sigmoid", "softmax"] | None = None,
    new_head: bool = False,
) -> Model:
    """Load a classifier.

    Parameters
    ----------
    name
        A registered name (``cxrx models`` lists them), ``"timm/NAME"`` for any network of timm, a folder or file that
        ``cxrx train`` wrote, or ``"./net.py:build"``: a function of the user's own that returns an ``nn.Module``. The
        latter runs the user's code.
    weights
        Checkpoint file; recognised, loaded strictly, without running code from it.
    labels
        Findings in the order of the outputs. Default: the checkpoint's, else the spec's where its head fits, else
        ``class0 ...`` (flagged in ``model.notes``).
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    input, input_size, in_chans, activation
        Replace what the checkpoint or the spec says: the whole input, its size, its channels; what the outputs are.
    cam_layer
        Dotted name of the layer for CAM methods.
    new_head
        Start with a random head, whatever the checkpoint has there: for training from a base.

    Raises
    ------
    UsageError
        Unknown name, unfit weights, unavailable device; the sentence says what fits.

    Examples
    --------
    >>> from pathlib import Path
    >>> import cxrx
    >>> model = cxrx.load_model("densenet121", labels=["Mass", "Nodule"], device="cpu")
    >>> model.input.channels, model.input.size
    (3, (224, 224))

    A network of one's own:

    >>> _ = Path("net.py").write_text('''
    ... from torch import nn
    ... def build(labels):
    ...     return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, len(labels)))
    ... ''')
    >>> model = cxrx.load_model("./net.py:build", labels=["Mass", "Nodule"], input_size=32, device="cpu")
    >>> model.input.channels, model.labels
    (1, ('Mass', 'Nodule'))
    """
    chosen = pick_device(device)
    name, brought = _located(name, weights)
    spec = find_spec(name)
    file = brought or own_weights(spec)
    checkpoint = read_checkpoint(file) if file is not None else None
    asked = _Asked(labels, input_size, in_chans, input, activation, new_head)
    network = _assemble(spec, checkpoint, asked, own=is_code(name), brought=brought is not None)
    thresholds = {} if checkpoint is None else checkpoint.thresholds
    return Model(
        network.module,
        network.labels,
        network.input,
        name=spec.name,
        output=network.output,
        activation=network.activation,
        cam_layer=cam_layer or spec.cam_layer,
        device=chosen,
        demo=spec.demo if brought is None else checkpoint is not None and checkpoint.others.get("demo") == "1",
        thresholds={label: value for label, value in thresholds.items() if label in network.labels},
        threshold_rule="f1-max" if checkpoint is None else checkpoint.threshold_rule,
        notes=network.notes,
        source={"name": _absolute(name), "weights": str(brought.absolute()) if brought is not None else ""},
        dtype=network.dtype,
    )


@dataclass(frozen=True)
class _Asked:
    """What the caller of :func:`load_model` wants instead of what the checkpoint or the spec says."""

    labels: Sequence[str] | None
    input_size: int | tuple[int, int] | None
    in_chans: Literal[1, 3] | None
    input: InputSpec | None
    activation: Literal["sigmoid", "softmax"] | None
    new_head: bool


@dataclass
class _Network:
    """A module, and all that :class:`Model` has to know of it."""

    module: nn.Module
    labels: tuple[str, ...]
    input: InputSpec
    output: Literal["logits", "probabilities"]
    activation: Literal["sigmoid", "softmax"]
    notes: list[str]
    dtype: torch.dtype = torch.float32


def _assemble(spec: ModelSpec, checkpoint: Checkpoint | None, asked: _Asked, *, own: bool, brought: bool) -> _Network:
    """Build the network of `spec` as `checkpoint` and the caller want it, and load the weights."""
    input_spec = change_input(asked.input or _base_input(spec, checkpoint), asked.input_size, asked.in_chans)
    headed = None if asked.new_head else checkpoint  # what the file says of its outputs
    activation = asked.activation or (headed.activation if headed is not None else None) or spec.activation
    labels, notes = _choose_labels(spec, asked.labels, headed, activation)
    variant = _variant(spec, checkpoint, input_spec)
    if activation == "softmax" and len(labels) == 1 and headed is not None and headed.outputs == 2:
        variant["outputs"] = 2  # one finding as two classes
    network = _Network(build_module(spec, labels, variant), labels, input_spec, spec.output, activation, notes)
    if own and asked.input is None and asked.in_chans is None and spec.input is IMAGENET:
        channels = first_channels(network.module) or (checkpoint.channels if checkpoint is not None else None)
        network.input = input_spec = change_input(input_spec, None, channels)
    if checkpoint is not None:
        if spec.build_variant is None and not checkpoint.fits(network.module):
            look(network.module, input_spec, spec.name)  # it may build layers in its first pass
        checkpoint.load_into(network.module, spec.name, new_head=asked.new_head)
        if brought:
            notes += _what_was_read(checkpoint, spec, input_spec, new_head=asked.new_head)
    elif not own and any(True for _ in network.module.parameters()):
        notes.append(f"{spec.name} has random weights: its predictions mean nothing until --weights names a file")
    if spec.build_variant is None:  # not one of timm's, as it stands
        seen = look(network.module, network.input, spec.name)
        network.dtype = seen.dtype
        network.notes += seen.notes
        if own:
            _look_at(network, seen, spec, asked)
    return network


def _look_at(network: _Network, seen: Seen, spec: ModelSpec, asked: _Asked) -> None:
    """Find out of a network of the user's own what its file does not tell: its outputs, a sigmoid at its end."""
    outputs, squashed = seen.outputs, seen.squashed
    if not network.labels:
        network.labels, more = _numbered(outputs.shape[1])
        network.notes += more
    if spec.output == "probabilities":
        return
    if squashed is not None:
        network.output = "probabilities"
        network.activation = asked.activation or squashed
        network.notes.append(
            f"{spec.name} ends in a {squashed}: its outputs are probabilities, and logits are made of them"
        )
    elif outputs.min() >= 0 and outputs.max() <= 1:
        network.notes.append(
            f"the outputs of {spec.name} on noise lie between 0 and 1: if they are probabilities and no logits, put "
            "OUTPUT = 'probabilities' into its file"
        )


def _absolute(name: str) -> str:
    """Return a name under which the model is found from any folder."""
    file, colon, function = name.rpartition(":")
    return f"{Path(file).absolute()}:{function}" if colon else name


def _located(name: str, weights: str | Path | None) -> tuple[str, Path | None]:
    """Return the name of the network and the file of the weights that the user brings.

    Raises
    ------
    UsageError
        The name is that of a file or folder that ``cxrx train`` did not write.
    """
    trained = _trained(name)
    if trained is None:
        return name, None if weights is None else Path(weights)
    if weights is not None:
        raise UsageError(f"{Path(name).name} brings its own weights", "leave --weights out")
    return trained


def _trained(name: str) -> tuple[str, Path] | None:
    """Return the architecture and the weights of what ``cxrx train`` wrote at `name`, None where it is no such place.

    A registered name goes before a folder that happens to be called the same.
    """
    models = load_registry().models
    if any(name in (full, spec.name, *spec.aliases) for full, spec in models.items()):
        return None
    path = Path(name)
    file = path / "model.safetensors" if path.is_dir() else path
    if file.suffix != ".safetensors":
        if file.is_file():
            refuse_keras(file)
            raise UsageError(
                f"{file.name} is a file, and no model is called so", f"weights are named by --weights {name}"
            )
        return None
    if not file.is_file():
        raise UsageError(f"{path.name} holds no model.safetensors, which cxrx train writes last", "go on with --resume")
    architecture = read_checkpoint(file).architecture
    if architecture is None:
        raise UsageError(f"{file.name} does not tell its architecture", "name it with -m, and the file with --weights")
    return architecture, file


def wrap_model(
    module: nn.Module,
    labels: Sequence[str] | None = None,
    input_size: int | tuple[int, int] = 224,
    in_chans: Literal[1, 3] = 1,
    cam_layer: str | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    output: Literal["logits", "probabilities"] = "logits",
    activation: Literal["sigmoid", "softmax"] = "sigmoid",
    name: str | None = None,
    device: str = "cpu",
) -> Model:
    """Wrap anybody's network.

    Parameters
    ----------
    module
        Takes ``(B, in_chans, H, W)``, returns ``(B, K)``.
    labels
        Findings in the order of the outputs; default ``class0 ...``.
    input_size
        Side in pixels, or ``(height, width)``.
    in_chans
        1, or 3 for the grey picture repeated.
    cam_layer
        Dotted name of the layer for CAM methods; default: found by architecture.
    mean, std
        Of pixels in [0, 1]. Default: ImageNet's for three channels, 0.5 and 0.25 for one.
    output, activation
        As in :class:`cxrx.ModelSpec`.
    name
        What results call it; default: the name of its class.
    device
        As in :func:`load_model`.

    Examples
    --------
    >>> import cxrx, torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> model = cxrx.wrap_model(network, ["Mass", "Nodule"], input_size=32)
    >>> x = model.prepare(torch.rand(3, 32, 32))  # grey pictures in [0, 1]
    >>> model.logits(x).shape
    torch.Size([3, 2])
    """
    base = change_input(IMAGENET, input_size, in_chans)
    spec = replace(
        base,
        mean=tuple(mean) if mean is not None else base.mean,
        std=tuple(std) if std is not None else base.std,
    )
    name = name or type(module).__name__.lower()
    seen = None if labels is not None and is_plain(module) else look(module.eval(), spec, name)
    final, notes = (tuple(labels or ()), []) if seen is None or labels is not None else _numbered(seen.outputs.shape[1])
    return Model(
        module,
        final,
        spec,
        name=name,
        output=output,
        activation=activation,
        cam_layer=cam_layer,
        device=pick_device(device),
        notes=[*notes, *(seen.notes if seen is not None else [])],
        dtype=seen.dtype if seen is not None else torch.float32,
    )


def find_spec(name: str) -> ModelSpec:
    """Return the spec of a registered name, of ``timm/NAME``, or of the user's own ``FILE.py:FUNCTION``.

    Raises
    ------
    UsageError
        There is none; the hint names the nearest.
    """
    if is_code(name):
        return own_spec(name)
    return timm_spec(name) if name.startswith(TIMM) else load_registry().models.find(name)


def own_weights(spec: ModelSpec) -> Path | None:
    """Return the file of the weights that belong to `spec`, fetched first if they have an address; None: none do."""
    if spec.weights is None:
        return None
    if callable(spec.weights):
        return Path(spec.weights())
    address = str(spec.weights)
    if address.startswith(("https://", "http://")):
        return fetch(address, spec.weights_sha256, spec.licence)
    return Path(address)


def _base_input(spec: ModelSpec, checkpoint: Checkpoint | None) -> InputSpec:
    """Return the input that the file tells, else the spec's; channels and size as the tensors have them."""
    if checkpoint is None:
        return spec.input
    base, variant = checkpoint.input or spec.input, checkpoint.variant
    if spec.build_variant is None:  # there is one network only: what its author declares goes before a guess
        return base if checkpoint.tells_input or spec.input is IMAGENET else spec.input
    size = variant.get("img_size", base.size)
    if size[0] * size[1] == base.size[0] * base.size[1]:
        size = base.size  # as many patches: the tensors alone do not tell a square from another rectangle
    return change_input(base, None if size == base.size else size, variant.get("in_chans"))


def _variant(spec: ModelSpec, checkpoint: Checkpoint | None, input_spec: InputSpec) -> dict[str, Any]:
    """Return the keywords of ``spec.build_variant`` that make the network of `checkpoint` for `input_spec`."""
    if spec.build_variant is None:
        return {}
    variant = dict(checkpoint.variant) if checkpoint is not None else {}
    return variant | {"in_chans": input_spec.channels, "img_size": input_spec.size}


def _what_was_read(checkpoint: Checkpoint, spec: ModelSpec, input_spec: InputSpec, *, new_head: bool) -> list[str]:
    """Say what a file was recognised as, and what had to be assumed."""
    if new_head:
        said = f"{checkpoint.path.name} is read as {checkpoint.format.says}, input {describe_input(input_spec)}"
        return [f"{said}; its head is new and random"]
    if checkpoint.ours:
        return []
    said = f"{checkpoint.path.name} is read as {checkpoint.format.says}, {checkpoint.outputs or 'some'} outputs"
    if checkpoint.input is None and spec.build_variant is not None:
        said += f"; it does not tell its input, so {spec.name}'s is taken: {describe_input(input_spec)}"
    elif checkpoint.input is not None:
        said += f", input {describe_input(input_spec)}"
    return [said]


def describe_input(spec: InputSpec) -> str:
    """Return an input in a few words: ``3x224x224 of 256 (bilinear), mean 0.485 0.456 0.406, std ...``."""
    resized = f" of {spec.resize}" if spec.resize is not None else ""
    clahe = f", CLAHE {spec.clahe[0]:g} {spec.clahe[1]}x{spec.clahe[2]}" if spec.clahe is not None else ""
    numbers = [" ".join(f"{value:.4g}" for value in values) for values in (spec.mean, spec.std)]
    return (
        f"{spec.channels}x{spec.size[0]}x{spec.size[1]}{resized} ({spec.fit}, {spec.interpolation}), "
        f"mean {numbers[0]}, std {numbers[1]}{clahe}"
    )


def _choose_labels(
    spec: ModelSpec, labels: Sequence[str] | None, checkpoint: Checkpoint | None, activation: str
) -> tuple[tuple[str, ...], list[str]]:
    """Choose by rank: given > checkpoint > spec, if the head fits > class0..., which is flagged."""
    if labels is not None:
        return tuple(labels), []
    if checkpoint is not None and checkpoint.labels:
        return checkpoint.labels, []
    outputs = checkpoint.outputs if checkpoint is not None else None
    fitting = {None, len(spec.labels)} | ({2} if activation == "softmax" and len(spec.labels) == 1 else set())
    if spec.labels and outputs in fitting:
        return spec.labels, []
    if outputs is not None:
        return _numbered(outputs)
    if spec.name.startswith(TIMM):
        raise UsageError(f"{spec.name} is built for a list of findings, and none are known", "use --labels a,b,c")
    return (), []


def _numbered(count: int) -> tuple[tuple[str, ...], list[str]]:
    note = f"the findings of the {count} outputs are unknown: they are called class0 to class{count - 1}; use --labels"
    return tuple(f"class{i}" for i in range(count)), [note]


def build_module(spec: ModelSpec, labels: Sequence[str], variant: Mapping[str, Any]) -> nn.Module:
    """Return the network that `spec` builds for `labels`, in eval mode; UsageError where it cannot."""
    with refusing(f"{spec.name} could not be built:"):
        module = spec.build(labels) if spec.build_variant is None else spec.build_variant(labels, **variant)
    if not isinstance(module, nn.Module):
        raise UsageError(f"{spec.name}: build returned {type(module).__name__}, not a torch.nn.Module")
    return module.eval()


def change_input(
    spec: InputSpec, input_size: int | tuple[int, int] | None, in_chans: Literal[1, 3] | None
) -> InputSpec:
    """Return `spec` with another size or number of channels; mean and std follow the channels."""
    if input_size is not None:
        size = (input_size, input_size) if isinstance(input_size, int) else input_size
        spec = replace(spec, size=size, resize=None)
    if in_chans is not None and in_chans != spec.channels:
        base = _GREY if in_chans == 1 else IMAGENET
        spec = replace(spec, channels=in_chans, mean=base.mean, std=base.std)
    return spec
