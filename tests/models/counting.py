"""Multiply-adds of a network on meta tensors, as the public codes of MViT count them."""

from __future__ import annotations

from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wholereel.layers import pooling_attention
from wholereel.ops.attention import explicit_attention

__all__ = ["multiply_adds"]


def multiply_adds(model: nn.Module, *inputs: object) -> float:
    """Convolutions and products once, five for each element of a norm; adding a bias to scores is not counted."""
    surplus = 0

    def norm(shape, *args, **kwargs) -> int:
        return 2 * 5 * torch.Size(shape).numel()

    def attend(query: Tensor, key: Tensor, value: Tensor, extra, codes, opened=None, *, route, **settings) -> Tensor:
        nonlocal surplus
        if codes is not None:  # the plain form adds the bias by a product with one-hot codes
            surplus += query.shape[0] * query.shape[1] * extra.shape[2] * codes.numel()
        return explicit_attention(query, key, value, extra, codes, opened, **settings)

    counted = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.native_layer_norm: norm})
    with mock.patch.object(pooling_attention, "biased_attention", attend), counted, torch.no_grad():
        model(*inputs)
    return counted.get_total_flops() / 2 - surplus
