"""What every task offers to the training loop, its strategies and the evaluation.

A task is a module that owns the model, its losses and (later kinds) teachers and further heads. Extra axes: K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Protocol, Self

from torch import Tensor, nn

from wholereel.batches import ClipBatch, Losses, Prediction, Target
from wholereel.models.video_model import VideoModel

__all__ = ["Counts", "Task"]


class Counts(Protocol):
    """What a task measures: immutable counts, merged over batches and ranks, divided last."""

    def add(self, prediction: Prediction, target: Target) -> Self:
        """These counts and those of one more batch."""

    def merge(self, other: Self) -> Self:
        """Both sets of videos together (disjoint sets)."""

    def value(self) -> dict[str, float]:
        """Named numbers."""


class Task(nn.Module, ABC):
    """A learning problem.

    `forward(batch)` is `losses(model(inputs(batch)), batch)`. The pieces stand alone for strategies that run the
    clips of a video one after the other.

    Attributes:
        model: judges clips; its memory ties the clips of a video together.
        separable: names of the loss parts that are means over clips, each of which looks at one clip's logits only.
        every_clip_predicts: False where only some clips are judged and the others just push into the memory, as the
            context clips of a detector do. Strategies with a truncated gradient refuse such a task.
    """

    model: VideoModel
    separable: ClassVar[frozenset[str]]
    every_clip_predicts: ClassVar[bool] = True

    @abstractmethod
    def inputs(self, batch: ClipBatch, clips: slice | None = None) -> Tensor:
        """The batch's clips as the model wants them: clips_BNCTHW, normalised, in the parameters' type.

        Args:
            clips: which of the N clips; all where `None`. One at a time, the others stay uint8.
        """

    @abstractmethod
    def losses(self, clip_logits_BNK: Tensor, batch: ClipBatch, valid_BN: Tensor | None = None) -> Losses:
        """Losses of given logits; `valid_BN` (default: the batch's) may leave out more clips, or videos altogether."""

    @abstractmethod
    def forward(self, batch: ClipBatch) -> Losses:
        """All clips of all videos at once."""

    @abstractmethod
    def predict(self, batch: ClipBatch, alone: bool = False) -> Prediction:
        """Scores without gradient; with `alone`, each clip is judged as a video of one clip."""

    @abstractmethod
    def metrics(self) -> Counts:
        """Empty counts of what this task measures."""

    @abstractmethod
    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The classifier's parameters, which may have a learning rate of their own."""
