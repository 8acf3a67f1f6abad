"""wholereel: video models that learn from, and run on, whole videos.

The public face, in reading order. Names are loaded when they are first used, so `import wholereel` is cheap and imports
neither torch nor a recipe:

    >>> import wholereel
    >>> wholereel.list_models("tiny*")          # doctest: +SKIP
    >>> predictor = wholereel.Predictor("runs/demo/collaborative_memory")       # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wholereel.datasets.manifest import Manifest, Sample, read_manifest
    from wholereel.errors import CheckpointError, ConfigError, DataError, MissingExtraError, VideoError, WholereelError
    from wholereel.inference.prediction import VideoPrediction
    from wholereel.inference.predictor import Predictor
    from wholereel.inference.stream import Stream
    from wholereel.inference.stream_batch import BatchStream
    from wholereel.inference.stream_scores import ClipScore
    from wholereel.media.audio_reader import AudioMetadata, AudioReader, NoSoundError, Sound
    from wholereel.media.frame_queue import PushedFrames
    from wholereel.media.frames import Frames
    from wholereel.media.live_source import LiveSource
    from wholereel.media.video_reader import VideoMetadata, VideoReader, probe_video
    from wholereel.memory.collaborative import CollaborativeMemory
    from wholereel.memory.state import CollaborativeState, VideoState
    from wholereel.models.package import Package, load_package, save_package
    from wholereel.models.registry import create_model, list_models
    from wholereel.models.video_model import VideoModel

__version__ = "0.1.0"

__all__ = [
    # use a trained model on a file
    "Predictor",
    "VideoPrediction",
    # and on a video that has not ended
    "Stream",
    "ClipScore",
    "BatchStream",
    "LiveSource",
    "PushedFrames",
    # read videos
    "VideoReader",
    "VideoMetadata",
    "Frames",
    "probe_video",
    # read sound
    "AudioReader",
    "AudioMetadata",
    "Sound",
    # data sets
    "read_manifest",
    "Manifest",
    "Sample",
    # models and their memory
    "create_model",
    "list_models",
    "VideoModel",
    "VideoState",
    "CollaborativeMemory",
    "CollaborativeState",
    "load_package",
    "save_package",
    "Package",
    # errors meant for the user
    "WholereelError",
    "DataError",
    "VideoError",
    "NoSoundError",
    "CheckpointError",
    "ConfigError",
    "MissingExtraError",
    "__version__",
]

# Where each public name lives; the only table to touch when a name becomes public.
_HOME = {
    "Predictor": "inference.predictor",
    "VideoPrediction": "inference.prediction",
    "Stream": "inference.stream",
    "ClipScore": "inference.stream_scores",
    "BatchStream": "inference.stream_batch",
    "LiveSource": "media.live_source",
    "PushedFrames": "media.frame_queue",
    "VideoReader": "media.video_reader",
    "VideoMetadata": "media.video_reader",
    "Frames": "media.frames",
    "probe_video": "media.video_reader",
    "AudioReader": "media.audio_reader",
    "AudioMetadata": "media.audio_reader",
    "Sound": "media.audio_reader",
    "read_manifest": "datasets.manifest",
    "Manifest": "datasets.manifest",
    "Sample": "datasets.manifest",
    "create_model": "models.registry",
    "list_models": "models.registry",
    "VideoModel": "models.video_model",
    "VideoState": "memory.state",
    "CollaborativeMemory": "memory.collaborative",
    "CollaborativeState": "memory.state",
    "load_package": "models.package",
    "save_package": "models.package",
    "Package": "models.package",
    "WholereelError": "errors",
    "DataError": "errors",
    "VideoError": "errors",
    "NoSoundError": "media.audio_reader",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "MissingExtraError": "errors",
}


def __getattr__(name: str) -> Any:
    """Load a public name on its first use (PEP 562) and keep it, so that the next use is a plain attribute."""
    if name not in _HOME:
        raise AttributeError(f"module 'wholereel' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"wholereel.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
