"""Which methods fit which models, and what to say where one does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cxrx.errors import UsageError
from cxrx.models.layers import NO_MAP
from cxrx.registry import load as load_registry

if TYPE_CHECKING:
    import torch

    from cxrx.models.model import Model
    from cxrx.specs import ExplainerSpec


_IN_WORDS = {
    "cam": "a spatial layer",
    "relevance": "plain transformer blocks",
    "convolutions": "convolutions with biases",
}


def check_fit(model: Model, spec: ExplainerSpec, options: Any = None) -> None:
    """Raise UsageError, naming the methods that fit, unless `model` offers what `spec` needs.

    Parameters
    ----------
    options
        Of the method. One that names a layer makes up for a model of which no layer is known.
    """
    offered = model.offers()
    layer = getattr(options, "layer", None)
    if layer is not None:
        model.cam_layer(layer)
    missing = spec.needs - offered - ({"cam"} if layer is not None else set())
    if missing:
        needed = " and ".join(_IN_WORDS.get(need, need) for need in sorted(missing))
        why = _why_no_layer(model) if "cam" in missing else ""
        raise UsageError(f"{spec.name} needs {needed}, which {model.name} does not offer{why}", fitting(offered))


def _why_no_layer(model: Model) -> str:
    try:
        model.cam_layer()
    except UsageError as error:
        return "" if str(error) == NO_MAP else f": {error}"
    return ""


def fitting(offered: frozenset[str]) -> str:
    """Return in words which methods do with what a model offers."""
    return f"these fit: {', '.join(spec.name for spec in load_registry().explainers.values() if spec.needs <= offered)}"


class NoGradientError(UsageError):
    """No gradient reaches what a method reads; where the model is known, the methods that do without are added."""


def no_gradient(reason: str) -> NoGradientError:
    """Return the error of a network through which gradients do not pass."""
    return NoGradientError(reason)


@contextmanager
def telling(model: Model) -> Iterator[None]:
    """Say in a sentence, with the methods that fit, why the gradients of `model` cannot be had inside the block."""
    try:
        yield
    except (RuntimeError, UsageError) as error:
        known = (reason for sign, reason in _SIGNS if sign in str(error))
        reason = str(error) if isinstance(error, NoGradientError) else next(known, None)
        if reason is None:
            raise
        offered, specs = model.offers() - {"gradients"}, load_registry().explainers.values()
        names = [spec.name for spec in specs if spec.needs <= offered and not spec.control]
        raise UsageError(reason, f"these need no gradients: {', '.join(names)}") from error


UNREACHED = "no gradient reaches this network's input: it detaches or rounds something on the way"
_SIGNS = (
    ("inplace operation", "an in-place operation of this network overwrites what its gradients need"),
    ("not have been used in the graph", UNREACHED),
    ("does not require grad", UNREACHED),
    ("doesn't require gradient", UNREACHED),
    ("requires grad. Use tensor.detach()", f"{UNREACHED} (numpy)"),
    ("implement either the backward", "an operation of this network has no gradient"),
    ("derivative for", "an operation of this network has no gradient"),
    ("Inference tensors cannot be saved", "this network works in inference mode, which records no gradients"),
)
"""What torch says, and what it means to the user."""


def leads_back(outputs: torch.Tensor) -> bool:
    """Tell whether a gradient reaches a leaf from `outputs` by operations that have one and whose is not always 0."""
    waiting: list[Any] = [outputs.grad_fn]
    met = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in met or _is_flat(node):
            continue
        if hasattr(node, "variable"):
            return True
        met.add(node)
        waiting.extend(following for following, _ in node.next_functions)
    return outputs.requires_grad and outputs.is_leaf


def _is_flat(node: Any) -> bool:
    """Tell whether an operation has no gradient (quantised kernels), or one that is 0 wherever it is (rounding)."""
    return bool(_FLAT.fullmatch(node.name())) or getattr(node, "_saved_rounding_mode", None) is not None


_FLAT = re.compile(r"(.*::)?((Round|Sign|Sgn|Floor|Ceil|Trunc|Bernoulli)Backward\d+|(Warn)?NotImplemented)")
