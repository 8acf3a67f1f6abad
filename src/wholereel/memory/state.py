"""What a memory knows of the videos it has seen: frozen dataclasses of tensors, handed in and handed back.

Extra axes: P key width, V value width, M clips a token buffer has room for, S positions of a clip (T*H*W).
Every state knows per row how many clips it holds (`clips_B`), merges with another one of the same videos, and is
registered with the pytree and export machinery, so that it passes through `torch.compile`, `torch.export` and
checkpoints as it is.
Not here: how a state is filled and read (`collaborative.py`), the causal cache (`cached.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from wholereel.batches import map_tensors
from wholereel.ops.checks import check_all

__all__ = ["CollaborativeState", "MaxState", "PlaceState", "State", "TokenState", "VideoState", "cleared_rows"]


class State:
    """What all states can do; a state is a frozen dataclass whose fields are tensors with the batch axis in front."""

    def detach(self) -> Self:
        """The same values without graph."""
        return map_tensors(self, Tensor.detach)

    def to(self, device: torch.device | str) -> Self:
        """The same state on another device; dtypes stay."""
        return map_tensors(self, lambda tensor: tensor.to(device))

    def as_dict(self) -> dict[str, Tensor]:
        """The tensors by name, for checkpoints."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of `as_dict`.

        Raises: ValueError: the names are not this state's.
        """
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        if set(names) != set(tensors):
            raise ValueError(f"{cls.__name__} is made of {sorted(names)}, got {sorted(tensors)}")
        return cls(**tensors)


def cleared_rows(tensor: Tensor, rows_B: Tensor, value: float = 0.0) -> Tensor:
    """The tensor with `value` in the rows where `rows_B` (bool) is true."""
    # `where`, not a product with the mask: a row that overflowed (inf, nan) must become clean again.
    rows = rows_B.reshape(-1, *[1] * (tensor.ndim - 1))
    return torch.where(rows, torch.full_like(tensor, value), tensor)


def _same_shapes(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"states of different shapes cannot be merged: {tuple(a.shape)} and {tuple(b.shape)}")


@dataclass(frozen=True)
class CollaborativeState(State):
    """Sum of the clips' contributions and their number: a commutative monoid (interactions `assoc` and `avg`).

    Args:
        sum_BPV: float32 even under autocast (a bfloat16 running sum of 400 clips was off by 7 %); float64 for float64
            models. `avg` has P = 1.
        clips_B: int64, videos of one batch may have seen different numbers of clips.
    """

    sum_BPV: Tensor
    clips_B: Tensor

    @classmethod
    def init(
        cls,
        batch_size: int,
        keys: int,
        values: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> CollaborativeState:
        """The memory of nothing."""
        total = torch.zeros(batch_size, keys, values, dtype=dtype, device=device)
        return cls(total, torch.zeros(batch_size, dtype=torch.int64, device=device))

    def reset(self, rows_B: Tensor) -> CollaborativeState:
        """Forget the rows where `rows_B` (bool) is true."""
        return CollaborativeState(cleared_rows(self.sum_BPV, rows_B), cleared_rows(self.clips_B, rows_B))

    def merge(self, other: CollaborativeState) -> CollaborativeState:
        """The memory of both sets of clips."""
        _same_shapes(self.sum_BPV, other.sum_BPV)
        return CollaborativeState(self.sum_BPV + other.sum_BPV, self.clips_B + other.clips_B)

    def mean(self) -> Tensor:
        """M of the formulas, `(B, P, V)`; zero where a row holds no clip."""
        count_B = self.clips_B.clamp(min=1).to(self.sum_BPV.dtype)
        return self.sum_BPV / count_B[:, None, None]


@dataclass(frozen=True)
class MaxState(State):
    """Largest value per channel over all clips and positions (interaction `max`).

    Args:
        max_BV: float32 or wider; -inf where a row holds no clip.
        clips_B: int64.
    """

    max_BV: Tensor
    clips_B: Tensor

    @classmethod
    def init(
        cls,
        batch_size: int,
        values: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> MaxState:
        """The memory of nothing."""
        largest = torch.full((batch_size, values), -torch.inf, dtype=dtype, device=device)
        return cls(largest, torch.zeros(batch_size, dtype=torch.int64, device=device))

    def reset(self, rows_B: Tensor) -> MaxState:
        """Forget the rows where `rows_B` (bool) is true."""
        return MaxState(cleared_rows(self.max_BV, rows_B, -torch.inf), cleared_rows(self.clips_B, rows_B))

    def merge(self, other: MaxState) -> MaxState:
        """The memory of both sets of clips."""
        _same_shapes(self.max_BV, other.max_BV)
        return MaxState(torch.maximum(self.max_BV, other.max_BV), self.clips_B + other.clips_B)

    def read(self) -> Tensor:
        """M of the formulas, `(B, V)`; zero where a row holds no clip, so that no -inf reaches a product or a
        gradient."""
        return torch.where(self.clips_B[:, None] > 0, self.max_BV, torch.zeros_like(self.max_BV))


@dataclass(frozen=True)
class TokenState(State):
    """All tokens of all clips, in a buffer with room for M clips (interactions `nl_dot` and `nl_softmax`).

    The first `clips_B[b]` slots of row b are filled, the rest is zero. A state never grows: pushing or merging more
    clips than there is room for is an error (`ops.checks.check_all`), since dropping clips would change the model's
    function.

    Args:
        keys_BMSP, values_BMSV: float32 or wider.
        clips_B: int64.
    """

    keys_BMSP: Tensor
    values_BMSV: Tensor
    clips_B: Tensor

    @classmethod
    def init(
        cls,
        batch_size: int,
        clips: int,
        positions: int,
        keys: int,
        values: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> TokenState:
        """An empty buffer for `clips` clips of `positions` positions each."""
        return cls(
            torch.zeros(batch_size, clips, positions, keys, dtype=dtype, device=device),
            torch.zeros(batch_size, clips, positions, values, dtype=dtype, device=device),
            torch.zeros(batch_size, dtype=torch.int64, device=device),
        )

    @classmethod
    def packed(cls, keys_BNSP: Tensor, values_BNSV: Tensor, valid_BN: Tensor) -> TokenState:
        """The valid ones of N clips, moved to the front in their order; as much room as there were clips."""
        order_BN = torch.argsort((~valid_BN).to(torch.int8), dim=1, stable=True)
        kept_BN = torch.gather(valid_BN, 1, order_BN)[:, :, None, None]

        def pack(tokens: Tensor) -> Tensor:
            index = order_BN[:, :, None, None].expand_as(tokens)
            return torch.gather(tokens, 1, index).masked_fill(~kept_BN, 0.0)

        return cls(pack(keys_BNSP), pack(values_BNSV), valid_BN.sum(1))

    def filled(self) -> Tensor:
        """`(B, M)` bool: which slots hold a clip."""
        return torch.arange(self.keys_BMSP.shape[1], device=self.clips_B.device) < self.clips_B[:, None]

    def reset(self, rows_B: Tensor) -> TokenState:
        """Forget the rows where `rows_B` (bool) is true."""
        return map_tensors(self, lambda tensor: cleared_rows(tensor, rows_B))

    def merge(self, other: TokenState) -> TokenState:
        """The memory of both sets of clips, in a buffer with the room of this one.

        Raises: ValueError: the clips have different numbers of positions, or there is not room for all of them.
        """
        if self.keys_BMSP.shape[2:] != other.keys_BMSP.shape[2:]:
            a, b = tuple(self.keys_BMSP.shape), tuple(other.keys_BMSP.shape)
            raise ValueError(f"token buffers hold clips of (positions, width) {a[2:]} and {b[2:]}; they must be equal")
        room = self.keys_BMSP.shape[1]
        clips_B = self.clips_B + other.clips_B
        check_all(clips_B <= room, f"more clips than the token buffer has room for ({room}); see init_state(clips=...)")
        both = TokenState.packed(
            torch.cat([self.keys_BMSP, other.keys_BMSP], 1),
            torch.cat([self.values_BMSV, other.values_BMSV], 1),
            torch.cat([self.filled(), other.filled()], 1),
        )
        return TokenState(both.keys_BMSP[:, :room], both.values_BMSV[:, :room], clips_B)


PlaceState = CollaborativeState | MaxState | TokenState
STATE_TYPES: tuple[type[PlaceState], ...] = (CollaborativeState, MaxState, TokenState)


@dataclass(frozen=True)
class VideoState(State):
    """The states of all memory blocks of a model, in the order of its `places`; empty without memory."""

    places: tuple[PlaceState, ...] = ()

    def reset(self, rows_B: Tensor) -> VideoState:
        """Forget the rows where `rows_B` (bool) is true: those videos begin anew."""
        return VideoState(tuple(state.reset(rows_B) for state in self.places))

    def merge(self, other: VideoState) -> VideoState:
        """The memory of both sets of clips, place by place.

        Raises: ValueError: the states come from different models.
        """
        kinds = [[type(state).__name__ for state in video.places] for video in (self, other)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"states of different models cannot be merged: {kinds[0]} and {kinds[1]}")
        pairs = zip(self.places, other.places, strict=True)
        return VideoState(tuple(a.merge(b) for a, b in pairs))  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Tensor]:
        """The tensors by name, `"0.clips_B"` being that of the first place."""
        places = enumerate(self.places)
        return {f"{index}.{name}": tensor for index, state in places for name, tensor in state.as_dict().items()}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> VideoState:
        """The inverse of `as_dict`.

        Raises: ValueError: the names are not those of a state.
        """
        groups: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            index, _, field = name.partition(".")
            if not index.isdigit() or not field:
                raise ValueError(f"{name!r} is not the name of a tensor in a VideoState, such as '0.clips_B'")
            groups.setdefault(int(index), {})[field] = tensor
        return cls(tuple(_place_from_dict(groups[index]) for index in sorted(groups)))


def _place_from_dict(tensors: Mapping[str, Tensor]) -> PlaceState:
    for kind in STATE_TYPES:
        if {field.name for field in dataclasses.fields(kind)} == set(tensors):
            return kind.from_dict(tensors)
    raise ValueError(f"no memory state is made of {sorted(tensors)}")


for _kind in (*STATE_TYPES, VideoState):
    torch.export.register_dataclass(_kind, serialized_type_name=f"wholereel.{_kind.__name__}")
