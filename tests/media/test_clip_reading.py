import numpy as np
import torch

from wholereel.config import Clips
from wholereel.media.clip_plans import plan_clips
from wholereel.media.clip_reading import read_clips
from wholereel.media.video_reader import VideoReader
from wholereel.media.video_writer import write_video


def grey_ramp(frames):
    """Frame i has brightness 4 i everywhere."""
    return np.broadcast_to((np.arange(frames) * 4).astype(np.uint8)[:, None, None, None], (frames, 32, 48, 3))


def test_clips_hold_the_planned_frames(tmp_path):
    write_video(tmp_path / "ramp.mp4", grey_ramp(50), frame_rate=10, gop=10, qp=0)
    with VideoReader(tmp_path / "ramp.mp4", size=16) as reader:
        own = read_clips(reader, plan_clips(50, 10.0, Clips("uniform", 3, 4, 2)))
        common = read_clips(reader, plan_clips(50, 10.0, Clips("uniform", 3, 4, 2, frame_rate=5.0)))
    assert own.clips_NTCHW.shape == (3, 4, 3, 16, 24)
    shown_NT = (own.clips_NTCHW.float().mean((2, 3, 4)) / 4).round().int()
    assert shown_NT.tolist() == [[0, 2, 4, 6], [21, 23, 25, 27], [42, 44, 46, 48]]
    torch.testing.assert_close(own.seconds_NT, shown_NT / 10, check_dtype=False)
    # 25 frames of a fifth of a second each: every second frame of the file, twice as far apart
    assert (common.clips_NTCHW.float().mean((2, 3, 4)) / 4).round().int()[1].tolist() == [16, 20, 24, 28]
