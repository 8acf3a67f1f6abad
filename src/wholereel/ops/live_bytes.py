"""How many bytes of tensors are alive while code runs: counted on any device, on meta tensors without memory.

Storages are counted, so views cost nothing and in-place operations nothing new. What an operation uses inside itself
(workspaces of convolutions) is not seen, nor is what an allocator wastes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveBytes"]


class LiveBytes(TorchDispatchMode):
    """Counts the results of all operations inside `with`, until nothing refers to them any more.

    Args:
        ignored: tensors that do not count, such as weights.
    Attributes:
        peak: largest number of bytes that were alive after any operation.
    """

    def __init__(self, ignored: Iterable[Tensor] = ()) -> None:
        super().__init__()
        # The references keep the storages' addresses from being given to others.
        self._ignored = {ref.cdata: ref for ref in map(_reference, ignored)}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._total = self.peak = 0

    def note(self, tensor: Tensor) -> None:
        """Count a tensor that was made outside."""
        reference = _reference(tensor)
        if reference.cdata not in self._ignored and reference.cdata not in self._alive:
            self._alive[reference.cdata] = reference, tensor.untyped_storage().nbytes()
            self._total += self._alive[reference.cdata][1]

    def now(self) -> int:
        """Bytes alive at this moment."""
        for key in [key for key, (reference, _) in self._alive.items() if reference.expired()]:
            self._total -= self._alive.pop(key)[1]
        return self._total

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        self.now()  # before new ones are noted: an address that was freed may have been given away again
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self.note(result)
        self.peak = max(self.peak, self._total)
        return results


def _reference(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())
