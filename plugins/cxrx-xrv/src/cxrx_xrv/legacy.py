"""Read the pickles that ``torch.save(network)`` wrote before PyTorch 1.6, without running anything in them.

PyTorch's own ``weights_only=True`` refuses them whatever is declared, because each class stands in them beside its
source code. The file is five pickles (a magic number, a version, facts on the machine, the object, the names of its
storages) and then the storages: a count and raw numbers each. The unpickler below knows an exact list of names, and
inert stand-ins answer to all of them.
"""

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

MAGIC = 0x1950A86A20F9469CFC6C
BEGINNING = pickle.dumps(MAGIC, protocol=2)

_TYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip


class Sealed(type):
    """A class on which a pickle can set nothing."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"{name} of {cls.__name__} is not the file's to set")


class Only:
    """A callable, and nothing else, to a pickle."""

    __slots__ = ("_run",)
    _run: Callable[..., Any]

    def __init__(self, run: Callable[..., Any]) -> None:
        object.__setattr__(self, "_run", run)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"{name} is not the file's to set")

    def __call__(self, *args: Any) -> Any:
        """Call what it stands for."""
        return self._run(*args)


class Kind:
    """The type of a storage, by its old name."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class Storage(metaclass=Sealed):
    """Raw numbers, which follow behind the pickle."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.numbers = torch.empty(0, dtype=dtype)


class View(metaclass=Sealed):
    """A tensor that is yet to be cut out of its storage."""

    def __init__(self, storage: Any, offset: int, size: Any, stride: Any) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)

    def tensor(self) -> torch.Tensor:
        """Return the tensor; its bounds are checked by PyTorch."""
        storage, shift = self.storage if isinstance(self.storage, tuple) else (self.storage, 0)
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError("a tensor without a storage")
        return storage.numbers.as_strided(self.size, self.stride, self.offset + shift)


class Parameter(metaclass=Sealed):
    """Stands in for ``torch.nn.Parameter``."""

    def __new__(cls, data: Any = None, *_: Any) -> Any:
        """Return the tensor itself."""
        return data


def _view(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> View:
    return View(storage, offset, size, stride)


BASICS: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": Only(set),
    "__builtin__.set": Only(set),
    "torch._utils._rebuild_tensor": Only(_view),
    "torch._utils._rebuild_tensor_v2": Only(_view),
    "torch._utils._rebuild_parameter": Only(lambda data, *_: data),
    "torch.nn.parameter.Parameter": Parameter,
} | {f"{module}.{name}Storage": Kind(dtype) for module in ("torch", "torch.cuda") for name, dtype in _TYPES.items()}


def is_legacy(path: Path) -> bool:
    """Whether PyTorch before 1.6 wrote the file."""
    with path.open("rb") as file:
        return file.read(len(BEGINNING)) == BEGINNING


def read_legacy(path: Path, layers: Mapping[str, Any]) -> Any:
    """Return what the file holds, tensors as :class:`View`.

    Parameters
    ----------
    layers
        What answers to which further name.

    Raises
    ------
    pickle.UnpicklingError
        It holds a name that is not declared.
    """
    names = {**BASICS, **layers}
    storages: dict[str, Storage] = {}
    with path.open("rb") as file:
        for _ in range(3):
            _Unpickler(file, {}, {}).load()
        content = _Unpickler(file, names, storages).load()
        for key in _Unpickler(file, {}, {}).load():
            _fill(storages[key], file)
    return content


def _fill(storage: Storage, file: BinaryIO) -> None:
    (count,) = struct.unpack("<q", file.read(8))
    data = file.read(count * storage.dtype.itemsize) if count > 0 else b""
    if count < 0 or len(data) != count * storage.dtype.itemsize:
        raise EOFError("the file ends within its numbers")
    if data:
        storage.numbers = torch.frombuffer(bytearray(data), dtype=storage.dtype)


class _Unpickler(pickle.Unpickler):
    """Knows `names` and nothing else."""

    def __init__(self, file: BinaryIO, names: Mapping[str, Any], storages: dict[str, Storage]) -> None:
        super().__init__(file)
        self.names, self.storages = names, storages

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self.names:
            raise pickle.UnpicklingError(f"{full} is not declared")
        return self.names[full]

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":
            return pid[1]
        if pid[0] != "storage" or not isinstance(pid[1], Kind):
            raise pickle.UnpicklingError("neither a layer nor a storage")
        _, kind, key, _, _, view = pid
        storage = self.storages.setdefault(key, Storage(kind.dtype))
        return storage if view is None else (storage, view[1])
