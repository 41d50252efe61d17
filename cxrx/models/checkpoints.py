"""Read checkpoint files without running code from them, and load them strictly."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxrx.errors import UsageError
from cxrx.specs import InputSpec

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.",)
_HEADS = ("classifier", "head", "fc", "head.fc")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a checkpoint and what the file tells about them.

    Attributes
    ----------
    tensors
        Parameter name to tensor, prefixes of wrappers removed.
    labels
        Findings in the order of the outputs; empty where the file does not tell.
    input
        What the network expects; None where the file does not tell.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    labels: tuple[str, ...] = ()
    input: InputSpec | None = None

    @property
    def outputs(self) -> int | None:
        """Number of outputs of the classification head, or None where no head is recognised."""
        for head in _HEADS:
            weight = self.tensors.get(f"{head}.weight")
            if weight is not None and weight.ndim >= 2:
                return int(weight.shape[0])
        return None

    def load_into(self, module: nn.Module, name: str) -> None:
        """Load all tensors into `module`; every key must fit, none may be left over on either side.

        Raises
        ------
        UsageError
            Names the keys that are missing, left over or of another shape.
        """
        own = module.state_dict()
        # num_batches_tracked is only a counter of training steps; old checkpoints lack it
        missing = sorted(k for k in own.keys() - self.tensors.keys() if not k.endswith("num_batches_tracked"))
        unknown = sorted(self.tensors.keys() - own.keys())
        shapes = sorted(
            f"{k} {tuple(self.tensors[k].shape)} instead of {tuple(own[k].shape)}"
            for k in own.keys() & self.tensors.keys()
            if own[k].shape != self.tensors[k].shape
        )
        if missing or unknown or shapes:
            told = [f"{what}: {_some(keys)}" for what, keys in
                    (("missing", missing), ("left over", unknown), ("of another shape", shapes)) if keys]  # fmt: skip
            raise UsageError(f"{self.path.name} does not fit {name}: {'; '.join(told)}")
        module.load_state_dict(dict(self.tensors), strict=False)


def _some(keys: list[str], limit: int = 5) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a ``.safetensors`` file or a PyTorch checkpoint.

    PyTorch files are read with ``weights_only=True``: nothing in them is executed.

    Raises
    ------
    UsageError
        The file is missing, damaged, of another kind, or needs code to be read.
    """
    if not path.is_file():
        raise UsageError(f"there is no weights file {path.name!r}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in {".h5", ".keras", ".hdf5"}:
        raise UsageError(f"{path.name} is a Keras file; cxrx runs PyTorch networks, so convert its weights first")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # torch's word for a name that would have to be imported
            raise UsageError(f"{path.name} is no PyTorch checkpoint, or damaged") from error
        raise UsageError(
            f"{path.name} cannot be read without running code from it, which cxrx never does",
            "load it where you trust it and save module.state_dict() with safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{path.name} is no PyTorch checkpoint, or damaged") from error
    return Checkpoint(path, _state_dict(content, path))


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise UsageError(f"{path.name} is no safetensors file: {error}") from error
    # float16 is for storage only: networks run in float32
    tensors = {k: v.float() if v.dtype in (torch.float16, torch.bfloat16) else v for k, v in tensors.items()}
    try:
        labels = tuple(json.loads(metadata["labels"])) if "labels" in metadata else ()
        input_spec = input_from_json(metadata["input"]) if "input" in metadata else None
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"the labels or the input in the metadata of {path.name} are not as cxrx writes them"
        ) from error
    return Checkpoint(path, tensors, labels, input_spec)


def input_from_json(text: str) -> InputSpec:
    """Return the :class:`InputSpec` that `text` (a JSON object of its fields) describes."""
    known = {f.name for f in fields(InputSpec)}
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items() if k in known
    }
    return InputSpec(**values)


def _state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """Find the state dict in a checkpoint (``{"state_dict": ...}``, ``{"model": ...}`` or flat)."""
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise UsageError(f"{path.name} holds no state dict (a dict of tensors)")
    tensors = {str(key): value for key, value in content.items()}
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors
