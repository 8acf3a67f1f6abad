"""The golden files of backbones and operators on a CUDA device, in float32 without TF32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.families import check_file, golden_files

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = [path for group in ("backbones", "csn", "corrnet") for path in golden_files(GOLDEN / group)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden_file_is_matched(path: Path) -> None:
    line = check_file(path, torch.device("cuda"))
    assert line.status == "pass", line.text
    assert "not compared" not in line.text
