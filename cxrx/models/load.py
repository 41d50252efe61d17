"""Make a :class:`Model` from a registered name, the user's own function, or any ``nn.Module``."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cxrx.errors import CxrxError, UsageError
from cxrx.models.architectures import TIMM, timm_spec
from cxrx.models.checkpoints import Checkpoint, read_checkpoint
from cxrx.models.download import fetch
from cxrx.models.model import Model, describe
from cxrx.registry import load as load_registry
from cxrx.specs import InputSpec, ModelSpec

_IMAGENET = InputSpec()
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
    input_size, in_chans
        Replace what the checkpoint or the spec says the network expects.
    cam_layer
        Dotted name of the layer for CAM methods.
    input
        Replaces all that the checkpoint or the spec says of the input.
    activation
        Replaces what the checkpoint or the spec says of it.
    new_head
        Start with a random head, whatever the checkpoint has there: for training from a base.

    Raises
    ------
    UsageError
        Unknown name, unfit weights, unavailable device; the sentence says what fits.
    """
    chosen = pick_device(device)
    trained = _trained(name)
    if trained is not None:
        if weights is not None:
            raise UsageError(f"{Path(name).name} brings its own weights", "leave --weights out")
        name, weights = trained
    spec = find_spec(name)
    file = Path(weights) if weights is not None else own_weights(spec)
    checkpoint = read_checkpoint(file) if file is not None else None
    base = _base_input(spec, checkpoint) if input is None else input
    input_spec = change_input(base, input_size, in_chans)
    told = None if new_head else checkpoint  # what the file says of its outputs
    activation = activation or (told.activation if told is not None else None) or spec.activation
    final_labels, notes = _choose_labels(spec, labels, told, activation)
    variant = _variant(spec, checkpoint, input_spec)
    if activation == "softmax" and len(final_labels) == 1 and told is not None and told.outputs == 2:
        variant["outputs"] = 2  # one finding, told by two classes
    module = build_module(spec, final_labels, variant)
    if checkpoint is not None:
        checkpoint.load_into(module, spec.name, new_head=new_head)
        notes += _what_was_read(checkpoint, spec, input_spec, new_head=new_head) if weights is not None else []
    elif any(True for _ in module.parameters()) and ":" not in name:
        notes.append(f"{spec.name} has random weights: its predictions mean nothing until --weights names a file")
    if input is None and in_chans is None and ":" in name and spec.input is _IMAGENET:
        input_spec = change_input(input_spec, None, _first_channels(module))
    return Model(
        module,
        final_labels or _count_outputs(module, input_spec, notes),
        input_spec,
        name=spec.name,
        output=spec.output,
        activation=activation,
        cam_layer=cam_layer or spec.cam_layer,
        device=chosen,
        demo=spec.demo if checkpoint is None or weights is None else checkpoint.others.get("demo") == "1",
        notes=notes,
        source={
            "name": f"{Path(name.rpartition(':')[0]).absolute()}:{name.rpartition(':')[2]}" if ":" in name else name,
            "weights": str(Path(weights).absolute()) if weights is not None else "",
        },
    )


def _trained(name: str) -> tuple[str, Path] | None:
    """Return the architecture and the weights of what ``cxrx train`` wrote at `name`, None where it is no such place.

    A registered name goes before a folder that happens to be called the same.
    """
    path = Path(name)
    file = path / "model.safetensors" if path.is_dir() else path
    models = load_registry().models
    if file.suffix != ".safetensors" or any(name in (full, spec.name, *spec.aliases) for full, spec in models.items()):
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
    """
    base = change_input(_IMAGENET, input_size, in_chans)
    spec = replace(
        base,
        mean=tuple(mean) if mean is not None else base.mean,
        std=tuple(std) if std is not None else base.std,
    )
    notes: list[str] = []
    module.eval()
    final = tuple(labels) if labels is not None else _count_outputs(module, spec, notes)
    return Model(
        module,
        final,
        spec,
        name=name or type(module).__name__.lower(),
        output=output,
        activation=activation,
        cam_layer=cam_layer,
        device=pick_device(device),
        notes=notes,
    )


def find_spec(name: str) -> ModelSpec:
    """Return the spec of a registered name, of ``timm/NAME``, or of the user's own ``FILE.py:FUNCTION``.

    Raises
    ------
    UsageError
        There is none; the nearest names are told.
    """
    if ":" in name:
        return _own_spec(name)
    return timm_spec(name) if name.startswith(TIMM) else load_registry().models.find(name)


def own_weights(spec: ModelSpec) -> Path | None:
    """Return the file of the weights that belong to `spec`, fetched first if they have an address; None: none do."""
    if spec.weights is None:
        return None
    if callable(spec.weights):
        return spec.weights()
    address = str(spec.weights)
    if address.startswith(("https://", "http://")):
        return fetch(address, spec.weights_sha256, spec.licence)
    return Path(address)


def _base_input(spec: ModelSpec, checkpoint: Checkpoint | None) -> InputSpec:
    """Return the input that the file tells, else the spec's; channels and size as the tensors have them."""
    if checkpoint is None:
        return spec.input
    base, variant = checkpoint.input or spec.input, checkpoint.variant
    size = variant.get("img_size", base.size)
    if spec.build_variant is None:  # there is one network only: its input is known
        return base
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
    note = f"nobody told the findings of the {count} outputs: they are called class0 to class{count - 1}; use --labels"
    return tuple(f"class{i}" for i in range(count)), [note]


def build_module(spec: ModelSpec, labels: Sequence[str], variant: Mapping[str, Any]) -> nn.Module:
    """Return the network that `spec` builds for `labels`, in eval mode; UsageError where it cannot."""
    try:
        module = spec.build(labels) if spec.build_variant is None else spec.build_variant(labels, **variant)
    except CxrxError:
        raise
    except Exception as error:
        raise UsageError(f"{spec.name} could not be built: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"{spec.name}: build returned {type(module).__name__}, not a torch.nn.Module")
    return module.eval()


def _count_outputs(module: nn.Module, spec: InputSpec, notes: list[str]) -> tuple[str, ...]:
    parameter = next(module.parameters(), torch.zeros(()))
    shape = (1, spec.channels, *spec.size)
    try:
        with torch.inference_mode():
            out = module(torch.zeros(shape, device=parameter.device))
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UsageError(
            f"the network does not take an input of shape {shape}: {reason}",
            "tell its size and channels: input_size, in_chans (API) or --input-size, --in-chans (command line)",
        ) from error
    if not isinstance(out, torch.Tensor) or out.ndim > 2:
        raise UsageError(f"the network must return one (B, K) tensor, not {describe(out)}")
    labels, more = _numbered(int(out.reshape(1, -1).shape[1]))
    notes += more
    return labels


def _first_channels(module: nn.Module) -> Literal[1, 3] | None:
    first = next((m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    return 1 if first == 1 else 3 if first == 3 else None


def change_input(
    spec: InputSpec, input_size: int | tuple[int, int] | None, in_chans: Literal[1, 3] | None
) -> InputSpec:
    """Return `spec` with another size or number of channels; mean and std follow the channels."""
    if input_size is not None:
        size = (input_size, input_size) if isinstance(input_size, int) else input_size
        spec = replace(spec, size=size, resize=None)
    if in_chans is not None and in_chans != spec.channels:
        base = _GREY if in_chans == 1 else _IMAGENET
        spec = replace(spec, channels=in_chans, mean=base.mean, std=base.std)
    return spec


def _own_spec(name: str) -> ModelSpec:
    """Make a spec from ``file.py:function``; importing the file runs the user's code."""
    file, _, function = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"there is no file {file!r} (a model of your own is named FILE.py:FUNCTION)")
    module_spec = importlib.util.spec_from_file_location(f"cxrx_own_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise UsageError(f"{file!r} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses and pickle look their module up there
    if str(path.parent.resolve()) not in sys.path:
        sys.path.append(str(path.parent.resolve()))  # for the modules that the file imports from beside it
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{file!r} raised {type(error).__name__}: {error}") from error
    build = getattr(module, function, None)
    if not callable(build):
        raise UsageError(f"{file!r} has no function {function!r}")
    return ModelSpec(path.stem, _adapted(build), (), getattr(module, "INPUT", _IMAGENET))


def _adapted(build: Callable[..., Any]) -> Callable[[Sequence[str]], Any]:
    """Accept ``build(labels)``, ``build(labels=...)`` with a default, and ``build()`` alike."""
    positional = [
        p
        for p in inspect.signature(build).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    needs_labels = any(p.default is p.empty for p in positional)
    takes_labels = needs_labels or [p.name for p in positional[:1]] == ["labels"]

    def adapted(labels: Sequence[str]) -> Any:
        if needs_labels and not labels:
            raise UsageError("this network is built for a list of findings, and none are known", "use --labels a,b,c")
        return build(labels) if takes_labels and labels else build()

    return adapted
