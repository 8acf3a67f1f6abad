"""Classification of the clips of streams: one label a clip, or one a frame, in one or several label spaces.

Source: arXiv 2201.08383 (heads); with several spaces the loss is the sum of their cross-entropies. Clips without a
label (`IGNORED`) only feed the memory. Anticipation is the same task: there the label is what comes next. Of blended
rows both labels are asked for, each by its share.
Extra axes: K classes, Q clips, or frames of clips, that have a label.
Not here: which clip has which label (`datasets/stream_labels.py`), boxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel import config
from wholereel.batches import IGNORED, Losses, LossPart, Prediction, StreamBatch
from wholereel.errors import ConfigError
from wholereel.models.stream_models import StreamModel, StreamState, head_dropout, head_parameters
from wholereel.tasks.losses import without_tail
from wholereel.tasks.stream_task import StreamTask

__all__ = ["StreamClassification", "labelled", "space_loss"]


class StreamClassification(StreamTask):
    """Model, loss and scores of each step.

    Args:
        model: judges clips into the classes of all spaces (several: a tuple of logits, in their order).
        task: `multi_label`, `label_smoothing` and `dropout` of `config.Task`; a clip is judged alone, so nothing is
            aggregated.
        spaces: class names by label space, keys of `Target.labels`.
        tails: of each space, bool, its rare classes, for `task.tail_drop`.
    Raises: ConfigError: the model has other classes; `task.tail_drop` without `tails` or with several labels a clip.
    """

    def __init__(
        self,
        model: StreamModel,
        task: config.Task,
        spaces: Mapping[str, tuple[str, ...]],
        tails: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if task.tail_drop and (tails is None or task.multi_label):
            raise ConfigError(
                f"task.tail_drop={task.tail_drop} leaves rare classes out of a softmax: it needs task.tail_below, "
                "which says what is rare, and task.multi_label=False."
            )
        self.tails = {name: tails[name] for name in spaces} if task.tail_drop and tails is not None else {}
        wanted = sum(map(len, spaces.values()))
        if model.num_classes != wanted:
            raise ConfigError(
                f"the model has {model.num_classes} classes, the label spaces {', '.join(spaces)} {wanted}"
            )
        if task.dropout:  # 0 leaves the model as it was built
            head_dropout(model).p = task.dropout
        self.model, self.task, self.spaces = model, task, dict(spaces)

    def forward(self, batch: StreamBatch, state: StreamState) -> tuple[Losses, StreamState]:
        """One part for each label space, summed over what has a label."""
        logits, state = self.judge(batch, state)
        labels, blend = batch.target.labels, batch.blend
        if blend is None:
            return self._losses(logits, labels, batch.valid_B), state
        own = self._losses(logits, labels, batch.valid_B, blend.share_B)
        others = {name: label[blend.partner_B] for name, label in labels.items()}
        return own.merge(self._losses(logits, others, batch.valid_B, 1 - blend.share_B)), state

    def _losses(
        self,
        logits: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
        valid_B: Tensor,
        share_B: Tensor | None = None,
    ) -> Losses:
        """Of these labels; `share_B`: how much each row counts, where rows are blended."""
        parts = {
            name: space_loss(
                self._without_tail(name, logits[name], labels[name]),
                labels[name],
                valid_B,
                multi_label=self.task.multi_label,
                label_smoothing=self.task.label_smoothing,
                share_B=share_B,
            )
            for name in self.spaces
        }
        return Losses(parts)

    def predict(self, batch: StreamBatch, state: StreamState) -> tuple[Prediction, StreamState]:
        """Probabilities of each space: `(B, K)`, with a frame-level model `(B, T', K)`, as `clip_logits` are."""
        with torch.no_grad():
            logits, state = self.judge(batch, state)
        logits = {name: one.float() for name, one in logits.items()}
        scores = {name: one.sigmoid() if self.task.multi_label else one.softmax(-1) for name, one in logits.items()}
        prediction = Prediction(
            scores=scores,
            clip_logits={name: one[:, None] if one.ndim == 2 else one for name, one in logits.items()},
            valid_BN=batch.valid_B[:, None],
            seconds_BN2=batch.seconds_B2[:, None],
            ids=batch.ids,
            final_B=torch.ones_like(batch.valid_B),
        )
        return prediction, state

    def judge(self, batch: StreamBatch, state: StreamState) -> tuple[dict[str, Tensor], StreamState]:
        """Logits by label space, and the memory for the next step."""
        found: Any
        found, state = self.model(self.inputs(batch), state)
        return dict(zip(self.spaces, found if isinstance(found, tuple) else (found,), strict=True)), state

    def _without_tail(self, name: str, logits: Tensor, labels: Tensor) -> Tensor:
        if not self.training or name not in self.tails:
            return logits
        labels = labels[:, None].expand(logits.shape[:2]) if logits.ndim == 3 and labels.ndim == 1 else labels
        return without_tail(logits.float(), labels, self.tails[name].to(logits.device), drop=self.task.tail_drop)

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The classifiers of all spaces."""
        return head_parameters(self.model)


def labelled(labels: Tensor, valid_B: Tensor, *, multi_label: bool = False) -> Tensor:
    """Which rows, or frames of rows, have a label: bool, `(B,)` or `(B, T')`.

    Args:
        labels: class indices `(B,)` or `(B, T')`, or multi-hot with a last axis K; `IGNORED` = none.
        valid_B: rows that have a clip.
    """
    found = (labels >= 0).all(-1) if multi_label else labels >= 0
    return found & valid_B.reshape(-1, *[1] * (found.ndim - 1))


def space_loss(
    logits: Tensor,
    labels: Tensor,
    valid_B: Tensor,
    *,
    multi_label: bool = False,
    label_smoothing: float = 0.0,
    share_B: Tensor | None = None,
) -> LossPart:
    """Sum over all labelled clips, or frames, of one label space's loss, and their number; without any it is zero.

    Args:
        logits: `(B, K)`, or `(B, T', K)` of a frame-level model, for which one label a clip counts for each frame.
        labels, valid_B: see `labelled`.
        label_smoothing: as in `tasks.losses.video_loss`; binary cross-entropies are means over the K classes.
        share_B: how much of each row counts; `None` = all of it.
    Raises: ValueError: labels of another shape.
    """
    if logits.ndim == 3 and labels.ndim == (2 if multi_label else 1):
        labels = labels[:, None].expand(-1, logits.shape[1], *labels.shape[1:])
    expected = logits.shape if multi_label else logits.shape[:-1]
    if labels.shape != expected:
        raise ValueError(
            f"logits {tuple(logits.shape)} need labels of shape {tuple(expected)}, got {tuple(labels.shape)}"
        )
    present = labelled(labels, valid_B, multi_label=multi_label)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # filled before any arithmetic: rows that have ended may hold anything
    logits = logits.masked_fill(~present[..., None], 0.0)
    if multi_label:
        soft = labels.clamp(min=0).to(logits.dtype) * (1.0 - label_smoothing) + 0.5 * label_smoothing
        loss = F.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean(-1).masked_fill(~present, 0.0)
        total = loss.sum()
    else:
        loss = F.cross_entropy(
            logits.flatten(0, -2),
            labels.masked_fill(~present, IGNORED).flatten(),
            ignore_index=IGNORED,
            reduction="sum" if share_B is None else "none",
            label_smoothing=label_smoothing,
        )
        total = loss.sum()
    if share_B is not None:
        share = share_B.to(loss.dtype).view(-1, *[1] * (present.ndim - 1))
        return LossPart((loss.view(present.shape) * share).sum(), (present * share).sum())
    return LossPart(total, present.sum().to(total.dtype))
