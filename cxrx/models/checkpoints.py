"""Read checkpoint files without running code from them, and load them strictly."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from cxrx.errors import UsageError
from cxrx.models.formats import FLAT, HEADS, Format, Stored, count_outputs, find_variant, guess_architecture, recognise
from cxrx.models.unpickle import read_pickle
from cxrx.specs import InputSpec

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_HDF5 = b"\x89HDF\r\n\x1a\n"

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a checkpoint and what the file tells about them.

    Attributes
    ----------
    tensors
        By name in timm's network.
    labels
        Findings in the order of the outputs; empty where the file does not tell.
    input
        What the network expects; None where the file does not tell.
    activation
        What belongs behind the outputs; None where the file does not tell.
    format
        What the file was recognised as.
    dropped
        Names that the format declares to be no part of the classifier (a decoder).
    others
        What lay beside the tensors: names of entries, or metadata.
    raw
        The tensors as the file names them, for networks that are built that way (the user's own).
    """

    path: Path
    tensors: Tensors
    labels: tuple[str, ...] = ()
    input: InputSpec | None = None
    activation: Literal["sigmoid", "softmax"] | None = None
    format: Format = FLAT
    dropped: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)
    raw: tuple[Tensors, ...] = ()

    @property
    def outputs(self) -> int | None:
        """Number of outputs of the classification head, or None where no head is recognised."""
        return count_outputs(self.tensors)

    @property
    def variant(self) -> dict[str, Any]:
        """Which variant of its architecture the network is: keywords of ``ModelSpec.build_variant``."""
        return find_variant(self.tensors)

    @property
    def channels(self) -> Literal[1, 3] | None:
        """Return the channels that the first convolution takes; None where that is neither 1 nor 3."""
        first = next((tensor.shape[1] for tensor in self.tensors.values() if tensor.ndim == 4), None)
        return 1 if first == 1 else 3 if first == 3 else None

    @property
    def architecture(self) -> str | None:
        """Name of the model that the file tells, or of the built-in one whose tensors these look like, or None."""
        stored = self.others.get("arch", "") if self.path.suffix == ".safetensors" else ""
        # FILE.py:FUNCTION would run code, which a file of weights must not ask for
        return stored if stored and ":" not in stored else guess_architecture(self.tensors)

    @property
    def tells_input(self) -> bool:
        """Whether the file itself tells its input, which else its format lets guess."""
        return self.path.suffix == ".safetensors" and "input" in self.others

    @property
    def ours(self) -> bool:
        """Whether the file itself tells its labels and input, as those written by cxrx do."""
        return self.tells_input and "labels" in self.others

    @property
    def thresholds(self) -> dict[str, float]:
        """Finding to the probability from which it counts as found, where cxrx trained the network."""
        stored = json.loads(self.others.get("thresholds", "{}")) if self.ours else {}
        return {name: float(value) for name, value in stored.items()}

    @property
    def threshold_rule(self) -> str:
        """By which of :data:`cxrx.metrics.thresholds.RULES` they were chosen; F1 where the file does not tell."""
        return self.others.get("threshold_rule", "f1-max")

    def load_into(self, module: nn.Module, name: str, *, new_head: bool = False) -> None:
        """Load all tensors into `module`; every key must fit, none may be left over on either side.

        Parameters
        ----------
        new_head
            Leave the head of `module` as it is, whatever the file has there: to train from.

        Raises
        ------
        UsageError
            Names the keys that are missing, left over, of another shape or not finite; or says that the file has no
            head.
        """
        own = module.state_dict()
        tensors = self.fitting(module)
        if new_head:
            tensors = {key: value for key, value in tensors.items() if not _is_head(key)}
            own = {key: value for key, value in own.items() if not _is_head(key)}
        misfit = _Misfit.of(tensors, own)
        if misfit.only_head and not any(map(_is_head, tensors)):
            raise UsageError(
                f"{self.path.name} is {self.format.says}: a base without the head that tells findings, so it cannot "
                f"predict (missing: {_some(misfit.missing)})",
                f"train a head on it: cxrx train DATA -m {self.architecture or name} --init {self.path.name}",
            )
        if misfit:
            likely = self.architecture
            hint = f"its keys are those of {likely}: -m {likely}" if likely not in (None, name) else ""
            raise UsageError(f"{self.path.name} does not fit {name}: {misfit}", hint)
        unsound = [key for key, value in tensors.items() if not value.isfinite().all()]
        if unsound:
            raise UsageError(
                f"{self.path.name} holds NaN or infinity in {_some(unsound)}", "take an earlier checkpoint"
            )
        module.load_state_dict(dict(tensors), strict=False)

    def fits(self, module: nn.Module) -> bool:
        """Tell whether every tensor has its place in `module`, and every place its tensor."""
        return not _Misfit.of(self.fitting(module), module.state_dict())

    def fitting(self, module: nn.Module) -> Tensors:
        """Return the tensors under the names of `module`, where it has the file's own ones; else under timm's."""
        own = module.state_dict()
        return next((tensors for tensors in (self.tensors, *self.raw) if not _Misfit.of(tensors, own)), self.tensors)


@dataclass(frozen=True)
class _Misfit:
    """What keeps tensors from being those of a network; false where nothing does."""

    missing: list[str]
    unknown: list[str]
    shapes: list[str]

    @classmethod
    def of(cls, tensors: Tensors, own: Tensors) -> _Misfit:
        # num_batches_tracked is only a counter of training steps; old checkpoints lack it
        missing = sorted(k for k in own.keys() - tensors.keys() if not k.endswith("num_batches_tracked"))
        shapes = sorted(
            f"{k} {tuple(tensors[k].shape)} instead of {tuple(own[k].shape)}"
            for k in own.keys() & tensors.keys()
            if not is_lazy(own[k]) and own[k].shape != tensors[k].shape
        )
        return cls(missing, sorted(tensors.keys() - own.keys()), shapes)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.shapes)

    def __str__(self) -> str:
        parts = (("missing", self.missing), ("left over", self.unknown), ("of another shape", self.shapes))
        return "; ".join(f"{what}: {_some(keys)}" for what, keys in parts if keys)

    @property
    def only_head(self) -> bool:
        """Whether nothing but the head is missing, and nothing else is wrong."""
        return bool(self.missing) and not self.unknown and not self.shapes and all(map(_is_head, self.missing))


def _is_head(key: str) -> bool:
    return key.rpartition(".")[0] in {*HEADS, "head.1"}


def _some(keys: list[str], limit: int = 5) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a ``.safetensors`` file or a PyTorch checkpoint, and recognise who wrote it.

    Nothing in the file is executed; see :mod:`cxrx.models.unpickle`.

    Raises
    ------
    UsageError
        The file is missing, damaged, of another kind, or needs code to be read.
    """
    if not path.is_file():
        raise UsageError(f"there is no weights file {path.name!r}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    refuse_keras(path)
    wrapper, entries, tensors = _state_dict(read_pickle(path), path)
    return _recognised(path, wrapper, frozenset(entries), tensors, entries)


def refuse_keras(path: Path) -> None:
    """Raise UsageError for a file of Keras, whatever it is called: HDF5, or a zip archive that holds some."""
    with path.open("rb") as file:
        keras = file.read(len(_HDF5)) == _HDF5 or path.suffix in {".h5", ".hdf5", ".keras"}
    if not keras and zipfile.is_zipfile(path):
        # a damaged one is for torch to refuse
        with suppress(zipfile.BadZipFile, NotImplementedError), zipfile.ZipFile(path) as archive:
            keras = "model.weights.h5" in archive.namelist()
    if keras:
        raise UsageError(f"{path.name} is a Keras file; cxrx runs PyTorch networks, so convert its weights first")


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise UsageError(f"{path.name} is no safetensors file: {error}") from error
    return _recognised(path, "", frozenset(), tensors, metadata)


def _recognised(
    path: Path, wrapper: str, entries: frozenset[str], tensors: Tensors, others: Mapping[str, str]
) -> Checkpoint:
    odd = next((k for k, v in tensors.items() if v.layout is not torch.strided or v.is_quantized or v.is_meta), None)
    if odd is not None:
        raise UsageError(f"{path.name}: {odd} is sparse, quantised or without data, and weights are plain numbers")
    # half precision is for storage only: networks run in float32
    raw = {k: v.float() if v.dtype in (torch.float16, torch.bfloat16) else v for k, v in tensors.items()}
    plain = _without_prefix(raw)
    form = recognise(Stored(wrapper, entries, plain))
    kept, dropped = form.convert(plain)
    labels, input_spec, activation = _own_metadata(path, others)
    if not labels and form.labels and count_outputs(kept) == len(form.labels):
        labels = form.labels
    return Checkpoint(
        path,
        kept,
        labels,
        input_spec or form.input,
        activation or form.activation,
        form,
        dropped,
        dict(others),
        (plain, raw) if kept.keys() != raw.keys() else (),
    )


def _own_metadata(path: Path, metadata: Mapping[str, str]) -> tuple[tuple[str, ...], InputSpec | None, Any]:
    """Return the labels, the input and the activation that the metadata of a safetensors file tells."""
    if path.suffix != ".safetensors":
        return (), None, None
    try:
        names = json.loads(metadata.get("labels", "[]"))
        input_spec = input_from_json(metadata["input"]) if "input" in metadata else None
        sound = isinstance(names, list) and all(isinstance(name, str) and name.isprintable() for name in names)
        sound = sound and (input_spec is None or _is_sound(input_spec)) and _are_probabilities(metadata)
    except (ValueError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UsageError(
            f"the labels, the input or the thresholds in the metadata of {path.name} are not as cxrx writes them"
        )
    activation = metadata.get("activation")
    return tuple(names), input_spec, activation if activation in {"sigmoid", "softmax"} else None


def _are_probabilities(metadata: Mapping[str, str]) -> bool:
    """Tell whether the thresholds, if there are some, are probabilities by finding."""
    found = json.loads(metadata.get("thresholds", "{}"))
    return isinstance(found, dict) and all(
        isinstance(value, float | int) and 0 <= value <= 1 for value in found.values()
    )


def _is_sound(spec: InputSpec) -> bool:
    """Tell whether every field of an input holds what it may."""
    clahe = spec.clahe
    return (
        spec.channels in {1, 3}
        and len(spec.size) == 2
        and all(isinstance(side, int) and side > 0 for side in spec.size)
        and (spec.resize is None or (isinstance(spec.resize, int) and spec.resize > 0))
        and spec.fit in {"crop", "pad", "stretch"}
        and spec.interpolation in {"bilinear", "bicubic"}
        and all(len(values) in {1, spec.channels} for values in (spec.mean, spec.std))
        and all(math.isfinite(value) for value in spec.mean)
        and all(0 < value < math.inf for value in spec.std)
        and (clahe is None or (len(clahe) == 3 and min(clahe) > 0))
        and spec.crops in {1, 10}
    )


def input_from_json(text: str) -> InputSpec:
    """Return the :class:`InputSpec` that `text` (a JSON object of its fields) describes."""
    return input_from(json.loads(text))


def input_from(settings: Mapping[str, Any]) -> InputSpec:
    """Return the :class:`InputSpec` of a plain mapping of its fields; those of a later version are left out."""
    known = {f.name for f in fields(InputSpec)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items() if k in known}
    return InputSpec(**values)


def _state_dict(content: Any, path: Path) -> tuple[str, dict[str, str], dict[str, torch.Tensor]]:
    """Find the state dict (``{"state_dict": ...}``, ``{"model": ...}`` or flat), and what lies beside it."""
    wrapper, entries = "", {}
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            entries = {str(k): _short(v) for k, v in content.items() if k != name}
            wrapper, content = name, content[name]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise UsageError(f"{path.name} holds no state dict (a dict of tensors)")
    return wrapper, entries, {str(key): value for key, value in content.items()}


def _short(value: Any) -> str:
    """Return a number or a word as it is, and of anything longer only its kind."""
    return str(value) if isinstance(value, int | float | str) and len(str(value)) < 80 else type(value).__name__


def _without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Leave off what DataParallel and torch.compile put before all names; one that lacks it is kept, to be named."""
    for prefix in _PREFIXES:
        if 2 * sum(key.startswith(prefix) for key in tensors) > len(tensors):
            short = {key: key.removeprefix(prefix) for key in tensors}
            tensors = {
                key if short[key] != key and short[key] in tensors else short[key]: value
                for key, value in tensors.items()
            }
    return tensors


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_bytes(tensors: Tensors, metadata: dict[str, str]) -> bytes:
    """Return the bytes of a safetensors file."""
    from safetensors.torch import save

    # a tensor of its own for each name: safetensors refuses two names for the same memory
    own = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    return save(own, metadata)


def to_safetensors(
    checkpoint: Checkpoint, tensors: Tensors, labels: tuple[str, ...], input_spec: InputSpec, **more: str
) -> bytes:
    """Return the bytes of a safetensors file of `tensors`, with what belongs to `checkpoint` as metadata.

    Parameters
    ----------
    checkpoint
        What was read.
    tensors, labels, input_spec
        Of the network that it became.
    more
        Further metadata.
    """
    metadata = {
        "labels": json.dumps(list(labels)),
        "input": json.dumps(asdict(input_spec)),
        "recognised": checkpoint.format.name,
        "source_sha256": file_sha256(checkpoint.path),
        **more,
    }
    if checkpoint.activation is not None:
        metadata.setdefault("activation", checkpoint.activation)
    return tensor_bytes(tensors, metadata)
