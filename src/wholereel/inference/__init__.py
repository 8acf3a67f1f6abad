"""Using a trained model: files, cameras and streams in, predictions out."""

from __future__ import annotations

from wholereel.inference.prediction import VideoPrediction
from wholereel.inference.predictor import Predictor
from wholereel.inference.stream import Stream
from wholereel.inference.stream_batch import BatchStream
from wholereel.inference.stream_scores import ClipScore

__all__ = ["Predictor", "VideoPrediction", "Stream", "ClipScore", "BatchStream"]
