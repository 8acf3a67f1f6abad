"""The golden files of backbones and operators on a CUDA device, in float32 without TF32.

`python -m tests.parity DIR --device cuda` says the same of any directory; here only what these families need is
imported, not the readers of media. The train step of ir-CSN-50 is an exception, see `test_ill_conditioned_train_step`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.parity import rule_v1
from tests.parity.backbones import build_case, check_backbone, is_backbone
from tests.parity.corrnet import check_corrnet, is_corrnet
from tests.parity.golden import load_golden
from tests.parity.layout_models import fill_case
from tests.parity.torchvision_models import check_torchvision_model, is_torchvision_layout
from wholereel.layers.depthwise import DepthwiseConv3d

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = [path for group in ("backbones", "csn", "corrnet") for path in sorted((GOLDEN / group).glob("*.npz"))]
CHECKS = (
    (is_backbone, check_backbone),
    (is_corrnet, check_corrnet),
    (is_torchvision_layout, check_torchvision_model),
)
ILL_CONDITIONED = GOLDEN / "csn" / "ir50_ptv_train.npz"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden_file_is_matched(path: Path) -> None:
    golden = load_golden(path, torch.device("cuda"))
    (check,) = (check for claims, check in CHECKS if claims(golden))
    outcome = check(golden)
    failed = [
        f"{one.name}: {one.error:.1e} of {one.tolerance:.0e}"
        for one in outcome.comparisons
        if not one.passed and not (path == ILL_CONDITIONED and one.name.startswith("grad"))
    ]
    assert outcome.comparisons
    assert not failed
    assert not outcome.not_compared


def test_ill_conditioned_train_step() -> None:
    """The train step whose golden gradients no other order of sums can meet, in float64: device against CPU.

    Its norms see a few positions of 64 x 64 pixels, and turn float32 rounding into gradients that differ: by 5.6e-3 on
    the CPU where memory alone is channels-last, by up to 4.2e-2 on an H100. Only PyTorch's own sums in its own order
    meet the file (`_exactly` in `tests/parity/backbones.py`), and a device has another. So the file judges what this
    step computes forward (values, loss, running statistics) on a device, above, and here the same step, with the same
    weights, clip and labels, is compared where rounding does not decide: gradients of PyTorch's convolutions on the CPU
    against those of PyTorch's and of the kernels on the device, both in float64, within 1e-8 of each one's largest.
    """
    on_cpu = train_step("native", "cpu")
    for implementation in ("native", "triton"):
        found = train_step(implementation, "cuda")
        for name, gradient in on_cpu.items():
            error = (found[name].cpu() - gradient).abs().max() / gradient.abs().max().clamp(min=1e-30)
            assert error.item() <= 1e-8, f"{implementation}, {name}: {error.item():.1e}"


def train_step(implementation: Any, device: str) -> dict[str, Tensor]:
    """All gradients, and the logits, of the step of the file in float64."""
    golden = load_golden(ILL_CONDITIONED)
    case = build_case(golden)
    fill_case(golden, case)
    model: Any = case.model
    for module in model.modules():
        if isinstance(module, DepthwiseConv3d):
            module.implementation = implementation
    model.double().to(device).train()
    (clip,) = rule_v1.inputs(golden.meta)
    logits = model(clip.double().to(device))
    F.cross_entropy(logits, torch.tensor(golden.meta["labels"], device=device)).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"logits": logits.detach(), **gradients}
