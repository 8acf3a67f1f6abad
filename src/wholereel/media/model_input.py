"""From loaded pixels to model input: the one place where axes are permuted and values are scaled and normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["to_model_input"]


def to_model_input(
    clips_BNTCHW: Tensor, *, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Permute and normalise, on the device where the pixels are.

    Args:
        clips_BNTCHW: uint8 0..255; `BTCHW` works alike (any leading axes).
        mean, std: one number a channel, in units of full brightness (pixels / 255).
        dtype: of the result; the arithmetic is float32 in any case.
    Returns: clips_BNCTHW (or `BCTHW`), contiguous, `(pixels / 255 - mean) / std`.
    Raises: ValueError: pixels are not uint8, or mean and std don't fit the channels.
    """
    if clips_BNTCHW.dtype != torch.uint8 or clips_BNTCHW.ndim < 4:
        raise ValueError(f"pixels must be uint8 ...TCHW, got {clips_BNTCHW.dtype} of {tuple(clips_BNTCHW.shape)}")
    channels = clips_BNTCHW.shape[-3]
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"pixels have {channels} channels, but mean has {len(mean)} and std {len(std)} numbers")
    pixels = clips_BNTCHW.transpose(-4, -3).to(torch.float32, memory_format=torch.contiguous_format)
    return pixels.sub_(_by_channel(mean, pixels.device)).div_(_by_channel(std, pixels.device)).to(dtype)


def _by_channel(numbers: Sequence[float], device: torch.device) -> Tensor:
    """In units of pixels, `(C, 1, 1, 1)`; filled on the device: a copy from the host would wait for it."""
    filled = [torch.full((1, 1, 1, 1), number, dtype=torch.float32, device=device) for number in numbers]
    return torch.cat(filled).mul_(255)
