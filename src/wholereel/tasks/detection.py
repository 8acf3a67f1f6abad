"""What people do, by boxes at key frames: clips of a film push into a memory, those with boxes are judged.

Source: arXiv 2104.01198 (AVA) and facebookresearch/SlowFast for the loss: binary cross-entropy, mean over boxes and
classes. Usually only the clip in the middle of a window has boxes; then context clips learn through the memory alone,
and a truncated gradient would leave them without any. R boxes, flat; K classes.
Not here: which clips and boxes (`datasets/clip_dataset.py`), evaluation at key frames (`evaluation/key_frames.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from wholereel import config
from wholereel.batches import Boxes, ClipBatch, Losses, Prediction, Target
from wholereel.errors import ConfigError
from wholereel.memory.state import VideoState
from wholereel.metrics.frame_map import BoxRows, FrameMap
from wholereel.models.detector import BoxSummary, Detector
from wholereel.models.video_model import VideoModel
from wholereel.tasks.losses import box_loss
from wholereel.tasks.task import ALL_CLIPS, Task

__all__ = ["BoxLogits", "DetectionCounts", "DetectionTask"]


@dataclass(frozen=True)
class BoxLogits:
    """What is said of some of a batch's boxes.

    Args:
        logits_RK: in their order.
        place_R: int64, which of the batch's boxes they are.
    """

    logits_RK: Tensor
    place_R: Tensor


class DetectionTask(Task):
    """Model, loss over boxes, scores.

    Args:
        model: judges boxes into `num_classes` logits.
        task: `multi_label`; its aggregate has no meaning here.
        num_classes: K.
        label: the label space; boxes know only one, so it is the name of the scores.
    Raises: ConfigError: a model that judges clips. ValueError: the model has another number of classes.
    """

    separable: ClassVar[frozenset[str]] = frozenset()
    every_clip_predicts: ClassVar[bool] = False
    model: Detector

    def __init__(self, model: VideoModel, task: config.Task, num_classes: int, *, label: str = "label") -> None:
        super().__init__()
        if not isinstance(model, Detector):
            raise ConfigError("task.kind='detect' judges boxes: set model.boxes (an empty one, {}, will do).")
        if model.num_classes != num_classes:
            raise ValueError(f"the model has {model.num_classes} classes, the task {num_classes}")
        if task.dropout:  # 0 leaves the model as it was built
            model.clip_model.dropout.p = task.dropout
        self.model, self.task, self.num_classes, self.label = model, task, num_classes, label

    def encode(self, batch: ClipBatch, clips: slice = ALL_CLIPS) -> BoxSummary:
        order_BN = batch.valid_BN.cumsum(1) - batch.valid_BN.long()
        return self.model.summarise_boxes(
            self.inputs(batch, clips),
            _boxes_of(batch, clips)[0],
            batch.valid_BN[:, clips],
            order_BN=order_BN[:, clips],
        )

    def read(self, summary: BoxSummary, memory: VideoState, batch: ClipBatch, clips: slice = ALL_CLIPS) -> BoxLogits:
        return BoxLogits(self.model.read_boxes(summary, memory), _boxes_of(batch, clips)[1])

    def finish(self, x_BNCTHW: Tensor, batch: ClipBatch, clips: slice = ALL_CLIPS) -> BoxLogits:
        boxes_R5, place_R = _boxes_of(batch, clips)
        return BoxLogits(self.model.box_head(x_BNCTHW, boxes_R5), place_R)

    def judge(self, outputs: Sequence[BoxLogits], batch: ClipBatch) -> Losses:
        """The part `boxes`: sum over boxes of the mean over classes."""
        labels_RK = _boxes(batch).labels_RK
        if labels_RK is None:
            raise ValueError("a loss needs boxes with labels, but batch.target.boxes.labels_RK is None")
        logits_RK = torch.cat([output.logits_RK for output in outputs])
        labels_RK = labels_RK[torch.cat([output.place_R for output in outputs])].to(logits_RK.device)
        return Losses({"boxes": box_loss(logits_RK, labels_RK, label_smoothing=self.task.label_smoothing)})

    def losses(self, clip_logits_BNK: Tensor, batch: ClipBatch, valid_BN: Tensor | None = None) -> NoReturn:
        """Clips have no logits here."""
        raise ValueError("a detector says nothing of whole clips: its losses come from `judge`")

    def predict(self, batch: ClipBatch, alone: bool = False) -> Prediction:
        """Scores `(R, K)` of the batch's boxes, without gradient; the module's mode is the caller's.

        Args:
            alone: the memory of a clip with boxes holds that clip alone.
        """
        with torch.no_grad():
            boxes_R5, place_R = _boxes_of(batch, ALL_CLIPS)
            clips_BNCTHW = self.inputs(batch)
            if alone:
                logits_RK, _ = self.model(clips_BNCTHW.flatten(0, 1)[:, None], boxes_R5=boxes_R5)
            else:
                logits_RK, _ = self.model(clips_BNCTHW, None, batch.valid_BN, boxes_R5=boxes_R5)
        scores_RK = torch.empty_like(logits_RK)
        scores_RK[place_R] = logits_RK.sigmoid()
        return Prediction(
            scores={self.label: scores_RK},
            clip_logits={},
            valid_BN=batch.valid_BN,
            seconds_BN2=torch.stack([batch.seconds_BNT[..., 0], batch.seconds_BNT[..., -1]], dim=-1),
            ids=batch.ids,
            final_B=torch.ones(len(batch.ids), dtype=torch.bool, device=scores_RK.device),
            boxes=batch.target.boxes,
        )

    def metrics(self) -> DetectionCounts:
        """Frame-mAP of the boxes that were given, in both public protocols."""
        return DetectionCounts(self.label, FrameMap(tuple(range(1, self.num_classes + 1))))

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The clip model's classifier."""
        clip_model = self.model.clip_model
        return clip_model.get_submodule(clip_model.classifier).parameters()


@dataclass(frozen=True)
class DetectionCounts:
    """Rows of the truth and of what was found, by key frame.

    Boxes of one batch are both: what was asked is how the classes rank, not where people are.
    """

    label: str
    frames: FrameMap

    def add(self, prediction: Prediction, target: Target) -> DetectionCounts:
        """These rows and those of one more batch."""
        boxes = target.boxes
        if boxes is None or boxes.labels_RK is None:
            raise ValueError("detection is measured on boxes with labels; target.boxes has none")
        names = tuple(prediction.ids)
        frame_R, box_R4 = boxes.video_R.cpu().numpy(), boxes.xyxy_R4.double().cpu().numpy()
        scores_RK = prediction.scores[self.label].double().cpu().numpy()
        labels_RK = boxes.labels_RK.cpu().numpy() > 0
        truth = _rows(frame_R, box_R4, labels_RK.astype(np.float64), labels_RK, names)
        found = _rows(frame_R, box_R4, scores_RK, np.ones_like(labels_RK), names)
        return replace(self, frames=self.frames.update(truth=truth, detections=found))

    def merge(self, other: DetectionCounts) -> DetectionCounts:
        """Both sets of key frames together."""
        return replace(self, frames=self.frames.merge(other.frames))

    def value(self) -> dict[str, float]:
        """`map` (the protocol `slowfast`), `map_activitynet`, and the numbers of key frames and boxes."""
        slowfast, official = (self.frames.compute(name) for name in ("slowfast", "activitynet_official"))
        return {
            "map": slowfast.mean(),
            "map_activitynet": official.mean(),
            "key_frames": float(slowfast.frames_detected),
            "boxes": slowfast.rows_detected / len(self.frames.classes),
        }


def _rows(
    frame_R: np.ndarray, box_R4: np.ndarray, scores_RK: np.ndarray, wanted_RK: np.ndarray, names: tuple[str, ...]
) -> BoxRows:
    row, column = np.nonzero(wanted_RK)
    return BoxRows(frame_R[row], box_R4[row], column + 1, scores_RK[row, column], names)


def _boxes(batch: ClipBatch) -> Boxes:
    if batch.target.boxes is None:
        raise ConfigError(
            "task.kind='detect' needs a set of key frames with boxes: prepare it from official files with "
            "`wholereel data prepare ava_v2.2`, or from your own with `wholereel data prepare action_boxes`."
        )
    return batch.target.boxes


def _boxes_of(batch: ClipBatch, clips: slice) -> tuple[Tensor, Tensor]:
    """Rows `b * N + n, x1, y1, x2, y2` of the boxes of some clips, N of them, and which of the batch's boxes they
    are."""
    boxes: Any = _boxes(batch)
    first, last, _ = clips.indices(batch.valid_BN.shape[1])
    place_R = torch.nonzero((boxes.clip_R >= first) & (boxes.clip_R < last))[:, 0]
    row_R = boxes.video_R[place_R] * (last - first) + boxes.clip_R[place_R] - first
    xyxy_R4 = boxes.xyxy_R4[place_R]
    return torch.cat([row_R[:, None].to(xyxy_R4.dtype), xyxy_R4], 1), place_R
