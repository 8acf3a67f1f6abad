"""Files to tensors and back: video, stills, sound."""

from wholereel.media.frames import Frames
from wholereel.media.video_reader import VideoMetadata, VideoReader, probe_video
from wholereel.media.video_writer import write_video

__all__ = ["VideoReader", "VideoMetadata", "Frames", "probe_video", "write_video"]
