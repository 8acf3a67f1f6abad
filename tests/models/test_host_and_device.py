"""No model brings anything from the host's memory, or asks the device for a number, while it judges a clip.

Either would make the host wait for all that it has asked of a GPU so far. Fake tensors know their device and hold no
numbers, so this needs no GPU; backward passes, which do, are in `tests/gpu`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wholereel import config
from wholereel.models import VideoModel, create_model

ASKING = {torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.masked_select}


class Watch(TorchDispatchMode):
    """Names of operations that read tensors of both, or whose result the host must know."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs or {}, result)) if isinstance(t, Tensor)]
        # A number that the host knows travels with the call: tensors of no axis may stay there.
        devices = {t.device.type for t in tensors if t.ndim or func.overloadpacket is torch.ops.aten._to_copy}
        asks = func.overloadpacket in ASKING and "cuda" in devices
        if len(devices) > 1 or asks:
            self.found.append(str(func))
        return result


@contextmanager
def watched() -> Iterator[list[str]]:
    watch = Watch()
    with watch:
        yield watch.found


@pytest.mark.parametrize("name", ["memvit_tiny", "slowfast_8x8_50", "tiny_r3d"])  # all of them: `tests/gpu`
def test_a_step_needs_nothing_of_the_host(name, monkeypatch):
    monkeypatch.setattr(nn.init, "_no_grad_trunc_normal_", lambda tensor, *_, **__: tensor)  # looks at its numbers
    with FakeTensorMode(), torch.device("cuda"):
        model = create_model(name)
        remembers = hasattr(model, "init_state")
        if not remembers:
            model = VideoModel(model, config.Memory(value="separate"))
        info = (model if remembers else model.clip_model).info
        clip = torch.randn(2, 3, info.frames, info.crop, info.crop)
        state = model.init_state(2) if remembers else None
        with watched() as found, torch.no_grad():
            if remembers:
                _, state = model(clip, state.reset(torch.ones(2, dtype=torch.bool)))
                model(clip, state)
            else:
                model(torch.stack([clip, clip], 1), None, torch.ones(2, 2, dtype=torch.bool))
    assert found == []
