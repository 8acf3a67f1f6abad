"""What a clip of an endless video may read: all clips so far, the last few, or all with fading weight.

Each policy turns the pushes of consecutive clips into the memory that the newest one reads, itself included. States are
frozen dataclasses of tensors with fixed shapes, one row a video; rows may have seen different numbers of clips. Two
stretches of one video that were seen apart, each from an empty state, merge to what one reader would have.
Derived from the formulas of arXiv 2104.01198, which knows complete videos only; `window` and `fading` are our choice.
Extra axes: P key width, V value width, W clips of the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from wholereel.memory.state import CollaborativeState, MaxState, PlaceState, State, TokenState, cleared_rows

__all__ = [
    "Everything",
    "Fading",
    "FadingState",
    "OnlineMemory",
    "OnlinePolicy",
    "OnlineState",
    "Window",
    "WindowMaxState",
    "WindowState",
]


@dataclass(frozen=True)
class WindowState(State):
    """The pushes of the last W clips in a ring.

    Args:
        pushes_BWPV: float32 or wider; zero where no clip is.
        clips_B: int64, all clips so far; the next push goes to slot `clips_B % W`.
    """

    pushes_BWPV: Tensor
    clips_B: Tensor

    def reset(self, rows_B: Tensor) -> Self:
        """Forget the rows where `rows_B` (bool) is true."""
        return type(self)(cleared_rows(self.pushes_BWPV, rows_B), cleared_rows(self.clips_B, rows_B))

    def filled(self) -> Tensor:
        """`(B, W, 1, 1)` bool: which slots hold a clip."""
        slots_W = torch.arange(self.pushes_BWPV.shape[1], device=self.clips_B.device)
        return (slots_W < self.clips_B[:, None])[..., None, None]

    def read(self) -> PlaceState:
        """The memory of the clips in the ring."""
        count_B = self.clips_B.clamp(max=self.pushes_BWPV.shape[1])
        return CollaborativeState((self.pushes_BWPV * self.filled()).sum(1), count_B)


@dataclass(frozen=True)
class WindowMaxState(WindowState):
    """The same for the interaction `max`; P = 1."""

    def read(self) -> PlaceState:
        """The largest values in the ring."""
        largest_BPV = self.pushes_BWPV.masked_fill(~self.filled(), -torch.inf).amax(1)
        return MaxState(largest_BPV[:, 0], self.clips_B.clamp(max=self.pushes_BWPV.shape[1]))


@dataclass(frozen=True)
class FadingState(State):
    """A weighted mean in which a clip counts `decay` times less with every clip that follows.

    Args:
        sum_BPV: sum of pushes times weights, float32 or wider.
        weight_B: sum of the weights, same type.
        clips_B: int64, all clips so far.
    """

    sum_BPV: Tensor
    weight_B: Tensor
    clips_B: Tensor

    def reset(self, rows_B: Tensor) -> FadingState:
        """Forget the rows where `rows_B` (bool) is true."""
        return FadingState(*(cleared_rows(t, rows_B) for t in (self.sum_BPV, self.weight_B, self.clips_B)))


OnlineState = CollaborativeState | MaxState | WindowState | FadingState


@dataclass(frozen=True)
class OnlineMemory(State):
    """What a stream knows of its videos: the states of all blocks, in the order of the network; none without memory.

    Args:
        clips_B: int64, clips so far.
    """

    places: tuple[OnlineState, ...]
    clips_B: Tensor

    def reset(self, rows_B: Tensor) -> OnlineMemory:
        """Forget the rows where `rows_B` (bool) is true: those videos begin anew."""
        return OnlineMemory(tuple(p.reset(rows_B) for p in self.places), cleared_rows(self.clips_B, rows_B))

    def as_dict(self) -> dict[str, Tensor]:
        """The tensors by name, `"0.clips_B"` being that of the first place."""
        places = enumerate(self.places)
        named = {f"{index}.{name}": tensor for index, state in places for name, tensor in state.as_dict().items()}
        return {**named, "clips_B": self.clips_B}

    def filled_from(self, tensors: Mapping[str, Tensor]) -> OnlineMemory:
        """A memory of the kind and sizes of this one, from `as_dict` of another.

        Raises: ValueError: other names or sizes.
        """
        own = self.as_dict()
        found, expected = ({n: tuple(t.shape[1:]) for n, t in d.items()} for d in (tensors, own))
        if found != expected:
            raise ValueError(f"expected tensors {expected}, got {found}")
        places = tuple(
            type(state).from_dict({name: tensors[f"{index}.{name}"] for name in state.as_dict()})
            for index, state in enumerate(self.places)
        )
        return OnlineMemory(places, tensors["clips_B"])


for _kind in (WindowState, WindowMaxState, FadingState, OnlineMemory):
    torch.export.register_dataclass(_kind, serialized_type_name=f"wholereel.{_kind.__name__}")


class OnlinePolicy(Protocol):
    """How a memory grows clip by clip."""

    def begin(self, push: PlaceState) -> OnlineState:
        """The state before the first clip, of the kind and sizes of its push."""

    def add(self, state: OnlineState, push: PlaceState) -> OnlineState:
        """The state with one more clip of each row; rows whose push is empty stay as they are."""

    def read(self, state: OnlineState) -> PlaceState:
        """The memory to pop from."""

    def merge(self, earlier: OnlineState, later: OnlineState) -> OnlineState:
        """The state after two consecutive stretches, from those of each alone."""


@dataclass(frozen=True)
class Everything:
    """All clips so far count alike (`causal`); after the last clip the memory is that of the whole video."""

    def begin(self, push: PlaceState) -> OnlineState:
        """Nothing seen."""
        return _supported(push, "causal").reset(torch.ones_like(push.clips_B, dtype=torch.bool))

    def add(self, state: OnlineState, push: PlaceState) -> OnlineState:
        """Merge."""
        assert isinstance(state, (CollaborativeState, MaxState))
        return state.merge(push)  # type: ignore[arg-type]

    def read(self, state: OnlineState) -> PlaceState:
        """As it is."""
        assert isinstance(state, (CollaborativeState, MaxState))
        return state

    def merge(self, earlier: OnlineState, later: OnlineState) -> OnlineState:
        """Sums and counts, or maxima: the order does not matter."""
        assert isinstance(earlier, (CollaborativeState, MaxState))
        return earlier.merge(later)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Window:
    """The last `clips` clips count alike, older ones not at all.

    The ring is summed anew for each clip: subtracting what leaves it would let rounding grow for ever.
    """

    clips: int

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise ValueError(f"a window needs at least 1 clip, got {self.clips}")

    def begin(self, push: PlaceState) -> WindowState:
        """An empty ring."""
        values_BPV = _values(_supported(push, "window"))
        batch, keys, values = values_BPV.shape
        kind = WindowMaxState if isinstance(push, MaxState) else WindowState
        return kind(values_BPV.new_zeros(batch, self.clips, keys, values), torch.zeros_like(push.clips_B))

    def add(self, state: OnlineState, push: PlaceState) -> WindowState:
        """Overwrite the oldest."""
        assert isinstance(state, WindowState)
        slot_BW = torch.arange(self.clips, device=state.clips_B.device) == (state.clips_B % self.clips)[:, None]
        slot_BW = slot_BW & (push.clips_B > 0)[:, None]
        ring = torch.where(slot_BW[..., None, None], _values(push)[:, None], state.pushes_BWPV)
        return type(state)(ring, state.clips_B + push.clips_B)

    def read(self, state: OnlineState) -> PlaceState:
        """Sum or maximum of the ring."""
        assert isinstance(state, WindowState)
        return state.read()

    def merge(self, earlier: OnlineState, later: OnlineState) -> WindowState:
        """The later ring, filled up with the newest of the earlier one."""
        assert isinstance(earlier, WindowState)
        assert isinstance(later, WindowState)
        clips_B = earlier.clips_B + later.clips_B
        slots_W = torch.arange(self.clips, device=clips_B.device)
        # The clip that ends up in slot w is the newest one of the whole whose number is w modulo W.
        number_BW = clips_B[:, None] - 1 - (clips_B[:, None] - 1 - slots_W) % self.clips
        own_BW = number_BW >= earlier.clips_B[:, None]
        later_slot_BW = ((number_BW - earlier.clips_B[:, None]) % self.clips)[..., None, None]
        from_later = torch.take_along_dim(later.pushes_BWPV, later_slot_BW, dim=1)
        return type(later)(torch.where(own_BW[..., None, None], from_later, earlier.pushes_BWPV), clips_B)


@dataclass(frozen=True)
class Fading:
    """An exponential mean: `M <- decay M + (1 - decay) P`, divided by the sum of the weights."""

    decay: float

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, got {self.decay}")

    def begin(self, push: PlaceState) -> FadingState:
        """Nothing seen."""
        if not isinstance(push, CollaborativeState):
            raise ValueError("mode 'ema' averages pushes, which the interactions 'max' and 'nl_*' do not allow")
        zero = torch.zeros_like(push.sum_BPV)
        return FadingState(zero, zero[:, 0, 0], torch.zeros_like(push.clips_B))

    def add(self, state: OnlineState, push: PlaceState) -> FadingState:
        """Fade what was there, and add."""
        assert isinstance(state, FadingState)
        assert isinstance(push, CollaborativeState)
        new_B = (push.clips_B > 0).to(state.weight_B.dtype)
        keep_B = 1 - new_B * (1 - self.decay)
        total = state.sum_BPV * keep_B[:, None, None] + (1 - self.decay) * push.sum_BPV
        return FadingState(total, state.weight_B * keep_B + (1 - self.decay) * new_B, state.clips_B + push.clips_B)

    def read(self, state: OnlineState) -> PlaceState:
        """The mean, as the memory of one clip."""
        assert isinstance(state, FadingState)
        weight_B = state.weight_B.clamp(min=torch.finfo(state.weight_B.dtype).tiny)
        return CollaborativeState(state.sum_BPV / weight_B[:, None, None], state.clips_B.clamp(max=1))

    def merge(self, earlier: OnlineState, later: OnlineState) -> FadingState:
        """The earlier sum faded by every later clip, and the later one."""
        assert isinstance(earlier, FadingState)
        assert isinstance(later, FadingState)
        keep_B = self.decay ** later.clips_B.to(later.weight_B.dtype)
        total = earlier.sum_BPV * keep_B[:, None, None] + later.sum_BPV
        return FadingState(total, earlier.weight_B * keep_B + later.weight_B, earlier.clips_B + later.clips_B)


def _supported(push: PlaceState, mode: str) -> CollaborativeState | MaxState:
    if isinstance(push, TokenState):
        raise ValueError(
            f"mode {mode!r} needs a memory of fixed size, which the interactions 'nl_dot' and 'nl_softmax' do not have"
        )
    return push


def _values(push: PlaceState) -> Tensor:
    return push.max_BV[:, None] if isinstance(push, MaxState) else push.sum_BPV  # type: ignore[union-attr]
