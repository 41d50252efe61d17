"""What a mask puts in the place of what it does not keep: the picture, blurred more and more, or faded to zero."""

from __future__ import annotations

import torch

from cxrx.explainers.filters import gaussian_blur

LEVELS = 8
_WIDEST = 20 / 224
"""Sigma of the strongest blur, as a fraction of the short side (20 px at 224 px)."""


class BlurPyramid:
    """Blurred copies of pictures, from sigma 20 px (level 0; at 224 px) down to the picture itself (level 7).

    A pixel with mask m is interpolated between the levels floor(7m) and floor(7m) + 1 (Fong et al. 2019, section 3.4).

    Parameters
    ----------
    pictures
        ``(P, C, H, W)``.
    """

    def __init__(self, pictures: torch.Tensor) -> None:
        sigma = _WIDEST * min(pictures.shape[2:])
        levels = [gaussian_blur(pictures, sigma * (1 - level / (LEVELS - 1))) for level in range(LEVELS - 1)]
        self._shape = pictures.shape
        stack = torch.stack([*levels, pictures], dim=-1)  # (P, C, H, W, L)
        stack = stack.permute(0, 2, 3, 4, 1)  # the channels of one pixel and level lie together: one look-up
        rise = stack[:, :, :, 1:] - stack[:, :, :, :-1]
        self._floor = stack[:, :, :, :-1].reshape(-1, self._shape[1])  # (P·H·W·(L-1), C)
        self._rise = rise.reshape(-1, self._shape[1])

    def __call__(self, mask: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """Return ``(R, C, H, W)``: for every row its picture, perturbed where its mask is below 1.

        Parameters
        ----------
        mask
            ``(R, H, W)`` in [0, 1].
        picture
            ``(R,)`` int64, which of the pictures a row perturbs.
        """
        _, channels, height, width = self._shape
        position = mask * (LEVELS - 1)
        with torch.no_grad():
            level = position.long().clamp(max=LEVELS - 2)
            pixel = torch.arange(height * width, device=mask.device).view(1, height, width)
            index = ((picture.view(-1, 1, 1) * height * width + pixel) * (LEVELS - 1) + level).flatten()
            floor = self._floor.index_select(0, index).view(-1, height, width, channels)
            rise = self._rise.index_select(0, index).view(-1, height, width, channels)
        perturbed: torch.Tensor = floor + (position - level)[..., None] * rise
        return perturbed.permute(0, 3, 1, 2)


class Fade:
    """The picture times the mask; zero is the mean grey of what the network saw in training."""

    def __init__(self, pictures: torch.Tensor) -> None:
        self._pictures = pictures

    def __call__(self, mask: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """Return ``(R, C, H, W)`` as `BlurPyramid` does."""
        return mask[:, None] * self._pictures[picture]
