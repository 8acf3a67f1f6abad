"""A clip model that judges boxes of people at a key frame, with what other clips of the film know.

Source: facebookresearch/SlowFast (`slowfast/models/head_helper.py`) for the head; arXiv 2104.01198 applies its memory
to AVA, but how boxes read it could not be consulted: both ways here are our choice. `clip`: the gate of the box's clip
multiplies the clip's map in front of the pooling; `roi`: the box's own vector asks the memory, a gate for each person.
The head has no weights of its own: its classifier is the clip model's, so published detectors and clip models load
alike.
Extra axes: R boxes of all clips, flat; K classes; P, V widths of queries and values.
Not here: which clips are read (`media/key_clips.py`), losses (`tasks/detection.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from wholereel import config
from wholereel.batches import map_tensors
from wholereel.layers.roi_pooling import boxes_of_slots, pool_boxes
from wholereel.memory.collaborative import NO_CLIP
from wholereel.memory.state import PlaceState, VideoState
from wholereel.models.clip_model import ClipModel
from wholereel.models.video_model import LAST, VideoModel, memory_places
from wholereel.ops.checks import check_all

__all__ = ["BoxSummary", "Detector"]

READS = ("clip", "roi")


@dataclass(frozen=True)
class BoxSummary:
    """All that the judgement of boxes needs of their clips besides the memory.

    Args:
        push: what the clips contribute to their videos' memory, merged; empty without memory.
        query_RP: pooled query of each box's clip for `read="clip"`; else P = 0.
        rois_RD: the boxes' vectors, float32 or wider.
        video_R: int64, row of the memory that each box reads.
    """

    push: VideoState
    query_RP: Tensor
    rois_RD: Tensor
    video_R: Tensor


torch.export.register_dataclass(BoxSummary, serialized_type_name="wholereel.BoxSummary")


class Detector(VideoModel):
    """Any clip model, with or without memory, with a head for boxes.

    Boxes are rows `row, x1, y1, x2, y2` in pixels of the clip; row `b * N + n` is clip n of video b of those given.

    Args:
        clip_model: its classifier judges the boxes' vectors.
        memory: settings of the blocks; `None` = clips are judged one by one.
        boxes: settings of the head.
    Raises: ValueError: places or sizes that do not fit; `read="roi"` with other blocks than one in front of the head.
    """

    keeps_map: ClassVar[bool] = True

    def __init__(
        self, clip_model: ClipModel, memory: config.Memory | None = None, boxes: config.BoxHead | None = None
    ) -> None:
        boxes = boxes or config.BoxHead()
        if boxes.read not in READS:
            raise ValueError(f"boxes.read must be one of {READS}, got {boxes.read!r}")
        if boxes.read == "roi" and memory is not None:
            tokens = memory.interaction.startswith("nl_")
            if tokens or memory_places(clip_model.stages, memory) != (LAST,):
                raise ValueError(
                    "boxes.read='roi' asks one block in front of the head that is read with a pooled query (assoc, avg "
                    f"or max), but memory.after={memory.after} with {memory.interaction!r}; use boxes.read='clip'"
                )
        if memory is not None and memory.reads == "past":
            raise ValueError("a detector judges the clip in the middle of a window: memory.reads must be 'all'")
        super().__init__(clip_model, memory)
        self.boxes = boxes
        self.scale = 1 / clip_model.feature_info[-1]["reduction"][1]

    @property
    def summarises(self) -> bool:
        """Whether boxes can be judged from `summarise_boxes`: no block, or one in front of the head without token
        buffer, which multiplies the map by a gate, or is asked by the boxes.

        What is added to the map (`infusion="residual"`) differs from place to place, and the largest value in a box
        is no function of the pooled map.
        """
        added = self.memory is not None and self.memory.infusion == "residual" and self.boxes.read == "clip"
        return super().summarises and not added

    def rebuilt(self, clip_model: ClipModel, memory: config.Memory | None) -> Detector:
        return Detector(clip_model, memory, self.boxes)

    def forward(  # type: ignore[override]
        self,
        clips: Tensor,
        state: VideoState | None = None,
        valid_BN: Tensor | None = None,
        *,
        boxes_R5: Tensor,
        order_BN: Tensor | None = None,
    ) -> tuple[Tensor, VideoState]:
        """Logits of boxes. All clips given push first, then those with boxes read, together with those in `state`.

        Args:
            clips: normalised, `BNCTHW`, or `BCTHW` for one clip of each video.
            boxes_R5: see the class.
            state, valid_BN, order_BN: see `VideoModel.forward`.
        Returns: logits `(R, K)`, in the order of the boxes; and the state with the new clips.
        Raises: ValueError: wrong shapes, a state of another model, a video without any valid clip.
        """
        clips_BNCTHW = clips[:, None] if clips.ndim == 5 else clips
        if not self.summarises:
            x_BNCTHW, state = self._through_blocks(clips_BNCTHW, state, valid_BN, order_BN)
            return self.box_head(x_BNCTHW, boxes_R5), state
        if state is not None and len(state.places) != len(self.places):
            raise ValueError(f"the state has {len(state.places)} places, the model {len(self.places)}: {self.places}")
        if order_BN is None and state is not None and self.places:
            order_BN = state.places[0].clips_B[:, None] + _own_order(clips_BNCTHW, valid_BN)
        summary = self.summarise_boxes(clips_BNCTHW, boxes_R5, valid_BN, order_BN=order_BN)
        state = summary.push if state is None else state.merge(summary.push)
        if valid_BN is not None:
            seen_B = state.places[0].clips_B > 0 if state.places else valid_BN.any(1)
            check_all(seen_B, NO_CLIP)
        return self.read_boxes(summary, state), state

    def forward_slots(
        self, clip_BCTHW: Tensor, state: VideoState, boxes_BS4: Tensor, valid_BS: Tensor
    ) -> tuple[Tensor, VideoState]:
        """One clip of each video, with as many boxes a row as there are slots: all shapes are fixed.

        Args:
            boxes_BS4: x1, y1, x2, y2 in pixels. valid_BS: bool, which are boxes.
        Returns: logits `(B, S, K)`, zeros where there is no box, and the state with the new clips.
        """
        logits_RK, state = self(clip_BCTHW, state, boxes_R5=boxes_of_slots(boxes_BS4))
        return torch.where(valid_BS[..., None], logits_RK.unflatten(0, valid_BS.shape), 0.0), state

    def summarise_boxes(
        self,
        clips_BNCTHW: Tensor,
        boxes_R5: Tensor,
        valid_BN: Tensor | None = None,
        *,
        order_BN: Tensor | None = None,
    ) -> BoxSummary:
        """All that depends on the pixels; the rest is `read_boxes`.

        Args:
            clips_BNCTHW: normalised.
            boxes_R5: see the class; boxes of clips that are not given are not given either. May be empty.
            valid_BN: bool; False clips do not push.
            order_BN: int64 index of each clip in its video, for `clip_pos`; counted from 0 where `None`.
        Raises: ValueError: the model does not summarise.
        """
        block = self._last_block()
        x_BCTHW = self.run_segment(0, clips_BNCTHW.flatten(0, 1))
        rois_RD = self._pool(x_BCTHW, boxes_R5)
        row_R = boxes_R5[:, 0].long()
        video_R = row_R.div(clips_BNCTHW.shape[1], rounding_mode="floor")
        if block is None:
            return BoxSummary(VideoState(), rois_RD[:, :0], rois_RD, video_R)
        x_BNCTHW = x_BCTHW.unflatten(0, clips_BNCTHW.shape[:2])
        push = self.push_at(0, x_BNCTHW, valid_BN, order_BN=order_BN)
        query_RP = self.query_at(0, x_BNCTHW).flatten(0, 1)[row_R] if self.boxes.read == "clip" else rois_RD[:, :0]
        return BoxSummary(VideoState((push,)), query_RP, rois_RD, video_R)

    def read_boxes(self, summary: BoxSummary, state: VideoState) -> Tensor:
        """Logits `(R, K)` of boxes under any memory of their videos; their clips' own pushes must be in it already
        (that of the summary is not looked at).

        Raises: ValueError: the model does not summarise.
        """
        block = self._last_block()
        rois_RD = summary.rois_RD
        if block is not None:
            memory_R: PlaceState = map_tensors(state.places[0], lambda tensor: tensor[summary.video_R])
            as_map_R = rois_RD[:, None, :, None, None, None]
            query_R1P = (
                block.query(self.view(LAST).channels(as_map_R))
                if self.boxes.read == "roi"
                else summary.query_RP[:, None]
            )
            rois_RD = block.infuse_pooled(
                block.read(memory_R, query_R1P), rois_RD[:, None], spread=self.view(LAST).spread
            )[:, 0]
        return self._classify(rois_RD)

    def box_head(self, x_BNCTHW: Tensor, boxes_R5: Tensor) -> Tensor:
        """Logits `(R, K)` of boxes in maps that all blocks have infused."""
        return self._classify(self._pool(x_BNCTHW.flatten(0, 1), boxes_R5))

    def head(self, x_BNCTHW: Tensor) -> NoReturn:
        """A detector judges boxes, not clips."""
        raise ValueError("a detector judges boxes: call box_head, or use the model without `boxes`")

    def _pool(self, x_BCTHW: Tensor, boxes_R5: Tensor) -> Tensor:
        boxes = self.boxes
        return pool_boxes(
            self.clip_model.grid_map(x_BCTHW),
            boxes_R5,
            scale=self.scale,
            resolution=boxes.resolution,
            sampling_ratio=boxes.sampling_ratio,
            aligned=boxes.aligned,
        )

    def _classify(self, rois_RD: Tensor) -> Tensor:
        return self.clip_model.classify(rois_RD.to(next(self.clip_model.parameters()).dtype))


def _own_order(clips_BNCTHW: Tensor, valid_BN: Tensor | None) -> Tensor:
    """Index of each clip among the valid ones of those given."""
    if valid_BN is None:
        return torch.arange(clips_BNCTHW.shape[1], device=clips_BNCTHW.device)[None]
    return valid_BN.cumsum(1) - valid_BN.long()
