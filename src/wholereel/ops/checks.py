"""Checks of tensor values that never wait for an accelerator.

Not here: checks of shapes and settings, which are plain `if`s where they are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_all"]


def check_all(condition: Tensor, message: str) -> None:
    """Require that every element of `condition` is true.

    On CPU outside of compiled graphs this is an ordinary exception. On an accelerator reading the value would make the
    host wait in every step, so the check is queued there (`torch._assert_async`) and a failure surfaces as a
    device-side assertion.

    Args:
        condition: bool tensor of any shape.
        message: text of the error.
    Raises: ValueError: an element is false (CPU, not compiled).
    """
    if condition.device.type == "cpu" and not torch.compiler.is_compiling():
        if not bool(condition.all()):
            raise ValueError(message)
    else:
        torch._assert_async(condition.all(), message)
