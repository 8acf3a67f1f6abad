"""Pooling attention: the folded form against the explicit one, and the bias against its definition, key by key."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from wholereel.layers.pooling_attention import Compression, PoolingAttention
from wholereel.layers.token_pooling import Grid, pool_tokens, pooled_grid
from wholereel.ops.relative_positions import memory_time_rows, spatial_rows

SHRINK = Compression(reach=2, kernel=(7, 3, 3), stride=(4, 2, 2))


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention(grid: Grid, stride_q: int, stride_kv: int, *, time_stride: int = 1, **options) -> PoolingAttention:
    torch.manual_seed(3)
    settings = {
        "kernel_q": (3, 3, 3),
        "kernel_kv": (3, 3, 3),
        "stride_q": (1, stride_q, stride_q),
        "stride_kv": (time_stride, stride_kv, stride_kv),
        "rel_pos_spatial": True,
        "rel_pos_temporal": True,
        "residual": 1,
        **options,
    }
    module = PoolingAttention(4, 8, 2, grid=grid, **settings).double()
    for name, parameter in module.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(parameter)
    return module


# The kinds of blocks of MeMViT-16 (side of the grid, query and key strides), smaller by a factor of four where large.
SHAPES = [(14, 1, 8), (14, 2, 4), (7, 1, 4), (8, 2, 2), (8, 1, 2), (14, 2, 1), (7, 1, 1)]
RUNS = [(shape, (0, 0)) for shape in SHAPES] + [((8, 2, 2), (0, 5)), ((8, 1, 2), (0, 3)), ((8, 1, 2), (4, 0))]


@pytest.mark.parametrize(("shape", "longer"), RUNS)
@pytest.mark.parametrize("causal", [False, True])
def test_folded_equals_explicit_with_memory(shape: tuple[int, int, int], longer: tuple[int, int], causal: bool) -> None:
    side, stride_q, stride_kv = shape
    module = attention(
        (4, side, side),
        stride_q,
        stride_kv,
        pool_first=True,
        axes_rule="square",
        causal=causal,
        compression=SHRINK,
    )
    grid = (4, side + longer[0], side + longer[1])
    x_BLD = draw(2, 1 + grid[0] * grid[1] * grid[2], 4, seed=1)
    valid_BM = torch.tensor([[False, True], [True, True]])
    results = []
    for route in ("explicit", "folded"):
        module.route = route
        leaf = x_BLD.clone().requires_grad_()
        pooled = module.pool(leaf, grid)
        past = [
            torch.stack(module.compress(pooled.key_BLD * a, pooled.value_BLD * a, pooled.key_grid)) for a in (0.5, 2)
        ]
        keys, values = torch.stack(past, 2)
        out = module.attend(pooled, keys, values, valid_BM)
        wanted = {name: p for name, p in module.named_parameters() if p.requires_grad}
        grads = torch.autograd.grad((out * draw(*out.shape, seed=2)).sum(), [leaf, *wanted.values()])
        results.append([out, *grads])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10 * max(1.0, float(expected.detach().abs().max())))


@pytest.mark.parametrize(("class_token", "time_stride"), [(True, 1), (False, 1), (True, 2)])
def test_the_bias_is_what_the_positions_say(class_token: bool, time_stride: int) -> None:
    options = {"time_stride": time_stride, "axes_rule": "square", "residual": 0, "compression": SHRINK}
    module = attention((4, 4, 4), 1, 2, pool_first=True, class_token=class_token, **options)
    grid: Grid = (4, 4, 4)
    x_BLD = draw(1, 64 + int(class_token), 4, seed=1)
    pooled = module.pool(x_BLD, grid)
    memory, steps = module.compressed_grid(pooled.key_grid), 2
    query = draw(1, 2, x_BLD.shape[1], 4, seed=6)
    numbers = module._bias_numbers(query, pooled, memory, steps)
    codes = module._codes(pooled.key_grid, memory, steps, query.device)
    assert numbers is not None
    assert codes is not None
    bias_AQK = (numbers @ codes.double().T)[0]
    rows = {
        0: (*spatial_rows(module.rel_pos_mem_h, module.rel_pos_mem_w, (4, 4), memory[1:]),),
        1: (*spatial_rows(module.rel_pos_h, module.rel_pos_w, (4, 4), pooled.key_grid[1:]),),
    }
    index = (
        torch.arange(4)[:, None] - torch.arange(4 // time_stride) + 4 // time_stride - 1
    )  # as the public code has it
    times = {0: memory_time_rows(module.rel_pos_mem_t, 4, steps * memory[0], 4), 1: module.rel_pos_t[index]}
    keys: list[tuple[int, int, int, int] | None] = []
    for step in range(steps):
        keys += [None] * class_token
        places = itertools.product(*map(range, memory))
        keys += [(0, step * memory[0] + t, h, w) for t, h, w in places]
    keys += [None] * class_token
    keys += [(1, *place) for place in itertools.product(*map(range, pooled.key_grid))]
    assert bias_AQK.shape == (2, x_BLD.shape[1], len(keys))
    for (q, (t, h, w)), (k, key) in itertools.product(
        enumerate(itertools.product(range(4), range(4), range(4)), int(class_token)), enumerate(keys)
    ):
        if (q + k) % 7:  # a part of them is enough
            continue
        expected = torch.zeros(2, dtype=torch.float64)
        if key is not None:
            kind, kt, kh, kw = key
            expected = query[0, :, q] @ (rows[kind][0][h, kh] + rows[kind][1][w, kw] + times[kind][t, kt])
        torch.testing.assert_close(bias_AQK[:, q, k], expected, rtol=0, atol=1e-12)
    if class_token:
        assert not bias_AQK[:, 0].any()


def test_a_causal_frame_is_not_changed_by_later_ones() -> None:
    module = attention((4, 4, 4), 2, 2, pool_first=True, causal=True, compression=SHRINK).eval()
    x_BLD = draw(1, 65, 4, seed=1)
    changed = x_BLD.clone()
    changed[:, 1 + 2 * 16 :] += 1
    first, grid = module(x_BLD, (4, 4, 4))
    second, _ = module(changed, (4, 4, 4))
    assert grid == (4, 2, 2)
    assert torch.equal(first[:, 1 : 1 + 2 * 4], second[:, 1 : 1 + 2 * 4])
    assert not torch.allclose(first[:, 1 + 2 * 4 :], second[:, 1 + 2 * 4 :])


@pytest.mark.parametrize("mode", ["conv", "conv_unshared", "max", "avg"])
def test_modes_pool_as_their_modules_do(mode: str) -> None:
    module = attention((4, 4, 4), 2, 2, pool_first=True, mode=mode)
    x_BLD = draw(2, 65, 4, seed=1)
    pooled = module.pool(x_BLD, (4, 4, 4))
    assert (pooled.query_grid, pooled.key_grid) == ((4, 2, 2), (4, 2, 2))
    heads = 1 if mode == "conv_unshared" else 2
    maps = x_BLD[:, 1:].reshape(2, 64, heads, 4 // heads).permute(0, 2, 3, 1).reshape(2 * heads, 4 // heads, 4, 4, 4)
    expected = module.pool_q(maps).reshape(2, heads, 4 // heads, 16).permute(0, 3, 1, 2)
    expected = torch.cat([x_BLD[:, :1].reshape(2, 1, heads, -1), expected], 1)
    if mode.startswith("conv"):
        expected = module.norm_q(expected)
    torch.testing.assert_close(pooled.query_BLD, expected.flatten(2), rtol=0, atol=1e-12)
    assert module(x_BLD, (4, 4, 4))[0].shape == (2, 17, 8)


def test_a_residual_convolution_of_the_queries() -> None:
    module = attention((2, 4, 4), 1, 2, residual=2)
    plain = attention((2, 4, 4), 1, 2, residual=0)
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if "conv_q_func" not in k})
    x_BLD = draw(1, 33, 4, seed=1)
    assert module.conv_q_func is not None
    pooled = module.pool(x_BLD, (2, 4, 4))
    maps = pooled.query_BLD[0, 1:].reshape(2, 4, 4, 2, 4).permute(3, 4, 0, 1, 2)
    added = module.conv_q_func(maps).flatten(2).permute(2, 0, 1).flatten(1)
    difference = module.attend(pooled) - plain.attend(pooled)
    expected = torch.cat([torch.zeros(1, 8, dtype=torch.float64), added]) @ module.proj.weight.T
    torch.testing.assert_close(difference[0], expected, rtol=0, atol=1e-12)


def test_no_kernel_no_pooling_and_grids() -> None:
    x_BLD = draw(1, 9, 4, seed=1)
    same, grid = pool_tokens(x_BLD, (2, 2, 2), None, class_token=True)
    assert same is x_BLD
    assert grid == (2, 2, 2)
    assert pooled_grid((8, 7, 7), (7, 3, 3), (4, 2, 2)) == (2, 4, 4)
    assert pooled_grid((8, 7, 7), (3, 3, 3), (1, 2, 2), causal=True) == (8, 4, 4)


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="mode must be one of"):
        attention((2, 4, 4), 1, 1, mode="sum")
    with pytest.raises(ValueError, match="need pool_first=True"):
        attention((2, 4, 4), 1, 1, compression=SHRINK)
    with pytest.raises(ValueError, match="causal attention cannot pool frames"):
        attention((2, 4, 4), 1, 1, pool_first=True, causal=True, mode="max")
    with pytest.raises(ValueError, match="need a square training grid"):
        attention((2, 4, 5), 1, 1)
