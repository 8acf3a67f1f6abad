"""Online policies: stretches seen apart merge to what one reader has; rows join and split; states by name."""

from __future__ import annotations

import pytest
import torch

from wholereel.memory.online import Everything, Fading, OnlineMemory, Window
from wholereel.memory.rows import join_rows, split_rows
from wholereel.memory.state import CollaborativeState, MaxState, TokenState, VideoState


def pushes(kind, count, rows=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        if kind == "max":
            found.append(MaxState(torch.randn(rows, 4, generator=random).double(), torch.ones(rows, dtype=torch.int64)))
        else:
            sum_BPV = torch.randn(rows, 3, 4, generator=random).double()
            found.append(CollaborativeState(sum_BPV, torch.ones(rows, dtype=torch.int64)))
    return found


def seen(policy, parts):
    state = policy.begin(parts[0])
    for push in parts:
        state = policy.add(state, push)
    return state


CASES = [
    (Everything(), "sum"),
    (Everything(), "max"),
    (Window(1), "sum"),
    (Window(3), "sum"),
    (Window(3), "max"),
    (Window(20), "sum"),
    (Fading(0.7), "sum"),
]


@pytest.mark.parametrize(("policy", "kind"), CASES, ids=str)
@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 7), (7, 1), (2, 3), (5, 6), (3, 3)])
def test_two_stretches_merge_to_the_whole(policy, kind, first, second):
    parts = pushes(kind, first + second)
    whole = seen(policy, parts)
    merged = policy.merge(seen(policy, parts[:first]), seen(policy, parts[first:]))
    for name, tensor in whole.as_dict().items():
        torch.testing.assert_close(merged.as_dict()[name], tensor, rtol=1e-12, atol=1e-12)
    # and it goes on as the whole would
    more = pushes(kind, 2, seed=1)
    for push in more:
        whole, merged = policy.add(whole, push), policy.add(merged, push)
    read, expected = policy.read(merged), policy.read(whole)
    for name, tensor in expected.as_dict().items():
        torch.testing.assert_close(read.as_dict()[name], tensor, rtol=1e-12, atol=1e-12)


def test_an_empty_stretch_changes_nothing():
    for policy, kind in CASES:
        parts = pushes(kind, 4)
        whole, empty = seen(policy, parts), policy.begin(parts[0])
        for merged in (policy.merge(whole, empty), policy.merge(empty, whole)):
            for name, tensor in policy.read(whole).as_dict().items():
                assert torch.equal(policy.read(merged).as_dict()[name], tensor), (policy, name)


def test_rows_are_joined_and_split_again():
    policy = Window(3)
    rows = [seen(policy, pushes("sum", count, rows=1, seed=count)) for count in (1, 4, 9)]
    memories = [OnlineMemory((state,), state.clips_B) for state in rows]
    joined = join_rows(memories)
    assert joined.clips_B.tolist() == [1, 4, 9]
    for one, again in zip(memories, split_rows(joined, 3), strict=True):
        for name, tensor in one.as_dict().items():
            assert torch.equal(again.as_dict()[name], tensor)
            assert again.as_dict()[name].untyped_storage().nbytes() == tensor.nbytes  # nothing of its neighbours
    push = pushes("sum", 1, rows=3)[0]
    together = policy.add(joined.places[0], push)
    for row, alone in enumerate(rows):
        own = CollaborativeState(push.sum_BPV[row : row + 1], push.clips_B[row : row + 1])
        assert torch.equal(together.pushes_BWPV[row : row + 1], policy.add(alone, own).pushes_BWPV)
    assert join_rows([VideoState(), VideoState()]) == VideoState()


def test_what_is_not_a_row_of_the_same_kind():
    small, large = (TokenState.init(1, clips, 2, 3, 4) for clips in (1, 2))
    with pytest.raises(ValueError, match="states of different sizes cannot be joined"):
        join_rows([small, large])
    with pytest.raises(ValueError, match="states of different kinds cannot be joined: "):
        join_rows([small, CollaborativeState.init(1, 3, 4)])
    with pytest.raises(ValueError, match="there is no state to join"):
        join_rows([])


def test_a_memory_is_filled_by_name():
    policy = Fading(0.5)
    state = seen(policy, pushes("sum", 3, rows=1))
    memory = OnlineMemory((state,), state.clips_B)
    empty = OnlineMemory((policy.begin(pushes("sum", 1, rows=1)[0]),), torch.zeros(1, dtype=torch.int64))
    again = empty.filled_from(memory.as_dict())
    assert torch.equal(again.places[0].sum_BPV, state.sum_BPV)
    assert int(again.clips_B) == 3
    assert int(memory.reset(torch.tensor([True])).places[0].clips_B) == 0
    with pytest.raises(ValueError, match="expected tensors"):
        empty.filled_from({"clips_B": torch.zeros(1)})
