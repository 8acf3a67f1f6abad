import pytest
import torch

from wholereel.config import Clips
from wholereel.errors import ConfigError
from wholereel.media.clip_plans import check_clips
from wholereel.media.key_clips import key_clip, key_offsets, plan_key_clips


def reference(center: int, half: int, stride: int, frames: int) -> list[int]:
    """Frames as the public code of SlowFast takes them."""
    return [min(max(index, 0), frames - 1) for index in range(center - half, center + half, stride)]


@pytest.mark.parametrize("second", [902, 903, 1500, 1798])
@pytest.mark.parametrize(("frames", "stride"), [(8, 8), (32, 2), (16, 4), (64, 2)])
def test_one_clip_is_that_of_the_public_code(second, frames, stride):
    total, key = 27_030, second - 900
    found = plan_key_clips(total, 30.0, Clips("uniform", 1, frames, stride), float(key))
    assert found.indices_NT.tolist() == [reference(key * 30, frames * stride // 2, stride, total)]
    assert torch.equal(found.seconds_NT, found.indices_NT.double() / 30)


def test_clips_are_clamped_to_the_part():
    clips = Clips("uniform", 1, 4, 3)
    assert plan_key_clips(300, 30.0, clips, 0.1).indices_NT.tolist() == [[0, 0, 3, 6]]
    assert plan_key_clips(300, 30.0, clips, 9.95).indices_NT.tolist() == [[292, 295, 298, 299]]
    assert plan_key_clips(300, 30.0, clips, 5.0, start=5.0, end=5.1).indices_NT.tolist() == [[150, 150, 150, 152]]


def test_whole_films_give_the_frames_of_the_segment():
    clips = Clips("uniform", 3, 8, 4)
    film = plan_key_clips(60_000, 30.0, clips, 902.0, start=900.0, end=1801.0)
    segment = plan_key_clips(27_030, 30.0, clips, 2.0)
    assert torch.equal(film.indices_NT - 27_000, segment.indices_NT)


@pytest.mark.parametrize(("count", "firsts"), [(1, [84]), (2, [52, 84]), (3, [52, 84, 116]), (4, [20, 52, 84, 116])])
def test_other_clips_follow_without_gaps(count, firsts):
    clips = Clips("uniform", count, 8, 4, window_side="before")  # without a window it has no say
    found = plan_key_clips(300, 10.0, clips, 10.0)
    assert found.indices_NT[:, 0].tolist() == firsts
    assert found.indices_NT[key_clip(clips)].tolist() == list(range(84, 116, 4))  # 100 is the key frame


@pytest.mark.parametrize("rate", [24.0, 25.0, 60.0])
def test_a_common_rate_means_the_same_times_in_every_file(rate):
    found = plan_key_clips(int(rate * 20), rate, Clips("uniform", 1, 8, 2, frame_rate=30.0), 10.0)
    assert found.indices_NT is None
    assert found.seconds_NT.tolist() == [[(300 - 8 + 2 * step) / 30 for step in range(8)]]


@pytest.mark.parametrize(("key", "start", "end"), [(10.0, None, None), (2.0, 3.0, None), (5.0, None, 5.0)])
def test_key_frames_outside_are_refused(key, start, end):
    with pytest.raises(ValueError, match=f"no key frame at {key} s between"):
        plan_key_clips(300, 30.0, Clips("uniform", 1, 4, 1), key, start=start, end=end)


def windowed(count, window, grid=None, side="both"):
    return Clips("uniform", count, 8, 2, window=window, window_grid=grid, window_side=side)


@pytest.mark.parametrize(
    ("clips", "offsets"),
    [
        (windowed(5, 10.0), [-5.0, -2.5, 0.0, 2.5, 5.0]),
        (windowed(5, 10.0, 1.0), [-5.0, -3.0, 0.0, 3.0, 5.0]),  # halves go outwards, on both sides
        (windowed(15, 30.0, 1.0), [-15, -13, -11, -9, -6, -4, -2, 0, 2, 4, 6, 9, 11, 13, 15]),
        (windowed(1, 10.0), [0.0]),
        (windowed(5, 10.0, side="before"), [-10.0, -7.5, -5.0, -2.5, 0.0]),
        (windowed(4, 8.0, 1.0, side="before"), [-8.0, -5.0, -3.0, 0.0]),  # an even number will do
        (windowed(1, 10.0, side="before"), [0.0]),
    ],
)
def test_a_window_spreads_the_middles_evenly(clips, offsets):
    assert key_offsets(clips, 10.0).tolist() == pytest.approx(offsets)
    assert offsets[key_clip(clips)] == 0
    found = plan_key_clips(900, 10.0, clips, 40.0)
    assert found.middles_N.tolist() == [round(10 * (40 + offset)) for offset in offsets]
    alone = [plan_key_clips(900, 10.0, Clips("uniform", 1, 8, 2), 40.0 + offset).indices_NT[0] for offset in offsets]
    assert torch.equal(found.indices_NT, torch.stack(alone))
    assert found.valid_N.all()


def test_clips_outside_the_film_are_masked():
    found = plan_key_clips(900, 10.0, windowed(5, 10.0), 4.0)
    assert found.valid_N.tolist() == [False, True, True, True, True]
    found = plan_key_clips(900, 10.0, windowed(5, 10.0), 89.0)
    assert found.valid_N.tolist() == [True, True, True, False, False]
    found = plan_key_clips(900, 10.0, windowed(5, 10.0), 31.0, start=30.0, end=33.5)  # a part: 33.5 is not in it
    assert found.valid_N.tolist() == [False, False, True, False, False]
    assert found.indices_NT.min() >= 300
    assert found.indices_NT.max() <= 334
    without_gaps = plan_key_clips(300, 10.0, Clips("uniform", 3, 8, 4), 1.0)
    assert without_gaps.valid_N.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("clips", "words"),
    [
        (windowed(4, 10.0), r"clips\.window needs an odd number of clips, one of which holds the key frame: 4"),
        (windowed(5, 2.0, 1.0), r"puts them 0\.5 s apart: closer than clips\.window_grid=1\.0"),
        (windowed(5, 4.0, side="after"), r"clips\.window_side must be one of \('both', 'before'\), got 'after'"),
        (windowed(5, 0.0), r"clips\.window must be positive, got 0\.0"),
        (windowed(5, 10.0, -1.0), r"clips\.window_grid must be positive, got -1\.0"),
    ],
)
def test_windows_that_cannot_be(clips, words):
    with pytest.raises(ConfigError, match=words):
        check_clips(clips)
