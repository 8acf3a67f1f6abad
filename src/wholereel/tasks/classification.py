"""Classification of whole videos: N clips, one label set, one of the aggregates of `config.Task`.

Source: arXiv 2104.01198 (video-level supervision); the aggregates are our choice. Extra axes: K classes.
Not here: how the gradient is obtained (`training/strategies`), test views (`evaluation`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wholereel import config
from wholereel.batches import ClipBatch, Losses, Prediction
from wholereel.memory.state import VideoState
from wholereel.models.bank_model import BankModel
from wholereel.models.video_model import VideoModel
from wholereel.ops.aggregate import aggregate_scores
from wholereel.tasks.counts import ClassificationCounts
from wholereel.tasks.losses import video_losses
from wholereel.tasks.task import ALL_CLIPS, Task

__all__ = ["ClassificationTask"]


class ClassificationTask(Task):
    """Model, video-level loss and test-time scores.

    Args:
        model: judges clips into `num_classes` logits.
        task: aggregate, labels and smoothing, see `config.Task`.
        num_classes: K.
        label: the label space that is learned, a key of `Target.labels`.
    Raises: ValueError: the model has another number of classes.
    """

    separable: ClassVar[frozenset[str]] = frozenset({"clip"})

    def __init__(self, model: VideoModel, task: config.Task, num_classes: int, *, label: str = "label") -> None:
        super().__init__()
        if model.num_classes != num_classes:
            raise ValueError(f"the model has {model.num_classes} classes, the task {num_classes}")
        if task.dropout:  # 0 leaves the model as it was built
            model.clip_model.dropout.p = task.dropout
        self.model, self.task, self.num_classes, self.label = model, task, num_classes, label

    def losses(self, clip_logits_BNK: Tensor, batch: ClipBatch, valid_BN: Tensor | None = None) -> Losses:
        """The parts `video`, `clip` or both, summed over videos; see `tasks.losses`. Of blended videos both labels are
        asked for, each by its share: cross-entropies are linear in their target, so this is that of the mixed one."""
        judged = partial(
            video_losses,
            clip_logits_BNK,
            valid_BN=batch.valid_BN if valid_BN is None else valid_BN,
            aggregate=self.task.aggregate,
            mix=self.task.mix,
            multi_label=self.task.multi_label,
            label_smoothing=self.task.label_smoothing,
        )
        labels, blend = batch.target.labels[self.label], batch.blend
        if blend is None:
            return judged(labels)
        own = judged(labels, share_B=blend.share_B)
        return own.merge(judged(labels[blend.partner_B], share_B=1 - blend.share_B))

    def read(self, summary: Any, memory: VideoState, batch: ClipBatch, clips: slice = ALL_CLIPS) -> Tensor:
        """Logits of clips, with the bank of their videos where the model reads one."""
        if isinstance(self.model, BankModel):
            return self.model.read_with_bank(summary, None if batch.bank is None else batch.bank.of_clips(clips))
        logits_BNK: Tensor = super().read(summary, memory, batch, clips)
        return logits_BNK

    def predict(self, batch: ClipBatch, alone: bool = False) -> Prediction:
        """Scores of the videos and logits of their clips, without gradient; the module's mode is the caller's.

        Args:
            alone: judge every clip as a video of one clip (its memory holds that clip alone).
        """
        with torch.no_grad():
            clips_BNCTHW = self.inputs(batch)
            if isinstance(self.model, BankModel):
                clip_logits_BNK, _ = self.model(clips_BNCTHW, bank=batch.bank)  # clips know nothing of each other
            elif alone:
                # invalid clips run too: a video of one clip that is not valid would have no memory at all
                logits_R1K, _ = self.model(clips_BNCTHW.flatten(0, 1)[:, None], None, None)
                clip_logits_BNK = logits_R1K.view(*batch.valid_BN.shape, -1)
            else:
                clip_logits_BNK, _ = self.model(clips_BNCTHW, None, batch.valid_BN)
            scores_BK = aggregate_scores(
                clip_logits_BNK, batch.valid_BN, self.task.aggregate, multi_label=self.task.multi_label
            )
        return Prediction(
            scores={self.label: scores_BK},
            clip_logits={self.label: clip_logits_BNK},
            valid_BN=batch.valid_BN,
            seconds_BN2=torch.stack([batch.seconds_BNT[..., 0], batch.seconds_BNT[..., -1]], dim=-1),
            ids=batch.ids,
            final_B=torch.ones(len(batch.ids), dtype=torch.bool, device=scores_BK.device),
        )

    def metrics(self) -> ClassificationCounts:
        """Top-k of videos and clips, and the confusion matrix or average precision."""
        return ClassificationCounts.zero(self.label, self.num_classes, multi_label=self.task.multi_label)

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The clip model's classifier; with a bank also all that reads it."""
        clip_model = self.model.clip_model
        own = clip_model.get_submodule(clip_model.classifier).parameters()
        if isinstance(self.model, BankModel):
            return [*own, *self.model.operator.parameters(), *self.model.bank_fc.parameters()]
        return own
