"""Run a model over batches: fixed shapes, mixed precision, and halving when memory runs out."""

from __future__ import annotations

import ctypes
import gc
import math
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar

import torch

from cxrx.models.model import Model

Dtype = Literal["fp32", "bf16"]
T = TypeVar("T")

_CPU_BATCH = 8  # larger batches are slower on CPU: the buffers leave the caches
_GPU_BATCH = 128
_PER_GIB = 3  # pictures of 224 px with the graph of a DenseNet-121 and something to spare
_MPS_GIB = 8


def auto_batch_size(device: torch.device) -> int:
    """Return the batch size that ``auto`` stands for; out-of-memory halves the work, not this number.

    On a GPU the power of two that its whole memory holds, free or not: the same device always gives the same size.
    """
    if device.type == "cpu":
        return _CPU_BATCH
    total = torch.cuda.get_device_properties(device).total_memory / 2**30 if device.type == "cuda" else _MPS_GIB
    return int(min(_GPU_BATCH, 2 ** math.floor(math.log2(max(1, _PER_GIB * total)))))


def autocast(device: torch.device, dtype: Dtype) -> AbstractContextManager[Any]:
    """Return a context in which the network runs in `dtype`."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if dtype == "bf16" else nullcontext()


def pad_batch(x: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Pad ``(b, ...)`` with zeros to ``(batch_size, ...)``.

    Kernels choose their algorithm by shape; with one fixed shape a film's numbers do not depend on its neighbours.
    """
    missing = batch_size - x.shape[0]
    # zeros_like keeps the order of the dimensions in memory, which is part of the shape to a kernel
    return x if missing <= 0 else torch.cat([x, torch.zeros_like(x[:1]).expand(missing, *x.shape[1:])])


def predict_logits(model: Model, x: torch.Tensor, batch_size: int, dtype: Dtype = "fp32") -> torch.Tensor:
    """Return the logits ``(b, K)`` of some films, computed in the fixed shape.

    Parameters
    ----------
    model, dtype
        What computes them, and in what.
    x
        ``(b, C, H, W)``, ``b <= batch_size``.
    batch_size
        Films that the kernels see.
    """

    def run(rows: torch.Tensor) -> torch.Tensor:
        with autocast(model.device, dtype):
            return model.logits(rows).cpu()

    padded = pad_batch(x, batch_size)
    return torch.cat(halving(run, [padded]))[: x.shape[0]]


def halving(run: Callable[..., T], tensors: Sequence[torch.Tensor]) -> list[T]:
    """Call ``run(*tensors)``; on out-of-memory call it on halves of the first dimension, and so on.

    Returns
    -------
    The results of the pieces in order; usually one.

    Raises
    ------
    torch.cuda.OutOfMemoryError
        A single row does not fit.
    """
    try:
        return [run(*tensors)]
    except torch.cuda.OutOfMemoryError:
        if tensors[0].shape[0] == 1:
            raise
    # Outside the except block: the exception holds the frames, and they hold the memory.
    gc.collect()
    torch.cuda.empty_cache()
    half = tensors[0].shape[0] // 2
    return halving(run, [t[:half] for t in tensors]) + halving(run, [t[half:] for t in tensors])


def tune_allocator() -> None:
    """Keep glibc from handing big buffers back to the kernel after every layer.

    On CPU most of the time of large batches goes into faulting the same pages in again; raising two thresholds
    (``mallopt``: M_TRIM_THRESHOLD = -1, M_MMAP_THRESHOLD = -3) saves up to two thirds of it. A no-op elsewhere.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 1 << 30)
    libc.mallopt(-1, (1 << 31) - 1)
