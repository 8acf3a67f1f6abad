"""Clip models by name, memory around them, and model packages."""

from wholereel.models.clip_model import ClipModel, ModelInfo
from wholereel.models.conversion import to_clip_level, to_video_level
from wholereel.models.package import Package, build_model, build_model_with_report, load_package, save_package
from wholereel.models.registry import MODELS, create_model, list_models
from wholereel.models.video_model import Summary, VideoModel
from wholereel.models.weights import KeyReport

__all__ = [
    "create_model",
    "list_models",
    "MODELS",
    "ClipModel",
    "ModelInfo",
    "VideoModel",
    "Summary",
    "build_model",
    "build_model_with_report",
    "to_video_level",
    "to_clip_level",
    "KeyReport",
    "Package",
    "save_package",
    "load_package",
]
