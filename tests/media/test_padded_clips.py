import pytest

from wholereel.config import Clips
from wholereel.media.clip_plans import plan_clips
from wholereel.media.padded_clips import plan_padded_clips


def test_the_first_frame_stands_in():
    clips = Clips("uniform", 1, 10, 1)
    padded = plan_padded_clips(50, 10.0, clips, 0.6, end=0.4)
    assert padded.indices_NT.tolist() == [[0, 0, 0, 0, 0, 0, 0, 1, 2, 3]]
    assert padded.seconds_NT.tolist() == [[index / 10 for index in padded.indices_NT[0].tolist()]]


def test_an_observation_that_ends_before_the_video_begins_is_its_first_frame():
    padded = plan_padded_clips(50, 10.0, Clips("uniform", 2, 5, 5), 4.9, end=0.1)
    assert padded.indices_NT.tolist() == [[0] * 5] * 2


@pytest.mark.parametrize("rate", [None, 8.0])
def test_without_anything_missing_it_is_the_plain_plan(rate):
    clips = Clips("uniform", 3, 4, 2, frame_rate=rate)
    padded, plain = plan_padded_clips(90, 29.97, clips, 0.0, end=2.5), plan_clips(90, 29.97, clips, end=2.5)
    assert padded.seconds_NT.tolist() == plain.seconds_NT.tolist()
    assert (padded.indices_NT is None) == (rate is not None)


def test_times_on_a_common_rate():
    padded = plan_padded_clips(50, 10.0, Clips("uniform", 1, 4, 1, frame_rate=4.0), 0.5, end=0.5)
    assert padded.seconds_NT.tolist() == [[0.0, 0.0, 0.0, 0.25]]
