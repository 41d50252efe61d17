"""The state a network is explained in, and the way back out of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
"""Where ``nn.Module`` keeps its hooks; each a dictionary by handle."""

_FLAGS = ("training", "fused_attn", "inplace")
"""Plain attributes of modules that explainers may set.

timm computes attention unfused where fused_attn is False; activations overwrite their input where inplace is True.
"""


@contextmanager
def guard(network: nn.Module) -> Iterator[None]:
    """Put `network` into the state for attribution, and put everything back afterwards, even after an exception.

    Inside: eval mode, parameters frozen (so that a backward pass costs nothing for them and leaves no ``.grad``),
    gradients enabled whatever the caller had set. Afterwards training modes, ``requires_grad``, ``.grad`` and the
    flags for fused attention and in-place activations are as before, and hooks registered inside are gone.
    """
    modules = list(network.modules())
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    flags = [(module, name, vars(module)[name]) for module in modules for name in _FLAGS if name in vars(module)]
    hooks = [(known, set(known)) for module in modules for known in _hook_tables(module)]
    # `is_full_backward_hook` is set by the first backward hook and forbids the other kind until it is None again.
    kinds = [(module, module._is_full_backward_hook) for module in modules]  # noqa: SLF001 - nn.Module has no public way
    try:
        network.eval()
        for parameter, _, _ in parameters:
            parameter.requires_grad = False
        with torch.inference_mode(mode=False), torch.enable_grad():
            yield
    finally:
        for table, before in hooks:
            for key in [key for key in table if key not in before]:
                del table[key]
        for module, kind in kinds:
            module._is_full_backward_hook = kind  # noqa: SLF001 - as above
        for module, name, value in flags:
            setattr(module, name, value)
        for parameter, requires_grad, grad in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def _hook_tables(module: nn.Module) -> list[dict[int, Any]]:
    return [vars(module)[name] for name in _HOOKS if vars(module).get(name) is not None]
