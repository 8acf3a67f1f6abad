"""Layers that take another way on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wholereel.layers.batch_norm import BatchNorm3d


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_norm_of_channels_last_clips(training: bool, dtype: torch.dtype) -> None:
    ours, theirs = (kind(16).cuda().train(training) for kind in (BatchNorm3d, nn.BatchNorm3d))
    x = torch.randn(2, 16, 4, 9, 7, generator=torch.Generator().manual_seed(0)).cuda().to(dtype)
    last = x.to(memory_format=torch.channels_last_3d).requires_grad_()
    x.requires_grad_()
    error = torch.rand_like(x)
    y, expected = ours(last), theirs(x)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    y.backward(error)
    expected.backward(error)
    near = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(y, expected, **near)
    torch.testing.assert_close(last.grad, x.grad, **near)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-4, atol=1e-5)
