"""The sound of clips, cut by time: what a loader calls for each video. Axes: C sound channels, S samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from wholereel.batches import Audio
from wholereel.errors import VideoError
from wholereel.media.audio_reader import AudioReader, NoSoundError
from wholereel.media.frame_folder import PICTURE_SUFFIXES

__all__ = ["read_audio_clip", "sound_seconds"]


def read_audio_clip(path: str | Path, start: float | Sequence[float], seconds: float, rate: int) -> Audio:
    """Read the sound of one clip or of several clips of a video, mixed to one channel.

    Args:
        path: the file; pictures and folders of them have no sound.
        start: seconds after the first picture (`Frames.seconds_T`), for each clip.
        seconds: length of a clip.
        rate: samples per second of the result, whatever is stored.
    Returns: B = 1, one N for each start, `wave_BNCS` with C = 1 and S = round(seconds * rate). `present_BN` is False,
        and the wave zero, where the file has no sound, or none at the time of the clip.
    Raises: VideoError: the file cannot be read. ValueError: a time or length that is no number.
    """
    starts = [float(one) for one in (start if isinstance(start, Sequence) else (start,))]
    try:
        if Path(path).suffix.lower() in PICTURE_SUFFIXES or Path(path).is_dir():
            raise NoSoundError(path, "is a picture or a folder of pictures")
        reader = AudioReader(path, rate=rate, mono=True)
    except NoSoundError:
        samples = int(seconds * rate + 0.5)
        return Audio(rate, torch.zeros(1, len(starts), dtype=torch.bool), torch.zeros(1, len(starts), 1, samples))
    with reader:
        # In the order of time nothing is decoded twice.
        order = sorted(range(len(starts)), key=starts.__getitem__)
        sounds = {clip: reader.read(start=starts[clip], seconds=seconds) for clip in order}
    clips = [sounds[clip] for clip in range(len(starts))]
    wave_NCS = torch.stack([sound.wave_CS for sound in clips])
    return Audio(rate, torch.tensor([[bool(sound.valid_S.any()) for sound in clips]]), wave_NCS[None])


def sound_seconds(path: str | Path) -> float:
    """How long the sound of a file lasts: what its header says, or where it says nothing or is cut off, what decodes.

    Raises: VideoError: it has no sound, or cannot be read.
    """
    with AudioReader(path) as reader:
        duration = reader.metadata.duration
        if not duration > 0 or reader.metadata.truncated:
            duration = sum(part.seconds for part in reader.stream())
    if not duration > 0:
        raise VideoError(path, "lasts no time at all", "a file of sound")
    return duration
