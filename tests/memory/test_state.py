"""States are plain trees of tensors: they merge, survive checkpoints and pass through pytree."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

from wholereel.memory import CachedState, CollaborativeState, MaxState, TokenState, VideoState

STATES = {
    "collaborative": CollaborativeState(
        torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 1])
    ),
    "max": MaxState(torch.tensor([[1.0, 2.0], [-torch.inf, -torch.inf]]), torch.tensor([1, 0])),
    "token": TokenState(torch.ones(2, 3, 4, 5), torch.ones(2, 3, 4, 6), torch.tensor([3, 3])),
    "cached": CachedState.init(2, tokens=4, compressed_tokens=2, dim=3, reach=2),
}
STATES["video"] = VideoState((STATES["collaborative"], STATES["max"], STATES["token"]))


@pytest.mark.parametrize("name", STATES)
def test_states_survive_dictionaries_trees_and_devices(name: str) -> None:
    state = STATES[name]
    tensors = state.as_dict()
    leaves, tree = pytree.tree_flatten(state)
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    assert len(leaves) == len(tensors)
    for copy in (type(state).from_dict(tensors), pytree.tree_unflatten(leaves, tree), state.to("cpu"), state.detach()):
        assert type(copy) is type(state)
        assert all(torch.equal(copy.as_dict()[key], value) for key, value in tensors.items())
    assert all(tensor.is_meta for tensor in state.to("meta").as_dict().values())


@pytest.mark.parametrize("name", STATES)
def test_reset_clears_rows_even_of_values_that_overflowed(name: str) -> None:
    state = STATES[name]
    broken = type(state).from_dict(
        {key: value if key.endswith("_B") else value / 0 for key, value in state.as_dict().items()}
    )
    cleared = broken.reset(torch.tensor([True, True])).as_dict()
    assert all((value == (-torch.inf if "max_BV" in key else 0)).all() for key, value in cleared.items())
    kept = state.reset(torch.tensor([False, False])).as_dict()
    assert all(torch.equal(kept[key], value) for key, value in state.as_dict().items())


def test_merge_is_a_commutative_monoid() -> None:
    a = STATES["collaborative"]
    empty = CollaborativeState.init(2, 3, 4)
    assert torch.equal(a.merge(empty).sum_BPV, a.sum_BPV)
    assert torch.equal(a.merge(a).clips_B, torch.tensor([4, 2]))
    assert torch.equal(empty.mean(), torch.zeros(2, 3, 4))
    assert torch.equal(MaxState.init(2, 2).merge(STATES["max"]).max_BV, STATES["max"].max_BV)
    assert torch.equal(STATES["max"].read()[1], torch.zeros(2))


def test_token_buffers_keep_clips_in_front_and_their_size() -> None:
    tokens = torch.arange(1.0, 5.0)[None, :, None, None].expand(2, 4, 1, 1)
    valid = torch.tensor([[False, True, False, True], [True, False, False, False]])
    packed = TokenState.packed(tokens, tokens, valid)
    assert packed.keys_BMSP[..., 0, 0].tolist() == [[2, 4, 0, 0], [1, 0, 0, 0]]
    merged = packed.merge(packed)
    assert merged.keys_BMSP[..., 0, 0].tolist() == [[2, 4, 2, 4], [1, 1, 0, 0]]
    assert merged.clips_B.tolist() == [4, 2]


def test_states_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="states of different shapes cannot be merged"):
        STATES["collaborative"].merge(CollaborativeState.init(2, 3, 5))
    with pytest.raises(ValueError, match="states of different models cannot be merged"):
        STATES["video"].merge(VideoState())
    with pytest.raises(ValueError, match=r"CollaborativeState is made of \['clips_B', 'sum_BPV'\]"):
        CollaborativeState.from_dict({"sum_BPV": torch.zeros(1)})
    with pytest.raises(ValueError, match="is not the name of a tensor in a VideoState"):
        VideoState.from_dict({"clips_B": torch.zeros(1)})
    with pytest.raises(ValueError, match="no memory state is made of"):
        VideoState.from_dict({"0.other": torch.zeros(1)})
