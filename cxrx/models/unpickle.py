"""Read PyTorch files without running code from them.

``torch.load(weights_only=True)`` builds tensors and plain containers only, and refuses every other name in the file.
Training scripts keep two harmless things beside their weights, for which it would refuse the whole file: the command
line (``argparse.Namespace``) and NumPy scalars (the best AUROC). Exactly these names are let through, and what answers
to them are the inert stand-ins below: not even NumPy's or argparse's own code runs on the file's behalf.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrx.errors import UsageError


class Options:
    """Stands in for ``argparse.Namespace``: a bag of attributes."""


class Dtype:
    """Stands in for ``numpy.dtype``: remembers its code and byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Sequence[Any]) -> None:
        order = str(state[1])
        self.code = f"{order}{self.code}" if order in {"<", ">"} else self.code


def scalar(dtype: Dtype, data: bytes | str) -> Any:
    """Stand in for NumPy's own constructor of scalars: return a plain Python number."""
    kind = np.dtype(dtype.code)
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    if kind.kind not in "biuf" or len(raw) != kind.itemsize:
        raise pickle.UnpicklingError(f"no GLOBAL but numbers: {kind} is not read")
    return np.frombuffer(raw, kind)[0].item()


ALLOWED: tuple[tuple[Callable[..., Any], str], ...] = (
    (Options, "argparse.Namespace"),
    (Dtype, "numpy.dtype"),
    (scalar, "numpy.core.multiarray.scalar"),  # NumPy 1
    (scalar, "numpy._core.multiarray.scalar"),  # NumPy 2
)
"""Every name beyond tensors and plain containers that a file may use, and what it gets."""


def read_pickle(path: Path, allowed: Sequence[tuple[Callable[..., Any], str]] = ALLOWED) -> Any:
    """Return what a PyTorch file holds.

    Parameters
    ----------
    allowed
        (stand-in, name) of each name that may occur beyond tensors and plain containers.

    Raises
    ------
    UsageError
        The file is damaged, or holds what could only be read by running code.
    """
    try:
        with _exactly(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says to its user, not to ours
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # torch's word for a name that would have to be imported
            raise UsageError(f"{path.name} is no PyTorch checkpoint, or damaged") from error
        raise needs_code(path, str(error)) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise UsageError(
                f"{path.name} is a TorchScript program, which cxrx does not run",
                "save the state_dict() of the network that it was made from, with safetensors",
            ) from error
        raise UsageError(f"{path.name} is no PyTorch checkpoint, or damaged") from error
    except (EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{path.name} is no PyTorch checkpoint, or damaged") from error


@contextmanager
def _exactly(allowed: Sequence[tuple[Callable[..., Any], str]]) -> Iterator[None]:
    """Let these names through and no others: not those that torch, other packages or the user declared to be safe."""
    declared = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(allowed))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(declared)


_MODULES = ("torchxrayvision.", "torchvision.", "torch.nn.")


def needs_code(path: Path, reason: str) -> UsageError:
    """Return the error of a file that cannot be read without running code; `reason` is torch's."""
    message = f"{path.name} cannot be read without running code from it, which cxrx never does"
    if any(name in reason for name in _MODULES):
        return UsageError(
            f"{message}: it holds a whole network (a pickled module) instead of its tensors",
            f"the plugin cxrx-xrv takes the tensors out: cxrx xrv convert {path.name} OUT.safetensors",
        )
    return UsageError(message, "load it where you trust it and save module.state_dict() with safetensors")
