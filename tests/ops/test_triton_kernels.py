"""Triton kernels in Triton's interpreter, which needs no accelerator: small and odd shapes against the plain twins."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wholereel.errors import ConfigError
from wholereel.ops.correlation import correlate
from wholereel.ops.depthwise_conv3d import depthwise_conv3d

ROOT = Path(__file__).parents[2]
TOLERANCE = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 2e-2}


def interpreted() -> str:
    """Why Triton's interpreter cannot run here; empty if it can."""
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "Triton is not installed"
    number = tuple(int(part) for part in triton.split(".")[:2])
    numpy = tuple(int(part) for part in importlib.metadata.version("numpy").split(".")[:2])
    return (
        f"the interpreter of Triton {triton} cannot end loops with NumPy 2.4"
        if number < (3, 7) and numpy >= (2, 4)
        else ""
    )


@pytest.mark.skipif(bool(interpreted()), reason=interpreted())
def test_kernels_are_their_plain_twins() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tests.ops.triton_kernels"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 14
    for line in lines:
        name, _, error = line.rpartition(": ")
        assert float(error) < TOLERANCE[name.split()[-1]], line


def test_kernels_are_refused_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x = torch.zeros(1, 2, 1, 3, 3)
    with pytest.raises(ConfigError, match="'triton' needs features on a CUDA device, got cpu"):
        correlate(x, torch.ones(1, 2, 3, 3), implementation="triton")
    with pytest.raises(ConfigError, match="'triton' needs features on a CUDA device, got cpu"):
        depthwise_conv3d(x.requires_grad_(), torch.ones(2, 1, 3, 3, 3), implementation="triton")
