"""Using a trained model: a video file in, a prediction out."""

from __future__ import annotations

from wholereel.inference.prediction import VideoPrediction
from wholereel.inference.predictor import Predictor

__all__ = ["Predictor", "VideoPrediction"]
