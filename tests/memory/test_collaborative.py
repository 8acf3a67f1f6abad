"""The block against the identities of its formulas, in float64: what must hold before any golden file is looked at."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from wholereel.layers.non_local import Affinity, NonLocal
from wholereel.memory import CollaborativeMemory, CollaborativeState, MaxState, TokenState
from wholereel.memory.functions import outer_each, pop_positions, position_factor, prefix_means, project

DIM, MEM, B, N, THW = 16, 6, 2, 5, (2, 3, 2)
S = 12
CLOSE = {"rtol": 0.0, "atol": 1e-12}
INTERACTIONS = ("assoc", "avg", "max", "nl_dot", "nl_softmax")
EVERY = [
    pytest.param(
        {"interaction": interaction, "infusion": infusion, "value": value}, id=f"{interaction}-{infusion}-{value}"
    )
    for interaction, infusion, value in itertools.product(INTERACTIONS, ("gate", "residual"), ("tied", "separate"))
    if interaction == "assoc" or value == "tied"
]
MASK = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 1, 0, 0]], dtype=torch.bool)


def make(seed: int = 0, **settings: Any) -> CollaborativeMemory:
    """A float64 block in which W_o is not zero."""
    generator = torch.Generator().manual_seed(seed)
    block = CollaborativeMemory(DIM, MEM, **settings).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return block


def features(seed: int = 1, clips: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, clips, DIM, *THW, generator=generator, dtype=torch.float64)


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("settings", EVERY)
def test_pooled_pop_is_the_mean_of_the_pop(settings: dict[str, Any]) -> None:
    block, x = make(**settings), features()
    state = block.push(x)
    close(block.pop_pooled(state, x), block.pop(state, x).mean(2))


@pytest.mark.parametrize("settings", EVERY)
def test_late_infusion_is_the_mean_of_the_infused_features(settings: dict[str, Any]) -> None:
    block, x = make(**settings), features()
    close(block(x, pooled=True)[0], block(x)[0].flatten(3).mean(3))


def test_associative_memory_is_linear_attention_over_all_positions_of_all_clips() -> None:
    block, x = make(value="separate", position_norm="sum"), features()
    keys, queries, values = (project(x.flatten(3), w.weight) for w in (block.w_k, block.w_q, block.w_v))
    affinity = torch.einsum("bnps,bmpr->bnsmr", queries, keys)
    close(block.pop(block.push(x), x), torch.einsum("bnsmr,bmvr->bnsv", affinity, values) / N)


def test_mean_over_positions_is_dot_product_attention() -> None:
    assoc, attention = make(value="separate", position_norm="mean"), make(interaction="nl_dot")
    attention.load_state_dict(assoc.state_dict())
    x = features()
    close(assoc.pop(assoc.push(x), x), attention.pop(attention.push(x), x))


def test_softmax_attention_is_the_textbook_formula() -> None:
    block, x = make(interaction="nl_softmax"), features()
    keys, queries, values = (project(x.flatten(3), w.weight) for w in (block.w_k, block.w_q, block.w_v))
    scores = torch.einsum("bnps,bmpr->bnsmr", queries, keys) / MEM**0.5
    weights = scores.flatten(3).softmax(-1).unflatten(3, (N, S))
    close(block.pop(block.push(x), x), torch.einsum("bnsmr,bmvr->bnsv", weights, values))


@pytest.mark.parametrize("affinity", ["softmax", "dot_product"])
@pytest.mark.parametrize("training", [True, False])
def test_non_local_over_clips_is_the_non_local_block_on_all_clips_laid_end_to_end(
    affinity: Affinity, training: bool
) -> None:
    """`layers.NonLocal` on one long clip, with biases of zero and no pooling: the block of arXiv 1711.07971."""
    dim = 8
    interaction = {"softmax": "nl_softmax", "dot_product": "nl_dot"}[affinity]
    block = CollaborativeMemory(dim, dim // 2, interaction=interaction, infusion="residual", norm="batch").double()
    reference = NonLocal(dim, affinity, pool=(1, 1, 1)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for ours, theirs in {"w_q": "theta", "w_k": "phi", "w_v": "g", "w_o": "out"}.items():
            weight = torch.randn(getattr(block, ours).weight.shape, generator=generator, dtype=torch.float64)
            getattr(block, ours).weight.copy_(weight)
            getattr(reference, theirs).weight.copy_(weight[..., None, None, None])
            getattr(reference, theirs).bias.zero_()
        for norm in (block.norm, reference.norm):
            norm.weight.copy_(torch.linspace(0.5, 2, dim))
            norm.running_mean.copy_(torch.linspace(-1, 1, dim))
    x_BNCTHW = torch.randn(1, 3, dim, 2, 2, 2, generator=generator, dtype=torch.float64)
    long_BCTHW = x_BNCTHW.transpose(1, 2).flatten(2, 3)
    expected = reference.train(training)(long_BCTHW).unflatten(2, (3, 2)).transpose(1, 2)
    ours, state = block.train(training)(x_BNCTHW)
    close(ours, expected)
    close(block.norm.running_mean, reference.norm.running_mean)
    close(block(x_BNCTHW, pooled=True)[0], expected.flatten(3).mean(3))
    with pytest.raises(ValueError, match="cannot be infused from means"):
        block.infuse_pooled(block.pop_pooled(state, x_BNCTHW), x_BNCTHW.flatten(3).mean(3))


@pytest.mark.parametrize("pooled", [False, True])
def test_invalid_clips_have_no_part_in_batch_statistics(pooled: bool) -> None:
    """A video of fewer clips is judged, and its statistics made, as if the clips that fill it up were not there."""
    block = make(interaction="nl_softmax", infusion="residual", norm="batch").train()
    alone = copy.deepcopy(block)
    x_BNCTHW, valid_BN = features(), torch.ones(2, N, dtype=torch.bool)
    valid_BN[:, 3:] = False
    x_BNCTHW[:, 3:] *= 1000
    ours, _ = block(x_BNCTHW, valid_BN, pooled=pooled)
    expected, _ = alone(x_BNCTHW[:, :3], pooled=pooled)
    close(ours[:, :3], expected)
    close(block.norm.running_var, alone.norm.running_var)
    popped_BNSV = torch.ones(B, 1, S, block.value_dim, dtype=torch.float64)
    close(block.infuse(popped_BNSV, x_BNCTHW[:, :1], valid_BN[:, 3:4]), x_BNCTHW[:, :1])  # nothing to make them of


def test_a_fresh_non_local_block_changes_nothing() -> None:
    block = CollaborativeMemory(DIM, interaction="nl_softmax", infusion="residual", norm="batch").double()
    assert block.w_o.weight.abs().min() > 0
    x = features()
    close(block(x)[0], x)
    (block(x)[0] ** 3).sum().backward()
    assert block.norm.weight.grad.abs().min() > 0


@pytest.mark.parametrize("settings", EVERY)
def test_order_of_clips_does_not_matter(settings: dict[str, Any]) -> None:
    block, x = make(**settings), features()
    order = torch.tensor([3, 0, 4, 1, 2])
    close(block(x[:, order])[0], block(x)[0][:, order])


@pytest.mark.parametrize("settings", EVERY)
def test_repeating_all_clips_changes_nothing(settings: dict[str, Any]) -> None:
    block, x = make(**settings), features()
    close(block(x.repeat(1, 2, 1, 1, 1, 1))[0][:, :N], block(x)[0])


@pytest.mark.parametrize("settings", EVERY)
def test_merged_parts_are_the_whole(settings: dict[str, Any]) -> None:
    block, x = make(**settings), features()
    whole_hat, whole = block(x)
    first = block.init_state(B, clips=N, positions=S).merge(block.push(x[:, :2]))
    second = block.init_state(B, clips=N, positions=S).merge(block.push(x[:, 2:]))
    for merged in (first.merge(second), second.merge(first)):
        close(block.infuse(block.popped_for_infusion(merged, x), x), whole_hat)
        assert torch.equal(merged.clips_B, whole.clips_B)


@pytest.mark.parametrize("settings", EVERY)
def test_masked_clips_are_as_good_as_absent(settings: dict[str, Any]) -> None:
    block, x = make(**settings), features().requires_grad_()
    x_hat, state = block(x, MASK)
    assert state.clips_B.tolist() == [3, 1]
    for row, valid in enumerate(MASK):
        alone = block(x[row : row + 1, valid])[0]
        close(x_hat[row : row + 1, valid], alone)
    x_hat.masked_fill(~MASK[..., None, None, None, None], 0.0).sum().backward()
    assert x.grad is not None
    assert x.grad[~MASK].abs().max() == 0
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in block.parameters())


@pytest.mark.parametrize("settings", EVERY)
def test_a_video_without_a_clip_is_an_error(settings: dict[str, Any]) -> None:
    valid = MASK.clone()
    valid[1] = False
    with pytest.raises(ValueError, match="a video without any valid clip"):
        make(**settings)(features(), valid)


@pytest.mark.parametrize("settings", EVERY)
def test_reset_rows_begin_anew(settings: dict[str, Any]) -> None:
    block, x = make(**settings), features()
    empty = block.init_state(B, clips=N, positions=S)
    state = empty.merge(block.push(x[:, :3])).reset(torch.tensor([True, False]))
    assert state.clips_B.tolist() == [0, 3]
    x_hat, _ = block(x[:, 3:], None, state)
    close(x_hat[:1], block(x[:1, 3:])[0])
    close(x_hat[1:], block(x[1:])[0][:, 3:])


@pytest.mark.parametrize("settings", EVERY)
def test_one_clip_is_legal_and_not_the_identity(settings: dict[str, Any]) -> None:
    x = features(clips=1)
    assert not torch.allclose(make(**settings)(x)[0], x)


@pytest.mark.parametrize("settings", EVERY)
def test_gradcheck(settings: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(3)
    block = CollaborativeMemory(4, 2, **settings).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(2, 2, 4, 1, 1, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[True, True], [False, True]])
    names = [name for name, _ in block.named_parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(block, named, (x, valid))[0][valid]

    assert torch.autograd.gradcheck(run, (x, *block.parameters()))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("position_norm", ["sum", "mean", "ref"])
@pytest.mark.parametrize("value", ["tied", "separate"])
def test_backward_in_closed_form(value: str, position_norm: str, masked: bool) -> None:
    block, x = make(value=value, position_norm=position_norm, ref_positions=7), features().requires_grad_()
    valid = MASK if masked else torch.ones_like(MASK)
    upstream = features(seed=2) * valid[..., None, None, None, None]
    x_hat, state = block(x, valid)
    (x_hat * upstream).sum().backward()
    with torch.no_grad():
        expected = closed_form(block, x, upstream, valid, state.mean())
    for name, gradient in expected.items():
        ours = x.grad if name == "x" else block.get_parameter(name).grad
        close(ours / gradient.abs().max(), gradient / gradient.abs().max())


def closed_form(
    block: CollaborativeMemory, x: Tensor, upstream: Tensor, valid: Tensor, memory: Tensor
) -> dict[str, Tensor]:
    """The gradient written out: clips influence each other only through D = dL/dM."""
    w_k, w_q, w_o = block.w_k.weight.T, block.w_q.weight.T, block.w_o.weight.T
    w_v = w_q if block.tied else block.w_v.weight.T
    tokens, upstream_tokens = x.flatten(3).transpose(2, 3), upstream.flatten(3).transpose(2, 3)
    keys, queries, values = tokens @ w_k, tokens @ w_q, tokens @ w_v
    factor = position_factor(block.position_norm, S, block.ref_positions)
    share = (valid.double() * factor / valid.sum(1, keepdim=True))[..., None, None]
    query = queries.mean(2)
    popped = query @ memory
    gates = torch.sigmoid(popped @ w_o)
    e = (upstream_tokens * tokens).sum(2) * gates * (1 - gates)
    r = e @ w_o.T
    d_memory = torch.einsum("bnp,bnv->bpv", query, r)[:, None]
    d_keys = share * values @ d_memory.transpose(2, 3)
    d_values = share * keys @ d_memory
    d_queries = ((r @ memory.transpose(1, 2)) / S)[:, :, None].expand_as(queries)
    d_queries = d_queries + d_values if block.tied else d_queries
    d_tokens = upstream_tokens * (1 + gates)[:, :, None] + d_keys @ w_k.T + d_queries @ w_q.T
    d_tokens = d_tokens if block.tied else d_tokens + d_values @ w_v.T
    gradients = {
        "x": d_tokens.transpose(2, 3).reshape(x.shape),
        "w_o.weight": torch.einsum("bnv,bnd->dv", popped, e),
        "w_k.weight": torch.einsum("bnsd,bnsp->pd", tokens, d_keys),
        "w_q.weight": torch.einsum("bnsd,bnsp->pd", tokens, d_queries),
    }
    return gradients if block.tied else gradients | {"w_v.weight": torch.einsum("bnsd,bnsv->vd", tokens, d_values)}


@pytest.mark.parametrize("settings", EVERY)
def test_streamed_clips_see_the_past_and_the_last_one_sees_all(settings: dict[str, Any]) -> None:
    block, x = make(**settings), features()
    state = block.init_state(B, clips=N, positions=S)
    for n in range(N):
        x_hat, state = block(x[:, n : n + 1], None, state)
        close(x_hat, block(x[:, : n + 1])[0][:, n:])


def test_prefix_means_are_the_streamed_memories() -> None:
    block, x = make(), features()
    keys, queries = (project(x.flatten(3), w.weight) for w in (block.w_k, block.w_q))
    means = prefix_means(outer_each(keys, queries) / S, MASK)
    state = block.init_state(B)
    for n in range(N):
        state = state.merge(block.push(x[:, n : n + 1], MASK[:, n : n + 1]))
        close(means[:, n], state.mean())
    assert means[1, :2].abs().max() == 0
    close(pop_positions(means, queries)[:, -1], block.pop(block.push(x, MASK), x)[:, -1])


def test_clip_positions_follow_the_valid_clips_and_count_on_from_the_state() -> None:
    block, x = make(clip_pos=N), features()
    assert not torch.allclose(block(x[:, [1, 0, 2, 3, 4]])[1].mean(), block(x)[1].mean())
    state = block(x[:, :2])[1]
    close(block(x[:, 2:], None, state)[1].mean(), block(x)[1].mean())
    close(block(x, MASK)[1].mean()[:1], block(x[:1, MASK[0]])[1].mean())
    order = torch.tensor([[3, 1, 0, 2, 4]]).expand(B, -1)
    close(block(x[:, order[0]], order_BN=order)[1].mean(), block(x)[1].mean())


def test_arithmetic_is_float32_under_autocast_and_for_half_weights() -> None:
    block, x = CollaborativeMemory(DIM, MEM), features().float()
    torch.nn.init.normal_(block.w_o.weight, generator=torch.Generator().manual_seed(1))
    expected, expected_state = block(x.bfloat16().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x_hat, state = block(x.bfloat16())
    assert x_hat.dtype == torch.bfloat16
    assert state.sum_BPV.dtype == torch.float32
    torch.testing.assert_close(state.sum_BPV, expected_state.sum_BPV)
    torch.testing.assert_close(x_hat.float(), expected, rtol=2e-2, atol=2e-2)
    assert block.bfloat16()(x.bfloat16())[1].sum_BPV.dtype == torch.float32


def test_a_fresh_block_scales_by_one_and_a_half_or_not_at_all() -> None:
    x = features()
    close(CollaborativeMemory(DIM).double()(x)[0], 1.5 * x)
    close(CollaborativeMemory(DIM, infusion="residual").double()(x)[0], x)
    std = CollaborativeMemory(1024, 256).w_k.weight.detach().std().item()
    assert std == pytest.approx(1024**-0.5, rel=0.02)


def test_state_dict_keys_and_shapes() -> None:
    block = CollaborativeMemory(8, 2, 3, value="separate")
    shapes = {key: tuple(value.shape) for key, value in block.state_dict().items()}
    assert shapes == {"w_k.weight": (2, 8), "w_q.weight": (2, 8), "w_v.weight": (3, 8), "w_o.weight": (8, 3)}
    assert set(CollaborativeMemory(8, interaction="avg").state_dict()) == {"w_i.weight", "w_o.weight"}
    kinds = {interaction: make(interaction=interaction).push(features()) for interaction in INTERACTIONS}
    types = [CollaborativeState, CollaborativeState, MaxState, TokenState, TokenState]
    assert [type(state) for state in kinds.values()] == types


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interaction": "lstm"}, "interaction must be one of assoc, avg, max, nl_dot, nl_softmax"),
        ({"infusion": "add"}, "infusion must be one of gate, residual"),
        ({"value": "own"}, "value must be one of tied, separate"),
        ({"position_norm": "ref"}, "'ref' \\(with ref_positions\\)"),
        ({"value_dim": 3}, "value_dim == mem_dim, got 3 and 4"),
        ({"interaction": "max", "clip_pos": 4}, "'max' has none"),
        ({"norm": "layer"}, "norm must be one of none, batch"),
        ({"norm": "batch", "infusion": "residual"}, "norm='batch' is for nl_dot and nl_softmax with 'residual'"),
        ({"norm": "batch", "interaction": "nl_dot"}, "not nl_dot, gate"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollaborativeMemory(16, **settings)


def test_wrong_features_and_a_full_token_buffer_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected features \(B, N, 16, T, H, W\), got \(2, 16, 3\)"):
        make()(torch.zeros(2, 16, 3))
    block, x = make(interaction="nl_dot"), features()
    with pytest.raises(ValueError, match="more clips than the token buffer has room for"):
        block(x, None, block.init_state(B, clips=N - 1, positions=S))
    with pytest.raises(ValueError, match="init_state needs the largest number of clips"):
        block.init_state(B)
    with pytest.raises(ValueError, match=r"clips of \(positions, width\)"):
        block(x, None, block.init_state(B, clips=N, positions=S + 1))
    softmax = make(interaction="nl_softmax")
    with pytest.raises(ValueError, match="cannot be read with a pooled query"):
        softmax.read(softmax.push(x), softmax.query(x))
