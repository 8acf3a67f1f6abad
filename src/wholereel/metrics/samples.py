"""Rows of numbers by sample id: what metrics keep that are no ratio of counts.

Rows are gathered batch by batch and merged over processes; a sample that was padded in twice, by a distributed sampler
or a ragged last batch, counts once. The table is sorted by id, so it does not depend on how samples were dealt out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Samples", "as_array"]


def as_array(values: np.ndarray | Tensor | Sequence[object]) -> np.ndarray:
    """Numpy view of an array, of a tensor on any device (bfloat16 becomes float32), or of a sequence."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


@dataclass(frozen=True)
class Samples:
    """Gathered rows, immutable: `update` and `merge` return new ones.

    Args:
        parts: batches, each with its ids and its columns by name; a column has one row a sample.
    """

    parts: tuple[tuple[np.ndarray, dict[str, np.ndarray]], ...] = ()

    def update(self, ids: Sequence[str], /, **columns: np.ndarray | Tensor | Sequence[object]) -> Samples:
        """These rows and those of one more batch.

        Raises: ValueError: a column of another length, or other columns than before.
        """
        arrays = {name: as_array(values) for name, values in columns.items()}
        for name, values in arrays.items():
            if len(values) != len(ids):
                raise ValueError(f"column {name!r} has {len(values)} rows for {len(ids)} ids")
        if not len(ids):
            return self
        return self.merge(Samples(((np.asarray(list(map(str, ids))), arrays),)))

    def merge(self, other: Samples) -> Samples:
        """Both sets of samples; of a sample in both, the first row counts."""
        if self.parts and other.parts and self.parts[0][1].keys() != other.parts[0][1].keys():
            raise ValueError(f"cannot merge columns {list(self.parts[0][1])} with {list(other.parts[0][1])}")
        return Samples(self.parts + other.parts)

    def table(self) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """The ids, each once and sorted, and the columns in their order.

        Raises: ValueError: nothing was gathered.
        """
        if not self.parts:
            raise ValueError("nothing was gathered")
        ids = np.concatenate([part for part, _ in self.parts])
        unique, first = np.unique(ids, return_index=True)
        return unique, {
            name: np.concatenate([columns[name] for _, columns in self.parts])[first] for name in self.parts[0][1]
        }
