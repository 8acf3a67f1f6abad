"""Boxes at the key frames of films that are read in order: one clip around each key frame, memory of those before.

Source: arXiv 2201.08383 (AVA): sigmoid and binary cross-entropy over boxes and classes. Extra axes: R boxes, K classes.
Not here: detectors that read a window of clips around one key frame (`detection.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from wholereel import config
from wholereel.batches import Losses, Prediction, StreamBatch
from wholereel.errors import ConfigError
from wholereel.models.memvit import MeMViT
from wholereel.models.stream_models import StreamModel, StreamState, head_dropout, head_parameters
from wholereel.tasks.losses import box_loss
from wholereel.tasks.stream_task import StreamTask

__all__ = ["StreamDetection"]


class StreamDetection(StreamTask):
    """Model, loss over boxes, scores.

    Args:
        model: MeMViT with its head for boxes.
        task: `multi_label` (each class is judged by itself), `label_smoothing` and `dropout` count.
        spaces: the one label space of the boxes.
    Raises: ConfigError: another model, or settings without a meaning.
    """

    model: MeMViT

    def __init__(self, model: StreamModel, task: config.Task, spaces: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        if not isinstance(model, MeMViT) or model.boxes is None:
            raise ConfigError("task.kind='stream_detect' judges boxes: choose a MeMViT and set its option boxes=True.")
        if len(spaces) != 1 or not task.multi_label:
            raise ConfigError("task.kind='stream_detect' has one label space and judges each class by itself: "
                              f"task.multi_label must be True, got {task.multi_label} and {list(spaces)}.")  # fmt: skip
        if task.dropout:  # 0 leaves the model as it was built
            head_dropout(model).p = task.dropout
        self.model, self.task, self.spaces = model, task, dict(spaces)

    def forward(self, batch: StreamBatch, state: StreamState) -> tuple[Losses, StreamState]:
        """The part `boxes`: sum over boxes of the mean over classes."""
        labels_RK = None if batch.target.boxes is None else batch.target.boxes.labels_RK
        logits_RK, state = self.judge(batch, state)
        if labels_RK is None:
            if len(logits_RK):
                raise ValueError("a loss needs boxes with labels, but batch.target.boxes.labels_RK is None")
            labels_RK = torch.zeros_like(logits_RK)
        return Losses({"boxes": box_loss(logits_RK, labels_RK, label_smoothing=self.task.label_smoothing)}), state

    def predict(self, batch: StreamBatch, state: StreamState) -> tuple[Prediction, StreamState]:
        """Scores `(R, K)` of the batch's boxes, in their order."""
        with torch.no_grad():
            logits_RK, state = self.judge(batch, state)
        prediction = Prediction(
            scores={name: logits_RK.float().sigmoid() for name in self.spaces},
            clip_logits={},
            valid_BN=batch.valid_B[:, None],
            seconds_BN2=batch.seconds_B2[:, None],
            ids=batch.ids,
            final_B=torch.ones_like(batch.valid_B),
            boxes=batch.target.boxes,
        )
        return prediction, state

    def judge(self, batch: StreamBatch, state: StreamState) -> tuple[Tensor, StreamState]:
        """Logits `(R, K)`, and the memory for the next step; R = 0 where no clip has boxes."""
        clip_BCTHW, boxes = self.inputs(batch), batch.target.boxes
        boxes_R5 = clip_BCTHW.new_zeros(0, 5)
        if boxes is not None:
            xyxy_R4 = boxes.xyxy_R4.to(clip_BCTHW.dtype)
            boxes_R5 = torch.cat([boxes.video_R[:, None].to(xyxy_R4.dtype), xyxy_R4], 1)
        logits_RK, state = self.model(clip_BCTHW, state, boxes_R5)
        return logits_RK, state

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The classifier of boxes."""
        return head_parameters(self.model)
