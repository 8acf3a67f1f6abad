"""The causal cache with fixed shapes against one that is written with Python lists, a video at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from wholereel.memory import CachedState, cache_step

TOKENS, DIM, STEPS = 6, 3, 14
# Steps at which each of three parallel rows begins a new video.
BEGINS = ((0, 5), (0, 1, 9), (0,))


class Compress(nn.Module):
    """Pairs of tokens into one, with weights of its own for keys and values, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.values = (nn.Linear(2 * DIM, DIM).double() for _ in range(2))
        generator = torch.Generator().manual_seed(5)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        shape = (keys.shape[0], keys.shape[1] // 2, 2 * DIM)
        return tuple(
            nn.functional.layer_norm(linear(x.reshape(shape)), (DIM,))
            for linear, x in ((self.keys, keys), (self.values, values))
        )


def entries() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return tuple(torch.randn(STEPS, 3, TOKENS, DIM, generator=generator, dtype=torch.float64) for _ in range(2))


def oracle(keys: Tensor, values: Tensor, begins: tuple[int, ...], reach: int, gap: int, compress: Compress | None):
    """The public code's order of operations for one video after the other: per step the list of attended pairs."""
    cache: list[tuple[Tensor, Tensor]] = []
    attended = []
    for step in range(len(keys)):
        if step in begins:
            cache = []
        past = len(cache)
        chosen = [past - gap * i for i in range(past // gap, 0, -1)]
        cache.append((keys[step : step + 1], values[step : step + 1]))
        if past and compress is not None:
            cache[-2] = compress(*cache[-2])
        attended.append([cache[index] for index in chosen])
        if past:
            cache[-2] = tuple(tensor.detach() for tensor in cache[-2])
        if len(cache) == reach * gap + 1:
            cache.pop(0)
    return attended


CASES = list(itertools.product((1, 2, 3), (1, 2, 3), (True, False)))


@pytest.mark.parametrize(("reach", "gap", "compressed"), CASES)
def test_fixed_shapes_equal_lists(reach: int, gap: int, compressed: bool) -> None:
    compress = Compress() if compressed else None
    keys, values = entries()
    expected = [oracle(keys[:, row], values[:, row], BEGINS[row], reach, gap, compress) for row in range(3)]
    after = TOKENS // 2 if compressed else TOKENS
    state = CachedState.init(
        3, tokens=TOKENS, compressed_tokens=after, dim=DIM, reach=reach, gap=gap, dtype=torch.float64
    )
    shapes = {name: tensor.shape for name, tensor in state.as_dict().items()}
    for step in range(STEPS):
        state = state.reset(torch.tensor([step in begins for begins in BEGINS]))
        past, state = cache_step(state, keys[step], values[step], gap=gap, compress=compress)
        assert {name: tensor.shape for name, tensor in state.as_dict().items()} == shapes
        assert past.keys_BMLD.shape == (3, reach, after, DIM)
        assert past.mask().shape == (3, reach * after)
        for row in range(3):
            valid = past.valid_BM[row]
            pairs = expected[row][step]
            assert valid.tolist() == [False] * (reach - len(pairs)) + [True] * len(pairs)
            for ours, theirs in zip(past.keys_BMLD[row][valid], (pair[0][0] for pair in pairs), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)
            for ours, theirs in zip(past.values_BMLD[row][valid], (pair[1][0] for pair in pairs), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("gap", [1, 2])
def test_the_compression_learns_only_where_it_is_attended_at_once(gap: int) -> None:
    compress = Compress()
    keys, values = entries()
    state = CachedState.init(
        3, tokens=TOKENS, compressed_tokens=TOKENS // 2, dim=DIM, reach=2, gap=gap, dtype=torch.float64
    )
    for step in range(5):
        leaf = keys[step].clone().requires_grad_()
        past, state = cache_step(state, leaf, values[step], gap=gap, compress=compress)
        assert not any(tensor.requires_grad for tensor in state.as_dict().values())
    gradients = torch.autograd.grad((past.keys_BMLD * past.keys_BMLD.detach() ** 2).sum(), compress.keys.weight)
    assert (gradients[0].abs().max() > 0) == (gap == 1)


def test_what_does_not_fit_the_state_is_refused() -> None:
    state = CachedState.init(2, tokens=4, compressed_tokens=2, dim=3, reach=1, gap=2)
    tokens = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match=r"must have the shape \(2, 4, 3\)"):
        cache_step(state, torch.zeros(2, 5, 3), tokens, gap=2)
    with pytest.raises(ValueError, match=r"a compressed entry has \(tokens, width\) \(4, 3\)"):
        cache_step(state, tokens, tokens, gap=2)
    with pytest.raises(ValueError, match="a cache of 2 entries was not made for gap=3"):
        cache_step(state, tokens, tokens, gap=3)
    with pytest.raises(ValueError, match="reach and gap must be at least 1"):
        CachedState.init(2, tokens=4, compressed_tokens=2, dim=3, reach=0)
