"""Blobs of Caffe2 pickles, read without running anything that they contain.

The weight files of PySlowFast's and VMZ's Caffe2 model zoos are pickled dictionaries of NumPy arrays. Nothing but what
such arrays are made of is looked up; any other name in the file is refused.
"""

from __future__ import annotations

import codecs
import io
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from wholereel.errors import CheckpointError

__all__ = ["read_blobs"]

# What an optimiser leaves in such files besides weights.
NOT_WEIGHTS = re.compile(r"_momentum$|^lr$|^model_iter$|^iteration$|^optimizer_iteration|^epoch$|_lr_?\w*$")


_MULTIARRAY: Any = sys.modules[np.ndarray.__reduce__(np.zeros(1))[0].__module__]  # renamed in NumPy 2


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encodes text as {encoding}, which no file of arrays needs")
    return codecs.encode(text, "latin1")


class _Arrays(pickle.Unpickler):
    LEGAL: ClassVar[dict[tuple[str, str], Any]] = {
        **{
            (module, "_reconstruct"): _MULTIARRAY._reconstruct
            for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        },
        **{(module, "scalar"): _MULTIARRAY.scalar for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode_latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.LEGAL:
            raise pickle.UnpicklingError(f"names {module}.{name}, which no file of arrays needs")
        return self.LEGAL[module, name]


def read_blobs(path: Path) -> dict[str, Tensor]:
    """All weights of a pickled dictionary of arrays, or of its entry `blobs`; states of an optimiser are left out.

    Raises: CheckpointError: anything else.
    """
    expected = "a pickled dictionary of NumPy arrays, as Caffe2 model zoos have"
    try:
        content = _Arrays(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # bytes that are no pickle make it stumble over anything
        raise CheckpointError(path, f"cannot be read as weights ({error})", expected) from error
    if isinstance(content, Mapping) and isinstance(content.get("blobs"), Mapping):
        content = content["blobs"]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(path, f"holds a {type(content).__name__}", expected)
    blobs: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, (np.ndarray, np.generic, int, float, str, bytes)):
            raise CheckpointError(path, f"holds {type(value).__name__} under {name!r}", expected)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not NOT_WEIGHTS.search(name):
            # The name of the last layer holds the number of classes, which its shape says too.
            ours = re.sub(r"^last_out_L\d+_", "last_out_", name)
            blobs[ours] = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
    return blobs
