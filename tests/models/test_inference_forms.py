"""What inference makes of a network must compute the same: folded norms, compiled graphs, exported programs.

One network of each family, narrow and on small clips; `tests/inference/test_export.py` holds the promises of export.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wholereel.errors import ConfigError
from wholereel.inference.export import export_model
from wholereel.models import create_model
from wholereel.models.clip_model import ClipModel
from wholereel.models.folding import fold_norms
from wholereel.models.slow import slow_resnet
from wholereel.models.slowfast import slowfast

OPTIONS: dict[str, Any] = {"num_classes": 7, "width": 8}
# Family -> its smallest network that has all of its parts; registered ones are the same code with more blocks.
FAMILIES: dict[str, Callable[[], ClipModel]] = {
    "r3d": lambda: create_model("r3d_18", **OPTIONS),
    "r2plus1d": lambda: create_model("r2plus1d_18_vmz", **OPTIONS),
    "ir_csn": lambda: create_model("ir_csn_26", **OPTIONS),
    "ip_csn": lambda: create_model("ip_csn_26", **OPTIONS),
    "corrnet": lambda: create_model("corrnet_26", frames=4, kernel=3, **OPTIONS),
    "i3d_nl": lambda: slow_resnet("i3d", 26, 4, 8, non_local={"res4": (0,)}, **OPTIONS),
    "slowfast_nl": lambda: slowfast(26, 4, 4, 5, non_local={"res4": (0,)}, **OPTIONS),
}
CLIP = (3, 4, 36, 40)


def make(name: str) -> ClipModel:
    """With statistics and scales as training leaves them, not as they begin."""
    torch.manual_seed(0)
    model = FAMILIES[name]()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


def clips(batch: int = 2) -> Tensor:
    return torch.randn(batch, *CLIP, generator=torch.Generator().manual_seed(1))


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_folded_norms_change_nothing(name: str) -> None:
    model = make(name)
    folded = fold_norms(model, torch.zeros(1, *CLIP))
    assert norms(folded) == 0 < norms(model)
    with torch.no_grad():
        expected, found = model(clips()), folded(clips())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.std().item())


def test_a_norm_stays_where_its_input_is_not_one_convolutions_own() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(2, 2, 1)
            self.norms = nn.ModuleList([nn.BatchNorm3d(2), nn.BatchNorm3d(2)])
            self.first = nn.BatchNorm3d(2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(self.first(x))
            return self.norms[0](y) + self.norms[1](y)

    with pytest.raises(ConfigError, match="Shared has no BatchNorm that could be folded"):
        fold_norms(Shared(), torch.zeros(1, 2, 1, 2, 2))

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = self.conv(x)
            return (self.norm(y) + y,)

    class Returned(Residual):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = self.conv(x)
            return self.norm(y), y

    for kind in (Residual, Returned):  # an operation without module, or the caller, reads it as well
        with pytest.raises(ConfigError, match="no BatchNorm"):
            fold_norms(kind(), torch.zeros(1, 2, 1, 2, 2))
    twice = nn.Sequential(conv := nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2), conv, nn.BatchNorm3d(2))
    with pytest.raises(ConfigError, match="no BatchNorm"):
        fold_norms(twice, torch.zeros(1, 2, 1, 2, 2))
    beside = nn.Sequential(nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2), *twice)  # only the first goes
    assert norms(fold_norms(beside, torch.zeros(1, 2, 1, 2, 2))) == 2


@pytest.mark.exports
@pytest.mark.parametrize("name", FAMILIES)
def test_one_graph_without_breaks(name: str) -> None:
    model = make(name)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(clips()), model(clips()), rtol=1e-4, atol=1e-4)


@pytest.mark.exports
@pytest.mark.parametrize("name", FAMILIES)
def test_exported_program_computes_what_the_module_does(name: str, tmp_path: Path) -> None:
    suffix = ".pt2" if importlib.util.find_spec("onnxscript") is None else ".onnx"  # ONNX is made from the former
    exported = export_model(make(name), tmp_path / f"model{suffix}", clip_shape=CLIP, steps=3)
    assert exported.largest_error < 1e-3
    assert exported.outputs["logits"] == [1, 7]
