"""Whether oneDNN, which PyTorch carries, may be called for some tensors in PyTorch's place.

Not here: what it computes (`linear.py`, `conv3d.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

__all__ = ["REFUSED", "onednn_serves"]

REFUSED = "oneDNN serves float32 on the CPU, outside of compiled code, of autocast and of whoever counts or hooks"


def onednn_serves(*tensors: Tensor) -> bool:
    """Whether all are ordinary float32 tensors on the CPU, and nobody looks on who wants PyTorch's own operations."""
    return bool(
        not torch.compiler.is_compiling()
        and all(
            type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.dtype == torch.float32
            for tensor in tensors
        )
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        # Dispatch modes (of counters, of fake tensors) want to see PyTorch's own operations.
        and _get_current_dispatch_mode() is None
    )
