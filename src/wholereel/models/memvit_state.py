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
from wholereel.memory.state import State

__all__ = ["MemoryConfig", "MemvitState"]


@dataclass(frozen=True)
class MemoryConfig:
    """Which layers remember what.

    Args:
        reach: M, remembered clips that a step attends to at most; 0 = no memory and no parameters of one.
        gap: G, steps between them; with 2 or more the compression is never trained, as what it yields is attended to
            only later, without graph.
        exclude: blocks that attend to the present clip alone. Their memory parameters exist, so that published files
            load without loss, but are not used.
        kernel, stride: of the compression; stride `None` = none.
        boundary: what a row attends to where its video is younger than the state: `mask`: nothing; `zero`: zeros, as
            the public code does for batches of two and more (for one row it is `mask`).
    """

    reach: int = 2
    gap: int = 1
    exclude: tuple[int, ...] = ()
    kernel: Grid = (7, 3, 3)
    stride: Grid | None = (4, 2, 2)
    boundary: Literal["mask", "zero"] = "mask"


@dataclass(frozen=True)
class MemvitState(State):
    """The caches of all layers that remember, in their order; box layers last."""

    layers: tuple[CachedState, ...] = ()

    def reset(self, rows_B: Tensor) -> MemvitState:
        """Forget the rows where `rows_B` (bool) is true: those videos begin anew."""
        return MemvitState(tuple(layer.reset(rows_B) for layer in self.layers))

    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.nbytes for tensor in self.as_dict().values())

    def as_dict(self) -> dict[str, Tensor]:
        """The tensors by name, `"0.entries_B"` being that of the first layer."""
        layers = enumerate(self.layers)
        return {f"{index}.{name}": tensor for index, layer in layers for name, tensor in layer.as_dict().items()}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> MemvitState:
        """The inverse of `as_dict`.

        Raises: ValueError: the names are not those of a state.
        """
        groups: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            index, _, field_name = name.partition(".")
            if not index.isdigit() or not field_name:
                raise ValueError(f"{name!r} is not the name of a tensor in a MemvitState, such as '0.entries_B'")
            groups.setdefault(int(index), {})[field_name] = tensor
        return cls(tuple(CachedState.from_dict(groups[index]) for index in sorted(groups)))


torch.export.register_dataclass(MemvitState, serialized_type_name="wholereel.MemvitState")
