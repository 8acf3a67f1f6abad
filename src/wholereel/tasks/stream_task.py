"""What a task of streams offers: one clip of each of B videos a step, and a memory state that goes in and comes out.

Videos are read in order (`batches.StreamBatch`), so a task of streams has no view of the whole video.
Not here: how states are reset, carried and saved (`training/`), what a step computes (`stream_classification.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from wholereel.batches import Losses, Prediction, StreamBatch
from wholereel.media.mixed_input import blended, erase
from wholereel.media.model_input import to_model_input
from wholereel.models.stream_models import (
    StreamModel,
    StreamState,
    init_stream_state,
    memory_parameters,
    stream_state,
)

__all__ = ["StreamTask"]


class StreamTask(nn.Module, ABC):
    """A learning problem on streams.

    Attributes:
        model: `prediction, state = model(clip_BCTHW, state)`.
        spaces: class names by label space, in the order of the logits.
    """

    model: StreamModel
    spaces: Mapping[str, tuple[str, ...]]

    def begin(self, batch: StreamBatch) -> StreamState:
        """The memory of nothing, for as many rows and clips as large as the batch's."""
        height, width = batch.clip_BTCHW.shape[-2:]
        return init_stream_state(self.model, len(batch.valid_B), (height, width))

    def restore(self, tensors: Mapping[str, Tensor]) -> StreamState:
        """A memory from its `as_dict`, on the model's device.

        Raises: ValueError: it is no memory of this model.
        """
        return stream_state(self.model, tensors).to(next(self.parameters()).device)

    def inputs(self, batch: StreamBatch) -> Tensor:
        """The batch's clips as the model wants them: clip_BCTHW, normalised, in the parameters' type; with noise where
        they are erased, and blended, where the batch says so."""
        info, parameter = self.model.info, next(self.model.parameters())
        pixels_BTCHW = batch.clip_BTCHW.to(parameter.device, non_blocking=True)
        clip_BCTHW = to_model_input(pixels_BTCHW, mean=info.mean, std=info.std, dtype=parameter.dtype)
        erase(clip_BCTHW[:, None], batch.erased, range(1))
        return clip_BCTHW if batch.blend is None else blended(clip_BCTHW, batch.blend)

    @abstractmethod
    def forward(self, batch: StreamBatch, state: StreamState) -> tuple[Losses, StreamState]:
        """Losses of this step's clips, and the memory for the next step.

        Args:
            state: of `begin` or the step before, after `reset` of the rows whose video begins with this clip.
        """

    @abstractmethod
    def predict(self, batch: StreamBatch, state: StreamState) -> tuple[Prediction, StreamState]:
        """Scores of this step's clips without gradient, and the memory for the next step; N = 1."""

    @abstractmethod
    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The classifier's parameters, which may have a learning rate of their own."""

    def memory_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that only a memory needs, likewise."""
        return memory_parameters(self.model)
