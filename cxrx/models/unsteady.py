"""Networks whose answer to a picture is not always the same: random, or made from the other pictures of the batch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from cxrx.errors import UsageError
from cxrx.models.model import describe

_KEPT = 1  # the picture that stays while its neighbours change
_DRAWS = 8
_TOLERANCE = 1e-5  # of the largest output; sound networks differ by nothing


def unsteady(module: nn.Module, pictures: torch.Tensor, outputs: torch.Tensor, name: str) -> list[str]:
    """Say why a network does not always give the same answer to the same picture, if it does not.

    Another pass, in which a picture has the same place beside other pictures, gives a sound network's numbers to the
    bit. Only where it does not, more passes tell a random answer from one that depends on the others.

    Parameters
    ----------
    module, name
        In eval mode, and what the user calls it.
    pictures, outputs
        ``(B, C, H, W)``, and what it made of them, ``(B, K)``.
    """
    if is_plain(module):
        return []
    others = -5 * pictures.roll(1, dims=0) + 1
    others[_KEPT] = pictures[_KEPT]
    before = _random_state(pictures.device)
    if _same(run(module, others), outputs, _KEPT) and torch.equal(before, _random_state(pictures.device)):
        return []
    called: set[str] = set()
    with _seeded(0, pictures.device), _Calls(len(pictures), called):
        first = run(module, pictures)
    again = _run_seeded(module, pictures, 0)
    notes = []
    # a seldom chance, as dropout of few features, takes several draws to show
    if not _same(first, again) or any(not _same(first, _run_seeded(module, pictures, 1 + i)) for i in range(_DRAWS)):
        cause = _named(called, _RANDOM) or "something in its forward pass changes from pass to pass"
        notes.append(f"the answer of {name} is random, so its numbers and maps cannot be made again: {cause}")
    if _same(first, again) and not _same(first, _run_seeded(module, others, 0), _KEPT):
        cause = _suspect(module) or _named(called, _MIXING) or "something in its forward pass mixes them"
        notes.append(f"the answer of {name} to a film depends on the other films of its batch: {cause}")
    return notes


def _same(outputs: torch.Tensor, others: torch.Tensor, row: int | None = None) -> bool:
    rows = slice(None) if row is None else row
    a, b = outputs[rows].double(), others[rows].double()
    difference = (a - b).abs()[a.isfinite() & b.isfinite()]
    return not bool((difference > _TOLERANCE * others.double().abs().max().nan_to_num()).any())


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield


def _run_seeded(module: nn.Module, pictures: torch.Tensor, seed: int) -> torch.Tensor:
    with _seeded(seed, pictures.device):
        return run(module, pictures)


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the names of the operations of a pass that draw at random or mix the pictures of its batch."""

    def __init__(self, batch: int, called: set[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch = batch
        self.called = called

    def __torch_dispatch__(self, func: Any, _types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Run an operation and note its name; a reduction only where it is over the batch."""
        name = func.overloadpacket.__name__
        first = args[0] if args else None
        if name not in _REDUCTIONS or (isinstance(first, torch.Tensor) and self._over_batch(first, args[1:])):
            self.called.add(name)
        return func(*args, **(kwargs or {}))

    def _over_batch(self, tensor: torch.Tensor, more: Sequence[Any]) -> bool:
        axes = next((m for m in more if isinstance(m, list | tuple)), more[:1])
        axes = [axis % tensor.ndim for axis in axes if isinstance(axis, int)] if tensor.ndim else []
        return tensor.shape[:1] == (self.batch,) and (not axes or 0 in axes)


_Causes = tuple[tuple[re.Pattern[str], str], ...]
_RANDOM: _Causes = (
    (re.compile("bernoulli|dropout"), "dropout that is on in eval mode"),
    (re.compile("^(rand|normal|uniform|exponential|multinomial|poisson|log_normal|cauchy|geometric|rrelu)"),
     "noise drawn in its forward pass"),
)  # fmt: skip
_REDUCTIONS = frozenset(
    {"mean", "sum", "std", "var", "std_mean", "var_mean", "amax", "amin", "max", "min", "aminmax", "median", "norm",
     "linalg_vector_norm", "logsumexp", "prod", "_softmax", "_log_softmax", "cumsum", "sort", "topk"}
)  # fmt: skip
_MIXING: _Causes = (
    (re.compile("batch_norm"), "a batch norm that takes the statistics of the batch"),
    (re.compile("dynamic|choose_qparams"), "dynamic quantisation, which scales a whole batch as one"),
    (re.compile("softmax"), "a softmax over the batch"),
    (re.compile(f"^({'|'.join(sorted(_REDUCTIONS))})$"), "batch statistics ({}) in its forward pass"),
)


def _named(called: set[str], causes: _Causes) -> str:
    """Return in words which of the `causes` were among the operations called; empty: none."""
    found = []
    for pattern, words in causes:
        names = sorted(name for name in called if pattern.search(name))
        if names:
            found.append(words.format(", ".join(names)))
    return " and ".join(found)


def _suspect(module: nn.Module) -> str:
    """Name the first layer that mixes a batch by its nature: empty where there is none."""
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:  # noqa: SLF001
            return f"{name!r} is a batch norm without running statistics"
        if isinstance(part, nn.MultiheadAttention | nn.RNNBase) and not part.batch_first:
            return f"{name!r} takes the first axis for its sequence (batch_first=False)"
    return ""


def is_plain(module: nn.Module) -> bool:
    """Tell whether a network is made of layers of known libraries only, none of which is random or mixes a batch."""
    parts = list(module.modules())
    return (
        not _suspect(module)
        and all(type(part).__module__.startswith(_KNOWN) for part in parts)
        and not any(
            isinstance(part, _ODD) or 0 in (getattr(part, "dim", 1), getattr(part, "start_dim", 1)) for part in parts
        )
        and all(p.dtype == torch.float32 and not is_lazy(p) for p in module.parameters())
    )


_KNOWN = ("torch.nn.modules.", "timm.", "torchvision.models.", "torchvision.ops.")
_ODD = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)


def run(module: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """Return the outputs ``(B, K)`` of a network in eval mode; UsageError where they are something else."""
    # Not in inference mode: what a network keeps from its first pass could not be part of a graph later.
    with torch.inference_mode(mode=False), torch.no_grad():
        out = module(pictures.clone())  # it may begin in place
    if not isinstance(out, torch.Tensor) or out.ndim > 2:
        raise UsageError(f"the network must return one (B, K) tensor, not {describe(out)}")
    return out.reshape(len(pictures), -1)
