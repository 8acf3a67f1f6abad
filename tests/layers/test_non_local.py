"""Both affinities equal their quadratic forms, with gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wholereel.layers.non_local import NonLocal, attend


def naive(query: Tensor, key: Tensor, value: Tensor, affinity: str) -> Tensor:
    weights = query @ key.transpose(1, 2)
    weights = (weights / query.shape[2] ** 0.5).softmax(2) if affinity == "softmax" else weights / key.shape[1]
    return weights @ value


@pytest.mark.parametrize("affinity", ["softmax", "dot_product"])
def test_attend_is_the_quadratic_form(affinity: str) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(2, n, 6, dtype=torch.float64, generator=generator) for n in (11, 5, 5)]
    results = []
    for form in (attend, naive):
        inputs = [tensor.clone().requires_grad_() for tensor in drawn]
        y = form(*inputs, affinity)
        y.square().sum().backward()
        results.append([y, *(tensor.grad for tensor in inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(3, 5, 4), (1, 1, 1), (2, 1, 3)])
def test_block_begins_as_identity_and_pools_odd_and_tiny_maps(size: tuple[int, int, int]) -> None:
    block = NonLocal(8).eval()
    x = torch.randn(2, 8, *size, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(block.norm.weight)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.norm.weight)
    assert block(x).shape == x.shape
    assert not torch.equal(block(x), x)


def test_an_unknown_affinity_is_refused() -> None:
    with pytest.raises(ValueError, match="'softmax' or 'dot_product'"):
        NonLocal(8, "gaussian")
