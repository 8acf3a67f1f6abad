"""The golden files of backbones and operators on a CUDA device, in float32 without TF32.

`python -m tests.parity DIR --device cuda` says the same of any directory; here only what these families need is
imported, not the readers of media.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.backbones import check_backbone, is_backbone
from tests.parity.corrnet import check_corrnet, is_corrnet
from tests.parity.golden import load_golden
from tests.parity.torchvision_models import check_torchvision_model, is_torchvision_layout

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = [path for group in ("backbones", "csn", "corrnet") for path in sorted((GOLDEN / group).glob("*.npz"))]
CHECKS = (
    (is_backbone, check_backbone),
    (is_corrnet, check_corrnet),
    (is_torchvision_layout, check_torchvision_model),
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden_file_is_matched(path: Path) -> None:
    golden = load_golden(path, torch.device("cuda"))
    (check,) = (check for claims, check in CHECKS if claims(golden))
    outcome = check(golden)
    failed = [f"{one.name}: {one.error:.1e} of {one.tolerance:.0e}" for one in outcome.comparisons if not one.passed]
    assert outcome.comparisons
    assert not failed
    assert not outcome.not_compared
