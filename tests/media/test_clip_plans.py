import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wholereel.config import Clips
from wholereel.errors import ConfigError
from wholereel.media.clip_plans import (
    check_clips,
    clip_count,
    clip_frames,
    clip_starts,
    contiguous_starts,
    frame_indices,
    plan_clips,
    random_starts,
    segment_frames,
    stratified_starts,
    uniform_starts,
    view_frames,
    view_span,
    view_starts,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [118]),
        (4, [0, 78, 157, 236]),
        (10, [0, 26, 52, 78, 104, 131, 157, 183, 209, 236]),
    ],
)
def test_uniform_starts_of_ten_seconds_at_30_frames(count, expected):
    assert clip_frames("uniform", 300, 64, count).tolist() == expected


def test_uniform_rounds_down_exactly_where_the_quotient_is_whole():
    for room in range(1, 400):
        for count in range(2, 12):
            expected = [room * n // (count - 1) for n in range(count)]
            assert clip_frames("uniform", room + 7, 7, count).tolist() == expected


@given(
    total=st.integers(1, 500),
    span=st.integers(1, 200),
    count=st.integers(1, 9),
    seed=st.integers(0, 10),
)
@settings(max_examples=60, deadline=None)
def test_starts_are_ordered_and_leave_room_for_the_clip(total, span, count, seed):
    for plan in ("stratified", "random", "uniform", "contiguous"):
        starts_N = clip_frames(plan, total, span, count, generator=generator(seed))
        assert len(starts_N) == (count if plan != "contiguous" else clip_count(total, span, count))
        assert (starts_N.diff() >= 0).all()
        assert starts_N.min() >= 0
        assert starts_N.max() <= max(0, total - span)


def test_stratified_draws_one_start_from_each_part():
    for seed in range(30):
        starts_N = stratified_starts(300, 64, 4, generator=generator(seed))
        assert (starts_N // 59).tolist() == [0, 1, 2, 3]  # 236 / 4 = 59
    parts = torch.stack([stratified_starts(300, 64, 4, generator=generator(seed)) % 59 for seed in range(400)])
    assert parts.mean(0).sub(29.5).abs().max() < 4  # each part is drawn from evenly ...
    assert torch.corrcoef(parts.T).fill_diagonal_(0).abs().max() < 0.2  # ... and independently


def test_random_starts_cover_the_room_without_order_of_parts():
    starts = torch.stack([random_starts(300, 64, 3, generator=generator(seed)) for seed in range(400)])
    # means of the order statistics of three uniform numbers: 1/4, 2/4, 3/4
    torch.testing.assert_close(starts.mean(0) / 236, torch.tensor([0.25, 0.5, 0.75]).double(), atol=0.03, rtol=0)


def test_contiguous_clips_follow_each_other_and_the_last_one_ends_with_the_video():
    assert contiguous_starts(300, 64, 100).tolist() == [0, 64, 128, 192, 236]
    assert contiguous_starts(128, 64, 100).tolist() == [0, 64]
    assert contiguous_starts(300, 64, 3).tolist() == [0, 64, 128]  # the rest is left out
    assert contiguous_starts(10, 64, 5).tolist() == [0]
    assert contiguous_starts(0.3, 0.1, 9).shape == (3,)  # 0.3 / 0.1 is 2.9999999999999996


def test_same_seed_same_plan_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    a, b = (clip_starts("random", 9.0, 1.0, 5, generator=generator(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("frames", "expected"), [(300, 5), (64, 1), (65, 2), (20, 1), (3000, 8)])
def test_coverage_counts_the_clips_that_fill_a_video(frames, expected):
    assert clip_count(frames, 64, 8) == expected
    clips = Clips(plan="uniform", count=8, frames=8, stride=8, coverage=True)
    assert len(plan_clips(frames, 30, clips).seconds_NT) == expected


def test_short_videos_repeat_the_last_frame():
    indices_NT = frame_indices(torch.tensor([0, 2]), 4, 2, 5)
    assert indices_NT.tolist() == [[0, 2, 4, 4], [2, 4, 4, 4]]


def test_plan_of_own_frames_gives_indices_and_their_times():
    times = plan_clips(300, 30.0, Clips(plan="uniform", count=4, frames=8, stride=8))
    assert times.indices_NT[:, 0].tolist() == [0, 78, 157, 236]
    assert times.indices_NT[1].tolist() == list(range(78, 78 + 64, 8))
    torch.testing.assert_close(times.seconds_NT, times.indices_NT.double() / 30.0)
    assert times.valid_N.tolist() == [True] * 4


def test_common_frame_rate_resamples_the_time_line():
    clips = Clips(plan="uniform", count=2, frames=4, stride=3, frame_rate=30)
    slow, fast = plan_clips(100, 10.0, clips), plan_clips(600, 60.0, clips)
    assert slow.indices_NT is None
    torch.testing.assert_close(slow.seconds_NT, fast.seconds_NT)
    torch.testing.assert_close(slow.seconds_NT[0], torch.tensor([0.0, 0.1, 0.2, 0.3]).double())
    assert slow.seconds_NT[1, 0].item() == pytest.approx(288 / 30)  # 300 - 12 frames of the common line


def test_a_part_of_a_file_is_planned_like_a_file_of_its_own():
    clips = Clips(plan="contiguous", count=99, frames=5, stride=1)
    times = plan_clips(1000, 25.0, clips, start=2.0, end=3.0)
    assert times.indices_NT.flatten().tolist() == list(range(50, 75))
    times = plan_clips(1000, 25.0, Clips("uniform", 2, 5, 1, frame_rate=10.0), start=2.0, end=3.0)
    torch.testing.assert_close(times.seconds_NT.flatten(), torch.arange(10).double() / 10 + 2)
    beyond = plan_clips(100, 25.0, clips, start=3.5, end=99.0)
    assert beyond.indices_NT.max() == 99


def test_a_part_shorter_than_a_frame_shows_one_frame():
    times = plan_clips(100, 25.0, Clips("uniform", 1, 3, 1), start=1.001, end=1.002)
    assert times.indices_NT.tolist() == [[26, 26, 26]]
    at_the_end = plan_clips(100, 25.0, Clips("uniform", 1, 3, 1), start=3.99)
    assert at_the_end.indices_NT.tolist() == [[99, 99, 99]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform_starts(10, 2, 0), "count must be at least 1, got 0"),
        (lambda: uniform_starts(0, 2, 1), "must be positive, got 0 and 2"),
        (lambda: clip_starts("dense", 9, 1, 2), "unknown clip plan 'dense'; plans are stratified, random, uni"),
        (lambda: clip_starts("random", 9, 1, 2), "'random' draws its starts and needs a generator"),
        (lambda: plan_clips(0, 25.0, Clips()), "got 0 frames"),
        (lambda: plan_clips(9, 25.0, Clips(stride=0)), "clips.stride must be at least 1, got 0"),
        (lambda: check_clips(Clips(count=-1)), "clips.count must be at least 1, got -1"),
        (lambda: check_clips(Clips(count=4, least=5)), "clips.least must be from 1 to clips.count = 4, got 5"),
        (lambda: check_clips(Clips(plan="dense")), "clips.plan='dense' is unknown; legal are stratified, random, unif"),
        (lambda: check_clips(Clips(frame_rate=0.0)), "clips.frame_rate must be positive, got 0.0"),
        (lambda: plan_clips(50, 25.0, Clips(plan="uniform"), start=2.5), "no frame between 2.5 s and 2.0 s"),
    ],
)
def test_impossible_plans_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_span_of_a_test_view():
    assert view_span(16, 4, frame_rate=30, target_rate=30) == 64
    assert view_span(16, 4, frame_rate=25, target_rate=30) == pytest.approx(64 * 25 / 30)
    assert view_span(16, 4, frame_rate=25, target_rate=30, legacy=True) == 50
    assert view_span(1, 1, frame_rate=10, target_rate=30) == 1


def test_classic_and_offset_views_start_elsewhere():
    assert view_starts("classic", 300, 64, 10).tolist() == pytest.approx([23.6 * n for n in range(10)])
    assert view_starts("offset", 300, 64, 10).tolist() == [26 * n for n in range(10)]
    assert view_starts("offset", 101, 64, 1).tolist() == [18]
    assert view_starts("classic", 101, 64, 1).tolist() == [0]
    assert view_starts("offset", 40, 64, 3).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="unknown rule 'uniform'; rules are classic, offset"):
        view_starts("uniform", 300, 64, 10)


def test_views_are_plans_and_read_frames_of_the_file():
    clips = Clips("classic", count=2, frames=4, stride=8, frame_rate=30.0)
    times = plan_clips(100, 25.0, clips)
    span = 32 * 25 / 30
    starts = [0.0, (100 - span) / 2]
    lines = [np.linspace(start, start + span - 1, 4, dtype=np.float32).astype(int).tolist() for start in starts]
    assert times.indices_NT.tolist() == lines
    assert times.seconds_NT.tolist() == [[index / 25 for index in line] for line in lines]
    part = plan_clips(100, 25.0, replace(clips, plan="offset"), start=1.0, end=3.0)
    assert part.indices_NT.min() == 25
    assert part.indices_NT.max() == 25 + 23 + 25  # floor(50 - 26.67) frames later, of which 26.67 - 1 are spanned
    short = plan_clips(10, 25.0, clips)
    assert short.indices_NT.tolist() == [[0, 8, 9, 9]] * 2


@pytest.mark.parametrize(("total", "frames"), [(100, 8), (8, 8), (5, 8), (1, 4), (37, 16)])
def test_segments_of_a_whole_video(total, frames):
    step = (total - 1) / frames
    bounds = [(int(np.round(step * n)), int(np.round(step * (n + 1)))) for n in range(frames)]
    assert segment_frames(total, frames).tolist() == [[(first + last) // 2 for first, last in bounds]]
    seen = [segment_frames(total, frames, generator=generator(seed))[0].tolist() for seed in range(60)]
    for drawn in seen:
        assert all(first <= index <= last for index, (first, last) in zip(drawn, bounds, strict=True))
    assert {drawn[0] for drawn in seen} == set(range(bounds[0][0], bounds[0][1] + 1))


def test_segments_are_a_plan_of_one_clip():
    times = plan_clips(100, 25.0, Clips("segments", count=1, frames=8))
    assert times.indices_NT.tolist() == segment_frames(100, 8).tolist()
    part = plan_clips(100, 25.0, Clips("segments", count=1, frames=8), start=2.0)
    assert part.indices_NT.tolist() == (segment_frames(50, 8) + 50).tolist()
    with pytest.raises(ConfigError, match=r"one clip of the whole video; clips.count=2 must be 1"):
        check_clips(Clips("segments", count=2))


def test_clips_a_hop_apart_reach_the_end():
    assert contiguous_starts(300, 64, 100, 100).tolist() == [0, 100, 200, 236]
    assert contiguous_starts(264, 64, 100, 100).tolist() == [0, 100, 200]
    assert contiguous_starts(300, 64, 2, 16).tolist() == [0, 16]
    assert contiguous_starts(10, 64, 5, 3).tolist() == [0]
    assert contiguous_starts(300, 64, 100, 64).equal(contiguous_starts(300, 64, 100))
    times = plan_clips(100, 25.0, Clips(plan="contiguous", count=99, frames=5, stride=5, hop=0.5))
    assert times.indices_NT[:, 0].tolist() == [0, 12, 25, 37, 50, 62, 75]
    covering = Clips(plan="contiguous", count=99, frames=5, stride=5, hop=0.5, coverage=True)
    assert plan_clips(100, 25.0, covering).indices_NT.equal(times.indices_NT)
    for clips in (Clips(hop=1.0), Clips(plan="contiguous", hop=0.0)):
        with pytest.raises(ConfigError, match=r"clips.hop=\d.0 must be positive, and needs plan='contiguous'"):
            check_clips(clips)


@pytest.mark.parametrize("rule", ["classic", "offset"])
@pytest.mark.parametrize("legacy", [False, True])
def test_views_of_odd_sizes_are_those_of_the_written_rules(rule, legacy):
    draw = np.random.default_rng(int(legacy))
    for _ in range(60):
        total, frames, count = (int(n) for n in draw.integers((1, 2, 1), (700, 33, 12)))
        stride, rate, target = int(draw.integers(1, 9)), float(draw.choice([12, 23.976, 25, 29.97, 50])), 30.0
        span = max(1.0, stride * frames / target * rate)
        if legacy:
            span = max(1.0, math.ceil(stride * (frames - 1) / target * rate))
        room = max(total - span, 0)
        ours_span = view_span(frames, stride, rate, target, legacy=legacy)
        assert ours_span == pytest.approx(span)
        ours = view_frames(view_starts(rule, total, ours_span, count), ours_span, frames, total)
        assert ours.shape == (count, frames)
        for n in range(count):
            start = room * n / count
            if rule == "offset":
                start = math.floor(room / 2) if count == 1 else n * math.floor(room / (count - 1))
            for i, found in enumerate(ours[n].tolist()):
                exact = min(max(start + (span - 1) * i / (frames - 1), 0), total - 1)
                # single precision may fall to either side of a whole number, as in the public code
                assert math.floor(exact - 1e-3) <= found <= math.floor(exact + 1e-3)


def test_the_older_span_is_a_setting():
    clips = Clips("offset", count=3, frames=8, stride=4, frame_rate=30.0)
    older = plan_clips(200, 25.0, replace(clips, legacy_span=True)).indices_NT
    span = view_span(8, 4, 25.0, 30.0, legacy=True)
    assert older.tolist() == view_frames(view_starts("offset", 200, span, 3), span, 8, 200).tolist()
    assert older.tolist() != plan_clips(200, 25.0, clips).indices_NT.tolist()
    with pytest.raises(ConfigError, match="legacy_span is of the plans classic, offset, not of 'uniform'"):
        check_clips(Clips("uniform", legacy_span=True))
