"""Single clips through whole networks: convolutions as PyTorch chooses (plain) against `ops.conv3d` (onednn).

A stream, a predictor that reads clip by clip, and the strategy `exact` all run a network on one clip at a time. Outputs
and gradients are compared first; then both routes take turns, and the best of several rounds counts (process time, one
thread).

    python benchmarks/batch_of_one.py
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from wholereel.models.registry import create_model

# Name of a row -> model, options, (frames, rows = columns), clips in the batch.
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, int], int]] = {
    "r2plus1d_18, width 32": ("r2plus1d_18", {"width": 32}, (8, 56), 1),
    "r2plus1d_18": ("r2plus1d_18", {}, (8, 112), 1),
    "r2plus1d_18, two clips": ("r2plus1d_18", {}, (8, 112), 2),
    "slow_8x8_50": ("slow_8x8_50", {}, (8, 112), 1),
    "slowfast_8x8_50": ("slowfast_8x8_50", {}, (32, 112), 1),
    "corrnet_26": ("corrnet_26", {}, (32, 112), 1),
    "ir_csn_50": ("ir_csn_50", {}, (8, 112), 1),
}
ROUTES = ("plain", "onednn")


@contextlib.contextmanager
def taking(route: str) -> Iterator[None]:
    """`plain`: PyTorch's choice everywhere."""
    if route == "onednn":
        yield
        return
    with mock.patch("wholereel.ops.conv3d.conv3d_route", return_value="plain"):
        yield


def forward(model: nn.Module, x_BCTHW: Tensor) -> Tensor:
    with torch.no_grad():
        y_BK: Tensor = model(x_BCTHW)
    return y_BK


def step(model: nn.Module, x_BCTHW: Tensor) -> Tensor:
    """Gradient of all weights, in one vector."""
    model.zero_grad()
    model(x_BCTHW).square().sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def compare(name: str, rounds: int) -> dict[str, Any]:
    model_name, options, (frames, side), clips = CASES[name]
    torch.manual_seed(0)
    model = create_model(model_name, num_classes=10, **options).eval()  # constant BatchNorm, no dropout
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm3d):
            nn.init.ones_(norm.weight)  # residual branches that begin at zero would hide what they compute
    x_BCTHW = torch.randn(clips, 3, frames, side, side)
    row: dict[str, Any] = {"name": name, "model": model_name, "clips": clips, "input": [frames, side, side]}
    for what, function in {"forward": forward, "step": step}.items():
        row[what] = timed(function, model, x_BCTHW, rounds)
    print(json.dumps(row), flush=True)
    return row


def timed(
    function: Callable[[nn.Module, Tensor], Tensor], model: nn.Module, x_BCTHW: Tensor, rounds: int
) -> dict[str, float]:
    found: dict[str, Tensor] = {}
    times: dict[str, list[float]] = {route: [] for route in ROUTES}
    for route in ROUTES:
        with taking(route):
            found[route] = function(model, x_BCTHW)
    difference = float((found["onednn"] - found["plain"]).norm() / found["plain"].norm())
    if not difference < 1e-3:
        raise SystemExit(f"the routes differ by {difference:.1e}")
    for _ in range(rounds):
        for route in ROUTES:
            with taking(route):
                begin = time.process_time()
                function(model, x_BCTHW)
                times[route].append(time.process_time() - begin)
    best = {route: min(values) for route, values in times.items()}
    return {
        "difference": float(f"{difference:.2g}"),
        **{f"{route}_cpu_s": round(value, 4) for route, value in best.items()},
        "gain": round(best["plain"] / best["onednn"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="", help="what else the machine did")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/batch_of_one.json"))
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    torch.set_num_threads(1)
    loads = [os.getloadavg()[0]]
    rows = []
    for name in given.cases:
        rows.append(compare(name, given.rounds))
        loads.append(os.getloadavg()[0])
    result = {
        "what": "one clip through networks of random weights, fp32, BatchNorm constant: forward, and a step's gradient",
        "command": "python " + " ".join(sys.argv),
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, 1 thread, no GPU (load {min(loads):.1f} to {max(loads):.1f}, other jobs "
        f"included), torch {torch.__version__}",
        "note": given.note,
        "rows": rows,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
