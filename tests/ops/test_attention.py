"""Fused attention with folded bias against the definition, forward and backward."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from wholereel.ops.attention import ATTENTION_ROUTES, biased_attention, closed_score

BATCH, HEADS, QUERIES, KEYS, DIM = 2, 3, 7, 5, 6


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arguments(extra: int, masked: bool) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
    leaves = [draw(BATCH, HEADS, n, DIM, seed=seed) for seed, n in enumerate((QUERIES, KEYS, KEYS))]
    codes_KE = None
    if extra:
        leaves.append(draw(BATCH, HEADS, QUERIES, extra, seed=4))
        codes_KE = (draw(KEYS, extra, seed=5) > 0).double()
    open_BK = torch.tensor([[False, True, True, False, True], [True] * 5]) if masked else None
    return [leaf.requires_grad_() for leaf in leaves], codes_KE, open_BK


@pytest.mark.parametrize(("extra", "masked"), [(e, m) for e in (0, 1, 4) for m in (False, True)])
def test_every_route_equals_the_explicit_one(extra: int, masked: bool) -> None:
    results = {}
    for route in ATTENTION_ROUTES:
        leaves, codes_KE, open_BK = arguments(extra, masked)
        numbers = leaves[3] if extra else None
        out = biased_attention(*leaves[:3], numbers, codes_KE, open_BK, scale=0.3, route=route)
        results[route] = [out, *torch.autograd.grad((out * draw(*out.shape, seed=9)).sum(), leaves)]
    for route in ("folded", "masked"):
        for ours, expected in zip(results[route], results["explicit"], strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


def test_the_definition() -> None:
    leaves, codes_KE, open_BK = arguments(4, True)
    query, key, value, numbers = (leaf.detach() for leaf in leaves)
    out = biased_attention(query, key, value, numbers, codes_KE, open_BK, scale=0.3, route="explicit")
    assert codes_KE is not None
    assert open_BK is not None
    for b, a, q in itertools.product(range(BATCH), range(HEADS), range(QUERIES)):
        weights = torch.zeros(KEYS, dtype=torch.float64)
        for k in range(KEYS):
            if open_BK[b, k]:
                bias = sum(float(numbers[b, a, q, e]) for e in range(4) if codes_KE[k, e])
                weights[k] = torch.exp(0.3 * query[b, a, q] @ key[b, a, k] + bias)
        expected = (weights / weights.sum()) @ value[b, a]
        torch.testing.assert_close(out[b, a, q], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_closed_score_counts_for_nothing_in_every_precision(dtype: torch.dtype) -> None:
    scores = torch.tensor([3.0, 3.0 + closed_score(dtype)], dtype=dtype)
    assert scores.isfinite().all()
    assert scores.softmax(0).tolist() == [1.0, 0.0]


def test_an_unknown_route_is_refused() -> None:
    leaves, _, _ = arguments(0, False)
    with pytest.raises(ValueError, match="route must be 'auto' or one of explicit, folded, masked, got 'quick'"):
        biased_attention(*leaves[:3], None, None, scale=1.0, route="quick")
