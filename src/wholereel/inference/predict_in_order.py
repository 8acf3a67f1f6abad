"""A file judged by a model that reads streams: clip after clip in order, as it was trained, the memory carried.

Not here: models that judge clips of a video together (`predictor.py`), sources that have not ended (`stream.py`).
"""

from __future__ import annotations

from pathlib import Path

import torch

from wholereel.errors import ConfigError, VideoError
from wholereel.inference.prediction import VideoPrediction
from wholereel.inference.predictor import Precision, find_package
from wholereel.inference.stream import Stream
from wholereel.media.video_reader import probe_video
from wholereel.models.package import Package, load_package

__all__ = ["predict_in_order"]


def predict_in_order(
    package: Package | str | Path,
    path: str | Path,
    *,
    device: torch.device | str | None = None,
    precision: Precision = "fp32",
    fold: bool = False,
) -> VideoPrediction:
    """Judge every clip of a video with the memory of those before it.

    Args:
        package: loaded, or the folder of a model package or run; clips are as far apart as in its training.
        path: the file.
        device: `None` = the first GPU where there is one, else the CPU.
        precision, fold: as of `Predictor`.
    Returns: the video's scores are those of all clips put together by the model's task; of several label spaces all
        classes stand one after the other.
    Raises: ConfigError: a model that does not read streams. VideoError: the file cannot be read, or holds no clip.
    """
    package = package if isinstance(package, Package) else load_package(find_package(package))
    if package.streams is None:
        raise ConfigError("this package judges clips of a video together: use Predictor.")
    metadata = probe_video(path)
    rate = package.clips.frame_rate or float(metadata.frame_rate)
    hop = None if package.streams.hop is None else max(1, round(package.streams.hop * rate))
    stream = Stream(package, device=device, hop=hop, precision=precision, fold=fold)
    scores = list(stream.run(path))
    if not scores:
        raise VideoError(path, "is shorter than one clip", f"at least {package.clips.frames} frames in time")
    memory = " + memory" if package.spec.memory is not None else ""
    return VideoPrediction(
        path=str(path),
        duration=max(float(metadata.duration or 0.0), scores[-1].end),
        classes=package.classes,
        scores_K=scores[-1].video_scores_K.cpu(),
        seconds_N2=torch.tensor([[one.begin, one.end] for one in scores], dtype=torch.float64),
        clip_scores_NK=torch.stack([one.scores_K.cpu() for one in scores]),
        multi_label=package.task.multi_label,
        model=f"{package.spec.name}{memory}",
    )
