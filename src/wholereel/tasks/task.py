"""What every task offers to the training loop, its strategies and the evaluation.

A task is a module that owns the model, its losses and (later kinds) teachers and further heads. Extra axes: K classes.

The loss of a video is made of four functions, which `forward` drives with all clips at once and strategies clip by
clip: what a clip gives (`encode`: all of its pixels that matters), what is said of it under a memory (`read`), the same
from feature maps that all blocks have infused (`finish`, where blocks stand elsewhere), and the judgement of all that
was said (`judge`). The base class says logits for every clip; a task that judges other things (boxes of one clip out of
several) replaces the four.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from wholereel.batches import ClipBatch, Losses, Prediction, Target
from wholereel.media.mixed_input import blended, erase
from wholereel.media.model_input import to_model_input
from wholereel.memory.collaborative import NO_CLIP
from wholereel.memory.state import VideoState
from wholereel.models.video_model import VideoModel
from wholereel.ops.checks import check_all

__all__ = ["ALL_CLIPS", "ClipSummary", "Counts", "Task"]

ALL_CLIPS = slice(None)


class Counts(Protocol):
    """What a task measures: immutable counts, merged over batches and ranks, divided last."""

    def add(self, prediction: Prediction, target: Target) -> Self:
        """These counts and those of one more batch."""

    def merge(self, other: Self) -> Self:
        """Both sets of videos together (disjoint sets)."""

    def value(self) -> dict[str, float]:
        """Named numbers."""


class ClipSummary(Protocol):
    """What `Task.encode` returns: a frozen dataclass of tensors (nested as one likes), one of them this one.

    Attributes:
        push: what valid clips contribute to their videos' memory, merged over the clips that were encoded together.
    """

    @property
    def push(self) -> VideoState: ...


class Task(nn.Module, ABC):
    """A learning problem.

    Attributes:
        model: judges clips; its memory ties the clips of a video together.
        separable: names of the loss parts that are means over clips, each of which looks at one clip's logits only.
        every_clip_predicts: False where only some clips are judged and the others just push into the memory, as the
            context clips of a detector do. Strategies with a truncated gradient refuse such a task.
    """

    model: VideoModel
    separable: ClassVar[frozenset[str]]
    every_clip_predicts: ClassVar[bool] = True

    def inputs(self, batch: ClipBatch, clips: slice | None = None) -> Tensor:
        """The batch's clips as the model wants them: clips_BNCTHW, normalised, in the parameters' type and on their
        device; with noise where they are erased, and blended, where the batch says so.

        Args:
            clips: which of the N clips; all where `None`. Those left out stay uint8.
        """
        info, parameter = self.model.info, next(self.model.parameters())
        pixels_BNTCHW = _on_device(batch.pixels(clips), parameter.device)
        clips_BNCTHW = to_model_input(pixels_BNTCHW, mean=info.mean, std=info.std, dtype=parameter.dtype)
        erase(clips_BNCTHW, batch.erased, range(batch.valid_BN.shape[1])[ALL_CLIPS if clips is None else clips])
        return clips_BNCTHW if batch.blend is None else blended(clips_BNCTHW, batch.blend)

    @abstractmethod
    def losses(self, clip_logits_BNK: Tensor, batch: ClipBatch, valid_BN: Tensor | None = None) -> Losses:
        """Losses of given logits; `valid_BN` (default: the batch's) may leave out more clips, or videos altogether."""

    def encode(self, batch: ClipBatch, clips: slice = ALL_CLIPS) -> ClipSummary:
        """All that the loss needs of these clips' pixels, with graph where gradients are on.

        Asked for models that summarise (`VideoModel.summarises`) only. Summaries of different clips may differ: shapes,
        types, and whether there is anything besides the push.
        """
        order_BN = batch.valid_BN.cumsum(1) - batch.valid_BN.long()
        return self.model.summarise(self.inputs(batch, clips), batch.valid_BN[:, clips], order_BN=order_BN[:, clips])

    def read(self, summary: Any, memory: VideoState, batch: ClipBatch, clips: slice = ALL_CLIPS) -> Any:
        """What is said of clips, given the memory of their videos: any nesting of tensors that `judge` understands.

        Args:
            summary: what `encode` made of the same clips; its push may have been emptied.
        """
        return self.model.read(summary, memory)

    def finish(self, x_BNCTHW: Tensor, batch: ClipBatch, clips: slice = ALL_CLIPS) -> Any:
        """What `read` gives, from the clips' last feature maps, which all blocks have infused.

        Args:
            x_BNCTHW: what the last segment of the model gave for these clips.
        """
        return self.model.head(x_BNCTHW)

    def judge(self, outputs: Sequence[Any], batch: ClipBatch) -> Losses:
        """Losses of what was said (by `read` or `finish`) of the batch's clips, in their order, some at a time."""
        return self.losses(torch.cat(list(outputs), dim=1), batch)

    def forward(self, batch: ClipBatch) -> Losses:
        """All clips of all videos at once.

        Raises: ValueError: a video without any valid clip.
        """
        check_all(batch.valid_BN.any(1), NO_CLIP)
        if self.model.summarises and not self.model.causal:
            summary = self.encode(batch)
            return self.judge([self.read(summary, summary.push, batch)], batch)
        return self.judge([self.finish(self.model.infused(self.inputs(batch), batch.valid_BN), batch)], batch)

    @abstractmethod
    def predict(self, batch: ClipBatch, alone: bool = False) -> Prediction:
        """Scores without gradient; with `alone`, each clip is judged as a video of one clip."""

    @abstractmethod
    def metrics(self) -> Counts:
        """Empty counts of what this task measures."""

    @abstractmethod
    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The classifier's parameters, which may have a learning rate of their own."""


def _on_device(pixels_BNTCHW: Tensor, device: torch.device) -> Tensor:
    """The same pixels there. Some of the clips of several videos lie in pieces: each travels by itself, since the host
    would gather them into memory that is not pinned, and then wait for the copy."""
    if pixels_BNTCHW.device.type != "cpu" or device.type == "cpu" or pixels_BNTCHW.is_contiguous():
        return pixels_BNTCHW.to(device, non_blocking=True)
    there_BNTCHW = torch.empty(pixels_BNTCHW.shape, dtype=pixels_BNTCHW.dtype, device=device)
    for video, pixels_NTCHW in zip(there_BNTCHW, pixels_BNTCHW, strict=True):
        video.copy_(pixels_NTCHW, non_blocking=True)
    return there_BNTCHW
