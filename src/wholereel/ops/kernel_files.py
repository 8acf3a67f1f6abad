"""Files of Triton kernels, imported when one is asked for: `import wholereel` never waits for Triton.

Triton's interpreter runs them on CPU tensors, for tests: with `TRITON_INTERPRET=1` in the environment before the first
import.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType

from torch import Tensor

from wholereel.errors import ConfigError

__all__ = ["kernels_run_on", "load_kernels"]


@functools.cache
def kernels_run_on(device: str) -> bool:
    """Whether kernels can be had for a type of device without asking for them: Triton is installed, the device CUDA."""
    return device == "cuda" and importlib.util.find_spec("triton") is not None


def load_kernels(name: str, x: Tensor) -> ModuleType:
    """The module `ops/<name>.py`.

    Args:
        x: features that its kernels shall compute on.
    Raises: ConfigError: Triton is not installed, or the features are not where its kernels run.
    """
    if x.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(
            f"implementation 'triton' needs features on a CUDA device, got {x.device.type}. Choose 'auto'; tests set "
            "TRITON_INTERPRET=1 before anything is imported."
        )
    return _load(name)


@functools.cache
def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"wholereel.ops.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("triton"):
            raise
        raise ConfigError("implementation 'triton' needs the package triton. Install it, or choose 'auto'.") from error
