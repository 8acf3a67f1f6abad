"""BatchNorm of channels-last clips as one tall picture: values, gradients and statistics of `nn.BatchNorm3d`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wholereel.layers.batch_norm import BatchNorm3d


@pytest.mark.parametrize("training", [True, False])
def test_a_clip_is_a_tall_picture(training: bool) -> None:
    ours, theirs = (kind(6).double().train(training) for kind in (BatchNorm3d, nn.BatchNorm3d))
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(parameter)))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x.to(memory_format=torch.channels_last_3d)
    found = []
    for run in (ours.as_pictures, theirs):
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = run(given)
        assert y.is_contiguous(memory_format=torch.channels_last_3d)
        y.square().mul(torch.arange(5.0)[:, None]).sum().backward()
        found.append((y, given.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-12, msg=name)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-12)


def test_clips_alone_are_taken() -> None:
    with pytest.raises(ValueError, match="expected 5D input"):
        BatchNorm3d(3)(torch.zeros(2, 3, 4, 4))
