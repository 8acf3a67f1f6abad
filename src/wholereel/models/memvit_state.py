"""What MeMViT remembers between two clips, and the settings of this memory (arXiv 2201.08383).

Not here: the rules of one layer's cache (`memory/cached.py`), the network (`memvit.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wholereel.layers.token_pooling import Grid
from wholereel.memory.cached import CachedState
from wholereel.memory.state import State, cleared_rows

__all__ = ["COMPRESSIONS", "COMPRESS_GRADS", "MemoryConfig", "MemvitState"]


FRAMES = "frames"
COMPRESSIONS = ("pipelined", "naive")
COMPRESS_GRADS = ("newest", "attended")


@dataclass(frozen=True)
class MemoryConfig:
    """Which layers remember what.

    Args:
        reach: M, remembered clips that a step attends to at most; 0 = no memory and no parameters of one.
        gap: G, steps between them.
        exclude: blocks that attend to the present clip alone. Their memory parameters exist, so that published files
            load without loss, but are not used.
        kernel, stride: of the compression; stride `None` = none.
        kind: of the compression: `conv` (published), `max` or `avg`.
        boundary: what a row attends to where its video is younger than the state: `mask`: nothing; `zero`: zeros, as
            the public code does for batches of two and more (for one row it is `mask`).
        compression: `pipelined`: a step compresses one entry, and older ones stay as they were compressed; `naive`:
            entries stay uncompressed, and those that a step attends to are compressed in it, all with graph. Without
            training both give the same.
        compress_grad: of the pipelined compression. `newest`: the entry of the step before is compressed, as in the
            public code; with a gap of 2 or more it is attended to only later, without graph, so that the compression
            is never trained. `attended`: entries wait uncompressed for the step that first attends to them.
    """

    reach: int = 2
    gap: int = 1
    exclude: tuple[int, ...] = ()
    kernel: Grid = (7, 3, 3)
    stride: Grid | None = (4, 2, 2)
    kind: Literal["conv", "max", "avg"] = "conv"
    boundary: Literal["mask", "zero"] = "mask"
    compression: Literal["pipelined", "naive"] = "pipelined"
    compress_grad: Literal["newest", "attended"] = "newest"

    @property
    def waiting(self) -> int:
        """P, how many entries wait uncompressed while training."""
        return self.gap if self.compress_grad == "attended" else 1

    @property
    def learns(self) -> bool:
        """Whether the compression gets a gradient."""
        return self.gap == 1 or self.compression == "naive" or self.compress_grad == "attended"


@dataclass(frozen=True)
class MemvitState(State):
    """What a model knows of the clips before.

    Args:
        layers: the caches of all layers that remember, in their order; box layers last.
        frames: for a causal stem: the last normalised frames of the clip before, `(B, C, T, H, W)`; else empty.
    """

    layers: tuple[CachedState, ...] = ()
    frames: tuple[Tensor, ...] = ()

    def reset(self, rows_B: Tensor) -> MemvitState:
        """Forget the rows where `rows_B` (bool) is true: those videos begin anew."""
        layers = tuple(layer.reset(rows_B) for layer in self.layers)
        return MemvitState(layers, tuple(cleared_rows(frames, rows_B) for frames in self.frames))

    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.nbytes for tensor in self.as_dict().values())

    def as_dict(self) -> dict[str, Tensor]:
        """The tensors by name, `"0.entries_B"` being that of the first layer."""
        layers = enumerate(self.layers)
        named = {f"{index}.{name}": tensor for index, layer in layers for name, tensor in layer.as_dict().items()}
        return named | {f"{FRAMES}.{index}": frames for index, frames in enumerate(self.frames)}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> MemvitState:
        """The inverse of `as_dict`.

        Raises: ValueError: the names are not those of a state.
        """
        groups: dict[int, dict[str, Tensor]] = {}
        frames: dict[int, Tensor] = {}
        for name, tensor in tensors.items():
            index, _, field_name = name.partition(".")
            if index == FRAMES and field_name.isdigit():
                frames[int(field_name)] = tensor
            elif index.isdigit() and field_name:
                groups.setdefault(int(index), {})[field_name] = tensor
            else:
                raise ValueError(f"{name!r} is not the name of a tensor in a MemvitState, such as '0.entries_B'")
        layers = tuple(CachedState.from_dict(groups[index]) for index in sorted(groups))
        return cls(layers, tuple(frames[index] for index in sorted(frames)))


torch.export.register_dataclass(MemvitState, serialized_type_name="wholereel.MemvitState")
