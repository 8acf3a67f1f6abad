import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wholereel.datasets.batch_samplers import (
    EpochBatches,
    StreamPlace,
    batch_indices,
    clips_of_step,
    seeded_generator,
    steps_per_epoch,
    stream_rows,
)


def test_a_generator_depends_on_every_number_and_its_place():
    draws = {
        torch.rand((), generator=seeded_generator(*key)).item() for key in [(0, 1, 2), (0, 2, 1), (1, 1, 1), (0, 3)]
    }
    assert len(draws) == 4
    assert torch.equal(torch.rand(3, generator=seeded_generator(1, 2)), torch.rand(3, generator=seeded_generator(1, 2)))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("length", [12, 37])
def test_an_epoch_visits_each_sample_once_over_all_ranks(length, world_size):
    steps = steps_per_epoch(length, 4, world_size, drop_last=False)
    seen = [
        index
        for step in range(steps)
        for rank in range(world_size)
        for index in batch_indices(length, batch=4, seed=1, epoch=2, step=step, rank=rank, world_size=world_size)
    ]
    assert sorted(seen) == list(range(length))
    complete = steps_per_epoch(length, 4, world_size, drop_last=True)
    assert complete == length // (4 * world_size)
    assert all(
        len(batch_indices(length, batch=4, seed=1, epoch=2, step=step, rank=rank, world_size=world_size)) == 4
        for step in range(complete)
        for rank in range(world_size)
    )


def test_a_step_holds_the_same_samples_however_many_ranks_share_it():
    for step in range(3):
        alone = batch_indices(50, batch=12, seed=3, epoch=0, step=step)
        shared = set()
        for rank in range(3):
            shared.update(batch_indices(50, batch=4, seed=3, epoch=0, step=step, rank=rank, world_size=3))
        assert set(alone) == shared


def test_order_differs_between_epochs_and_seeds_and_not_without_shuffling():
    def order(seed, epoch, shuffle=True):
        return batch_indices(100, batch=100, seed=seed, epoch=epoch, step=0, shuffle=shuffle)

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert order(5, 7, shuffle=False) == list(range(100))


@pytest.mark.parametrize("drop_last", [True, False])
def test_epoch_batches_are_the_pure_function_and_begin_anywhere(drop_last):
    batches = EpochBatches(37, 4, seed=9, rank=1, world_size=3, drop_last=drop_last)
    whole = list(batches.batches(epoch=2))
    assert whole == [
        [(2, i) for i in batch_indices(37, batch=4, seed=9, epoch=2, step=s, rank=1, world_size=3)]
        for s in range(3 if drop_last else 4)
        if s < 3  # of the one sample that is left for the fourth step, rank 1 gets nothing
    ]
    assert batches.steps_per_epoch == (3 if drop_last else 4)
    assert list(batches.batches(epoch=2, start_step=1)) == whole[1:]


@settings(max_examples=80, deadline=None)
@given(
    length=st.integers(1, 200),
    batch=st.integers(1, 5),
    ranks=st.integers(1, 4),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_two_integers_resume_any_rank_and_nothing_is_read_twice(length, batch, ranks, epoch, shuffle, drop_last, data):
    if drop_last and length < batch * ranks:
        return
    stop = data.draw(st.integers(0, steps_per_epoch(length, batch, ranks, drop_last)))
    seen = []
    for rank in range(ranks):
        one = EpochBatches(length, batch, 11, rank, ranks, shuffle, drop_last)
        whole = list(one.batches(epoch))
        rest = list(EpochBatches(length, batch, 11, rank, ranks, shuffle, drop_last).batches(epoch, start_step=stop))
        assert whole[stop:] == rest  # an empty last share is left out of both
        seen += [index for key in whole[:stop] + rest for of, index in key if of == epoch]
    kept = length // (batch * ranks) * batch * ranks if drop_last else length
    assert len(seen) == len(set(seen)) == kept
    if shuffle is False:
        assert set(seen) == set(range(kept))


def test_fewer_ranks_go_on_with_the_same_samples():
    """What a step holds depends on batch x ranks only: a job may come back on another number of processes."""
    before = [EpochBatches(101, 3, 7, rank, 4) for rank in range(4)]
    after = [EpochBatches(101, 6, 7, rank, 2) for rank in range(2)]
    for step in range(before[0].steps_per_epoch):
        shares = [{index for _, index in next(one.batches(2, step))} for one in (*before, *after)]
        assert set().union(*shares[:4]) == set().union(*shares[4:])


CLIPS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


@pytest.mark.parametrize(("rows", "world_size"), [(1, 1), (3, 1), (2, 2), (20, 1)])
def test_streams_read_every_clip_once_and_each_video_in_order_in_one_row(rows, world_size):
    seen: dict[int, list[tuple[int, int, int]]] = {}
    lengths = set()
    for rank in range(world_size):
        steps = list(stream_rows(CLIPS, rows=rows, seed=0, epoch=1, rank=rank, world_size=world_size))
        lengths.add(len(steps))
        for step, places in enumerate(steps):
            assert len(places) == rows
            for row, place in enumerate(places):
                if place is None:
                    continue
                assert place.row == row
                seen.setdefault(place.video, []).append((step, rank * rows + place.row, place.clip))
    assert len(lengths) == 1
    assert sorted(seen) == list(range(len(CLIPS)))
    for video, visits in seen.items():
        first, row, _ = visits[0]
        assert visits == [(first + clip, row, clip) for clip in range(CLIPS[video])]


def test_a_row_that_ends_its_video_starts_the_next_one_at_once():
    steps = list(stream_rows([2, 3, 1], rows=2, seed=0, epoch=0, shuffle=False))
    assert steps == [
        [StreamPlace(0, 0, 0), StreamPlace(1, 1, 0)],
        [StreamPlace(0, 0, 1), StreamPlace(1, 1, 1)],
        [StreamPlace(0, 2, 0), StreamPlace(1, 1, 2)],
    ]
    assert [[place.starts for place in step] for step in steps] == [[True, True], [False, False], [True, False]]


def test_rows_that_have_ended_are_masked_until_the_longest_row_of_all_ranks_ends():
    ranks = [
        list(stream_rows([1, 2, 4], rows=2, seed=0, epoch=0, rank=rank, world_size=2, shuffle=False))
        for rank in range(2)
    ]
    assert ranks[0] == [
        [StreamPlace(0, 0, 0), StreamPlace(1, 1, 0)],
        [None, StreamPlace(1, 1, 1)],
        [None, None],
        [None, None],
    ]
    assert ranks[1] == [[StreamPlace(0, 2, clip), None] for clip in range(4)]


def test_streams_resume_at_any_step():
    whole = list(stream_rows(CLIPS, rows=3, seed=4, epoch=2))
    for start in range(len(whole) + 1):
        assert list(stream_rows(CLIPS, rows=3, seed=4, epoch=2, start_step=start)) == whole[start:]
    assert whole != list(stream_rows(CLIPS, rows=3, seed=4, epoch=3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: steps_per_epoch(7, 4, 2), "7 samples do not fill one step of 4 x 2; make the batch smaller"),
        (lambda: steps_per_epoch(7, 0), "length 7, batch 0 and world_size 1 must be at least 1"),
        (lambda: batch_indices(8, batch=4, seed=0, epoch=0, step=2), "an epoch of 8 samples has no step 2 of 4 x 1"),
        (lambda: batch_indices(8, batch=4, seed=0, epoch=0, step=0, rank=1), "rank 1 of 1"),
        (lambda: list(stream_rows([3, 0], rows=2, seed=0, epoch=0)), r"clips \[3, 0\]\.\.\., rows 2"),
    ],
)
def test_impossible_batches_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_clips_of_a_step_are_drawn_evenly_and_alike_on_all_ranks():
    drawn = [clips_of_step(2, 5, seed=0, epoch=1, step=step) for step in range(400)]
    assert drawn == [clips_of_step(2, 5, seed=0, epoch=1, step=step) for step in range(400)]
    assert drawn != [clips_of_step(2, 5, seed=0, epoch=2, step=step) for step in range(400)]
    assert all(70 < drawn.count(count) < 130 for count in (2, 3, 4, 5))
    assert {clips_of_step(3, 3, seed=0, epoch=0, step=step) for step in range(9)} == {3}
