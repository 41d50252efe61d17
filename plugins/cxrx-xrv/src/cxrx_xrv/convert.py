"""Take the tensors out of pickled networks, without running anything in them."""

import hashlib
import json
import pickle
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from cxrx.errors import CxrxError, OfflineError, UsageError
from cxrx.files.atomic import write_file
from cxrx.models.download import home, offline
from cxrx.models.load import load_model
from cxrx.models.unpickle import ALLOWED, read_pickle
from cxrx_xrv import LICENCE, input_of
from cxrx_xrv.legacy import Only, Sealed, View, is_legacy, read_legacy
from cxrx_xrv.weights import OUTPUTS, WEIGHTS, Weights, find


class Layer(metaclass=Sealed):
    """Stands in for every layer in the file: a bag of what was stored, which computes nothing."""


def nothing(*_: Any) -> None:
    """Stand in for the function table of PyTorch before 0.4."""


_DENSENET = ("DenseNet", "_DenseBlock", "_DenseLayer", "_Transition")
LAYERS = (
    *(f"torchxrayvision.models.{name}" for name in _DENSENET),
    *(f"torchvision.models.densenet.{name}" for name in _DENSENET),
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.activation.Sigmoid",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.pooling.AvgPool2d",
)
"""Every name that a pickled network may use."""

_FUNCTIONS = "torch.nn.backends.thnn._get_thnn_function_backend"


def read_network(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the network in `path`, by name: a pickled module, ``{"model": module}``, or a state dict.

    Raises
    ------
    UsageError
        It holds something else, or what is not declared here.
    """
    content = _old(path) if is_legacy(path) else read_pickle(path, (*ALLOWED, *((Layer, name) for name in LAYERS)))
    if isinstance(content, Mapping) and isinstance(content.get("model"), Layer):
        content = content["model"]
    tensors = dict(_tensors(content)) if isinstance(content, Layer) else content
    whole: dict[str, torch.Tensor] = {}
    for key, value in tensors.items() if isinstance(tensors, Mapping) else ():
        tensor = value.tensor() if isinstance(value, View) else value
        if not isinstance(tensor, torch.Tensor):
            whole.clear()
            break
        whole[str(key).removeprefix("module.")] = tensor.detach()
    if not whole:
        raise UsageError(f"{path.name} holds no network of torchxrayvision or of jrzech")
    return whole


def _old(path: Path) -> Any:
    """Read a file of PyTorch before 1.6."""
    try:
        return read_legacy(path, dict.fromkeys(LAYERS, Layer) | {_FUNCTIONS: Only(nothing)})
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path.name} cannot be read without running code from it, which cxrx never does: {error}"
        ) from error
    except (EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise UsageError(f"{path.name} is no PyTorch checkpoint, or damaged") from error


def _tensors(layer: Layer, prefix: str = "") -> Iterator[tuple[str, torch.Tensor | View]]:
    """Yield parameters and buffers under the names that ``state_dict`` would give them."""
    stored = vars(layer)
    transient = stored.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, value in (stored.get(kind) or {}).items():
            if isinstance(value, torch.Tensor | View) and name not in transient:
                yield f"{prefix}{name}", value
    for name, child in (stored.get("_modules") or {}).items():
        if isinstance(child, Layer):
            yield from _tensors(child, f"{prefix}{name}.")


def convert(source: Path, target: Path, name: str | None = None) -> str:
    """Write the network in `source` as safetensors; return what it was taken for.

    Parameters
    ----------
    name
        Of torchxrayvision's weights; None: told by the name of the file, or by the tensors (jrzech).

    Raises
    ------
    UsageError
        It is neither, or does not fit; nothing is written then.
    """
    tensors = read_network(source)
    weights = find(name or source.name)
    if name is not None and weights is None:
        raise UsageError(f"torchxrayvision has no weights {name!r}", ", ".join(w.name for w in WEIGHTS))
    jrzech = any(key.startswith("classifier.0.") for key in tensors)
    if weights is None and not jrzech:
        raise UsageError(
            f"the name of {source.name} is none of torchxrayvision's files", "name its weights with --model"
        )
    metadata = {"source_sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    if weights is not None:
        tensors, more = _trained(tensors, weights, source)
        metadata |= more
    # a tensor of its own for each name: safetensors refuses two names for the same memory
    data = save({key: value.clone().contiguous() for key, value in tensors.items()}, metadata)
    _prove(data, f"xrv/{weights.name}" if weights is not None else "densenet121")
    write_file(target, data)
    return weights.name if weights is not None else "a reproduce-chexnet network (jrzech)"


def _trained(
    tensors: dict[str, torch.Tensor], weights: Weights, source: Path
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors without the calibration and the outputs that were never trained, and the metadata."""
    head = "classifier" if weights.architecture == "densenet121" else "fc"
    kept = {key: value for key, value in tensors.items() if key != "op_threshs"}
    rows = list(weights.trained)
    for key in (f"{head}.weight", f"{head}.bias"):
        if key not in kept or len(kept[key]) != len(OUTPUTS):
            raise UsageError(f"{source.name} does not fit {weights.name}: {key} must have {len(OUTPUTS)} rows")
        kept[key] = kept[key][rows]
    metadata = {
        "labels": json.dumps(weights.labels),
        "input": json.dumps(asdict(input_of(weights))),
        "activation": "sigmoid",
        "arch": f"xrv/{weights.name}",
        "recognised": "torchxrayvision",
    }
    points = tensors.get("op_threshs")
    if points is not None:
        known = {OUTPUTS[i]: float(points[i]) for i in rows if not points[i].isnan()}
        metadata |= {"thresholds": json.dumps(known), "threshold_rule": "youden"}  # as its scripts choose them
    return kept, metadata


def _prove(data: bytes, name: str) -> None:
    """Load the converted weights strictly into their network, which refuses what does not fit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "converted.safetensors"
        path.write_bytes(data)
        load_model(name, path, device="cpu")


# ---------------------------------------------------------------------------------------------------------------------
# By name


def fetch_weights(name: str) -> Path:
    """Return the converted weights `name`; torchxrayvision's own loader fetches them first if need be.

    Raises
    ------
    OfflineError
        ``CXRX_OFFLINE`` is set and they are not there.
    CxrxError
        They cannot be fetched.
    """
    target = home() / "weights" / f"xrv-{name}.safetensors"
    if target.is_file():
        return target
    source = _local_file(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    convert(source, target, name)
    return target


def _local_file(name: str) -> Path:
    """Let torchxrayvision's loader find or fetch the pickled weights `name`."""
    # importing torchxrayvision silences all warnings of the program, and what it prints is no data
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        from torchxrayvision import models, utils
    folder = Path(utils.get_cache_dir()).expanduser()
    path = folder / models.model_urls[name]["weights_url"].rpartition("/")[2]
    if offline() and not path.is_file():
        raise OfflineError(
            f"the weights {name} are not in {folder}, and CXRX_OFFLINE forbids to fetch them",
            f"fetch {models.model_urls[name]['weights_url']} elsewhere and put it there",
        )
    if not path.is_file():
        sys.stderr.write(f"torchxrayvision fetches {name} (licence: {LICENCE})\n")
    try:
        with redirect_stdout(sys.stderr):  # it prints its progress, and our stdout is for data
            return Path(models.get_weights(name))
    except Exception as error:
        raise CxrxError(f"torchxrayvision could not fetch {name}: {type(error).__name__}: {error}") from error
