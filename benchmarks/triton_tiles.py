"""Tiles of the Triton kernels on a CUDA device: which is quickest at the sizes of CSN and CorrNet.

    python benchmarks/triton_tiles.py                          # all kernels; compiles in --workers processes first
    python benchmarks/triton_tiles.py --only roll --types bf16

Each tile runs every size of its kernel; what it computes is compared with PyTorch's (depthwise, in the same type) or
with the streaming form (correlation) at the first size before it is timed. A line a size: the quickest tile, its time,
bytes that have to move a second, and their share of a copy's. A line a kernel: the tile with the least geometric mean
of times over all sizes relative to each size's quickest, and the table's own; that one belongs in `TILES`.
CUDA events around replayed CUDA graphs, so that the host has no part; median of rounds. One tile at a time; compiled
code comes from Triton's cache.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from cuda_timing import DEVICE, Record, copy_gb_per_second, device_milliseconds, largest_error, say

from wholereel.ops import correlation_triton, depthwise_triton
from wholereel.ops.correlation import correlate_streaming

TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
ONES, TWOS = [1, 1, 1], [2, 2, 2]
# Inputs of ir-CSN-50's convolutions on 8 clips of 32 x 224 x 224.
INSIDE = [(8, 64, 32, 56, 56), (8, 128, 16, 28, 28), (8, 256, 8, 14, 14), (8, 512, 4, 7, 7)]
STRIDED = [(8, 128, 32, 56, 56), (8, 256, 16, 28, 28), (8, 512, 8, 14, 14)]
CORRELATED = [(8, 64, 32, 56, 56), (8, 128, 32, 28, 28), (8, 256, 32, 14, 14)]  # groups of 32 channels
TILE = depthwise_triton.Tile
ROLL = [
    TILE(16, 64, 8, 4),
    TILE(16, 64, 16, 4),
    TILE(16, 64, 32, 4),
    TILE(16, 64, 8, 4, 128),
    TILE(16, 64, 8, 4, 96),
    TILE(16, 64, 16, 4, 128),
    TILE(16, 32, 16, 2),
    TILE(16, 32, 16, 2, 128),
    TILE(16, 64, 16, 2),
    TILE(8, 64, 16, 4),
    TILE(8, 64, 16, 2),
    TILE(8, 32, 16, 2),
    TILE(8, 32, 16, 1),
    TILE(32, 32, 16, 2),
]
SLIDE = [
    TILE(16, 64, 1, 4),
    TILE(16, 64, 1, 2),
    TILE(16, 64, 1, 8),
    TILE(8, 64, 1, 4),
    TILE(8, 64, 1, 2),
    TILE(8, 128, 1, 4),
    TILE(32, 64, 1, 4),
    TILE(16, 128, 1, 4),
]
WEIGHTS = [
    TILE(1, 64, 8, 1),
    TILE(1, 64, 16, 1),
    TILE(1, 64, 32, 1),
    TILE(1, 64, 16, 1, 128),
    TILE(2, 64, 8, 1),
    TILE(2, 64, 16, 1),
    TILE(2, 64, 32, 1),
    TILE(2, 32, 16, 1),
    TILE(4, 32, 16, 1),
    TILE(4, 64, 16, 2),
    TILE(4, 64, 16, 4),
    TILE(8, 64, 16, 4),
]
MATCH = correlation_triton.Tile
FORWARD = [MATCH(p, 32 * p, w) for p, w in ((32, 1), (64, 1), (64, 2), (64, 4), (128, 2), (128, 4), (256, 4))]
GRADIENTS = [MATCH(p, 32 * p, w) for p, w in ((32, 1), (32, 2), (64, 2), (64, 4), (128, 4), (128, 8))]
FILTER = [MATCH(p, 32 * p, w) for p, w in ((16, 1), (16, 2), (32, 2), (32, 4), (64, 4), (64, 8))]
# Kernel -> tiles, sizes, in the order in which they are timed: least known first. `roll` is timed in both directions.
SWEEPS: dict[str, tuple[list[Any], list[Any]]] = {
    "weights": (WEIGHTS, [(shape, ONES, "weights") for shape in INSIDE] + [(s, TWOS, "weights") for s in STRIDED]),
    "filter": (FILTER, [(shape, None, "gradients") for shape in CORRELATED]),
    "gradients": (GRADIENTS, [(shape, None, "gradients") for shape in CORRELATED]),
    "forward": (FORWARD, [(shape, None, "forward") for shape in CORRELATED]),
    "slide": (SLIDE, [(shape, TWOS, "forward") for shape in STRIDED]),
    "gather": (SLIDE, [(shape, TWOS, "gather") for shape in STRIDED]),
    "roll": (ROLL, [(shape, ONES, way) for shape in INSIDE for way in ("forward", "gather")]),
}
Case = tuple[Callable[[], Any], Callable[[], Any], int]


def table(kernel: str) -> dict[Any, Any]:
    return depthwise_triton.TILES if kernel in ("roll", "slide", "gather", "weights") else correlation_triton.TILES


def case(kernel: str, dtype: torch.dtype, shape: Any, stride: Any, way: str) -> Case:
    """What is timed, what it is compared with, and the bytes that have to move."""
    torch.manual_seed(0)
    if stride is None:
        return correlation_case(dtype, shape, way)
    x = torch.randn(shape, device=DEVICE, dtype=dtype).to(memory_format=torch.channels_last_3d)
    w = torch.randn(shape[1], 1, 3, 3, 3, device=DEVICE, dtype=dtype)
    size = [(length - 1) // step + 1 for length, step in zip(shape[2:], stride, strict=True)]
    error = torch.randn(*shape[:2], *size, device=DEVICE, dtype=dtype).to(memory_format=torch.channels_last_3d)
    moved = (x.numel() + error.numel()) * x.element_size()
    settings = stride, [1, 1, 1], [1, 1, 1], False, [0, 0, 0], shape[1]

    def plain(mask: tuple[bool, bool, bool]) -> tuple[Tensor, ...]:
        return torch.ops.aten.convolution_backward(error, x, w, None, *settings, mask)

    kernels = depthwise_triton
    if way == "forward":
        run = lambda: kernels.convolve(x, w, stride, [1, 1, 1])  # noqa: E731
        return run, lambda: F.conv3d(x, w, None, stride, 1, 1, shape[1]), moved
    if way == "gather":
        run = lambda: kernels.input_gradient(error, w, list(shape[2:]), stride, [1, 1, 1])  # noqa: E731
        return run, lambda: plain((True, False, False))[0], moved
    run = lambda: kernels.weight_gradient(error, x, [3, 3, 3], stride, [1, 1, 1])  # noqa: E731
    return run, lambda: plain((False, True, False))[1], moved


def correlation_case(dtype: torch.dtype, shape: Any, way: str) -> Case:
    groups = max(shape[1] // 32, 1)
    fixed, moved = (torch.randn(shape, device=DEVICE, dtype=dtype) for _ in range(2))
    w = torch.rand(shape[2], shape[1], 7, 7, device=DEVICE, dtype=dtype)
    y_numbers = fixed.numel() // shape[1] * groups * 49
    if way == "forward":
        run = lambda: correlation_triton.correlate_fused(fixed, moved, w, 2, groups)  # noqa: E731
        plain = lambda: correlate_streaming(fixed, moved, w, 2, groups)  # noqa: E731
        return run, plain, (2 * fixed.numel() + y_numbers) * fixed.element_size()
    error = torch.randn(shape[0], groups * 49, *shape[2:], device=DEVICE, dtype=dtype)

    def gradients() -> tuple[Tensor, ...]:
        inputs = [tensor.detach().requires_grad_() for tensor in (fixed, moved, w)]
        return torch.autograd.grad(correlate_streaming(*inputs, 2, groups), inputs, error)

    run = lambda: correlation_triton.fused_gradients(fixed, moved, w, error, 2, groups)  # noqa: E731
    return run, gradients, (4 * fixed.numel() + y_numbers) * fixed.element_size()


def compile_tile(job: tuple[str, str, Any, Any]) -> str | None:
    """Run once, so that Triton's cache holds it; the text of what goes wrong."""
    kernel, dtype, tile, size = job
    table(kernel)[kernel, TYPES[dtype].itemsize] = tile
    try:
        case(kernel, TYPES[dtype], *size)[0]()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return None


def sweep(rows: list[dict[str, Any]], kernel: str, dtype: str, rounds: int, floor: float, seconds: float) -> None:
    """Size by size; behind so many seconds no other size is begun, and what was timed decides."""
    began = time.perf_counter()
    tiles, sizes = SWEEPS[kernel]
    key = kernel, TYPES[dtype].itemsize
    own = table(kernel)[key]
    times: dict[Any, dict[int, float]] = {tile: {} for tile in dict.fromkeys([own, *tiles])}
    for number, size in enumerate(sizes):
        if time.perf_counter() - began > seconds:
            print(f"{kernel} {dtype}: sizes from {size} on are left out after {seconds} s", flush=True)
            sizes = sizes[:number]
            break
        run, plain, moved = case(kernel, TYPES[dtype], *size)
        # bf16: the streaming form and PyTorch's own round on the way
        tolerance = {"bf16": 4e-2, "fp32": 2e-4}[dtype]
        expected = plain() if number == 0 else None
        for tile in times:
            table(kernel)[key] = tile
            try:
                if expected is not None:
                    off = largest_error(run(), expected)
                    if not off <= tolerance:
                        raise ValueError(f"differs by {off:.1e}")
                times[tile][number] = device_milliseconds(run, rounds)
            except Exception as error:
                print(f"{kernel} {dtype} {tile} {size}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        best = min((found[number], repr(tile)) for tile, found in times.items() if number in found)
        gb_a_second = moved / best[0] / 1e6
        row = {"kernel": kernel, "dtype": dtype, "shape": size[0], "way": size[2], "stride": size[1], "best": best[1]}
        row |= {"ms": round(best[0], 4), "own_ms": round(times[own].get(number, math.nan), 4)}
        rows.append(row | {"gb_per_second": round(gb_a_second, 1), "of_copy": round(gb_a_second / floor, 3)})
        say(rows[-1])
    table(kernel)[key] = own
    whole = {tile: found for tile, found in times.items() if len(found) == len(sizes)}
    quickest = [min(found[number] for found in whole.values()) for number in range(len(sizes))]
    means = {
        tile: math.exp(sum(math.log(found[n] / quickest[n]) for n in found) / len(sizes))
        for tile, found in whole.items()
    }
    chosen = min(means, key=lambda tile: means[tile])
    row = {"kernel": kernel, "dtype": dtype, "enter": repr(chosen), "mean_over_quickest": round(means[chosen], 3)}
    rows.append(row | {"own_mean_over_quickest": round(means[own], 3) if own in means else None})
    rows[-1]["times_ms"] = [{"tile": asdict(tile), "ms": [round(t, 4) for t in whole[tile].values()]} for tile in whole]
    print(
        f'ENTER ("{kernel}", {key[1]}): {chosen},  # {means[chosen]:.3f}; the table\'s {means.get(own, 0):.3f}',
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(SWEEPS), default=tuple(SWEEPS))
    parser.add_argument("--types", nargs="+", choices=tuple(TYPES), default=tuple(TYPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each kernel and type, beside compiling")
    parser.add_argument("--workers", type=int, default=12, help="processes that compile")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to try the script")
    parser.add_argument("--note", default="")
    parser.add_argument("--result", type=Path, default=Path(__file__).parent / "results" / "triton_tiles.json")
    given = parser.parse_args()
    if DEVICE.type != "cuda" and not given.small:
        parser.error("there is no CUDA device; --small tries the script without one")
    if given.small:
        for name, (tiles, sizes) in SWEEPS.items():
            shape = (1, 2, 1, 1, 2) if sizes[0][1] is None else (1, 3, 2, 1, 2)
            SWEEPS[name] = tiles[:1], [(shape, *sizes[0][1:])]
    words = "python benchmarks/triton_tiles.py " + " ".join(sys.argv[1:])
    record = Record(given.result, "tiles of the Triton kernels: milliseconds", words, given.note)
    floor = record.content["copy_gb_per_second"] = round(copy_gb_per_second(), 1)
    print(record.content["machine"], record.content["versions"], f"copy {floor} GB/s", flush=True)
    if given.workers:
        with record.part("compile") as rows:
            # Sizes of one kind share their code where channels divide alike, but maps are compiled for by the
            # correlation: every size is asked for there, else one a way and stride.
            jobs = [
                (kernel, dtype, tile, size)
                for kernel, dtype in itertools.product(given.only, given.types)
                for tile in SWEEPS[kernel][0]
                for size in one_of_a_kind(SWEEPS[kernel][1])
            ]
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(given.workers, context) as pool:
                failed = [(job, said) for job, said in zip(jobs, pool.map(compile_tile, jobs), strict=True) if said]
            rows.extend({"job": repr(job), "failed": said} for job, said in failed)
            print(f"{len(jobs)} compiled, {len(failed)} failed", flush=True)
    for kernel, dtype in itertools.product(given.only, given.types):
        with record.part(f"{kernel} {dtype}") as rows:
            sweep(rows, kernel, dtype, given.rounds, floor, given.seconds)
    if record.content["failed"]:
        sys.exit(f"failed: {', '.join(record.content['failed'])}")


def one_of_a_kind(sizes: list[Any]) -> list[Any]:
    kinds = {}
    for shape, stride, way in sizes:
        kinds.setdefault((way, str(stride), *(shape if stride is None else ())), (shape, stride, way))
    return list(kinds.values())


if __name__ == "__main__":
    main()
