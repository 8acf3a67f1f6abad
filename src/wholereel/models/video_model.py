"""A clip model with memory blocks: clips of one video exchange what they know before each is judged.

Source: arXiv 2104.01198 for the memory; where blocks stand is our choice: after any stages, by default in front of the
head.
All state is explicit: `logits, state = model(clip, state)`. The network is cut at the blocks into *segments*; what a
strategy or a stream needs beyond `forward` is built from them: `run_segment`, `push_at`, `infuse_at`, all with
gradient; and `encode`, `read`, `contributions`.
Not here: insertion into trained models (`conversion.py`), losses (`tasks/`), strategies (`training/`).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from wholereel import config
from wholereel.memory.collaborative import NO_CLIP, CollaborativeMemory
from wholereel.memory.state import CollaborativeState, MaxState, PlaceState, State, TokenState, VideoState
from wholereel.models.clip_model import ClipModel, MemoryView, ModelInfo
from wholereel.ops.checks import check_all

__all__ = ["LAST", "Summary", "VideoModel", "build_memory", "memory_places", "merge_clips"]

AnyState = TypeVar("AnyState", CollaborativeState, MaxState, TokenState, PlaceState, VideoState)

COMPILED_FORMS = 64  # of all stages together: by class, sizes, mode, and whether gradients are wanted
LAST = "last"  # the place in front of the head, under whatever name the last stage has


@dataclass(frozen=True)
class Summary(State):
    """All that the judgement of a clip needs of it besides the memory: a few numbers instead of a feature map.

    Args:
        push: what the clip contributes to its video's memory; empty without memory.
        query_BP: pooled query, P = 0 without memory. pooled_BD: pooled features, float32 or wider. Both have a clip
            axis, `(B, N, ...)`, where they speak of several clips.
    """

    push: VideoState
    query_BP: Tensor
    pooled_BD: Tensor


torch.export.register_dataclass(Summary, serialized_type_name="wholereel.Summary")


def memory_places(stages: Mapping[str, nn.Module], memory: config.Memory | None) -> tuple[str, ...]:
    """Where blocks stand, in the order of the network; the last stage is called `"last"`.

    Raises: ValueError: a stage that does not exist, or one named twice.
    """
    names = list(stages)
    wanted = [] if memory is None else [LAST if name == names[-1] else name for name in memory.after]
    legal = [*names[:-1], LAST]
    for name in wanted:
        if name not in legal or wanted.count(name) > 1:
            stages_said = f"{', '.join(names)} or {LAST!r} (= {names[-1]})"
            raise ValueError(f"memory.after may name each of {stages_said} once, got {memory}")
    return tuple(name for name in legal if name in wanted)


def build_memory(dim: int, memory: config.Memory) -> CollaborativeMemory:
    """The block for D = `dim` that the settings describe."""
    return CollaborativeMemory(
        dim,
        memory.dim,
        memory.value_dim,
        interaction=memory.interaction,
        infusion=memory.infusion,
        value=memory.value,
        position_norm=memory.position_norm,
        ref_positions=memory.ref_positions,
        clip_pos=memory.clip_pos,
        detach=memory.detach,
        norm=memory.norm,
    )


class VideoModel(nn.Module):
    """Any clip model, with or without memory, behind one interface.

    What the last segment gives is what the head averages (`ClipModel.head_map`). Class attribute `keeps_map`: the head
    looks at places. Then a block in front of it infuses the map, not its mean.

    Args:
        clip_model: judges a clip; must have stages.
        memory: settings of the blocks; `None` = clips are judged one by one.
    Raises: ValueError: places or sizes that do not fit the model; a model without stages.
    """

    keeps_map: ClassVar[bool] = False

    def __init__(self, clip_model: ClipModel, memory: config.Memory | None = None) -> None:
        super().__init__()
        if not clip_model.stages:
            raise ValueError(
                f"{type(clip_model).__name__} has no stages behind which a memory could stand: it has a memory of its "
                "own, or judges something else than whole clips with one set of classes"
            )
        if memory is not None and memory.reads == "past" and memory.interaction.startswith("nl_"):
            raise ValueError(f"reads='past' needs a memory of fixed size, which {memory.interaction!r} does not have")
        self.clip_model = clip_model
        self.memory = memory
        stages = list(clip_model.stages)
        self.places = memory_places(clip_model.stages, memory)
        self.memories = nn.ModuleDict()
        if memory is not None:
            self.memories.update({place: build_memory(self.view(place).dim, memory) for place in self.places})
        ends = [0, *(stages.index(stages[-1] if place == LAST else place) + 1 for place in self.places), len(stages)]
        # Stage names before, between and after the blocks: one more than there are places, possibly empty.
        self.segments = tuple(tuple(stages[begin:end]) for begin, end in pairwise(ends))
        # Whoever runs segments otherwise for a while, such as `training/segment_graphs.py`.
        self.segment_runner: Callable[[int, Tensor], Tensor] | None = None

    def rebuilt(self, clip_model: ClipModel, memory: config.Memory | None) -> VideoModel:
        """Another model with the same head: this clip model, that memory."""
        return VideoModel(clip_model, memory)

    @property
    def num_classes(self) -> int:
        return self.clip_model.num_classes

    @property
    def causal(self) -> bool:
        """Does a clip read only the clips up to itself?"""
        return self.memory is not None and self.memory.reads == "past"

    @property
    def summarises(self) -> bool:
        """Whether `encode` and `read` serve this model: no block, or one in front of the head without token buffer."""
        tokens = self.memory is not None and self.memory.interaction.startswith("nl_")
        return self.places in ((), (LAST,)) and not tokens

    def view(self, place: str) -> MemoryView:
        """What the block at a place sees of what its segment gives."""
        stage = list(self.clip_model.stages)[-1] if place == LAST else place
        return self.clip_model.memory_view(stage, "concat" if self.memory is None else self.memory.pathway)

    @property
    def info(self) -> ModelInfo:
        return self.clip_model.info

    def compile_stages(self, backend: str = "inductor") -> None:
        """Compile the clip model stage by stage, in place; keys stay as they are.

        Not the model as a whole: strategies and streams run the stages and the memory between them one by one, and what
        lies between stages is small.
        """
        # Dropout must draw what it draws without compilation, so that a pass can be repeated.
        options = {"fallback_random": True} if backend == "inductor" else None
        for stage in self.clip_model.stages.values():
            # Stages are often of one class: each gets a cache of its own, and sizes stay constants.
            stage.compile(backend=backend, options=options, dynamic=False, **_own_cache())

    def init_state(
        self,
        batch_size: int,
        *,
        clip_shape: tuple[int, int, int, int] | None = None,
        clips: int | None = None,
        device: torch.device | str | None = None,
    ) -> VideoState:
        """The memory of B videos of which nothing has been seen.

        Args:
            clip_shape: (C, T, H, W) of the clips to come, and
            clips: the largest number of them in a video; only the non-local interactions need both.
            device: the model's where `None`.
        """
        positions: dict[str, int | None] = dict.fromkeys(self.places)
        if clip_shape is not None and clips is not None:
            positions.update(self._positions(clip_shape))
        return VideoState(
            tuple(
                block.init_state(batch_size, clips=clips, positions=positions[place], device=device)
                for place, block in self.blocks()
            )
        )

    def blocks(self) -> tuple[tuple[str, CollaborativeMemory], ...]:
        """The memory blocks with their places, in the order of the network."""
        return tuple(cast("list[tuple[str, CollaborativeMemory]]", list(self.memories.items())))

    def forward(
        self,
        clips: Tensor,
        state: VideoState | None = None,
        valid_BN: Tensor | None = None,
        *,
        order_BN: Tensor | None = None,
    ) -> tuple[Tensor, VideoState]:
        """Logits of clips that share a memory. All clips given push first, then each reads, together with those in
        `state`.

        Args:
            clips: normalised, `BNCTHW`, or `BCTHW` for one clip of each video.
            state: what earlier clips left; nothing where `None`.
            valid_BN: bool; False clips neither push nor mean anything in the result.
            order_BN: int64 index of each clip in its video, for `clip_pos`; counted on from `state` where `None`.
        Returns: logits `(B, N, K)`, or `(B, K)` for `BCTHW`; and the state with the new clips.
        Raises: ValueError: wrong shapes, a state of another model, a video without any valid clip.
        """
        x_BNCTHW, places = self._through_blocks(_with_clip_axis(clips), state, valid_BN, order_BN)
        logits_BNK = self.head(x_BNCTHW)
        return logits_BNK if clips.ndim == 6 else logits_BNK[:, 0], places

    def infused(self, clips_BNCTHW: Tensor, valid_BN: Tensor | None = None) -> Tensor:
        """What the head reads: `forward` without it, `(B, N, C, T, H, W)`; behind a block in front of the head T, H
        and W are 1.

        Raises: ValueError: see `forward`.
        """
        return self._through_blocks(clips_BNCTHW, None, valid_BN, None)[0]

    def _through_blocks(
        self, clips_BNCTHW: Tensor, state: VideoState | None, valid_BN: Tensor | None, order_BN: Tensor | None
    ) -> tuple[Tensor, VideoState]:
        batch_clips = clips_BNCTHW.shape[:2]
        if state is not None and len(state.places) != len(self.places):
            raise ValueError(f"the state has {len(state.places)} places, the model {len(self.places)}: {self.places}")
        if valid_BN is not None and not self.places:
            check_all(valid_BN.any(1), NO_CLIP)
        x_BCTHW = clips_BNCTHW.flatten(0, 1)
        places: list[PlaceState] = []
        for index, (place, block) in enumerate(self.blocks()):
            x_BCTHW = self.run_segment(index, x_BCTHW)
            x_BNCTHW = x_BCTHW.unflatten(0, batch_clips)
            earlier = None if state is None else state.places[index]
            if self.causal:
                x_BNCTHW, place_state = self._one_after_the_other(index, x_BNCTHW, earlier, valid_BN, order_BN)
                places.append(place_state)
                x_BCTHW = x_BNCTHW.flatten(0, 1)
                continue
            places.append(block.pushed_into(earlier, self.view(place).seen(x_BNCTHW), valid_BN, order_BN=order_BN))
            x_BCTHW = self.infuse_at(index, x_BNCTHW, places[-1], valid_BN).flatten(0, 1)
        return self.run_segment(len(self.places), x_BCTHW).unflatten(0, batch_clips), VideoState(tuple(places))

    def _one_after_the_other(
        self,
        index: int,
        x_BNCTHW: Tensor,
        state: PlaceState | None,
        valid_BN: Tensor | None,
        order_BN: Tensor | None,
    ) -> tuple[Tensor, PlaceState]:
        """Clips infused with what was pushed up to each of them, and the memory of all."""
        batch, clips = x_BNCTHW.shape[:2]
        if valid_BN is None:
            valid_BN = torch.ones(batch, clips, dtype=torch.bool, device=x_BNCTHW.device)
        if order_BN is None:
            order_BN = valid_BN.cumsum(1) - valid_BN.long()
            order_BN = order_BN if state is None else order_BN + state.clips_B[:, None]
        infused: list[Tensor] = []
        memory: Any = state
        for n in range(clips):
            one = slice(n, n + 1)
            push = self.push_at(index, x_BNCTHW[:, one], valid_BN[:, one], order_BN=order_BN[:, one])
            memory = push if memory is None else memory.merge(push)
            infused.append(self.infuse_at(index, x_BNCTHW[:, one], memory, valid_BN[:, one]))
        check_all(memory.clips_B > 0, NO_CLIP)
        return torch.cat(infused, 1), memory

    def run_segment(self, index: int, x_BCTHW: Tensor) -> Tensor:
        """The stages between two blocks: segment 0 reads pixels, segment i what block i-1 infused."""
        return (self.segment_runner or self.run_stages)(index, x_BCTHW)

    def run_stages(self, index: int, x_BCTHW: Tensor) -> Tensor:
        """`run_segment` itself, whoever may run segments in its stead."""
        stages = self.clip_model.stages
        for name in self.segments[index]:
            x_BCTHW = stages[name](x_BCTHW)
        if self.segments[index] and self.segments[index][-1] == list(stages)[-1]:
            return self.clip_model.head_map(x_BCTHW)
        return x_BCTHW

    def push_at(
        self, index: int, x: Tensor, valid_BN: Tensor | None = None, *, order_BN: Tensor | None = None
    ) -> PlaceState:
        """What clips contribute to block `index`, alone; merge it with what others did.

        Args:
            x: what segment `index` gave, `BNCTHW`, or `BCTHW` for one clip of each video.
            valid_BN, order_BN: see `forward`; `order_BN` is counted from 0 where `None`.
        """
        place, block = self.blocks()[index]
        return block.push(self.view(place).seen(_with_clip_axis(x)), valid_BN, order_BN=order_BN)

    def query_at(self, index: int, x_BNCTHW: Tensor) -> Tensor:
        """With what clips ask block `index` for one answer each, `(B, N, P)`."""
        place, block = self.blocks()[index]
        return block.query(self.view(place).seen(x_BNCTHW))

    def infuse_at(self, index: int, x: Tensor, memory: PlaceState, valid_BN: Tensor | None = None) -> Tensor:
        """What segment `index` + 1 reads: the clips infused by block `index` with a memory that they have pushed into.

        Args:
            x: what segment `index` gave, `BNCTHW` or `BCTHW`.
            memory: of block `index`.
            valid_BN: bool; see `CollaborativeMemory.infuse`.
        Returns: the infused maps, with the axes of `x`; in front of the head their means, as maps of one position.
        """
        place, block = self.blocks()[index]
        view, x_BNCTHW = self.view(place), _with_clip_axis(x)
        if place == LAST and not self.keeps_map and block.norm is None:
            asks_BNCTHW = view.judged(x_BNCTHW) if block.infusion == "residual" else view.seen(x_BNCTHW)
            popped_BNV = block.pop_pooled(memory, asks_BNCTHW)
            pooled_BND = block.infuse_pooled(popped_BNV, self._pooled(x_BNCTHW), spread=view.spread)
            # In front of the head only this is needed: a map of one position has it as its mean.
            infused = pooled_BND[..., None, None, None].to(x.dtype)
        else:
            gated = block.infusion == "gate"
            asks_BNCTHW = view.seen(x_BNCTHW) if gated else view.channels(x_BNCTHW)
            popped = block.popped_for_infusion(memory, asks_BNCTHW)
            infused = block.infuse(popped, x_BNCTHW, valid_BN, spread=view.spread)
            if place == LAST and not self.keeps_map:  # statistics of a norm are those of positions, not of their mean
                infused = self._pooled(infused)[..., None, None, None].to(x.dtype)
        return infused[:, 0] if x.ndim == 5 else infused

    def _pooled(self, x_BNCTHW: Tensor) -> Tensor:
        """What the classifier reads of clips, float32 or wider."""
        wide_BCTHW = x_BNCTHW.flatten(0, 1).to(torch.promote_types(x_BNCTHW.dtype, torch.float32))
        return self.clip_model.pool(wide_BCTHW).unflatten(0, x_BNCTHW.shape[:2])

    @torch.no_grad()
    def contributions(self, clips_BNCTHW: Tensor, valid_BN: Tensor | None = None) -> tuple[VideoState, ...]:
        """What each clip pushes at every place while it reads the complete memory of all N clips; merged, they are that
        memory.

        Only one clip goes through the network at a time, and only feature maps at blocks are kept (none for one block
        in front of the head). BatchNorm in train mode sees the clips one index at a time; running statistics stay as
        they were.
        Raises: ValueError: wrong shapes, a video without any valid clip.
        """
        clips = _with_clip_axis(clips_BNCTHW).shape[1]
        maps = list(clips_BNCTHW.unbind(1))
        pushes: list[list[PlaceState]] = [[] for _ in range(clips)]
        with _unchanged_buffers(self):
            for index, place in enumerate(self.places):
                for n in range(clips):
                    x_BCTHW = self.run_segment(index, maps[n])
                    valid_B1 = None if valid_BN is None else valid_BN[:, n : n + 1]
                    before_B = _clips_before(n, x_BCTHW, valid_BN)
                    push = self.push_at(index, x_BCTHW, valid_B1, order_BN=before_B[:, None])
                    pushes[n].append(_with_room(push, clips))
                    maps[n] = maps[n] if place == LAST else x_BCTHW
                memory = merge_clips([states[index] for states in pushes], valid_BN)
                if place != LAST:
                    for n, x_BCTHW in enumerate(maps):
                        valid_B1 = None if valid_BN is None else valid_BN[:, n : n + 1]
                        maps[n] = self.infuse_at(index, x_BCTHW, memory, valid_B1)
        return tuple(VideoState(tuple(states)) for states in pushes)

    def encode(self, clip_BCTHW: Tensor, *, order_B: Tensor | None = None) -> Summary:
        """All that depends on the pixels of one clip; the rest is `read`.

        Args:
            clip_BCTHW: normalised.
            order_B: int64 index of the clip in its video, for `clip_pos`; 0 where `None`.
        Raises: ValueError: the model has blocks, but not exactly one, in front of the head; or it reads all tokens.
        """
        order_B1 = None if order_B is None else order_B[:, None]
        summary = self.summarise(clip_BCTHW[:, None], order_BN=order_B1)
        return replace(summary, query_BP=summary.query_BP[:, 0], pooled_BD=summary.pooled_BD[:, 0])

    def summarise(
        self, clips_BNCTHW: Tensor, valid_BN: Tensor | None = None, *, order_BN: Tensor | None = None
    ) -> Summary:
        """`encode` of several clips of each video: one push of all, and a clip axis in the rest, `(B, N, P)` and
        `(B, N, D)`.

        Args:
            clips_BNCTHW: normalised.
            valid_BN: bool; False clips do not push.
            order_BN: int64 index of each clip in its video, for `clip_pos`; counted from 0 where `None`.
        Raises: ValueError: see `encode`.
        """
        block = self._last_block()
        x_BNCTHW = self.run_segment(0, clips_BNCTHW.flatten(0, 1)).unflatten(0, clips_BNCTHW.shape[:2])
        pooled_BND = self._pooled(x_BNCTHW)
        if block is None:
            return Summary(VideoState(), pooled_BND[..., :0], pooled_BND)
        push = self.push_at(0, x_BNCTHW, valid_BN, order_BN=order_BN)
        if block.infusion == "residual":  # asked by what the head reads: a class token, or the mean as with the gate
            query_BNP = block.query_pooled(self.view(LAST).channels(pooled_BND[..., None, None, None])[..., 0, 0, 0])
        else:
            query_BNP = self.query_at(0, x_BNCTHW)
        return Summary(VideoState((push,)), query_BNP, pooled_BND)

    def read(self, summary: Summary, state: VideoState) -> Tensor:
        """Logits `(B, K)` of a clip under any memory of its video, `(B, N, K)` of several; their own pushes must be in
        it already (that of the summary is not looked at).

        Raises: ValueError: see `encode`.
        """
        block = self._last_block()
        several = summary.pooled_BD.ndim == 3
        query_BNP, pooled_BND = (t if several else t[:, None] for t in (summary.query_BP, summary.pooled_BD))
        if block is not None:
            popped_BNV = block.read(state.places[0], query_BNP)
            pooled_BND = block.infuse_pooled(popped_BNV, pooled_BND, spread=self.view(LAST).spread)
        weights = next(self.clip_model.parameters())
        logits_BNK = self.clip_model.classify(pooled_BND.flatten(0, 1).to(weights.dtype))
        logits_BNK = logits_BNK.unflatten(0, pooled_BND.shape[:2])
        return logits_BNK if several else logits_BNK[:, 0]

    def head(self, x: Tensor) -> Tensor:
        """Logits `(B, N, K)` of what the last segment gave, `BNCTHW`; or `(B, K)` of `BCTHW`."""
        x_BNCTHW = _with_clip_axis(x)
        pooled_BD = self.clip_model.pool(x_BNCTHW.flatten(0, 1))
        logits_BNK = self.clip_model.classify(pooled_BD).unflatten(0, x_BNCTHW.shape[:2])
        return logits_BNK if x.ndim == 6 else logits_BNK[:, 0]

    def _last_block(self) -> CollaborativeMemory | None:
        """The block in front of the head where it is the only one; `None` without memory."""
        if not self.places:
            return None
        if not self.summarises:
            raise ValueError(
                "encode and read allow no memory block but one in front of the head, that is read with a pooled query "
                f"(assoc, avg or max); this model has {self.memory}"
            )
        block = self.blocks()[0][1]
        return block

    def _positions(self, clip_shape: tuple[int, int, int, int]) -> dict[str, int | None]:
        # Shapes are asked of a copy without storage: arithmetic on strides would have to know every architecture.
        shadow = copy.deepcopy(self.clip_model).to("meta").eval()
        x_BCTHW = torch.empty(1, *clip_shape, device="meta", dtype=next(shadow.parameters()).dtype)
        positions: dict[str, int | None] = {}
        for place, names in zip(self.places, self.segments, strict=False):
            for name in names:
                x_BCTHW = shadow.stages[name](x_BCTHW)
            # joining pathways leaves positions as they are
            positions[place] = int(x_BCTHW[0, 0, 1 if self.view(place).class_token else 0 :].numel())
        return positions


def _own_cache() -> dict[str, Any]:
    """What gives each compiled module a cache of its own; PyTorch 2.11 has one for all: with more room."""
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        return {"isolate_recompiles": True}
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_FORMS)
    return {}


def _with_clip_axis(clips: Tensor) -> Tensor:
    if clips.ndim not in (5, 6):
        raise ValueError(f"expected clips BNCTHW or a clip BCTHW, got the shape {tuple(clips.shape)}")
    return clips[:, None] if clips.ndim == 5 else clips


def _with_room(state: PlaceState, clips: int) -> PlaceState:
    if not isinstance(state, TokenState):
        return state
    batch, _, positions, keys = state.keys_BMSP.shape
    like, values = state.keys_BMSP, state.values_BMSV.shape[3]
    room = TokenState.init(batch, clips, positions, keys, values, dtype=like.dtype, device=like.device)
    return room.merge(state)


def _room(state: Any) -> int:
    return state.keys_BMSP.shape[1] if isinstance(state, TokenState) else 1


def merge_clips(states: list[AnyState], valid_BN: Tensor | None = None) -> AnyState:
    """The memory of a video from what its clips pushed, one or some at a time; token buffers get room for all of them.

    Args:
        valid_BN: bool, to check that every video has a clip.
    Raises: ValueError: a video without any valid clip.
    """
    if valid_BN is not None:
        check_all(valid_BN.any(1), NO_CLIP)
    first = states[0]
    if isinstance(first, VideoState):
        by_place = zip(*(state.places for state in states), strict=True)
        return VideoState(tuple(merge_clips(list(places)) for places in by_place))
    total: Any = _with_room(first, sum(_room(state) for state in states))
    for state in states[1:]:
        total = total.merge(state)
    return cast(AnyState, total)


def _clips_before(n: int, x_BCTHW: Tensor, valid_BN: Tensor | None) -> Tensor:
    if valid_BN is not None:
        return valid_BN[:, :n].sum(1)
    return torch.full((len(x_BCTHW),), n, device=x_BCTHW.device)


@contextmanager
def _unchanged_buffers(model: nn.Module) -> Iterator[None]:
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(kept[name])
