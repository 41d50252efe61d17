"""Networks of the user's own: a function in a file of theirs, and what a look at the network tells."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from cxrx.errors import INTERRUPTS, CxrxError, UsageError
from cxrx.models.unsteady import run, unsteady
from cxrx.plugins import describe_error
from cxrx.reading.processes import own_folders
from cxrx.specs import InputSpec, ModelSpec

IMAGENET = InputSpec()
"""What a network of the user's own gets to see where its file has no ``INPUT``."""

_PROBES = 3  # pictures; few, and no usual number of channels


def own_spec(name: str) -> ModelSpec:
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
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.append(folder)  # for the modules that the file imports from beside it
        own_folders.add(folder)
    with refusing(f"{file!r} raised"):
        module_spec.loader.exec_module(module)
    build = getattr(module, function, None)
    if not callable(build):
        raise UsageError(f"{file!r} has no function {function!r}")
    output: Any = getattr(module, "OUTPUT", "logits")
    if output not in {"logits", "probabilities"}:
        raise UsageError(f"OUTPUT in {file!r} is 'logits' or 'probabilities', not {output!r}")
    return ModelSpec(path.stem, _adapted(build), (), getattr(module, "INPUT", IMAGENET), output=output)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn whatever somebody's code raises, even sys.exit(), into a UsageError that begins with `what`."""
    try:
        yield
    except (CxrxError, *INTERRUPTS):
        raise
    except BaseException as error:
        raise UsageError(f"{what} {describe_error(error)}") from error


def _adapted(build: Callable[..., Any]) -> Callable[[Sequence[str]], Any]:
    """Accept ``build(labels)``, ``build(labels=...)`` with a default, and ``build()`` alike."""
    with refusing("what it takes cannot be told of a function:"):
        parameters = inspect.signature(build).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needs_labels = any(p.default is p.empty for p in positional)
    takes_labels = needs_labels or [p.name for p in positional[:1]] == ["labels"]

    def adapted(labels: Sequence[str]) -> Any:
        if needs_labels and not labels:
            raise UsageError("this network is built for a list of findings, and none are known", "use --labels a,b,c")
        return build(labels) if takes_labels and labels else build()

    return adapted


# ---------------------------------------------------------------------------------------------------------------------
# What a forward pass tells


@dataclass(frozen=True)
class Seen:
    """What a look at a network tells.

    Attributes
    ----------
    outputs
        ``(B, K)``, of a black picture and of some of noise.
    squashed
        Which layer made them probabilities last; None: none did.
    dtype
        What it takes its pictures in.
    notes
        Why its answer to a picture is not always the same, if it is not.
    """

    outputs: torch.Tensor
    squashed: Literal["sigmoid", "softmax"] | None
    dtype: torch.dtype
    notes: list[str]


def look(module: nn.Module, spec: InputSpec, name: str) -> Seen:
    """Run a network on a few pictures; layers that it builds in its first pass are there afterwards.

    Raises
    ------
    UsageError
        It does not take such an input, or returns something else.
    """
    squashed: list[tuple[torch.Tensor, Literal["sigmoid", "softmax"]]] = []

    def watch(layer: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        squashed.append((output, "sigmoid" if isinstance(layer, nn.Sigmoid) else "softmax"))

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Sigmoid | nn.Softmax)]
    handles = [layer.register_forward_hook(watch) for layer in layers]
    pictures = 3 * torch.randn(_PROBES, spec.channels, *spec.size, generator=torch.Generator().manual_seed(0))
    pictures[0] = 0
    try:
        pictures, out = _first_outputs(module, pictures)
    finally:
        for handle in handles:
            handle.remove()
    # the same memory: what comes behind the layer at most changes the shape
    same = [
        kind for output, kind in squashed if output.data_ptr() == out.data_ptr() and 0 <= out.min() <= out.max() <= 1
    ]
    with refusing(f"{name} takes one batch of pictures and not the next:"):
        notes = unsteady(module, pictures, out, name)
    return Seen(out, same[-1] if same else None, pictures.dtype, notes)


def _first_outputs(module: nn.Module, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pictures as the network takes them, and its outputs ``(B, K)``.

    One of half precision that does not convert its input itself is given that type.
    """
    parameters = [p for p in module.parameters() if not is_lazy(p)]
    device = parameters[0].device if parameters else torch.device("cpu")
    types = [torch.float32, *sorted({p.dtype for p in parameters if p.is_floating_point()} - {torch.float32}, key=str)]
    failed: BaseException | None = None
    for dtype in types:
        seen = pictures.to(device, dtype)
        try:
            return seen, run(module, seen)
        except (CxrxError, *INTERRUPTS):
            raise
        except BaseException as error:  # noqa: BLE001 - of somebody else's code, and sys.exit() is no end of ours
            failed = failed or error
    raise UsageError(
        f"the network does not take an input of shape (B, {', '.join(map(str, pictures.shape[1:]))}): "
        f"{describe_error(failed or RuntimeError())}",
        "tell its size and channels: input_size, in_chans (API) or --input-size, --in-chans (command line)",
    ) from failed


def first_channels(module: nn.Module) -> Literal[1, 3] | None:
    """Return the channels that the first convolution of a network takes; None where that is neither 1 nor 3."""
    first = next((m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)), None)  # 0: a lazy one
    return 1 if first == 1 else 3 if first == 3 else None
