"""Seeds that depend on what is explained, never on where it stands in a batch."""

from __future__ import annotations

import hashlib

import torch


def tensor_id(picture: torch.Tensor) -> str:
    """Return 16 hex digits that identify the shape and the float32 values of a prepared picture ``(C, H, W)``."""
    values = picture.detach().to("cpu", torch.float32).contiguous()
    digest = hashlib.sha256(repr(tuple(values.shape)).encode())
    digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]


def derive_seed(seed: int, *parts: str | int) -> int:
    """Return a seed in [0, 2**63) that depends on `seed` and all `parts` (method, image id, ...) and nothing else."""
    text = "\x1f".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int) -> torch.Generator:
    """Return a CPU generator: the same numbers whatever device the model runs on."""
    return torch.Generator().manual_seed(seed)
