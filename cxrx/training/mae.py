"""A masked autoencoder around a vision transformer of timm.

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, with the mask ratio of Xiao et al., Delving into
Masked Autoencoders for Multi-Label Thorax Disease Classification, WACV 2023 (0.90 for films).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from cxrx.errors import UsageError


@dataclass(frozen=True)
class Masking:
    """Which patches of a batch are seen.

    Attributes
    ----------
    seen
        ``(B, V)`` indices of the visible patches.
    back
        ``(B, N)`` for each patch its place in (visible..., hidden...).
    hidden
        ``(B, N)`` 1 where the patch is hidden.
    """

    seen: torch.Tensor
    back: torch.Tensor
    hidden: torch.Tensor


def random_masking(noise: torch.Tensor, ratio: float) -> Masking:
    """Hide for each film the patches of highest noise: ``V = int(N (1 - ratio))`` stay (section 3, random sampling).

    Parameters
    ----------
    noise
        ``(B, N)`` uniform.
    """
    B, N = noise.shape
    visible = max(1, int(N * (1 - ratio) + 1e-9))  # 1 - 0.9 is a little less than 0.1
    order = noise.argsort(dim=1, stable=True)
    back = order.argsort(dim=1)
    hidden = torch.ones(B, N, device=noise.device)
    hidden.scatter_(1, order[:, :visible], 0.0)
    return Masking(order[:, :visible], back, hidden)


def patchify(x: torch.Tensor, side: int) -> torch.Tensor:
    """Cut ``(B, C, H, W)`` into patches of `side` pixels: ``(B, N, side * side * C)``, row by row, channels last."""
    B, C, H, W = x.shape
    h, w = H // side, W // side
    return x.reshape(B, C, h, side, w, side).permute(0, 2, 4, 3, 5, 1).reshape(B, h * w, side * side * C)


def unpatchify(patches: torch.Tensor, side: int, grid: tuple[int, int]) -> torch.Tensor:
    """Undo :func:`patchify`: ``(B, N, side * side * C)`` to ``(B, C, H, W)``."""
    B, (h, w) = len(patches), grid
    C = patches.shape[2] // side**2
    return patches.reshape(B, h, w, side, side, C).permute(0, 5, 1, 3, 2, 4).reshape(B, C, h * side, w * side)


def normalised(patches: torch.Tensor) -> torch.Tensor:
    """Give each patch mean 0 and variance 1: the target that learns the better features (table 1d)."""
    mean = patches.mean(dim=2, keepdim=True)
    variance = patches.var(dim=2, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def masked_loss(predicted: torch.Tensor, target: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error over the pixels of hidden patches only."""
    each = (predicted - target).square().mean(dim=2)  # (B, N)
    return (each * hidden).sum() / hidden.sum()


def sincos(grid: tuple[int, int], width: int) -> torch.Tensor:
    """Return fixed positions ``(1, 1 + N, width)``: sines and cosines of column, then of row; 0 for the class token.

    Vaswani et al., Attention Is All You Need, 2017, section 3.5, once for each axis.
    """
    if width % 4:
        raise UsageError(f"positions on two axes need a width that 4 divides, not {width}")
    rates = 1 / 10_000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    parts = []
    for axis in (columns, rows):
        angles = axis.flatten()[:, None] * rates  # (N, width / 4)
        parts += [angles.sin(), angles.cos()]
    positions = torch.cat(parts, dim=1).float()
    return torch.cat([torch.zeros(1, width), positions])[None]


class MaskedAutoencoder(nn.Module):
    """An encoder that sees few patches, and a light decoder that is to draw the others.

    Parameters
    ----------
    encoder
        A ``VisionTransformer`` of timm with a class token; its positions become fixed sines and cosines.
    size
        ``(height, width)`` of films.
    width, depth, heads
        Of the decoder.
    """

    def __init__(self, encoder: Any, size: tuple[int, int], width: int, depth: int, heads: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.encoder = check_encoder(encoder)
        self.grid, self.side = _grid(encoder, size)
        self.channels = next(m.in_channels for m in encoder.modules() if isinstance(m, nn.Conv2d))
        with torch.no_grad():
            encoder.pos_embed.copy_(sincos(self.grid, encoder.embed_dim))
        encoder.pos_embed.requires_grad_(requires_grad=False)
        self.embed = nn.Linear(encoder.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("positions", sincos(self.grid, width))
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.draw = nn.Linear(width, self.side**2 * self.channels)
        self.apply(_start)

    def forward(self, x: torch.Tensor, masking: Masking) -> torch.Tensor:
        """Return the predicted patches ``(B, N, side * side * C)`` of ``x (B, C, H, W)``."""
        return self._decode(self._encode(x, masking), masking)

    def _encode(self, x: torch.Tensor, masking: Masking) -> torch.Tensor:
        encoder = cast(Any, self.encoder)
        embedded = encoder.patch_embed(x).reshape(len(x), -1, encoder.embed_dim)  # some leave them on their grid
        tokens = embedded + encoder.pos_embed[:, 1:]  # (B, N, D)
        tokens = tokens.gather(1, masking.seen[:, :, None].expand(-1, -1, tokens.shape[2]))  # (B, V, D)
        first = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(x), -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        for block in encoder.blocks:
            tokens = block(tokens)
        encoded: torch.Tensor = encoder.norm(tokens)
        return encoded

    def _decode(self, encoded: torch.Tensor, masking: Masking) -> torch.Tensor:
        tokens = self.embed(encoded)
        B, N = masking.back.shape
        unseen = self.mask_token.to(tokens.dtype).expand(B, N - masking.seen.shape[1], -1)
        patches = torch.cat([tokens[:, 1:], unseen], dim=1)
        patches = patches.gather(1, masking.back[:, :, None].expand(-1, -1, patches.shape[2]))  # in their places
        tokens = torch.cat([tokens[:, :1], patches], dim=1) + cast(torch.Tensor, self.positions)
        for block in self.blocks:
            tokens = block(tokens)
        drawn: torch.Tensor = self.draw(self.norm(tokens))[:, 1:]
        return drawn

    def loss(self, x: torch.Tensor, masking: Masking) -> torch.Tensor:
        """Return the loss against normalised pixels."""
        predicted = self(x, masking).float()
        return masked_loss(predicted, normalised(patchify(x, self.side)), masking.hidden)


def _start(module: nn.Module) -> None:
    """Draw weights by Xavier's rule, as appendix A.1 has it for all blocks; the patch embedding counts as linear."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))


def check_encoder(network: Any) -> Any:
    """Refuse what the autoencoder cannot take apart, and patches that see their neighbours: they would tell the hidden.

    Raises
    ------
    UsageError
        It is no plain vision transformer with a class token.
    """
    from timm.models.vision_transformer import VisionTransformer

    kernels = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    plain = (
        isinstance(network, VisionTransformer)
        and len(kernels) == 1
        and kernels[0].kernel_size == kernels[0].stride
        and network.num_prefix_tokens == 1
        and network.pos_embed is not None
        and not network.no_embed_class
        and isinstance(network.norm_pre, nn.Identity)
        and isinstance(network.norm, nn.LayerNorm)
    )
    if not plain:
        raise UsageError(
            "a masked autoencoder needs a plain vision transformer with a class token, whose patches do not overlap",
            "-m vit_small, -m vit_base or another ViT of timm",
        )
    return network


def _grid(encoder: Any, size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Return the grid of patches and the side of one in pixels."""
    patches = encoder.pos_embed.shape[1] - 1
    side = round((size[0] * size[1] / patches) ** 0.5)
    grid = (size[0] // side, size[1] // side)
    if grid[0] * grid[1] != patches or grid[0] * side != size[0] or grid[1] * side != size[1]:
        raise UsageError(
            f"{size[0]} x {size[1]} pixels cannot be cut into {patches} square patches",
            "--input-size is a multiple of a patch's side, 16 pixels in most networks",
        )
    return grid, side
