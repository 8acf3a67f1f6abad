"""What the clips of a stream may know of each other: the modes, one class each.

A judge is handed clips of several videos, each with the state that its video has, and hands back logits and states: it
keeps nothing itself. All videos of a step go through the network in one call.
Derived from the formulas of arXiv 2104.01198 (which knows complete videos only) and 2201.08383.
Extra axes: K classes, R rows: the videos of one step. A state belongs to one video.
Not here: cutting clips (`media/clip_assembly.py`), scores (`stream_scores.py`), bookkeeping (`stream_track.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from wholereel.batches import map_tensors
from wholereel.errors import ConfigError
from wholereel.inference.clip_rows import Rows
from wholereel.media.clip_assembly import Tail
from wholereel.memory.online import Everything, Fading, OnlineMemory, OnlinePolicy, Window
from wholereel.memory.rows import join_rows, split_rows
from wholereel.memory.state import PlaceState, State, TokenState, VideoState
from wholereel.models.video_model import Summary, VideoModel

__all__ = ["MODES", "Judge", "Mode", "causal_step", "create_judge"]

Mode = Literal["causal", "window", "ema", "late_read", "two_sweep"]
S = TypeVar("S")


class Judge(Protocol[S]):
    """One mode.

    Attributes:
        final: what `step` says of a clip stays; otherwise `last` says it again.
        sweeps: how often a video must be read; the logits come in the last sweep.
        tail: what is made of the frames that are left at the end.
    """

    @property
    def final(self) -> bool: ...

    @property
    def sweeps(self) -> int: ...

    @property
    def tail(self) -> Tail: ...

    @property
    def no_parts(self) -> str | None:
        """Why a video cannot be read in parts that are merged; `None` where it can."""

    def begin(self) -> S:
        """The state of a video of which nothing has been seen."""

    def step(self, clip_RCTHW: Tensor, states: Sequence[S]) -> tuple[list[Tensor] | None, list[S]]:
        """The next clip of each video.

        Returns: logits of each, `(K)` or of frames `(T, K)`, float32 on the CPU, or `None` in sweeps that only fill
            memories; and the states.
        """

    def phase(self, state: S) -> Hashable:
        """Videos take part in the same step only where this is equal."""

    def last(self, state: S) -> Tensor | None:
        """Logits `(N, K)` of all clips with everything known, where `final` is not true."""

    def next_sweep(self, state: S) -> S:
        """The state after a complete sweep."""

    def merge(self, earlier: S, later: S) -> S:
        """The state after two consecutive stretches of a video, from those of each alone.

        Raises: ConfigError: a mode in which there is no such thing.
        """

    def save(self, state: S) -> dict[str, Tensor]:
        """All tensors by name."""

    def load(self, tensors: dict[str, Tensor]) -> S:
        """The inverse of `save`. Raises: ValueError: tensors of something else."""


def causal_step(
    model: VideoModel, clip_BCTHW: Tensor, memory: OnlineMemory, policy: OnlinePolicy
) -> tuple[Tensor, OnlineMemory]:
    """Judge the next clip of each video with what its memories hold after it has pushed.

    Args: clip_BCTHW: normalised.
    Returns: logits `(B, K)` and the memory for the next clip.
    """
    x_BCTHW, after = clip_BCTHW, []
    for index, before in enumerate(memory.places):
        x_BCTHW = model.run_segment(index, x_BCTHW)
        push = model.push_at(index, x_BCTHW, order_BN=memory.clips_B[:, None])
        after.append(policy.add(before, push))
        x_BCTHW = model.infuse_at(index, x_BCTHW, policy.read(after[index]))
    logits_BK = model.head(model.run_segment(len(model.places), x_BCTHW))
    return logits_BK, OnlineMemory(tuple(after), memory.clips_B + 1)


@dataclass(frozen=True)
class OnlineJudge:
    """`causal`, `window`, `ema`: a clip knows what came before it, as far as the policy remembers."""

    model: VideoModel
    policy: OnlinePolicy
    device: torch.device
    final: bool = True
    sweeps: int = 1
    tail: Tail = "align"
    no_parts: str | None = None

    def begin(self) -> OnlineMemory:
        blocks = (block.init_state(1, device=self.device) for _, block in self.model.blocks())
        return OnlineMemory(
            tuple(self.policy.begin(empty) for empty in blocks), torch.zeros(1, dtype=torch.int64, device=self.device)
        )

    def step(
        self, clip_RCTHW: Tensor, states: Sequence[OnlineMemory]
    ) -> tuple[list[Tensor] | None, list[OnlineMemory]]:
        logits_RK, memory = causal_step(self.model, clip_RCTHW, join_rows(states), self.policy)
        return list(logits_RK.float().cpu()), split_rows(memory, len(states))

    def phase(self, state: OnlineMemory) -> Hashable:
        return None

    def last(self, state: OnlineMemory) -> None:
        return None

    def next_sweep(self, state: OnlineMemory) -> OnlineMemory:
        return state

    def merge(self, earlier: OnlineMemory, later: OnlineMemory) -> OnlineMemory:
        pairs = zip(earlier.places, later.places, strict=True)
        return OnlineMemory(tuple(self.policy.merge(a, b) for a, b in pairs), earlier.clips_B + later.clips_B)

    def save(self, state: OnlineMemory) -> dict[str, Tensor]:
        return state.as_dict()

    def load(self, tensors: dict[str, Tensor]) -> OnlineMemory:
        return self.begin().filled_from({name: tensor.to(self.device) for name, tensor in tensors.items()})


@dataclass
class LateState:
    """Memory of all clips of one video, and of each clip its pooled query and features, on the host."""

    memory: VideoState
    queries: Rows = field(default_factory=Rows)
    pooled: Rows = field(default_factory=Rows)


@dataclass(frozen=True)
class LateReadJudge:
    """`late_read`: of every clip a few numbers stay, with which it is judged again when all have been seen."""

    model: VideoModel
    device: torch.device
    final: bool = False
    sweeps: int = 1
    tail: Tail = "align"
    no_parts: str | None = None

    def begin(self) -> LateState:
        return LateState(self.model.init_state(1, device=self.device))

    def step(self, clip_RCTHW: Tensor, states: Sequence[LateState]) -> tuple[list[Tensor] | None, list[LateState]]:
        order_R = torch.tensor([state.pooled.count for state in states], device=self.device)
        summary = self.model.encode(clip_RCTHW, order_B=order_R)
        memory = join_rows([state.memory for state in states]).merge(summary.push)
        logits_RK = self.model.read(summary, memory)
        rows = zip(states, split_rows(memory, len(states)), strict=True)
        for number, (state, own) in enumerate(rows):
            state.memory = own
            state.queries.append(summary.query_BP[number])
            state.pooled.append(summary.pooled_BD[number])
        return list(logits_RK.float().cpu()), list(states)

    def phase(self, state: LateState) -> Hashable:
        return None

    def last(self, state: LateState) -> Tensor | None:
        if state.pooled.count == 0:
            return None
        parts = []
        # Block by block: a long video's summaries need not be on the device at once.
        for query_BP, pooled_BD in zip(state.queries.parts(), state.pooled.parts(), strict=True):
            summary = Summary(VideoState(), query_BP.to(self.device), pooled_BD.to(self.device))
            parts.append(self.model.read(summary, _repeated(state.memory, len(query_BP))).float().cpu())
        return torch.cat(parts)

    def next_sweep(self, state: LateState) -> LateState:
        return state

    def merge(self, earlier: LateState, later: LateState) -> LateState:
        memory = earlier.memory.merge(later.memory)
        parts = (
            [*a.parts(), *b.parts()] for a, b in ((earlier.queries, later.queries), (earlier.pooled, later.pooled))
        )
        return LateState(memory, *(Rows(torch.cat(rows)) if rows else Rows() for rows in parts))

    def save(self, state: LateState) -> dict[str, Tensor]:
        tensors = {f"memory.{name}": tensor for name, tensor in state.memory.as_dict().items()}
        if state.pooled.count:
            tensors |= {"query": state.queries.joined(), "pooled": state.pooled.joined()}
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> LateState:
        memory = {name[7:]: t.to(self.device) for name, t in tensors.items() if name.startswith("memory.")}
        return LateState(VideoState.from_dict(memory), Rows(tensors.get("query")), Rows(tensors.get("pooled")))


def _repeated(memory: VideoState, rows: int) -> VideoState:
    """The memory of one video as that of `rows` equal ones, without copying."""
    return map_tensors(memory, lambda tensor: tensor.expand(rows, *tensor.shape[1:]))


@dataclass(frozen=True)
class SweepState(State):
    """Where a video of several sweeps stands.

    Args:
        complete: memories of the blocks whose sweep is over, the memory of all clips.
        growing: memory of the next block, of the clips of this sweep; nothing before the first clip, or in the last
            sweep.
        clips_B: int64, clips of this sweep.
    """

    complete: VideoState
    growing: VideoState
    clips_B: Tensor


@dataclass(frozen=True)
class SweepJudge:
    """`two_sweep`: a first sweep fills the memory, a second one reads it; one more for every further block.

    A block's pushes depend on what the blocks before it have infused, so their memories must be complete.
    """

    model: VideoModel
    device: torch.device
    final: bool = True
    tail: Tail = "align"

    @property
    def no_parts(self) -> str | None:
        if len(self.model.places) == 1:
            return None
        return (
            "mode='two_sweep' reads a video in parts where a model has one memory block, whose first sweep can be "
            f"shared; this one has blocks at {', '.join(self.model.places) or 'no place'}. Read the video in one go."
        )

    @property
    def sweeps(self) -> int:
        return len(self.model.places) + 1

    def begin(self) -> SweepState:
        return SweepState(VideoState(), VideoState(), torch.zeros(1, dtype=torch.int64, device=self.device))

    def step(self, clip_RCTHW: Tensor, states: Sequence[SweepState]) -> tuple[list[Tensor] | None, list[SweepState]]:
        x_RCTHW, done = clip_RCTHW, join_rows([state.complete for state in states]).places
        for index, memory in enumerate(done):
            x_RCTHW = self.model.infuse_at(index, self.model.run_segment(index, x_RCTHW), memory)
        x_RCTHW = self.model.run_segment(len(done), x_RCTHW)
        order_RN = torch.stack([state.clips_B for state in states])
        counted = [replace(state, clips_B=state.clips_B + 1) for state in states]
        if len(done) == len(self.model.places):
            return list(self.model.head(x_RCTHW).float().cpu()), counted
        pushes = split_rows(self.model.push_at(len(done), x_RCTHW, order_BN=order_RN), len(states))
        pairs = zip(counted, pushes, strict=True)
        return None, [replace(state, growing=_grown(state.growing, push)) for state, push in pairs]

    def phase(self, state: SweepState) -> Hashable:
        return len(state.complete.places)

    def last(self, state: SweepState) -> None:
        return None

    def next_sweep(self, state: SweepState) -> SweepState:
        complete = VideoState((*state.complete.places, *state.growing.places))
        return SweepState(complete, VideoState(), torch.zeros_like(state.clips_B))

    def merge(self, earlier: SweepState, later: SweepState) -> SweepState:
        if self.no_parts is not None:
            raise ConfigError(self.no_parts)
        if earlier.complete.places or later.complete.places:
            raise ConfigError(
                "mode='two_sweep' merges stretches in their first sweep; these are in sweeps "
                f"{self.phase(earlier)} and {self.phase(later)}"
            )
        growing = earlier.growing
        for push in later.growing.places:
            growing = _grown(growing, push)
        return SweepState(VideoState(), growing, earlier.clips_B + later.clips_B)

    def save(self, state: SweepState) -> dict[str, Tensor]:
        named = {f"complete.{name}": tensor for name, tensor in state.complete.as_dict().items()}
        growing = {f"growing.{name}": tensor for name, tensor in state.growing.as_dict().items()}
        return {**named, **growing, "clips_B": state.clips_B}

    def load(self, tensors: dict[str, Tensor]) -> SweepState:
        parts = [
            VideoState.from_dict({n[len(p) :]: t.to(self.device) for n, t in tensors.items() if n.startswith(p)})
            for p in ("complete.", "growing.")
        ]
        return SweepState(parts[0], parts[1], tensors["clips_B"].to(self.device))


def _grown(memory: VideoState, push: PlaceState) -> VideoState:
    """One video's memory with one more push; all tokens are kept where the interaction reads them all."""
    if not memory.places:
        return VideoState((push,))
    held = memory.places[0]
    if isinstance(held, TokenState) and isinstance(push, TokenState):
        keys, values = (torch.cat(pair, 1) for pair in zip(_tokens(held), _tokens(push), strict=True))
        return VideoState((TokenState(keys, values, held.clips_B + push.clips_B),))
    return VideoState((held.merge(push),))  # type: ignore[arg-type]


def _tokens(state: TokenState) -> tuple[Tensor, Tensor]:
    return state.keys_BMSP, state.values_BMSV


class StatefulModel(Protocol):
    """A model with a causal memory of its own: MeMViT."""

    def init_state(self, batch_size: int, *, size: tuple[int, int], device: torch.device) -> State: ...

    def __call__(self, clip_BCTHW: Tensor, state: State) -> tuple[Any, State]: ...


@dataclass(frozen=True)
class CachedJudge:
    """Models that carry their own state from clip to clip: causal by construction."""

    model: StatefulModel
    size: tuple[int, int]
    device: torch.device
    tail: Tail = "pad"  # as in training on streams
    final: bool = True
    sweeps: int = 1
    no_parts: str = (
        "this model reads a video in order: what it knows after the second half depends on the first, so that "
        "parts cannot be merged. Stream the video in one go, or stop and resume."
    )

    def begin(self) -> State:
        return self.model.init_state(1, size=self.size, device=self.device)

    def step(self, clip_RCTHW: Tensor, states: Sequence[State]) -> tuple[list[Tensor] | None, list[State]]:
        logits, state = self.model(clip_RCTHW, join_rows(states))
        if isinstance(logits, tuple):  # several label spaces
            logits = torch.cat(logits, -1)
        return list(logits.float().cpu()), split_rows(state, len(states))

    def phase(self, state: State) -> Hashable:
        return None

    def last(self, state: State) -> None:
        return None

    def next_sweep(self, state: State) -> State:
        return state

    def merge(self, earlier: State, later: State) -> State:
        raise ConfigError(self.no_parts)

    def save(self, state: State) -> dict[str, Tensor]:
        return state.as_dict()

    def load(self, tensors: dict[str, Tensor]) -> State:
        empty = self.begin()
        found, expected = ({n: tuple(t.shape) for n, t in d.items()} for d in (tensors, empty.as_dict()))
        if found != expected:
            raise ValueError(f"expected tensors {expected}, got {found}")
        return type(empty).from_dict({name: tensor.to(self.device) for name, tensor in tensors.items()})


@dataclass(frozen=True)
class JudgeSettings:
    """What the modes may need besides the model.

    Args:
        window: clips that `window` remembers. decay: of `ema`.
        size: height and width of the clips in pixels.
    """

    window: int
    decay: float
    size: tuple[int, int]
    device: torch.device


def _online(policy: OnlinePolicy, model: nn.Module, settings: JudgeSettings) -> Judge[Any]:
    judge = OnlineJudge(cast(VideoModel, model), policy, settings.device)
    for _, block in judge.model.blocks():
        if block.interaction.startswith("nl_"):
            raise ConfigError(
                f"a stream of mode causal, window or ema needs a memory of fixed size; the interaction "
                f"{block.interaction!r} has none. Use mode='two_sweep', which keeps all tokens, on a file."
            )
    try:
        judge.begin()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return judge


def _causal(model: nn.Module, settings: JudgeSettings) -> Judge[Any]:
    if not isinstance(model, VideoModel):
        return CachedJudge(cast(StatefulModel, model), settings.size, settings.device)
    return _online(Everything(), model, settings)


def _window(model: nn.Module, settings: JudgeSettings) -> Judge[Any]:
    try:
        policy = Window(settings.window)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return _online(policy, model, settings)


def _ema(model: nn.Module, settings: JudgeSettings) -> Judge[Any]:
    try:
        policy = Fading(settings.decay)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return _online(policy, model, settings)


def _late_read(model: nn.Module, settings: JudgeSettings) -> Judge[Any]:
    assert isinstance(model, VideoModel)
    if not model.summarises:
        raise ConfigError(
            "mode='late_read' needs a single memory block in front of the head, read with a pooled query; "
            f"this model has {model.memory}. Use 'two_sweep', which reads a file once more, or 'causal'."
        )
    return LateReadJudge(model, settings.device)


def _two_sweep(model: nn.Module, settings: JudgeSettings) -> Judge[Any]:
    assert isinstance(model, VideoModel)
    return SweepJudge(model, settings.device)


JUDGES: dict[Mode, Callable[[nn.Module, JudgeSettings], Judge[Any]]] = {
    "causal": _causal,
    "window": _window,
    "ema": _ema,
    "late_read": _late_read,
    "two_sweep": _two_sweep,
}
MODES: tuple[Mode, ...] = tuple(JUDGES)


def create_judge(mode: Mode, model: nn.Module, settings: JudgeSettings) -> Judge[Any]:
    """The judge of a mode for a model.

    Raises: ConfigError: an unknown mode, or one that this model cannot serve.
    """
    if mode not in JUDGES:
        raise ConfigError(f"mode={mode!r} is unknown; modes are {', '.join(MODES)}")
    if isinstance(model, VideoModel) and model.causal and mode != "causal":
        raise ConfigError(
            f"mode={mode!r} reads other clips than this model was trained to read (memory.reads='past'). Use 'causal'."
        )
    if mode != "causal" and not isinstance(model, VideoModel):
        raise ConfigError(
            f"mode={mode!r} is about memories that clips push into; {type(model).__name__} carries a state of its own "
            "from clip to clip and is always read in mode 'causal'"
        )
    if getattr(model, "boxes", None) is not None:
        raise ConfigError("this model judges boxes, and a stream has none: use a model with a head for whole clips")
    return JUDGES[mode](model, settings)
