"""Files to tensors and back: video, stills, sound."""

from wholereel.media.audio_clips import read_audio_clip
from wholereel.media.audio_reader import AudioMetadata, AudioReader, NoSoundError, Sound
from wholereel.media.frames import Frames
from wholereel.media.video_reader import VideoMetadata, VideoReader, probe_video
from wholereel.media.video_writer import write_video

__all__ = [
    "VideoReader",
    "VideoMetadata",
    "Frames",
    "probe_video",
    "AudioReader",
    "AudioMetadata",
    "Sound",
    "NoSoundError",
    "read_audio_clip",
    "write_video",
]
